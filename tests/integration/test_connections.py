"""Which connections stay open between two saves, as the kernel's table shows them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from syncd.daemon.build import daemon_of
from syncd.daemon.loop import Daemon
from syncd.remote import keepalive
from syncd.remote.keepalive import KEEP_S
from syncd.report.status_publisher import RunTotals
from syncd.sync.sync_reason import SyncReason
from tests.integration.sync_rig import Rig, Witness, rigged
from tests.integration.test_daemon_waits import Loop

_ESTABLISHED = "01"
_TABLE = Path("/proc/self/net/tcp")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A workspace with one file, and where it goes."""
    if not _TABLE.exists():
        pytest.skip("no table of connections here")
    with rigged(tmp_path) as rig:
        rig.write()
        yield rig


def connections(rig: Rig) -> set[tuple[str, int]]:
    """This side's open connections to the emulator: to which origin, from which port."""
    names = {origin.port: origin.name for origin in rig.emulator._origins}
    found = set()
    for line in _TABLE.read_text().splitlines()[1:]:
        _, here, there, state, *_ = line.split()
        port = int(there.rpartition(":")[2], 16)
        if state == _ESTABLISHED and port in names:
            found.add((names[port], int(here.rpartition(":")[2], 16)))
    return found


def save(rig: Rig, content: str) -> set[tuple[str, int]]:
    """A save and its sync, which must not meet any failure; the connections after it."""
    rig.write(content=content)
    _, witness = rig.sync()
    assert witness.failures == []
    assert rig.arrived() == {"a.txt": content}
    return connections(rig)


def test_saves_in_a_burst_share_their_connections(rig: Rig) -> None:
    """A minute apart, or just short of the burst's end: one connection to the API and one to the bucket."""
    first = save(rig, "first")
    assert sorted(name for name, _ in first) == ["api", "bucket"]
    for wait_s in (1, 60, 240, KEEP_S - 1):
        rig.clock.go_on(wait_s)
        assert save(rig, f"{wait_s} s later") == first


def test_none_is_open_after_the_burst(rig: Rig) -> None:
    """At its end, and not before, all are closed; the next save makes new ones."""
    first = save(rig, "first")
    rig.clock.go_on(KEEP_S - 1)
    rig.client.close_idle()
    assert connections(rig) == first
    assert rig.client.idle_at_s == rig.clock.monotonic + 1
    rig.clock.go_on(1)
    rig.client.close_idle()
    assert connections(rig) == set()
    assert rig.client.idle_at_s is None
    assert save(rig, "second").isdisjoint(first)


@pytest.mark.parametrize("idle_s", [KEEP_S, 86400.0])
def test_a_cold_connection_is_not_used(rig: Rig, idle_s: float) -> None:
    """Also where nobody closed it in time, as in a command that waited long for a server."""
    first = save(rig, "first")
    rig.clock.go_on(idle_s)
    second = save(rig, "second")
    assert len(second) == 2
    assert second.isdisjoint(first)


def test_what_was_open_before_a_sleep_is_not_used(rig: Rig) -> None:
    """However short the sleep, both are made anew; nothing fails and nothing is waited for."""
    first = save(rig, "first")
    rig.clock.suspend(5)
    assert save(rig, "second").isdisjoint(first)


def test_what_was_open_before_a_change_of_network_is_not_used(rig: Rig) -> None:
    """Where the way to the other side now starts from another address, the connection is made anew."""
    first = save(rig, "first")
    for kept in rig.client._kept.values():
        assert kept.route is not None
        kept.route = replace(kept.route, local="192.0.2.1")
    rig.clock.go_on(60)
    second = save(rig, "second")
    assert second.isdisjoint(first)
    rig.clock.go_on(60)
    assert save(rig, "third") == second


def test_a_long_upload_keeps_its_connection(rig: Rig) -> None:
    """What is in use is not idle, however long it takes: the upload that crosses the burst's end is not cut."""
    first = save(rig, "first")
    rig.clock.go_on(60)
    crossed = []

    def look(sent_bytes: int, total_bytes: int) -> None:
        if sent_bytes and not crossed:
            rig.clock.go_on(2 * KEEP_S)
            rig.client.close_idle()
            crossed.append(connections(rig))

    witness = Witness(rig.clock)
    witness.sent = look
    rig.write(content="second")
    rig.sync(witness=witness)
    assert crossed == [first]
    assert witness.failures == []
    assert dict(connections(rig))["bucket"] == dict(first)["bucket"]
    assert dict(connections(rig))["api"] != dict(first)["api"]


@contextmanager
def running(rig: Rig, *, scripted: bool) -> Iterator[tuple[Daemon, Loop]]:
    """A daemon after its first sync, by scripted or by real time."""
    loop = Loop(rig)
    if scripted:
        loop.context = replace(loop.context, clock=rig.clock)
    try:
        with daemon_of(
            loop.config,
            key=rig.key,
            context=loop.context,
            signals=loop.signals,
            wakeup=loop.wakeup,
            totals=RunTotals(),
        ) as daemon:
            daemon._sync(SyncReason.RESCAN)
            assert len(connections(rig)) == 2
            yield daemon, loop
        assert connections(rig) == set()
    finally:
        loop.wakeup.close()


def test_a_daemon_wakes_up_once_to_close_them(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for the burst's end, closes all, and then has nothing left to wake up for."""
    monkeypatch.setattr(keepalive, "KEEP_S", 0.2)
    with running(rig, scripted=False) as (daemon, _):
        client = daemon._components.client
        while client.idle_at_s is not None:
            daemon._wait(None)
        assert connections(rig) == set()


def test_a_daemon_closes_them_when_it_comes_back_from_sleep(rig: Rig) -> None:
    """They look fresh and are dead."""
    with running(rig, scripted=True) as (daemon, loop):
        rig.clock.suspend(3600)
        loop.wakeup.wake()
        daemon._wait(None)
        assert connections(rig) == set()
