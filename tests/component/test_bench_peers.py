"""The parts of the side-by-side measurement that start processes, count bytes and wait for arrivals."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from syncd.core.clock import SystemClock
from tests.bench.fixtures import Fixtures, Sizes
from tests.bench.peers import comparison
from tests.bench.peers.folders import Mirror
from tests.bench.peers.peer import Deadline, Ground, Peer, PeerFailed, true_within
from tests.bench.peers.processes import started
from tests.bench.peers.wire import Meter, forwarded
from tests.loopback import answering

# Copies every file that differs, again and again, as a daemon would.
_COPIER = """
import pathlib, shutil, sys, time
source, target = map(pathlib.Path, sys.argv[1:])
while True:
    for path in source.rglob("*.txt"):
        there = target / path.relative_to(source)
        there.parent.mkdir(parents=True, exist_ok=True)
        if not there.exists() or there.read_bytes() != path.read_bytes():
            shutil.copyfile(path, there)
    time.sleep(0.01)
"""


@contextmanager
def _copier(ground: Ground) -> Iterator[Mirror]:
    with started(ground.home, ground.environment(), ground.deadline) as processes:
        processes.start(sys.executable, "-c", _COPIER, str(ground.source), str(ground.target))
        yield Mirror(ground, processes, Meter())


@contextmanager
def _idler(ground: Ground) -> Iterator[Mirror]:
    with started(ground.home, ground.environment(), ground.deadline) as processes:
        processes.start(sys.executable, "-c", "import time; time.sleep(600)")
        yield Mirror(ground, processes, Meter())


@contextmanager
def _quitter(ground: Ground) -> Iterator[Mirror]:
    with started(ground.home, ground.environment(), ground.deadline) as processes:
        processes.start(sys.executable, "-c", "import sys; sys.exit('no such key')")
        yield Mirror(ground, processes, Meter())


@contextmanager
def _broken(ground: Ground) -> Iterator[Mirror]:
    raise KeyError(str(ground.home.name))
    yield


def _fixtures(scratch: Path, limit_s: float) -> Fixtures:
    sizes = Sizes(1, ("S",), 1, 1, 1, 1.0, 1, (1,), 1.0, (5,), (), peer_edits=2, peer_quiet_s=0.0, peer_limit_s=limit_s)
    return Fixtures(scratch, sizes)


def test_each_tool_gets_its_line_whatever_becomes_of_the_others(tmp_path: Path) -> None:
    """One that ends, one that is broken and one that is missing are named with the reason; the rest is measured."""
    peers = (
        Peer("quitter", (), "", _quitter),
        Peer("broken", (), "", _broken),
        Peer("absent", ("no-such-command",), "", _copier),
        Peer("copier", (), "the note", _copier),
    )
    lines = [line.text for line in comparison.compared(_fixtures(tmp_path, 60.0), peers, 5)]
    assert lines[0].startswith("5 files, ")
    assert lines[2:5] == [
        "quitter: failed: " + f"{sys.executable} ended with 1: no such key",
        "broken: failed: KeyError('home')",
        "absent: no-such-command not installed, skipped",
    ]
    assert lines[5].startswith("copier ")
    assert lines[5].endswith(" the note")
    assert list(tmp_path.iterdir()) == []


def test_a_tool_that_carries_nothing_has_failed_at_its_deadline(tmp_path: Path) -> None:
    """The line says what did not happen, and within what time."""
    lines = list(comparison.compared(_fixtures(tmp_path, 0.2), (Peer("idler", (), "", _idler),), 1))
    assert lines[-1].text == "idler: failed: a probe edit arrives: not within 0.2 s"


def test_all_processes_are_counted_and_ended(tmp_path: Path) -> None:
    """A grandchild whose parent is gone, and which ignores SIGTERM, counts too and is ended too."""
    pid_file = tmp_path / "pid"
    spin = f"trap '' TERM; echo $$ >{pid_file}.new; mv {pid_file}.new {pid_file}; while :; do :; done"
    deadline = Deadline(60.0)
    with started(tmp_path, os.environ, deadline) as processes:
        processes.start("sh", "-c", 'sh -c "$SPIN" & exec sleep 600', env={"SPIN": spin})
        deadline.wait_until(pid_file.exists, "the grandchild starts")
        deadline.wait_until(lambda: processes.cpu_s() > 0.05, "it uses the processor")
        pid = int(pid_file.read_text())
    assert true_within(20.0, lambda: not _runs(pid))


def _runs(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def test_a_run_counts_its_cpu_and_tells_its_end(tmp_path: Path) -> None:
    """The time is that of the process's end; its CPU time counts once it has ended, that of other commands not."""
    with started(tmp_path, os.environ, Deadline(60.0)) as processes:
        before_s = SystemClock().monotonic_s()
        ended_s = processes.run(sys.executable, "-c", "sum(range(3_000_000))")
        assert before_s < ended_s <= SystemClock().monotonic_s()
        used_s = processes.cpu_s()
        assert used_s > 0.01
        assert processes.output(sys.executable, "-c", "print(sum(range(3_000_000)))")
        assert processes.cpu_s() == used_s


def test_a_run_that_fails_or_hangs_says_so(tmp_path: Path) -> None:
    """A failure has the exit status and the last words, a run that hangs the time that it was given."""
    with started(tmp_path, os.environ, Deadline(60.0)) as processes, pytest.raises(PeerFailed, match="with 3: no room"):
        processes.run("sh", "-c", "echo first; echo no room >&2; exit 3")
    with started(tmp_path, os.environ, Deadline(0.2)) as processes, pytest.raises(PeerFailed, match="not within"):
        processes.run("sleep", "600")


def test_bytes_are_counted_in_both_directions() -> None:
    """What passes the proxy arrives unchanged, and is counted once on its way there and once back."""
    meter = Meter()

    def echo(connection: socket.socket) -> None:
        while data := connection.recv(1 << 16):
            connection.sendall(data.upper())

    with answering(echo) as port, forwarded(port, meter) as counted:
        for word in (b"one", b"three"):
            with socket.create_connection(("127.0.0.1", counted), timeout=20) as client:
                client.sendall(word)
                client.shutdown(socket.SHUT_WR)
                assert b"".join(iter(lambda client=client: client.recv(100), b"")) == word.upper()  # type: ignore[misc]
        assert true_within(20.0, lambda: meter.count == 16)


def test_a_connection_that_is_still_open_ends_with_the_proxy() -> None:
    """No thread waits for a client or a server that says nothing."""
    meter = Meter()

    def listen(connection: socket.socket) -> None:
        while connection.recv(100):
            pass

    with answering(listen) as port, socket.socket() as client:
        client.settimeout(20)
        with forwarded(port, meter) as counted:
            client.connect(("127.0.0.1", counted))
            client.sendall(b"x")
            assert true_within(20.0, lambda: meter.count == 1)
        assert client.recv(1) == b""
