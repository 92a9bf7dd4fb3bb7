"""A session bus of a test's own, and a notification server on it that notes what it is asked to show."""

from __future__ import annotations

import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from jeepney import MessageType, message_bus, new_error, new_method_return
from jeepney.io.blocking import DBusConnection, Proxy, prep_socket

NAME = "org.freedesktop.Notifications"
NO_BUS = "" if shutil.which("dbus-daemon") else "dbus-daemon is not on this machine"
DEADLINE_S = 20.0
_SILENT = object()


@dataclass(frozen=True)
class Seen:
    """What one `Notify` asked for, and the number that it got."""

    number: int
    app: str
    replaces: int
    icon: str
    summary: str
    body: str
    hints: dict[str, tuple[str, Any]]
    timeout_ms: int


@dataclass
class Screen:
    """A notification server. `abilities` is what it says it can do."""

    address: str
    abilities: tuple[str, ...] = ("body", "body-markup")
    deaf_to: str = ""  # a method that it never answers
    refuses: str = ""  # a method that it answers with an error
    shown: list[Seen] = field(default_factory=list)
    _news: queue.Queue[Seen] = field(default_factory=queue.Queue)
    _numbers: Iterator[int] = field(default_factory=lambda: count(41))

    def next(self) -> Seen:
        """The next notification, waited for."""
        return self._news.get(timeout=DEADLINE_S)

    def serve(self, link: DBusConnection) -> None:
        """Until the connection ends."""
        while True:
            try:
                asked = link.receive()
            except OSError:
                return
            if asked.header.message_type is MessageType.method_call:
                answer = self._answer(asked)
                if answer is not _SILENT:
                    link.send(answer)

    def _answer(self, asked: Any) -> Any:
        method = asked.header.fields[3]
        if method == self.deaf_to:
            return _SILENT
        if method == self.refuses:
            return new_error(asked, "org.freedesktop.DBus.Error.LimitsExceeded")
        if method == "GetCapabilities":
            return new_method_return(asked, "as", (list(self.abilities),))
        app, replaces, icon, summary, body, _, hints, timeout_ms = asked.body
        seen = Seen(replaces or next(self._numbers), app, replaces, icon, summary, body, hints, timeout_ms)
        self.shown.append(seen)
        self._news.put(seen)
        return new_method_return(asked, "u", (seen.number,))


@contextmanager
def session_bus(listen: str) -> Iterator[str]:
    """A real bus that listens there; its address with all that belongs to it."""
    command = ["dbus-daemon", "--session", "--nofork", "--print-address=1", f"--address={listen}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as bus:
        assert bus.stdout is not None
        try:
            yield bus.stdout.readline().strip()
        finally:
            bus.kill()


@contextmanager
def screen(address: str, **settings: Any) -> Iterator[Screen]:
    """A notification server on the bus there, as long as the block lasts."""
    place = (
        address.partition("path=")[2].partition(",")[0] or "\0" + address.partition("abstract=")[2].partition(",")[0]
    )
    link = DBusConnection(prep_socket(place))
    (got,) = Proxy(message_bus, link).RequestName(NAME)
    assert got == 1, "somebody else has the name"
    server = Screen(address, **settings)
    thread = threading.Thread(target=server.serve, args=(link,), name="notification server")
    thread.start()
    try:
        yield server
    finally:
        link.sock.shutdown(2)
        thread.join()
        link.close()
