"""A connection to the session bus with a deadline for everything, whatever is at the other end.

jeepney makes and reads the messages (D-Bus Specification 0.43). Its own connections are not used: their login waits for
its answer without a deadline, and the daemon's one thread must not.
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

# No answer to the calls made here is longer.
_LONGEST = 1 << 16


@contextmanager
def session_bus(environ: Mapping[str, str], clock: Clock, until_s: float) -> Iterator[SessionBus]:
    """The bus of the session, until then (monotonic seconds). Raises `OSError`, or anything where it is no bus."""
    failure: OSError = ConnectionError("there is no session bus")
    with ExitStack() as stack:
        for address in addresses(environ):
            connection = _TimedSocket(stack.enter_context(socket.socket(socket.AF_UNIX)), clock, until_s)
            try:
                connection.connect(address)
            except OSError as refusal:
                failure = refusal
                continue
            yield SessionBus(connection)
            return
    raise failure


def addresses(environ: Mapping[str, str]) -> Iterator[str]:
    """The addresses of the session bus for `socket.connect`: those in the environment, else the default one.

    D-Bus Specification, "Server Addresses"; transports other than Unix sockets are left out.
    """
    given = environ.get("DBUS_SESSION_BUS_ADDRESS", "")
    if not given and environ.get("XDG_RUNTIME_DIR"):
        yield os.path.join(environ["XDG_RUNTIME_DIR"], "bus")
    for address in filter(None, given.split(";")):
        try:
            yield from get_connectable_addresses(address)
        except (ValueError, RuntimeError):  # invalid, or another transport: the next one may work
            continue


class _TimedSocket:
    """A socket whose operations all end by one deadline."""

    def __init__(self, connection: socket.socket, clock: Clock, until_s: float) -> None:
        self._socket = connection
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
            raise ConnectionError("the session bus closed the connection")
        if self._received > _LONGEST:
            raise ConnectionError("the session bus sent too much")
        return data

    def _timed(self) -> socket.socket:
        left_s = self._until_s - self._clock.monotonic_s()
        if left_s <= 0:
            raise TimeoutError("the session bus does not answer")
        self._socket.settimeout(left_s)
        return self._socket


class SessionBus:
    """A bus after the login."""

    def __init__(self, connection: _TimedSocket) -> None:
        self._connection = connection
        self._serials = count(1)
        self._parser = Parser()
        self._login_answers = b""
        login = Authenticator()
        for request in login:
            connection.send(request)
            answer = connection.receive()
            self._login_answers += answer
            login.feed(answer)
        connection.send(BEGIN)
        self._answer(message_bus.Hello())

    def call(self, path: str, name: str, method: str, signature: str = "", arguments: tuple[Any, ...] = ()) -> Any:
        """The method's answer, and the server that sent it: a name that no other program on any bus has."""
        answer = self._answer(new_method_call(DBusAddress(path, name, name), method, signature or None, arguments))
        return answer.body, f"{self._login_answers.decode().strip()} {answer.header.fields[HeaderFields.sender]}"

    def _answer(self, message: Any) -> Any:
        serial = next(self._serials)
        self._connection.send(message.serialise(serial=serial))
        while True:
            answer = self._parser.get_next_message()
            if answer is None:
                self._parser.add_data(self._connection.receive())
            elif answer.header.fields.get(HeaderFields.reply_serial) == serial:
                if answer.header.message_type is MessageType.error:
                    raise ConnectionError(f"the session bus answered {answer.header.fields[HeaderFields.error_name]}")
                return answer
