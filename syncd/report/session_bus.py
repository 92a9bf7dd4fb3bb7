"""The session bus: a connection on which nothing takes longer than it may, whatever is at the other end.

jeepney makes and reads the messages (D-Bus Specification 0.43). Its own connections are not used: their greeting waits
for its answer without end, and the daemon's one thread must not.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any

from jeepney import DBusAddress, HeaderFields, MessageType, Parser, message_bus, new_method_call
from jeepney.auth import BEGIN, Authenticator
from jeepney.bus import get_connectable_addresses

from syncd.core.clock import Clock

# No answer to what is asked here is longer.
_LONGEST = 1 << 16


@contextmanager
def session_bus(environ: Mapping[str, str], clock: Clock, until_s: float) -> Iterator[SessionBus]:
    """The bus of the session, until then (monotonic seconds). Raises `OSError`, or anything where it is no bus."""
    failure: OSError = ConnectionError("there is no session bus")
    with ExitStack() as opened:
        for address in addresses(environ):
            line = _Line(opened.enter_context(socket.socket(socket.AF_UNIX)), clock, until_s)
            try:
                line.connect(address)
            except OSError as refusal:
                failure = refusal
                continue
            yield SessionBus(line)
            return
    raise failure


def addresses(environ: Mapping[str, str]) -> Iterator[str]:
    """Where the session bus may be, as `socket.connect` takes it: where the session says, else in the usual place.

    D-Bus Specification, "Server Addresses"; transports other than Unix sockets are left out.
    """
    given = environ.get("DBUS_SESSION_BUS_ADDRESS", "")
    if not given and environ.get("XDG_RUNTIME_DIR"):
        yield os.path.join(environ["XDG_RUNTIME_DIR"], "bus")
    for address in filter(None, given.split(";")):
        try:
            yield from get_connectable_addresses(address)
        except (ValueError, RuntimeError):  # nonsense, or another transport: the next one may do
            continue


class _Line:
    """A socket with an end of all patience."""

    def __init__(self, link: socket.socket, clock: Clock, until_s: float) -> None:
        self._link = link
        self._clock = clock
        self._until_s = until_s
        self._received = 0

    def connect(self, address: str) -> None:
        self._timed().connect(address)

    def send(self, data: bytes) -> None:
        self._timed().sendall(data)

    def receive(self) -> bytes:
        data = self._timed().recv(4096)
        self._received += len(data)
        if not data:
            raise ConnectionError("the session bus hung up")
        if self._received > _LONGEST:
            raise ConnectionError("the session bus says too much")
        return data

    def _timed(self) -> socket.socket:
        left_s = self._until_s - self._clock.monotonic_s()
        if left_s <= 0:
            raise TimeoutError("the session bus does not answer")
        self._link.settimeout(left_s)
        return self._link


class SessionBus:
    """The bus at the end of a line, greeted."""

    def __init__(self, line: _Line) -> None:
        self._line = line
        self._serials = count(1)
        self._parser = Parser()
        self._welcome = b""
        login = Authenticator()
        for words in login:
            line.send(words)
            answer = line.receive()
            self._welcome += answer
            login.feed(answer)
        line.send(BEGIN)
        self._answer(message_bus.Hello())

    def ask(self, path: str, name: str, method: str, signature: str = "", words: tuple[Any, ...] = ()) -> Any:
        """What the object there answers, and who that is: a name no other bus and no other program has."""
        answer = self._answer(new_method_call(DBusAddress(path, name, name), method, signature or None, words))
        return answer.body, f"{self._welcome.decode().strip()} {answer.header.fields[HeaderFields.sender]}"

    def _answer(self, message: Any) -> Any:
        serial = next(self._serials)
        self._line.send(message.serialise(serial=serial))
        while True:
            answer = self._parser.get_next_message()
            if answer is None:
                self._parser.add_data(self._line.receive())
            elif answer.header.fields.get(HeaderFields.reply_serial) == serial:
                if answer.header.message_type is MessageType.error:
                    raise ConnectionError(f"the session bus says {answer.header.fields[HeaderFields.error_name]}")
                return answer
