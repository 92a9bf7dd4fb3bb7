"""Connections for httpx whose every wait is the `Waiter`'s.

httpcore takes a network backend, and its own one blocks in the system calls. These sockets never block: each connect,
handshake, read and write is tried, and what cannot be done yet is waited for together with all else that may come.
Failures are httpcore's, so that httpx tells them as it would its own.
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
from typing import Any, TypeVar

import httpcore

from syncd.core.clock import SystemClock
from syncd.core.waiter import Waiter
from syncd.remote.exchange_monitor import ExchangeMonitor

# For what httpcore gives no time, such as the greetings of a SOCKS proxy.
_UNTIMED_S = 10.0
# The largest record of TLS (RFC 8446, 5.1).
_RECORD_BYTES = 16 << 10
# What is waited for here is the kernel, which no test can hurry.
_CLOCK = SystemClock()

Done = TypeVar("Done")


class Network(httpcore.NetworkBackend):
    """Makes connections. `line` is that of the exchange under way, whose answer may become overdue."""

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter
        self.line: ExchangeMonitor | None = None

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,  # noqa: ARG002 - never asked for
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002 - never asked for
    ) -> httpcore.NetworkStream:
        within_s = _UNTIMED_S if timeout is None else timeout
        failure: OSError = OSError("its name has no address")
        try:
            for family, kind, protocol, _, address in self._addresses(host, port, within_s):
                try:
                    connection = self._connected(socket.socket(family, kind, protocol), address, within_s)
                except OSError as failed:
                    failure = failed
                else:
                    return _Stream(connection, self)
        except OSError as failed:
            failure = failed
        raise _unconnected(failure) from failure

    def wait(self, connection: socket.socket, events: int, ends_s: float) -> None:
        """Until these events came. Raises `TimeoutError` at that second of the monotonic clock."""
        if not self.waiter.wait_ready(connection.fileno(), events, ends_s):
            raise TimeoutError("timed out")

    def wait_for_answer(self, connection: socket.socket, events: int, ends_s: float) -> None:
        """As `wait`, but no longer than the answer of the exchange may take."""
        while not self.waiter.wait_ready(connection.fileno(), events, min(ends_s, self._overdue_s())):
            self.see_whether_overdue()
            if _CLOCK.monotonic_s() >= ends_s:
                raise TimeoutError("timed out")

    def see_whether_overdue(self) -> None:
        """Raises `TimeoutError` where the answer of the exchange has taken too long, also where it still comes."""
        if self.line is not None and self.line.look_at_the_time(_CLOCK.monotonic_s()):
            raise TimeoutError("the answer is overdue")

    def note_read(self) -> None:
        """Something was read for the exchange."""
        if self.line is not None:
            self.line.note_read()

    def _overdue_s(self) -> float:
        return inf if self.line is None else self.line.overdue_s

    def _connected(self, connection: socket.socket, address: Any, within_s: float) -> socket.socket:
        try:
            connection.setblocking(False)
            code = connection.connect_ex(address)
            if code == errno.EINPROGRESS:
                self.wait(connection, select.POLLOUT, _CLOCK.monotonic_s() + within_s)
                code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            _check(code)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            connection.close()
            raise
        return connection

    def _addresses(self, host: str, port: int, within_s: float) -> list[Any]:
        """Where a host can be reached. Raises `OSError`.

        `getaddrinfo` heeds neither a time-out nor a signal, and without an answer from any name server it lasts for 20
        seconds and more: a name is looked up by a thread of its own.
        """
        try:
            return _looked_up(host, port, socket.AI_NUMERICHOST)
        except OSError:
            pass  # it is a name
        found: list[Any] = []
        failures: list[OSError] = []
        done, tells = socket.socketpair()

        def ask() -> None:
            with tells:  # its end is seen at the other one
                try:
                    found.extend(_looked_up(host, port))
                except OSError as failure:
                    failures.append(failure)

        with done:
            # Not a `threading.Thread`: at its end the process would wait for it.
            _thread.start_new_thread(ask, ())
            if not self.waiter.wait_ready(done.fileno(), select.POLLIN, _CLOCK.monotonic_s() + within_s):
                raise OSError("its name cannot be looked up in time")
        if failures:
            raise failures[0]
        return found


class _Stream(httpcore.NetworkStream):
    """A connection that stands, plain or with TLS."""

    def __init__(self, connection: socket.socket, network: Network) -> None:
        self._connection = connection
        self._network = network

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        ends_s = _ends_s(timeout)

        def wait(events: int) -> None:
            self._network.wait_for_answer(self._connection, events, ends_s)

        try:
            self._network.see_whether_overdue()
            read = _tried(lambda: self._receive(max_bytes), wait, select.POLLIN)
        except TimeoutError as failure:
            raise httpcore.ReadTimeout(str(failure)) from failure
        except OSError as failure:
            raise httpcore.ReadError(str(failure)) from failure
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
                ends_s = _ends_s(timeout)  # each piece that is taken has its own time
                left = left[_tried(partial(self._send, left), wait, select.POLLOUT) :]
                self._network.waiter.poll_events()
        except TimeoutError as failure:
            raise httpcore.WriteTimeout(str(failure)) from failure
        except OSError as failure:
            raise httpcore.WriteError(str(failure)) from failure

    def close(self) -> None:
        self._connection.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        ends_s = _ends_s(timeout)
        try:
            return self._wrapped(
                ssl_context, server_hostname, lambda events: self._network.wait(self._connection, events, ends_s)
            )
        except OSError as failure:
            self.close()
            raise _unconnected(failure) from failure
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
        """For a connection that nothing is expected from: whether it has ended."""
        if self._connection.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        return bool(poll.poll(0))

    def _receive(self, most_bytes: int) -> bytes:
        return self._connection.recv(most_bytes)

    def _send(self, part: memoryview) -> int:
        return self._connection.send(part)

    def _wrapped(self, context: ssl.SSLContext, host: str | None, wait: Callable[[int], None]) -> _Stream:
        if isinstance(self._connection, ssl.SSLSocket):
            return _Tunnel(self._connection, self._network, context, host, wait)
        wrapped = context.wrap_socket(self._connection, server_hostname=host, do_handshake_on_connect=False)
        self._connection = wrapped
        _tried(wrapped.do_handshake, wait, select.POLLIN)
        return _Stream(wrapped, self._network)


class _Tunnel(_Stream):
    """TLS within the TLS of a proxy that is itself asked by https. `wait` is for the handshake."""

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
        _tried(lambda: self._passed_through(self._inner.do_handshake), wait, select.POLLIN)

    def get_extra_info(self, info: str) -> Any:
        return self._inner if info == "ssl_object" else super().get_extra_info(info)

    def _receive(self, most_bytes: int) -> bytes:
        try:
            return self._passed_through(lambda: self._inner.read(most_bytes))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    def _send(self, part: memoryview) -> int:
        self._bring_out()
        # What stays here of it is brought out before the next one, and before an answer is read.
        return self._inner.write(part)

    def _passed_through(self, act: Callable[[], Done]) -> Done:
        """What the act comes to, with what comes in for it. Raises what tells to wait for the outer TLS."""
        while True:
            self._bring_out()
            try:
                done = act()
            except ssl.SSLWantReadError:
                self._bring_out()
                came = self._connection.recv(_RECORD_BYTES)
                if came:
                    self._incoming.write(came)
                else:
                    self._incoming.write_eof()
            else:
                return done  # what it leaves to bring out goes with the next

    def _bring_out(self) -> None:
        while self._unsent or self._outgoing.pending:
            if not self._unsent:
                self._unsent = memoryview(self._outgoing.read())
            self._unsent = self._unsent[self._connection.send(self._unsent) :]


def _tried(act: Callable[[], Done], wait: Callable[[int], None], events: int) -> Done:
    """What the act comes to, once it can be done; `events` are those that a plain socket waits for."""
    while True:
        try:
            return act()
        except ssl.SSLWantReadError:
            wait(select.POLLIN)
        except ssl.SSLWantWriteError:
            wait(select.POLLOUT)
        except BlockingIOError:
            wait(events)


def _check(code: int) -> None:
    if code:
        raise OSError(code, os.strerror(code))


def _ends_s(timeout: float | None) -> float:
    return _CLOCK.monotonic_s() + (_UNTIMED_S if timeout is None else timeout)


def _looked_up(host: str, port: int, flags: int = 0) -> list[Any]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except UnicodeError:
        raise OSError("that is no host name") from None


def _unconnected(failure: OSError) -> Exception:
    kind = httpcore.ConnectTimeout if isinstance(failure, TimeoutError) else httpcore.ConnectError
    return kind(str(failure))
