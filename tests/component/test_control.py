"""The control socket: private, at any depth of folders, and safe against any client."""

from __future__ import annotations

import json
import select
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from syncd.cli.progress import ProgressDisplay
from syncd.cli.push import sync_now
from syncd.core.clock import SystemClock
from syncd.core.errors import ExitCode, Locked
from syncd.core.settings import check_config
from syncd.core.signals import Interrupt
from syncd.core.waiter import Waiter
from syncd.daemon.control import Client, ControlServer, Message, ask
from tests.clock import ScriptedClock
from tests.component.limits import descriptors_left

DEADLINE_S = 60.0


def waiter() -> Waiter:
    return Waiter(Interrupt(), SystemClock())


@contextmanager
def served(folder: Path) -> Iterator[ControlServer]:
    """Return a server that listens in the folder."""
    with closing(ControlServer(str(folder))) as server:
        server.open()
        yield server


def next_request(server: ControlServer) -> tuple[Client, Message]:
    """Return the next request, waited for as the loop does."""
    while True:
        ready, _, _ = select.select(server.filenos(), [], [], DEADLINE_S)
        assert ready, "no request came"
        for pair in server.requests():
            return pair


def connected(folder: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(DEADLINE_S)
    client.connect(str(folder / "control.sock"))
    return client


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_a_request_is_answered(tmp_path: Path, depth: int) -> None:
    """A request arrives and progress and result go back, also if the folder's path is too long for a socket."""
    folder = tmp_path.joinpath(*("long-" * 15 for _ in range(depth)))
    folder.mkdir(parents=True, exist_ok=True)
    asked, received = {"do": "push", "force": True}, list[Message]()
    command = threading.Thread(target=lambda: received.extend(ask(str(folder), asked, waiter(), DEADLINE_S)))
    with served(folder) as server:
        assert stat.S_IMODE((folder / "control.sock").stat().st_mode) == 0o600
        command.start()
        client, request = next_request(server)
        client.send({"event": "progress", "sent_bytes": 1, "total_bytes": 2})
        client.done(0, "fine", result={"files": 3})
        command.join()
        assert request == {"do": "push", "force": True}
        assert [message["event"] for message in received] == ["progress", "done"]
        assert received[1] == {"event": "done", "exit": 0, "message": "fine", "result": {"files": 3}}
    assert not (folder / "control.sock").exists()


def test_a_folder_that_takes_no_socket() -> None:
    """The failure names it, which the system's does not."""
    with pytest.raises(OSError, match="'/proc'"):
        ControlServer("/proc").open()


def test_no_server(tmp_path: Path) -> None:
    """No socket, a killed process's socket and a missing folder are the same to a command."""
    for folder in (tmp_path, tmp_path / "gone"):
        with pytest.raises(ConnectionError):
            list(ask(str(folder), {"do": "push"}, waiter()))
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "control.sock"))
    dead.close()
    with pytest.raises(ConnectionError):
        list(ask(str(tmp_path), {"do": "push"}, waiter()))
    with served(tmp_path) as server:
        assert server.filenos()


@pytest.mark.parametrize(
    "said",
    [
        b"nonsense\n",
        b"[1]\n",
        b"\xff\xfe\n",
        b"[" * 4000 + b"\n",
        b"x" * 10_000,
        b"{" * 4096,
        b"",
    ],
)
def test_an_invalid_request_is_disconnected(tmp_path: Path, said: bytes) -> None:
    """Its client is disconnected, and the next request is answered."""
    with served(tmp_path) as server:
        with connected(tmp_path) as client:
            client.sendall(said)
            client.shutdown(socket.SHUT_WR)
            for _ in range(20):
                if len(server.filenos()) == 1 and not select.select(server.filenos(), [], [], 0)[0]:
                    break
                select.select(server.filenos(), [], [], DEADLINE_S)
                assert list(server.requests()) == []
            assert len(server.filenos()) == 1
        with connected(tmp_path) as client:
            client.sendall(b'{"do": "flush"}\n')
            assert next_request(server)[1] == {"do": "flush"}


def test_a_request_may_come_in_parts(tmp_path: Path) -> None:
    """A request is read once its line is complete."""
    with served(tmp_path) as server, connected(tmp_path) as client:
        client.sendall(b'{"do": ')
        select.select(server.filenos(), [], [], DEADLINE_S)
        assert list(server.requests()) == []
        assert list(server.requests()) == []
        client.sendall(b'"pause"}\n')
        assert next_request(server)[1] == {"do": "pause"}


def test_a_client_that_went_away(tmp_path: Path) -> None:
    """An answer to a closed connection causes no error."""
    with served(tmp_path) as server:
        with connected(tmp_path) as raw:
            raw.sendall(b'{"do": "push"}\n')
            client, _ = next_request(server)
        for _ in range(3):
            client.send({"event": "progress"})
        client.done(0)
        assert not client.waits
        assert len(server.filenos()) == 1


def test_a_client_that_does_not_read(tmp_path: Path) -> None:
    """A client that does not read its answers is disconnected and does not block the daemon."""
    with served(tmp_path) as server, connected(tmp_path) as raw:
        raw.sendall(b'{"do": "push"}\n')
        client, _ = next_request(server)
        for _ in range(10_000):
            client.send({"event": "progress", "padding": "x" * 1000})
        assert not client.waits


@pytest.mark.parametrize("text", ["a line", "\udcff\u4e2d" * 16_000])
def test_a_client_that_is_slow_to_read_output(tmp_path: Path, text: str) -> None:
    """A pager that waits for its reader loses a part of it, and is told so; the end arrives all the same."""
    with served(tmp_path) as server, connected(tmp_path) as raw, raw.makefile("rb") as received:
        raw.sendall(b'{"do": "setup"}\n')
        client, _ = next_request(server)
        for _ in range(10_000):
            client.send({"event": "output", "text": text})
        client.done(ExitCode.DONE)
        told = [json.loads(line) for line in received]
        assert (told[0]["text"], told[-1]["exit"]) == (text, 0)
        assert sum("not shown" in str(each.get("text")) for each in told) == 1


def test_clients_are_bounded(tmp_path: Path) -> None:
    """Many idle connections do not use up the daemon's descriptors."""
    with served(tmp_path) as server:
        crowd = []
        for _ in range(140):
            crowd.append(connected(tmp_path))
            list(server.requests())
        assert len(server.filenos()) == 129
        for client in crowd:
            client.close()
        list(server.requests())
        assert len(server.filenos()) == 1


def test_a_client_for_whom_no_descriptor_is_left(tmp_path: Path) -> None:
    """It does not wake the daemon without end, and is served once there is one."""
    with served(tmp_path) as server, connected(tmp_path) as client:
        client.sendall(b'{"do": "hello"}\n')
        with descriptors_left(0):
            assert list(server.requests()) == []
            assert server.filenos() == []
        assert [message for _, message in server.requests()] == [{"do": "hello"}]
        assert len(server.filenos()) == 2


def test_a_time_limit_counts_while_another_process_has_the_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is to end within half a second asks no longer than that for the lock."""
    clock = ScriptedClock()
    monkeypatch.setattr("syncd.cli.push.CLOCK", clock)
    monkeypatch.setattr("syncd.cli.push.ask_daemon", locked)
    config = check_config({"workspace": {"path": "/work"}, "sandbox": {"id": "box"}})
    with pytest.raises(Locked):
        sync_now(config, {"do": "flush"}, ProgressDisplay(), 0.5)
    assert sum(clock.slept) < 1


def test_a_time_limit_counts_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was waited for before is not waited for once more by a command that then syncs by itself."""
    clock, limits = ScriptedClock(), list[float]()

    def asked(_config: object, _request: object, timeout_s: float, _display: object) -> None:
        limits.append(timeout_s)
        clock.go_on(2)

    def alone(_config: object, _display: object, _request: object, timeout_s: float) -> dict[str, object]:
        limits.append(timeout_s)
        return {}

    monkeypatch.setattr("syncd.cli.push.CLOCK", clock)
    monkeypatch.setattr("syncd.cli.push.ask_daemon", asked)
    monkeypatch.setattr("syncd.cli.own_loop.sync_alone", alone)
    config = check_config({"workspace": {"path": "/work"}, "sandbox": {"id": "box"}})
    sync_now(config, {"do": "flush"}, ProgressDisplay(), 5)
    assert limits == pytest.approx([5, 3])


def locked(*_: object) -> None:
    raise Locked("another syncd has this workspace")
