"""Desktop notifications over a real session bus: shown and replaced, and no server blocks the daemon."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from syncd.core.clock import SystemClock
from syncd.report.desktop import REPLY_TIMEOUT_S, Desktop, NotShown, Shown
from syncd.report.desktop_notifier import DesktopNotifier
from syncd.report.notification_rules import DAY_S, TRY_AGAIN_FIRST_S, Notice
from syncd.report.notification_store import NotificationStore
from tests.clock import ScriptedClock
from tests.desktop import NO_BUS, NotificationServer, notification_server, session_bus

needs_bus = pytest.mark.skipif(bool(NO_BUS), reason=NO_BUS or "all is here")

BAD = Notice("work is not synced", "Since 14:05: <b>no</b> & so on\nmore", "transfer.error", "dialog-warning")
GOOD = Notice("work is in sync again", "All is well.", "transfer.complete", "emblem-default")
# What a loaded machine may add to the time-out.
SLACK_S = 15.0


@pytest.fixture
def place(tmp_path: Path) -> str:
    """A folder for a bus: a socket's path has 107 bytes at most."""
    return os.path.relpath(tmp_path / "bus")


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[str]:
    """A real bus in the usual place of a runtime folder."""
    with session_bus(f"unix:path={tmp_path}/bus") as address:
        yield address


def desktop(address: str) -> Desktop:
    return Desktop({"DBUS_SESSION_BUS_ADDRESS": address}, SystemClock())


def refused(environ: dict[str, str]) -> str:
    """Return the reason that nothing was shown, within the timeout."""
    clock = SystemClock()
    started_s = clock.monotonic_s()
    with pytest.raises(NotShown) as why:
        Desktop(environ, clock).show(BAD, None)
    assert clock.monotonic_s() - started_s < REPLY_TIMEOUT_S + SLACK_S
    return str(why.value)


@needs_bus
def test_a_notification_is_shown_and_replaced(bus: str) -> None:
    """All fields arrive as specified; the next one replaces it; text is not markup."""
    with notification_server(bus) as server:
        first = desktop(bus).show(BAD, None)
        second = desktop(bus).show(GOOD, first)
        bad, good = server.shown
    assert (bad.app, bad.replaces, bad.icon, bad.timeout_ms) == ("syncd", 0, "dialog-warning", -1)
    assert bad.summary == BAD.summary
    assert bad.body == "Since 14:05: &lt;b&gt;no&lt;/b&gt; &amp; so on\nmore"
    assert bad.changes == {"urgency": ("y", 1), "category": ("s", "transfer.error")}
    assert (good.replaces, good.icon, good.changes["category"]) == (
        bad.number,
        "emblem-default",
        ("s", "transfer.complete"),
    )
    assert (first.number, second.number) == (41, 41)


@needs_bus
def test_a_plain_server_gets_plain_text(bus: str) -> None:
    """Text is not escaped for a server without markup."""
    with notification_server(bus, abilities=("body",)) as server:
        desktop(bus).show(BAD, None)
        assert server.shown[0].body == BAD.body


@needs_bus
def test_another_servers_number_is_not_taken_over(bus: str) -> None:
    """After a restart of the desktop the old number may be another program's notification."""
    with notification_server(bus):
        first = desktop(bus).show(BAD, None)
    with notification_server(bus) as server:
        desktop(bus).show(GOOD, first)
        assert server.shown[0].replaces == 0


@needs_bus
def test_an_abstract_socket() -> None:
    """A bus at an abstract socket has no file."""
    with (
        session_bus("unix:abstract=syncd-test-" + os.urandom(8).hex()) as address,
        notification_server(address) as server,
    ):
        assert "abstract=" in address
        desktop(address).show(BAD, None)
        assert len(server.shown) == 1


@needs_bus
def test_the_usual_place(bus: str, tmp_path: Path) -> None:
    """Without an address, as under some cron or ssh, the bus of the runtime folder is used."""
    with notification_server(bus) as server:
        Desktop({"XDG_RUNTIME_DIR": str(tmp_path)}, SystemClock()).show(BAD, None)
        assert len(server.shown) == 1


@needs_bus
def test_the_sessions_bus_is_used(bus: str, tmp_path: Path) -> None:
    """If the session names a bus, or none, no other one is searched."""
    with notification_server(bus) as server:
        assert refused({"DBUS_SESSION_BUS_ADDRESS": "disabled:", "XDG_RUNTIME_DIR": str(tmp_path)})
        assert server.shown == []


@needs_bus
def test_the_first_address_that_answers(bus: str, tmp_path: Path) -> None:
    """Of several addresses, invalid, unsupported and dead ones are skipped."""
    with notification_server(bus) as server:
        desktop(f"nonsense;tcp:host=localhost,port=1;unix:path={tmp_path}/none;{bus}").show(BAD, None)
        assert len(server.shown) == 1


@needs_bus
def test_no_server(bus: str) -> None:
    """A bus may have no notification server, as without a desktop."""
    assert "ServiceUnknown" in refused({"DBUS_SESSION_BUS_ADDRESS": bus})


@needs_bus
@pytest.mark.parametrize("method", ["GetCapabilities", "Notify"])
def test_a_server_that_refuses(bus: str, method: str) -> None:
    """An error is an answer."""
    with notification_server(bus, refuses=method):
        assert "LimitsExceeded" in refused({"DBUS_SESSION_BUS_ADDRESS": bus})


@needs_bus
def test_a_server_that_hangs(bus: str) -> None:
    """Without an answer before the request nothing was shown; after it, it counts as shown."""
    with notification_server(bus, ignores="GetCapabilities"):
        assert refused({"DBUS_SESSION_BUS_ADDRESS": bus}) != ""
    with notification_server(bus, ignores="Notify"):
        assert desktop(bus).show(BAD, None).number == 0


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"DBUS_SESSION_BUS_ADDRESS": ""},
        {"DBUS_SESSION_BUS_ADDRESS": "nonsense"},
        {"DBUS_SESSION_BUS_ADDRESS": "unix:path"},
        {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/nowhere/bus"},
        {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/etc/passwd"},
        {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/%00/\udcff"},
        {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/" + "long" * 40},
        {"DBUS_SESSION_BUS_ADDRESS": "unix:abstract=nobody-listens-here"},
        {"DBUS_SESSION_BUS_ADDRESS": "autolaunch:"},
        {"DBUS_SESSION_BUS_ADDRESS": "disabled:"},
        {"XDG_RUNTIME_DIR": "/nowhere"},
    ],
    ids=str,
)
def test_no_bus(environ: dict[str, str]) -> None:
    """No address, a wrong one, or a dead one gives a message and nothing else."""
    assert refused(environ)


@contextmanager
def listening(place: str, answer: Callable[[socket.socket], None], backlog: int = 8) -> Iterator[str]:
    """Listen at a bus's address, and call `answer` with each connection."""
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(place)
        door.listen(backlog)
        thread = threading.Thread(target=_admit, args=(door, answer))
        thread.start()
        try:
            yield f"unix:path={place}"
        finally:
            door.shutdown(socket.SHUT_RDWR)
            thread.join()


def _admit(door: socket.socket, answer: Callable[[socket.socket], None]) -> None:
    try:
        guest, _ = door.accept()
    except OSError:
        return
    with guest:
        guest.settimeout(REPLY_TIMEOUT_S + SLACK_S)
        try:
            answer(guest)
            while guest.recv(4096):
                pass
        except OSError:
            return


def _slowly(guest: socket.socket) -> None:
    """Send a byte at a time, each within the timeout for one."""
    guest.sendall(b"OK ")
    while True:
        guest.settimeout(0.05)
        try:
            if not guest.recv(4096):
                return
        except TimeoutError:
            guest.sendall(b"a")


def _then(*answers: bytes) -> Callable[[socket.socket], None]:
    def answer(guest: socket.socket) -> None:
        for words in answers:
            guest.recv(4096)
            guest.sendall(words)

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        _then(),
        _then(b"OK 0123\r\n"),
        _slowly,
        _then(b"REJECTED KERBEROS\r\n"),
        _then(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        _then(b"OK 0123\r\n", b"l\1\0\1" + b"\xff" * 60),
        _then(b"OK 0123\r\n", b"\0" * 1024),
        lambda guest: guest.shutdown(socket.SHUT_RDWR),
    ],
    ids=["never", "no greeting", "a byte at a time", "no", "http", "garbage", "zeros", "hangs up"],
)
def test_another_program_at_the_bus_address(place: str, answer: Callable[[socket.socket], None]) -> None:
    """Silence, slowness, garbage and another protocol end with a message, in time."""
    with listening(place, answer) as address:
        assert refused({"DBUS_SESSION_BUS_ADDRESS": address})


def test_an_answer_without_end(place: str) -> None:
    """An answer that announces a hundred megabytes is not read into memory."""
    answer = b"l\2\0\1\0\0\0\x07\1\0\0\0\0\0\0\0" + bytes(1 << 17)
    with listening(place, _then(b"OK 0123\r\n", answer)) as address:
        assert refused({"DBUS_SESSION_BUS_ADDRESS": address}) == "the session bus says too much"


def test_a_bus_that_accepts_no_connection(place: str) -> None:
    """A socket with a full queue does not block the daemon."""
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(place)
        door.listen(0)
        waiting = []
        try:
            while True:
                guest = socket.socket(socket.AF_UNIX)
                waiting.append(guest)
                guest.setblocking(False)
                guest.connect(place)
        except BlockingIOError:
            assert refused({"DBUS_SESSION_BUS_ADDRESS": f"unix:path={place}"})
        finally:
            for guest in waiting:
                guest.close()


def test_the_library_is_loaded_for_the_first_notification() -> None:
    """A daemon without a notification does not load it."""
    code = "import sys, syncd.daemon.build, syncd.report.desktop_notifier; print('jeepney' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# -- the herald, with a real bus and made-up time


class NotifierRig:
    """A daemon's notifier, which can be restarted, and its notification server."""

    def __init__(self, folder: Path, notification_server: NotificationServer, clock: ScriptedClock) -> None:
        self.folder = folder
        self.notification_server = notification_server
        self.clock = clock
        self.environ = {"DBUS_SESSION_BUS_ADDRESS": notification_server.address}
        self.notifier = self.started()

    def started(self) -> DesktopNotifier:
        """Return a new process's notifier."""
        self.notifier = DesktopNotifier(
            "/home/dev/work",
            900.0,
            desktop=Desktop(self.environ, SystemClock()),
            file=NotificationStore(str(self.folder), self.clock),
            clock=self.clock,
        )
        return self.notifier

    @property
    def read(self) -> list[str]:
        """Return the summaries so far."""
        return [seen.summary for seen in self.notification_server.shown]


@pytest.fixture
def rig(bus: str, tmp_path: Path) -> Iterator[NotifierRig]:
    """A notifier with a server that shows everything."""
    with notification_server(bus) as server:
        yield NotifierRig(tmp_path, server, ScriptedClock())


NOT_SYNCED = "work is not synced"
NEEDED = "work is not synced: you are needed"
AGAIN = "work is in sync again"


@needs_bus
def test_a_long_failure_and_its_end(rig: NotifierRig) -> None:
    """A long failure is notified once; its end replaces the notification."""
    notifier, clock = rig.notifier, rig.clock
    notifier.well()
    assert notifier.due_s is None
    notifier.failed("no answer from https://user:pw@api.example/put?X-Goog-Signature=ab: try later", needs_person=False)
    assert notifier.due_s == clock.monotonic + 900
    clock.go_on(899)
    notifier.failed("the network is unreachable", needs_person=False)
    assert rig.read == []
    clock.go_on(1)
    notifier.look()
    assert rig.read == [NOT_SYNCED]
    for _ in range(100):
        clock.go_on(3_600)
        notifier.failed(
            "no answer from https://user:pw@api.example/put?X-Goog-Signature=ab: try later", needs_person=False
        )
    assert (rig.read, notifier.due_s) == ([NOT_SYNCED], None)
    notifier.well()
    notifier.well()
    notifier.look()
    assert rig.read == [NOT_SYNCED, AGAIN]
    assert rig.notification_server.shown[1].replaces == rig.notification_server.shown[0].number
    assert notifier.due_s is None


@needs_bus
def test_a_hold(rig: NotifierRig) -> None:
    """It is notified after a minute with the error's own line, over a restart too, and again after a day."""
    notifier, clock = rig.notifier, rig.clock
    notifier.failed("the server refused the API key: put a valid one into ~/.config/syncd/api-key", needs_person=True)
    clock.go_on(60)
    notifier.look()
    assert rig.read == [NEEDED]
    assert "the API key: put a valid one into ~/.config/syncd/api-key" in rig.notification_server.shown[0].body
    for _ in range(20):
        notifier = rig.started()
        clock.go_on(600)
        notifier.failed(
            "the server refused the API key: put a valid one into ~/.config/syncd/api-key", needs_person=True
        )
        clock.go_on(600)
        notifier.look()
    assert rig.read == [NEEDED]
    assert notifier.due_s is not None
    clock.go_on(notifier.due_s - clock.monotonic)
    notifier.look()
    assert rig.read == [NEEDED, NEEDED]
    clock.suspend(DAY_S)
    notifier.look()
    assert rig.read == [NEEDED, NEEDED, NEEDED]
    assert len({seen.number for seen in rig.notification_server.shown}) == 1


@needs_bus
def test_a_recovery_after_a_restart(rig: NotifierRig) -> None:
    """It is notified also if the service or the machine was restarted for it."""
    notifier, clock = rig.notifier, rig.clock
    notifier.failed("the sandbox is gone", needs_person=True)
    clock.go_on(60)
    notifier.look()
    clock.monotonic = clock.boottime = 7.0
    clock.wall += 60
    notifier = rig.started()
    notifier.well()
    assert rig.read == [NEEDED, AGAIN]
    rig.started().well()
    assert rig.read == [NEEDED, AGAIN]


@needs_bus
def test_a_pause_is_no_failure(rig: NotifierRig) -> None:
    """The time of a pause does not count for a failure before it."""
    notifier, clock = rig.notifier, rig.clock
    notifier.failed("no network", needs_person=False)
    notifier.paused()
    assert notifier.due_s is None
    clock.go_on(10_000)
    notifier.look()
    notifier.failed("no network", needs_person=False)
    clock.go_on(899)
    notifier.look()
    assert rig.read == []


@needs_bus
def test_nobody_is_logged_in(rig: NotifierRig, caplog: pytest.LogCaptureFixture) -> None:
    """A notification that cannot be shown is tried again slowly, and logged once."""
    caplog.set_level("DEBUG", "syncd")
    notifier, clock = rig.notifier, rig.clock
    address, rig.environ["DBUS_SESSION_BUS_ADDRESS"] = rig.environ["DBUS_SESSION_BUS_ADDRESS"], "unix:path=/none"
    notifier.failed("no network", needs_person=False)
    clock.go_on(900)
    for wait_s in (TRY_AGAIN_FIRST_S, 2 * TRY_AGAIN_FIRST_S, 4 * TRY_AGAIN_FIRST_S):
        notifier.look()
        assert notifier.due_s == clock.monotonic + wait_s
        clock.go_on(wait_s)
    record = caplog.records[0]
    assert len(caplog.records) == 1
    assert (record.levelname, record.getMessage()) == ("DEBUG", "no desktop notification: No such file or directory")
    rig.environ["DBUS_SESSION_BUS_ADDRESS"] = address
    notifier.look()
    assert rig.read == [NOT_SYNCED]
    rig.environ["DBUS_SESSION_BUS_ADDRESS"] = "unix:path=/none"
    for _ in range(7):  # each a sync, for an hour: then it is no news any more
        notifier.well()
        clock.go_on(600)
    rig.environ["DBUS_SESSION_BUS_ADDRESS"] = address
    notifier.well()
    assert notifier.due_s is None
    notifier.failed("no network", needs_person=False)
    clock.go_on(900)
    notifier.look()
    assert rig.read == [NOT_SYNCED, NOT_SYNCED]


@pytest.mark.parametrize("content", [b"", b"\0\xff", b"{}", b'{"told": {"times": 7}}', b"[" * 100_000], ids=range(5))
def test_an_invalid_record(tmp_path: Path, content: bytes) -> None:
    """It counts as no record."""
    (tmp_path / "notices").write_bytes(content)
    reported, shown = NotificationStore(str(tmp_path), ScriptedClock()).load()
    assert (reported.times, shown) == ((), None)


def test_notifications_switched_off(tmp_path: Path) -> None:
    """There is no deadline, and nothing is written."""
    clock = ScriptedClock()
    notifier = DesktopNotifier("/work", 900.0, desktop=None, file=NotificationStore(str(tmp_path), clock), clock=clock)
    notifier.failed("no", needs_person=True)
    clock.go_on(10_000)
    notifier.look()
    assert notifier.due_s is None
    assert list(tmp_path.iterdir()) == []


def test_a_clock_that_was_set_back(tmp_path: Path) -> None:
    """A notification before the clock was set back a year counts as just shown, and expires after a day."""
    clock = ScriptedClock()
    file = NotificationStore(str(tmp_path), clock)
    file.save(file.load()[0].__class__(times=(clock.boottime,)), Shown(7, "bus :1.2"))
    clock.wall -= 365 * DAY_S
    reported, shown = file.load()
    assert (reported.times, shown) == ((clock.boottime,), Shown(7, "bus :1.2"))
    clock.wall += (365 + 1) * DAY_S
    assert file.load() == (type(reported)(), None)
