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
from syncd.report.desktop import REPLY_TIMEOUT_S, Desktop, NotShown
from syncd.report.desktop_notifier import DesktopNotifier
from syncd.report.notification_rules import REPEAT_AFTER_S, SUCCESS_TRIES, TRY_AGAIN_S, Notice, NoticeState
from syncd.report.notification_store import NotificationStore
from tests.bus import NO_BUS, private_bus
from tests.clock import ScriptedClock
from tests.desktop import NotificationServer, notification_server

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
    with private_bus(f"unix:path={tmp_path}/bus") as address:
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
        private_bus("unix:abstract=syncd-test-" + os.urandom(8).hex()) as address,
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
        assert refused({"DBUS_SESSION_BUS_ADDRESS": address}) == "the bus sent too much"


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


# -- the notifier, with a real bus and made-up time

REFUSED = "the server refused the API key: put a valid one into ~/.config/syncd/api-key"
NO_ANSWER = "no answer from https://user:pw@api.example/put?X-Goog-Signature=ab: try later"


class Session:
    """A daemon's notifier, which can be started again, and the screen of the session that it notifies."""

    def __init__(self, folder: Path, notification_server: NotificationServer, clock: ScriptedClock) -> None:
        self.folder = folder
        self.notification_server = notification_server
        self.clock = clock
        self.environ = {"DBUS_SESSION_BUS_ADDRESS": notification_server.address}
        self.notifier = self.started()

    def started(self) -> DesktopNotifier:
        """The notifier of a new process."""
        self.notifier = DesktopNotifier(
            "/home/dev/work",
            900.0,
            desktop=Desktop(self.environ, SystemClock()),
            file=NotificationStore(str(self.folder)),
            clock=self.clock,
        )
        return self.notifier

    @property
    def summaries(self) -> list[str]:
        """The summaries shown so far."""
        return [seen.summary for seen in self.notification_server.shown]


@pytest.fixture
def session(bus: str, tmp_path: Path) -> Iterator[Session]:
    """A session with a desktop."""
    with notification_server(bus) as server:
        yield Session(tmp_path, server, ScriptedClock())


NOT_SYNCED = "work is not synced"
NEEDED = "work is not synced: you are needed"
AGAIN = "work is in sync again"


@needs_bus
def test_failing_for_long_and_then_in_sync_again(session: Session) -> None:
    """Shown once it has lasted; then success, in its place."""
    notifier, clock = session.notifier, session.clock
    notifier.succeeded()
    assert notifier.due_s is None
    notifier.failed(NO_ANSWER, needs_person=False)
    assert notifier.due_s == clock.monotonic + 900
    clock.go_on(899)
    notifier.failed("the network is unreachable", needs_person=False)
    assert session.summaries == []
    clock.go_on(1)
    notifier.show_due()
    assert session.summaries == [NOT_SYNCED]
    for _ in range(23):
        clock.go_on(3_600)
        notifier.failed(NO_ANSWER, needs_person=False)
    assert session.summaries == [NOT_SYNCED]
    notifier.succeeded()
    notifier.succeeded()
    notifier.show_due()
    assert session.summaries == [NOT_SYNCED, AGAIN]
    assert session.notification_server.shown[1].replaces == session.notification_server.shown[0].number
    assert notifier.due_s is None


@needs_bus
def test_a_hold(session: Session) -> None:
    """Shown after a minute with the error's own line, not again after a restart; a day later once more."""
    notifier, clock = session.notifier, session.clock
    notifier.failed(REFUSED, needs_person=True)
    clock.go_on(60)
    notifier.show_due()
    assert session.summaries == [NEEDED]
    assert "the API key: put a valid one into ~/.config/syncd/api-key" in session.notification_server.shown[0].body
    for _ in range(20):
        notifier = session.started()
        clock.go_on(600)
        notifier.failed(REFUSED, needs_person=True)
        clock.go_on(600)
        notifier.show_due()
    assert session.summaries == [NEEDED]
    assert notifier.due_s is not None
    clock.go_on(notifier.due_s - clock.monotonic)
    notifier.show_due()
    assert session.summaries == [NEEDED, NEEDED]
    clock.suspend(REPEAT_AFTER_S)
    notifier.show_due()
    assert session.summaries == [NEEDED, NEEDED, NEEDED]
    assert len({seen.number for seen in session.notification_server.shown}) == 1


@needs_bus
def test_in_sync_again_after_a_restart(session: Session) -> None:
    """Success follows failing although the service was restarted in between; the machine, too."""
    notifier, clock = session.notifier, session.clock
    notifier.failed("the sandbox is gone", needs_person=True)
    clock.go_on(60)
    notifier.show_due()
    clock.monotonic = clock.boottime = 7.0
    clock.wall += 60
    notifier = session.started()
    notifier.succeeded()
    assert session.summaries == [NEEDED, AGAIN]
    session.started().succeeded()
    assert session.summaries == [NEEDED, AGAIN]


@needs_bus
def test_a_pause_is_no_failure(session: Session) -> None:
    """The time of a pause does not count for a failure before it."""
    notifier, clock = session.notifier, session.clock
    notifier.failed("no network", needs_person=False)
    notifier.paused()
    assert notifier.due_s is None
    clock.go_on(10_000)
    notifier.show_due()
    notifier.failed("no network", needs_person=False)
    clock.go_on(899)
    notifier.show_due()
    assert session.summaries == []


@needs_bus
def test_no_session(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    """What could not be shown is tried again, slowly, and logged once at debug level; success is soon given up."""
    caplog.set_level("DEBUG", "syncd")
    notifier, clock = session.notifier, session.clock
    address = session.environ["DBUS_SESSION_BUS_ADDRESS"]
    session.environ["DBUS_SESSION_BUS_ADDRESS"] = "unix:path=/none"
    notifier.failed("no network", needs_person=False)
    clock.go_on(900)
    for _ in range(3):
        notifier.show_due()
        assert notifier.due_s == clock.monotonic + TRY_AGAIN_S
        clock.go_on(TRY_AGAIN_S)
    record = caplog.records[0]
    assert len(caplog.records) == 1
    assert (record.levelname, record.getMessage()) == ("DEBUG", "no desktop notification: No such file or directory")
    session.environ["DBUS_SESSION_BUS_ADDRESS"] = address
    notifier.show_due()
    assert session.summaries == [NOT_SYNCED]
    session.environ["DBUS_SESSION_BUS_ADDRESS"] = "unix:path=/none"
    for _ in range(SUCCESS_TRIES):
        notifier.succeeded()
        clock.go_on(TRY_AGAIN_S)
    session.environ["DBUS_SESSION_BUS_ADDRESS"] = address
    notifier.succeeded()
    assert notifier.due_s is None
    notifier = session.started()
    notifier.failed("no network", needs_person=False)
    clock.go_on(900)
    notifier.show_due()
    assert session.summaries == [NOT_SYNCED, NOT_SYNCED]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\xff",
        b"{}",
        b'{"state": {"times": 7}, "shown": null}',
        b"[" * 100_000,
        b'{"told": {"times": [5.0], "kinds": {}, "vain": 0}, "shown": null, "boot_s": 5.0, "wall_s": 1795526411.0}',
    ],
    ids=["empty", "binary", "no fields", "wrong type", "deep", "earlier version"],
)
def test_a_damaged_record(tmp_path: Path, content: bytes) -> None:
    """It counts as none, and so does that of an earlier version: a notification may be repeated once."""
    (tmp_path / "notices").write_bytes(content)
    assert NotificationStore(str(tmp_path)).load() == (NoticeState(), None)


def test_notifications_switched_off(tmp_path: Path) -> None:
    """There is no deadline, and nothing is written."""
    clock = ScriptedClock()
    notifier = DesktopNotifier("/work", 900.0, desktop=None, file=NotificationStore(str(tmp_path)), clock=clock)
    notifier.failed("no", needs_person=True)
    clock.go_on(10_000)
    notifier.show_due()
    assert notifier.due_s is None
    assert list(tmp_path.iterdir()) == []
