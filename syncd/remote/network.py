"""Makes connections for the HTTP library that wait with the `Waiter`.

The library's own block in the system calls. These sockets never block: each connect, handshake, read and write is
tried, and the `Waiter` waits for the socket together with the process's other events. They have the methods of
`httpcore.NetworkBackend` and `httpcore.NetworkStream`, and fail with the errors that `HttpClient` names.
"""

from __future__ import annotations

import _thread
import errno
import os
import select
import socket
import ssl
from collections.abc import Callable, Iterable
from functools import partial
from math import inf
from typing import Any, NamedTuple, TypeVar

from syncd.core.clock import SystemClock
from syncd.core.waiter import Waiter
from syncd.remote.exchange_monitor import ExchangeMonitor

# Where httpcore gives no time-out, as in the handshake with a SOCKS proxy.
_DEFAULT_TIMEOUT_S = 10.0
# The largest record of TLS (RFC 8446, 5.1).
_RECORD_BYTES = 16 << 10
# These waits are for the kernel, which no test's clock can hurry.
_CLOCK = SystemClock()

Result = TypeVar("Result")


class NetworkErrors(NamedTuple):
    """The errors by which the HTTP library knows what failed."""

    connect: type[Exception]
    connect_timeout: type[Exception]
    read: type[Exception]
    read_timeout: type[Exception]
    write: type[Exception]
    write_timeout: type[Exception]


class Network:
    """Makes connections. `monitor` is that of the current exchange, whose answer may become overdue."""

    def __init__(self, waiter: Waiter, errors: NetworkErrors) -> None:
        self.waiter = waiter
        self.errors = errors
        self.monitor: ExchangeMonitor | None = None

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,  # noqa: ARG002 - never given
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002 - never given
    ) -> _Stream:
        timeout_s = _DEFAULT_TIMEOUT_S if timeout is None else timeout
        failure: OSError = OSError("its name has no address")
        try:
            for family, kind, protocol, _, address in self._addresses(host, port, timeout_s):
                try:
                    connection = self._connect(socket.socket(family, kind, protocol), address, timeout_s)
                except OSError as error:
                    failure = error
                else:
                    return _Stream(connection, self)
        except OSError as error:
            failure = error
        raise self.connect_error(failure) from failure

    def connect_error(self, failure: OSError) -> Exception:
        """Return the library's error for a connection that could not be made."""
        kind = self.errors.connect_timeout if isinstance(failure, TimeoutError) else self.errors.connect
        return kind(str(failure))

    def wait(self, connection: socket.socket, events: int, ends_s: float) -> None:
        """Wait for these events. Raises `TimeoutError` at that second of the monotonic clock."""
        if not self.waiter.wait_ready(connection.fileno(), events, ends_s):
            raise TimeoutError("timed out")

    def wait_for_answer(self, connection: socket.socket, events: int, ends_s: float) -> None:
        """Wait as `wait` does, but no longer than the answer of the exchange may take."""
        while not self.waiter.wait_ready(connection.fileno(), events, min(ends_s, self._overdue_s())):
            self.raise_if_overdue()
            if _CLOCK.monotonic_s() >= ends_s:
                raise TimeoutError("timed out")

    def raise_if_overdue(self) -> None:
        """Raise `TimeoutError` if the answer of the exchange has taken too long, even if it still comes."""
        if self.monitor is not None and self.monitor.check_overdue(_CLOCK.monotonic_s()):
            raise TimeoutError("the answer is overdue")

    def note_read(self) -> None:
        """Note that something was read for the exchange."""
        if self.monitor is not None:
            self.monitor.note_read()

    def _overdue_s(self) -> float:
        return inf if self.monitor is None else self.monitor.overdue_s

    def _connect(self, connection: socket.socket, address: Any, timeout_s: float) -> socket.socket:
        try:
            connection.setblocking(False)
            code = connection.connect_ex(address)
            if code == errno.EINPROGRESS:
                self.wait(connection, select.POLLOUT, _CLOCK.monotonic_s() + timeout_s)
                code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            _raise_for_errno(code)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            connection.close()
            raise
        return connection

    def _addresses(self, host: str, port: int, timeout_s: float) -> list[Any]:
        """Return the addresses of a host. Raises `OSError`.

        `getaddrinfo` knows no time-out and no signal interrupts it, and without an answer from any name server it takes
        20 seconds and more: so a thread of its own looks up the name.
        """
        try:
            return _look_up(host, port, socket.AI_NUMERICHOST)
        except OSError:
            pass  # it is a name
        found: list[Any] = []
        failures: list[OSError] = []
        done, finished = socket.socketpair()

        def look_up() -> None:
            with finished:  # closing it makes the other end readable
                try:
                    found.extend(_look_up(host, port))
                except OSError as failure:
                    failures.append(failure)

        with done:
            # Not a `threading.Thread`, which the process would wait for when it exits.
            _thread.start_new_thread(look_up, ())
            if not self.waiter.wait_ready(done.fileno(), select.POLLIN, _CLOCK.monotonic_s() + timeout_s):
                raise OSError("its name cannot be looked up in time")
        if failures:
            raise failures[0]
        return found


class _Stream:
    """An open connection, plain or with TLS."""

    def __init__(self, connection: socket.socket, network: Network) -> None:
        self._connection = connection
        self._network = network

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        ends_s = _ends_s(timeout)

        def wait(events: int) -> None:
            self._network.wait_for_answer(self._connection, events, ends_s)

        try:
            self._network.raise_if_overdue()
            read = _retry_until_ready(lambda: self._receive(max_bytes), wait, select.POLLIN)
        except TimeoutError as failure:
            raise self._network.errors.read_timeout(str(failure)) from failure
        except OSError as failure:
            raise self._network.errors.read(str(failure)) from failure
        self._network.note_read()
        self._network.waiter.poll_events()
        return read

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        left = memoryview(buffer)
        ends_s = 0.0

        def wait(events: int) -> None:
            self._network.wait(self._connection, events, ends_s)

        try:
            while left:
                ends_s = _ends_s(timeout)  # each piece has its own time-out
                left = left[_retry_until_ready(partial(self._send, left), wait, select.POLLOUT) :]
                self._network.waiter.poll_events()
        except TimeoutError as failure:
            raise self._network.errors.write_timeout(str(failure)) from failure
        except OSError as failure:
            raise self._network.errors.write(str(failure)) from failure

    def close(self) -> None:
        self._connection.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> _Stream:
        ends_s = _ends_s(timeout)
        try:
            return self._start_tls(
                ssl_context, server_hostname, lambda events: self._network.wait(self._connection, events, ends_s)
            )
        except OSError as failure:
            self.close()
            raise self._network.connect_error(failure) from failure
        except BaseException:
            self.close()
            raise

    def get_extra_info(self, info: str) -> Any:
        match info:
            case "socket":
                return self._connection
            case "ssl_object":
                return self._connection if isinstance(self._connection, ssl.SSLSocket) else None
            case "is_readable":
                return self._is_readable()
        return None

    def _is_readable(self) -> bool:
        """True if a connection that expects nothing can be read, so the other side has closed it."""
        if self._connection.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        return bool(poll.poll(0))

    def _receive(self, most_bytes: int) -> bytes:
        return self._connection.recv(most_bytes)

    def _send(self, part: memoryview) -> int:
        return self._connection.send(part)

    def _start_tls(self, context: ssl.SSLContext, host: str | None, wait: Callable[[int], None]) -> _Stream:
        if isinstance(self._connection, ssl.SSLSocket):
            return _Tunnel(self._connection, self._network, context, host, wait)
        wrapped = context.wrap_socket(self._connection, server_hostname=host, do_handshake_on_connect=False)
        self._connection = wrapped
        _retry_until_ready(wrapped.do_handshake, wait, select.POLLIN)
        return _Stream(wrapped, self._network)


class _Tunnel(_Stream):
    """TLS within the TLS of a proxy that is itself reached by https. `wait` is for the handshake."""

    def __init__(
        self,
        connection: ssl.SSLSocket,
        network: Network,
        context: ssl.SSLContext,
        host: str | None,
        wait: Callable[[int], None],
    ) -> None:
        super().__init__(connection, network)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._inner = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._unsent = memoryview(b"")
        _retry_until_ready(lambda: self._run_inner(self._inner.do_handshake), wait, select.POLLIN)

    def get_extra_info(self, info: str) -> Any:
        return self._inner if info == "ssl_object" else super().get_extra_info(info)

    def _receive(self, most_bytes: int) -> bytes:
        try:
            return self._run_inner(lambda: self._inner.read(most_bytes))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    def _send(self, part: memoryview) -> int:
        self._flush()
        # The rest is flushed before the next write, and before an answer is read.
        return self._inner.write(part)

    def _run_inner(self, act: Callable[[], Result]) -> Result:
        """Return the result of `act`, given the outer TLS's input. Raises where the outer TLS has to be waited for."""
        while True:
            self._flush()
            try:
                result = act()
            except ssl.SSLWantReadError:
                self._flush()
                received = self._connection.recv(_RECORD_BYTES)
                if received:
                    self._incoming.write(received)
                else:
                    self._incoming.write_eof()
            else:
                return result  # its unflushed output goes with the next

    def _flush(self) -> None:
        while self._unsent or self._outgoing.pending:
            if not self._unsent:
                self._unsent = memoryview(self._outgoing.read())
            self._unsent = self._unsent[self._connection.send(self._unsent) :]


def _retry_until_ready(act: Callable[[], Result], wait: Callable[[int], None], events: int) -> Result:
    """Return the result of `act`, called until the socket is ready; `events` are those a plain socket waits for."""
    while True:
        try:
            return act()
        except ssl.SSLWantReadError:
            wait(select.POLLIN)
        except ssl.SSLWantWriteError:
            wait(select.POLLOUT)
        except BlockingIOError:
            wait(events)


def _raise_for_errno(code: int) -> None:
    if code:
        raise OSError(code, os.strerror(code))


def _ends_s(timeout: float | None) -> float:
    return _CLOCK.monotonic_s() + (_DEFAULT_TIMEOUT_S if timeout is None else timeout)


def _look_up(host: str, port: int, flags: int = 0) -> list[Any]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except UnicodeError:
        raise OSError("that is no host name") from None
