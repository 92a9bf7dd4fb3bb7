"""A connection to a D-Bus message bus with a deadline for everything, whatever is at the other end.

jeepney makes and reads the messages (D-Bus Specification 0.43). Its own connections are not used: their login waits for
its answer without a deadline, and the daemon's one thread must not.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any, NamedTuple

from jeepney import (
    DBusAddress,
    HeaderFields,
    MessageFlag,
    MessageType,
    Parser,
    message_bus,
    new_method_call,
)
from jeepney.auth import BEGIN, Authenticator
from jeepney.bus import get_connectable_addresses

from syncd.core.clock import Clock

# No message that is asked for here is longer.
_LONGEST = 1 << 16
_SYSTEM_BUS = "unix:path=/var/run/dbus/system_bus_socket"


@contextmanager
def connected(addresses: Iterable[str], clock: Clock, until_s: float) -> Iterator[MessageBus]:
    """The bus at the first address where one answers, with a deadline (monotonic seconds).

    Raises `OSError`, or anything where it is no bus.
    """
    failure: OSError = ConnectionError("there is no such bus")
    with ExitStack() as stack:
        for address in addresses:
            connection = _TimedSocket(stack.enter_context(socket.socket(socket.AF_UNIX)), clock, until_s)
            try:
                connection.connect(address)
            except OSError as refusal:
                failure = refusal
                continue
            yield MessageBus(connection)
            return
    raise failure


def session_addresses(environ: Mapping[str, str]) -> Iterator[str]:
    """The addresses of the session's bus for `socket.connect`: those in the environment, else the default one."""
    given = environ.get("DBUS_SESSION_BUS_ADDRESS", "")
    if not given and environ.get("XDG_RUNTIME_DIR"):
        yield os.path.join(environ["XDG_RUNTIME_DIR"], "bus")
    yield from _connectable(given)


def system_addresses(environ: Mapping[str, str]) -> Iterator[str]:
    """The same of the system's bus."""
    return _connectable(environ.get("DBUS_SYSTEM_BUS_ADDRESS") or _SYSTEM_BUS)


def _connectable(addresses: str) -> Iterator[str]:
    """D-Bus Specification, "Server Addresses"; transports other than Unix sockets are left out."""
    for address in filter(None, addresses.split(";")):
        try:
            yield from get_connectable_addresses(address)
        except (ValueError, RuntimeError):  # invalid, or another transport: the next one may work
            continue


class _TimedSocket:
    """A socket whose operations all end by a deadline."""

    def __init__(self, connection: socket.socket, clock: Clock, until_s: float) -> None:
        self._socket = connection
        self._clock = clock
        self._received = 0
        self.until_s = until_s

    def connect(self, address: str) -> None:
        self._timed().connect(address)

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, data: bytes) -> None:
        self._timed().sendall(data)

    def receive(self) -> bytes:
        data = self._timed().recv(4096)
        self._received += len(data)
        if not data:
            raise ConnectionError("the bus closed the connection")
        if self._received > _LONGEST:
            raise ConnectionError("the bus sent too much")
        return data

    def completed(self) -> None:
        """Begin to count the bytes of the next message."""
        self._received = 0

    def _timed(self) -> socket.socket:
        left_s = self.until_s - self._clock.monotonic_s()
        if left_s <= 0:
            raise TimeoutError("the bus does not answer")
        self._socket.settimeout(left_s)
        return self._socket


class Received(NamedTuple):
    """A message: a signal, or the answer to the call with the number `answers`. That of an error has no body."""

    answers: int | None
    body: tuple[Any, ...]


class MessageBus:
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

    # -- without waiting for answers

    def fileno(self) -> int:
        """The descriptor that becomes readable when a message comes."""
        return self._connection.fileno()

    def wait_until(self, until_s: float) -> None:
        """Set the deadline of what follows."""
        self._connection.until_s = until_s

    def subscribe(self, rule: str) -> None:
        """Have the bus send the signals that match the rule."""
        self._send(message_bus.AddMatch(rule))

    def ask_property(self, path: str, name: str, key: str) -> int:
        """Ask a server that runs for a property; returns the number of the call."""
        properties = DBusAddress(path, name, "org.freedesktop.DBus.Properties")
        question = new_method_call(properties, "Get", "ss", (name, key))
        question.header.flags |= MessageFlag.no_auto_start
        return self._send(question)

    def received(self) -> list[Received]:
        """The messages that are whole with the next data, for which it waits."""
        self._parser.add_data(self._connection.receive())
        messages = []
        for message in iter(self._parser.get_next_message, None):
            self._connection.completed()
            is_error = message.header.message_type is MessageType.error
            messages.append(
                Received(message.header.fields.get(HeaderFields.reply_serial), () if is_error else message.body)
            )
        return messages

    def _send(self, message: Any) -> int:
        serial = next(self._serials)
        self._connection.send(message.serialise(serial=serial))
        return serial

    def _answer(self, message: Any) -> Any:
        serial = self._send(message)
        while True:
            answer = self._parser.get_next_message()
            if answer is None:
                self._parser.add_data(self._connection.receive())
            elif answer.header.fields.get(HeaderFields.reply_serial) == serial:
                if answer.header.message_type is MessageType.error:
                    raise ConnectionError(f"the bus answered {answer.header.fields[HeaderFields.error_name]}")
                return answer
