"""The connections under httpcore: they wait with the `Waiter`, and each exchange over them is monitored.

httpcore's own block in the system calls. These sockets never block: each connect, handshake, read and write is tried,
and the `Waiter` waits for the socket together with the process's other events. The addresses of a name are tried side
by side (RFC 8305), since one that does not answer would else cost its whole time-out.

The monitor knows what httpcore does not: the bytes that tcp(7) counts, and the deadline of the answer.

- A server may close a kept connection in the same instant as the next request is sent over it. Then not one byte of the
  request is acknowledged: in all likelihood none was read, and it may be sent again at once (RFC 9112, 9.3.1).
- A server, or a proxy, may answer twice. What is left over from the last exchange was read from the network before this
  request was sent, so it is no answer to it.
- A server may refuse a request in the middle of its body, and read no further. Its answer is read while the body is
  sent; the rest is not sent.
- A time-out for each read never ends an answer that comes one byte a minute, or interim answers without end; and it
  begins when the kernel has taken the request, which a slow uplink may go on sending for minutes.
- The kernel takes some MiB of a body at once. Only the other side's acknowledgements show how much of it has arrived.
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import fcntl
import os
import re
import select
import socket
import ssl
import struct
import sys
import termios
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import zip_longest
from math import inf
from typing import Any, TypeVar

import httpcore
from msgspec import Struct

from syncd.core.clock import SystemClock
from syncd.core.waiter import Waiter

# Where httpcore gives no time-out, as in the handshake with a SOCKS proxy.
_DEFAULT_TIMEOUT_S = 10.0
# After so long without an answer the next address is tried as well (RFC 8305, 5).
_NEXT_ADDRESS_S = 0.25
_READ_BYTES = 64 << 10
# Of `struct tcp_info` (linux/tcp.h): tcpi_bytes_acked and tcpi_bytes_received, two numbers of 64 bits.
_COUNTS = struct.Struct("QQ")
_COUNTS_AT = 120
_INTERIM_ANSWER = re.compile(rb"HTTP/1\.[01] 1[0-9]{2}\b.*?\r\n\r\n", re.DOTALL)
_INTERIM_BEGINNING = re.compile(rb"HTTP/1\.[01] 1")
# The part of an answer that tells an interim one from a final one.
_STATUS_BYTES = len("HTTP/1.1 1")
# TCP keepalive shows a dead connection before it is used (tcp(7)), and has the routers between keep its state. Half a
# minute is within the shortest time after which they drop it.
_KEEPALIVE_IDLE_S = 30
_KEEPALIVE_INTERVAL_S = 5
_KEEPALIVE_PROBES = 3
# These waits are for the kernel, which no test's clock can hurry.
_CLOCK = SystemClock()

Result = TypeVar("Result")


class StaleResponse(Exception):
    """An answer that was received before its request was sent."""


class NetworkRoute(Struct, frozen=True):
    """A connection's local address and its peer, as the system writes them.

    Nothing reports by itself that this machine's routes have changed. A connection is dead then: what is sent from an
    address that this machine no longer has is lost, and TCP repeats it for minutes.
    """

    local: str
    peer: tuple[Any, ...]

    def is_unchanged(self) -> bool:
        """True if this machine would still use that local address. No packet is sent."""
        family = socket.AF_INET6 if ":" in self.peer[0] else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect(self.peer)  # for datagrams this only chooses the route (udp(7))
                return str(probe.getsockname()[0]) == self.local
        except OSError:
            return False


def route_of(connection: socket.socket) -> NetworkRoute | None:
    """Return the connection's route; None if it has none any more."""
    try:
        return NetworkRoute(connection.getsockname()[0], connection.getpeername())
    except OSError:
        return None


def enable_keepalive(connection: socket.socket) -> None:
    """Have the kernel check that the peer is alive, which wakes up no process."""
    with contextlib.suppress(OSError):  # it has just ended
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES)


class ByteCounts(Struct, frozen=True):
    """Bytes acknowledged by the other side, and received from it, since the connection was made."""

    acked_bytes: int
    received_bytes: int


def byte_counts(connection: socket.socket) -> ByteCounts | None:
    """Return the counts of a connection; None if this system does not count."""
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _COUNTS_AT + _COUNTS.size)
        return ByteCounts(*_COUNTS.unpack_from(info, _COUNTS_AT))
    except (AttributeError, OSError, struct.error):
        return None


def queued_bytes(connection: socket.socket | None) -> int:
    """Return the bytes that the kernel holds unsent or unacknowledged (tcp(7), SIOCOUTQ)."""
    try:
        return int.from_bytes(fcntl.ioctl(connection or -1, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (OSError, ValueError):
        return 0


class AckTracker:
    """Counts how much of a body, about to be sent over this connection, the other side has acknowledged."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._before_bytes = self._out_and_queued()[0]
        self._acked_bytes = 0

    def acked_bytes(self, written_bytes: int) -> int:
        """Return how many of the body's written bytes are acknowledged; all, if this system does not count them.

        TLS adds bytes, so the acknowledged share of all that went out is applied to the body.
        """
        out_bytes, queued = self._out_and_queued()
        if not self._before_bytes or not queued:
            return written_bytes
        out_bytes -= self._before_bytes
        share = max(0, out_bytes - queued) / max(1, out_bytes)
        self._acked_bytes = max(self._acked_bytes, min(written_bytes, int(share * written_bytes)))
        return self._acked_bytes

    def _out_and_queued(self) -> tuple[int, int]:
        """Return the bytes that went out in all, and those of them that the kernel holds; zeros if not known."""
        counts = byte_counts(self._connection)  # first: what is acknowledged between the two counts as arrived
        queued = queued_bytes(self._connection)
        return (0, 0) if counts is None else (counts.acked_bytes + queued, queued)


class ExchangeMonitor:
    """Monitors one exchange. Its connection reports each step; `HttpClient` reports the head of the answer.

    The answer may take `answer_s` seconds from the request's end, and as long again each time that more of the request
    has left this machine. `connection`: the last one that anything was sent over; `unread`: it was a kept one, and
    ended before it took a byte; `is_sending`: from the head of a request to the first read after it; `is_cut`: its
    rest was not sent; `overdue`: the answer took too long; `overdue_s`: the monotonic second
    of that, if nothing more leaves.
    """

    def __init__(self, answer_s: float) -> None:
        self.connection: socket.socket | None = None
        self.route: NetworkRoute | None = None
        self.overdue = False
        self.overdue_s = inf
        self.unread = False
        self.is_sending = False
        self.is_cut = False
        self._answer_s = answer_s
        self._is_kept = False
        self._is_answered = False
        self._before: ByteCounts | None = None
        self._queued_bytes = 0
        self._has_read = False

    @property
    def reached(self) -> bool:
        """True if a connection was made."""
        return self.connection is not None

    def cancel_deadline(self) -> None:
        """Allow the rest of the answer any time."""
        self.overdue_s = inf

    def check_overdue(self, now_s: float) -> bool:
        """True if the answer is overdue now; moves the deadline if more of the request has left this machine."""
        if now_s < self.overdue_s:
            return False
        before, self._queued_bytes = self._queued_bytes, queued_bytes(self.connection)
        if 0 < self._queued_bytes != before:
            self.overdue_s = now_s + self._answer_s
            return False
        self.overdue = True
        return True

    def note_head(self, connection: socket.socket, route: NetworkRoute | None, earlier: ExchangeMonitor | None) -> None:
        """Note that the head of a request, also of one to a proxy, is about to be sent over this connection.

        `earlier` is the monitor of the last request over it, if there was one.
        """
        self.connection, self.route, self.is_sending = connection, route, True
        self._is_kept = earlier not in (None, self)
        self._before = byte_counts(connection)
        self._has_read = False
        self.cancel_deadline()  # a proxy's answer comes before the server's

    def note_sent(self) -> None:
        """Note that nothing more of the request is written; the time for the answer begins."""
        self.is_sending = False
        self.overdue_s, self._queued_bytes = _CLOCK.monotonic_s() + self._answer_s, 0

    def note_read(self) -> None:
        self._has_read = True

    def note_answer(self) -> None:
        """Note that the head of an answer was read. Raises `StaleResponse`."""
        # The kernel's count is not enough: the genuine answer may have come while the old one was buffered.
        if self._is_kept and (not self._has_read or self._is_same_count("received_bytes")):
            raise StaleResponse
        self._is_answered = True

    def note_close(self) -> None:
        if self._is_answered and not self.is_cut:
            return
        self.unread = self._is_kept and not self._is_answered and self._is_same_count("acked_bytes")
        # The kernel would go on for minutes with what it holds: an upload that was given up would be complete in the
        # end and might replace a newer one just before that is initialized.
        if self.connection is not None:
            with contextlib.suppress(OSError):
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _is_same_count(self, which: str) -> bool:
        now = None if self.connection is None else byte_counts(self.connection)
        return now is not None and self._before is not None and getattr(now, which) == getattr(self._before, which)


class Network(httpcore.NetworkBackend):
    """Makes connections. `monitor` is that of the current exchange."""

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter
        self.monitor = ExchangeMonitor(inf)

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,  # noqa: ARG002 - never given
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002 - never given
    ) -> _Stream:
        ends_s = _ends_s(timeout)
        with _translated(httpcore.ConnectTimeout, httpcore.ConnectError):
            connection = self._connect(_interleaved(self._addresses(host, port, ends_s)), ends_s)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            enable_keepalive(connection)
        return _Stream(connection, self)

    def wait(self, connection: socket.socket, events: int, ends_s: float) -> None:
        """Wait for these events. Raises `TimeoutError` at that second of the monotonic clock."""
        if not self.waiter.wait_ready(connection.fileno(), events, ends_s):
            raise TimeoutError("timed out")

    def wait_for_answer(self, connection: socket.socket, events: int, ends_s: float) -> None:
        """Wait as `wait` does, but no longer than the answer of the exchange may take."""
        while not self.waiter.wait_ready(connection.fileno(), events, min(ends_s, self.monitor.overdue_s)):
            self.raise_if_overdue()
            if _CLOCK.monotonic_s() >= ends_s:
                raise TimeoutError("timed out")

    def raise_if_overdue(self) -> None:
        """Raise `TimeoutError` if the answer of the exchange has taken too long, even if it still comes."""
        if self.monitor.check_overdue(_CLOCK.monotonic_s()):
            raise TimeoutError("the answer is overdue")

    def _connect(self, addresses: list[Any], ends_s: float) -> socket.socket:
        """Return the first connection that is made to one of these addresses of `getaddrinfo`. Raises `OSError`."""
        failure = OSError("its name has no address")
        attempts: dict[int, socket.socket] = {}
        with select.epoll() as epoll:
            try:
                while addresses or attempts:
                    if addresses:
                        try:
                            attempt = _attempt(addresses.pop(0))
                        except OSError as error:
                            failure = error
                            continue
                        attempts[attempt.fileno()] = attempt
                        epoll.register(attempt, select.EPOLLOUT)
                    next_s = min(ends_s, _CLOCK.monotonic_s() + _NEXT_ADDRESS_S) if addresses else ends_s
                    if not self.waiter.wait_ready(epoll.fileno(), select.POLLIN, next_s) and next_s >= ends_s:
                        raise TimeoutError("timed out")
                    for descriptor, _ in epoll.poll(0):
                        code = attempts[descriptor].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                        if not code:
                            return attempts.pop(descriptor)
                        failure = OSError(code, os.strerror(code))
                        attempts.pop(descriptor).close()
            finally:
                for attempt in attempts.values():
                    attempt.close()
        raise failure

    def _addresses(self, host: str, port: int, ends_s: float) -> list[Any]:
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
            if not self.waiter.wait_ready(done.fileno(), select.POLLIN, ends_s):
                raise OSError("its name cannot be looked up in time")
        if failures:
            raise failures[0]
        return found


class _Stream(httpcore.NetworkStream):
    """An open connection: a socket that does not block, or TLS over one."""

    def __init__(self, connection: socket.socket, network: Network) -> None:
        self._connection = connection
        self._network = network
        self._route = route_of(connection)
        self._monitor: ExchangeMonitor | None = None
        self._early_answer = b""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._network.monitor.is_sending:
            self._network.monitor.note_sent()
        if self._early_answer:
            read, self._early_answer = self._early_answer[:max_bytes], self._early_answer[max_bytes:]
            return read
        ends_s = _ends_s(timeout)

        def wait(events: int) -> None:
            self._network.wait_for_answer(self._connection, events, ends_s)

        with _translated(httpcore.ReadTimeout, httpcore.ReadError):
            self._network.raise_if_overdue()
            read = _retry_until_ready(lambda: self._connection.recv(max_bytes), wait, select.POLLIN)
        self._network.monitor.note_read()
        self._network.waiter.poll_events()
        return read

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        monitor, left = self._network.monitor, memoryview(buffer)
        is_body = monitor.is_sending
        if left and not is_body:
            monitor.note_head(self._connection, self._route, self._monitor)
            self._monitor = monitor
        ends_s = 0.0
        monitor.is_cut = True  # until all of this part is sent

        def wait(events: int) -> None:
            self._network.wait(self._connection, events | (select.POLLIN if is_body else 0), ends_s)
            if is_body:
                self._stop_if_answered()

        with _translated(httpcore.WriteTimeout, httpcore.WriteError):
            while left:
                if is_body:
                    self._stop_if_answered()
                ends_s = _ends_s(timeout)  # each piece has its own time-out
                left = left[_retry_until_ready(partial(self._connection.send, left), wait, select.POLLOUT) :]
                self._network.waiter.poll_events()
        monitor.is_cut = False

    def _stop_if_answered(self) -> None:
        """End the body if the server has answered before it had all. Raises `OSError`, upon which httpcore reads."""
        try:
            read = self._connection.recv(_READ_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        self._network.monitor.note_read()
        self._early_answer += read
        rest = _INTERIM_ANSWER.sub(b"", self._early_answer)
        is_final = len(rest) >= _STATUS_BYTES and not _INTERIM_BEGINNING.match(rest)
        if not read or is_final or len(rest) > _READ_BYTES:
            raise OSError("the server wants no more of the request")

    def close(self) -> None:
        if self._monitor is not None and self._monitor is self._network.monitor:
            self._monitor.note_close()
        self._connection.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> _Stream:
        ends_s = _ends_s(timeout)

        def wait(events: int) -> None:
            self._network.wait(self._connection, events, ends_s)

        try:
            with _translated(httpcore.ConnectTimeout, httpcore.ConnectError):
                self._connection = tls = ssl_context.wrap_socket(
                    self._connection, do_handshake_on_connect=False, server_hostname=server_hostname
                )
                _retry_until_ready(tls.do_handshake, wait, select.POLLIN)
        except BaseException:
            self.close()
            raise
        return _Stream(tls, self._network)

    def get_extra_info(self, info: str) -> Any:
        match info:
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


@contextlib.contextmanager
def _translated(timeout: type[Exception], failed: type[Exception]) -> Iterator[None]:
    """Raise httpcore's errors for the system's. After a failed write it still reads an answer."""
    try:
        yield
    except TimeoutError as failure:
        raise timeout(str(failure)) from failure
    except OSError as failure:
        raise failed(str(failure)) from failure


def _interleaved(addresses: list[Any]) -> list[Any]:
    """Return the addresses with the two families in turn, beginning with the preferred one (RFC 8305, 4)."""
    preferred = [each for each in addresses if each[0] == addresses[0][0]]
    others = [each for each in addresses if each[0] != addresses[0][0]]
    return [each for pair in zip_longest(preferred, others) for each in pair if each is not None]


def _attempt(found: Any) -> socket.socket:
    """Begin to connect to an address of `getaddrinfo`. Raises `OSError` if that fails at once."""
    family, kind, protocol, _, address = found
    connection = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
    code = connection.connect_ex(address)
    if code not in (0, errno.EINPROGRESS):
        connection.close()
        raise OSError(code, os.strerror(code))
    return connection


def _ends_s(timeout: float | None) -> float:
    return _CLOCK.monotonic_s() + (_DEFAULT_TIMEOUT_S if timeout is None else timeout)


def _look_up(host: str, port: int, flags: int = 0) -> list[Any]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except UnicodeError:
        raise OSError("that is no host name") from None
