"""Whether the connection is metered, asked of NetworkManager on a real bus: starts, ends and changes of each."""

from __future__ import annotations

import logging
import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.core.clock import SystemClock
from syncd.remote.metered_connection import REPLY_TIMEOUT_S, MeteredConnection, is_metered
from tests.bus import NO_BUS, private_bus
from tests.networkmanager import GUESS_NO, GUESS_YES, NO, UNKNOWN, YES, network_manager

needs_bus = pytest.mark.skipif(bool(NO_BUS), reason=NO_BUS or "all is here")
DEADLINE_S = 60.0
# What a loaded machine may add to the time-out.
SLACK_S = 15.0


@pytest.fixture
def listen(tmp_path: Path) -> str:
    """The address of the test's bus."""
    return f"unix:path={tmp_path}/bus"


@pytest.fixture
def connection(listen: str, caplog: pytest.LogCaptureFixture) -> Iterator[MeteredConnection]:
    """One that asks on the test's bus."""
    caplog.set_level(logging.INFO, "syncd")
    connection = MeteredConnection({"DBUS_SYSTEM_BUS_ADDRESS": listen}, SystemClock())
    yield connection
    connection.close()


def until(connection: MeteredConnection, *, metered: bool) -> None:
    """Poll the descriptors as the loop does until that is known."""
    ends_s = SystemClock().monotonic_s() + DEADLINE_S
    while connection.is_metered is not metered:
        left_s = ends_s - SystemClock().monotonic_s()
        ready, _, _ = select.select(connection.filenos(), [], [], left_s)
        assert ready, "nothing came"
        connection.handle(ready)


@pytest.mark.parametrize(
    ("answer", "metered"),
    [
        ([("u", YES)], True),
        ([("u", GUESS_YES)], True),
        ([("u", NO)], False),
        ([("u", GUESS_NO)], False),
        ([("u", UNKNOWN)], False),
        ([("u", 99)], False),
        ([("s", "1")], False),
        ([], False),
    ],
)
def test_what_counts_as_metered(answer: list[tuple[str, object]], metered: bool) -> None:
    """Yes and a guessed yes do; an unknown value, another type and no answer do not."""
    assert is_metered(answer) is metered


@needs_bus
def test_it_is_asked_once_and_then_told(
    listen: str, connection: MeteredConnection, caplog: pytest.LogCaptureFixture
) -> None:
    """It is known when the connection is made; each change comes by itself, and is logged."""
    with private_bus(listen), network_manager(listen, YES) as server:
        assert connection.connect()
        assert connection.is_metered
        assert not connection.connect()
        for value, metered in ((NO, False), (GUESS_YES, True), (GUESS_NO, False)):
            server.change(value)
            until(connection, metered=metered)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "the connection is metered",
        "the connection is not metered any more",
    ] * 2


@needs_bus
def test_networkmanager_starts_and_ends(listen: str, connection: MeteredConnection) -> None:
    """A bus without it is no reason to ask again; its start is noticed, and its end."""
    with private_bus(listen):
        assert connection.connect()
        assert not connection.is_metered
        for _ in range(2):
            with network_manager(listen, YES):
                until(connection, metered=True)
            until(connection, metered=False)
        assert not connection.connect()


@needs_bus
def test_it_is_not_started(
    listen: str, connection: MeteredConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question starts no NetworkManager on a machine where it could be."""
    services = tmp_path / "dbus-1/services"
    services.mkdir(parents=True)
    name = "org.freedesktop.NetworkManager"
    (services / f"{name}.service").write_text(f"[D-BUS Service]\nName={name}\nExec=/bin/touch {tmp_path}/started\n")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with private_bus(listen):
        assert connection.connect()
    assert not (tmp_path / "started").exists()


@needs_bus
def test_the_bus_ends(listen: str, connection: MeteredConnection) -> None:
    """Without a bus nothing is metered and nothing polled; the next call finds the new one."""
    with private_bus(listen), network_manager(listen, YES):
        assert connection.connect()
    until(connection, metered=False)
    assert connection.filenos() == []
    assert not connection.connect()
    os.unlink(listen.removeprefix("unix:path="))
    with private_bus(listen), network_manager(listen, YES):
        assert connection.connect()
        assert connection.is_metered


@pytest.mark.parametrize("address", ["unix:path=/nowhere/bus", "nonsense", "tcp:host=localhost,port=1"])
def test_no_bus(address: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is not metered, and nothing is logged but for debugging."""
    caplog.set_level(logging.INFO, "syncd")
    connection = MeteredConnection({"DBUS_SYSTEM_BUS_ADDRESS": address}, SystemClock())
    assert not connection.connect()
    assert (connection.is_metered, connection.filenos(), caplog.records) == (False, [], [])


def test_a_bus_that_never_answers(tmp_path: Path) -> None:
    """It is given up in time."""
    place = str(tmp_path / "bus")
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(place)
        door.listen()
        connection = MeteredConnection({"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={place}"}, SystemClock())
        started_s = SystemClock().monotonic_s()
        assert not connection.connect()
        assert SystemClock().monotonic_s() - started_s < REPLY_TIMEOUT_S + SLACK_S
        assert connection.filenos() == []


def test_nobody_is_asked(listen: str) -> None:
    """Without an environment no connection is made."""
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(listen.removeprefix("unix:path="))
        door.listen()
        door.setblocking(False)
        assert not MeteredConnection(None, SystemClock()).connect()
        with pytest.raises(BlockingIOError):
            door.accept()
