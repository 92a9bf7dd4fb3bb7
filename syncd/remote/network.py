"""The connections under httpcore: they wait with the `Waiter`, and each exchange over them is a state machine.

httpcore's own block in the system calls. These sockets never block: each connect, handshake, read and write is tried,
and the `Waiter` waits for the socket together with the process's other events. The addresses of a name are tried side
by side (RFC 8305), since one that does not answer would else cost its whole time-out.

An `Exchange` knows what httpcore does not, by `_STEPS` and by what tcp(7) counts:

- A server may close a kept connection in the same instant as the next request is sent over it. Then not one byte of the
  request is acknowledged: in all likelihood none was read, and it may be sent again at once (RFC 9112, 9.3.1).
- A server may refuse a request in the middle of its body, and read no further: its answer is read, the rest not sent.
  An informational answer (RFC 9110, 15.2) ends nothing.
- An answer for which nothing was read since the request was sent came with the one before: it is no answer to this one.
- A time-out of each read never ends an answer that comes one byte a minute, and begins when the kernel has taken the
  request, which a slow uplink sends for minutes. So the answer has a deadline, which moves while more of that leaves.
- The kernel would go on for minutes with what it holds of an upload that was given up, which might then replace a newer
  one just before that is initialized. So such a connection is reset.
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
from collections.abc import Callable, Iterator
from enum import Enum
from functools import partial
from itertools import zip_longest
from math import inf
from typing import Any, TypeVar

import httpcore

from syncd.core.clock import SystemClock
from syncd.core.waiter import Waiter

# Where httpcore gives no time-out, as in the handshake with a SOCKS proxy.
_DEFAULT_TIMEOUT_S = 10.0
# After so long without an answer the next address is tried as well (RFC 8305, 5).
_NEXT_ADDRESS_S = 0.25
_READ_BYTES = 64 << 10
# Of `struct tcp_info` (linux/tcp.h): tcpi_bytes_acked, a number of 64 bits.
_ACKED = struct.Struct("Q")
_ACKED_AT = 120
# The heads of informational answers, which may come at any time (RFC 9110, 15.2); 101 is a final one.
_INFORMATIONAL = re.compile(rb"(?:HTTP/1\.1 1(?!01)[0-9]{2}.*?\r\n\r\n)*", re.DOTALL)
# These waits are for the kernel, which no test's clock can hurry.
_CLOCK = SystemClock()

Result = TypeVar("Result")


def acked_bytes(connection: socket.socket) -> int | None:
    """Return the bytes that the other side acknowledged since the connection was made; None if nobody counts them."""
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED_AT + _ACKED.size)
        return int(_ACKED.unpack_from(info, _ACKED_AT)[0])
    except (AttributeError, OSError, struct.error):
        return None


def queued_bytes(connection: socket.socket) -> int:
    """Return the bytes that the kernel holds unsent or unacknowledged (tcp(7), SIOCOUTQ)."""
    try:
        return int.from_bytes(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (OSError, ValueError):
        return 0


class AckTracker:
    """Counts how much of a body, about to be sent over this connection, the other side has acknowledged."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        acked = acked_bytes(connection)
        self._before = None if acked is None else acked + queued_bytes(connection)

    def acked_bytes(self, written_bytes: int) -> int:
        """Return how many of the body's written bytes are acknowledged; all, if this system does not count them.

        The little that TLS adds counts as well, so the last block may count a moment early.
        """
        acked = acked_bytes(self._connection)
        if acked is None or self._before is None:
            return written_bytes
        return max(0, min(written_bytes, acked - self._before))


class Phase(Enum):
    """The phase that an exchange is in."""

    IDLE = "nothing was sent yet"
    HEAD = "the head of a request is being sent, also of one to a proxy"
    BODY = "its body is being sent"
    CUT = "its rest is not sent: the server answered or ended before it had all"
    WAITING = "it was written, and the answer is due"
    ANSWERED = "the head of its answer was read"
    REFUSED = "the head of an answer was read that came before the server had the whole request"
    STALE = "the head of an answer was read that came before the request was sent"
    UNREAD = "a kept connection ended before it took a byte: the request may be sent again"
    OVER = "the connection ended"


class Step(Enum):
    """The next thing that happens in an exchange."""

    WRITE = "a part of a request is about to be written"
    FAIL = "it could not be written to its end"
    READ = "an answer is read from the network"
    ANSWER = "the head of the server's answer is complete"
    END = "the connection is closed"
    END_UNREAD = "the same, of a kept one over which nothing of the request was acknowledged"


_STEPS: dict[tuple[Phase, Step], Phase] = {
    (Phase.IDLE, Step.WRITE): Phase.HEAD,
    (Phase.HEAD, Step.WRITE): Phase.BODY,  # httpcore sends the head by one call
    (Phase.WAITING, Step.WRITE): Phase.HEAD,  # a proxy let it through
    (Phase.HEAD, Step.FAIL): Phase.CUT,
    (Phase.BODY, Step.FAIL): Phase.CUT,
    (Phase.HEAD, Step.READ): Phase.WAITING,
    (Phase.BODY, Step.READ): Phase.WAITING,
    (Phase.HEAD, Step.ANSWER): Phase.STALE,
    (Phase.BODY, Step.ANSWER): Phase.STALE,
    (Phase.CUT, Step.ANSWER): Phase.REFUSED,
    (Phase.WAITING, Step.ANSWER): Phase.ANSWERED,
    **{(phase, Step.END): Phase.OVER for phase in Phase if phase is not Phase.UNREAD},
    **{(phase, Step.END_UNREAD): Phase.UNREAD for phase in (Phase.HEAD, Phase.BODY, Phase.CUT, Phase.WAITING)},
    **{(phase, Step.END_UNREAD): Phase.OVER for phase in (Phase.STALE, Phase.REFUSED, Phase.ANSWERED)},
}


class Exchange:
    """One request and its answer. Its connection reports each step, but the answer's head, which `HttpClient` does.

    The answer may take `answer_s` seconds from the request's end, and as long again each time that more of the request
    has left this machine; `overdue_s` is the monotonic second of that, if nothing more leaves. `connection` is the one
    that the request was sent over, if any was made.
    """

    def __init__(self, answer_s: float) -> None:
        self.phase = Phase.IDLE
        self.connection: socket.socket | None = None
        self.overdue_s = inf
        self._answer_s = answer_s
        self._acked_before: int | None = None  # by a kept connection
        self._queued_bytes = 0

    def step(self, step: Step) -> Phase:
        """Take a step, of which some phases take no notice, and return the phase that it leads to."""
        self.phase = _STEPS.get((self.phase, step), self.phase)
        return self.phase

    def begin_write(self, connection: socket.socket, earlier: Exchange | None) -> None:
        """Note that a part of a request is about to be written; `earlier` is the connection's exchange before."""
        if self.step(Step.WRITE) is Phase.HEAD:
            self.connection = connection
            self._acked_before = None if earlier in (None, self) else acked_bytes(connection)
            self.overdue_s = inf  # a proxy's answer came before the server's

    def begin_read(self) -> None:
        """Note that nothing more of the request is written: the time for the answer begins."""
        if self.step(Step.READ) in (Phase.WAITING, Phase.CUT) and self.overdue_s == inf:
            self.overdue_s, self._queued_bytes = _CLOCK.monotonic_s() + self._answer_s, 0

    def raise_if_late(self, ends_s: float = inf) -> None:
        """Raise `TimeoutError` from that second on, and if the answer has taken too long, even if it still comes."""
        now_s = _CLOCK.monotonic_s()
        if now_s >= ends_s:
            raise TimeoutError("timed out")
        if now_s < self.overdue_s or self.connection is None:
            return
        before, self._queued_bytes = self._queued_bytes, queued_bytes(self.connection)
        if self._queued_bytes in (0, before):
            raise TimeoutError("the answer is overdue")
        self.overdue_s = now_s + self._answer_s

    def end(self) -> None:
        """Note that the connection is about to be closed; what the kernel still holds of the request is not sent."""
        if self.connection is None:
            return
        if self.phase is not Phase.ANSWERED:
            with contextlib.suppress(OSError):
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        is_unread = self._acked_before is not None and acked_bytes(self.connection) == self._acked_before
        self.step(Step.END_UNREAD if is_unread else Step.END)


class Network(httpcore.NetworkBackend):
    """Makes connections, for one exchange after the other."""

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter
        self.exchange = Exchange(inf)  # the one under way, or the last one

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, *_: Any, **__: Any) -> _Stream:
        ends_s = _ends_s(timeout)
        with _translated(httpcore.ConnectTimeout, httpcore.ConnectError):
            connection = self._connect(_interleaved(self._addresses(host, port, ends_s)), ends_s)
            # TCP keepalive (tcp(7)), which wakes up no process, shows a dead connection before it is used, and has the
            # routers between keep its state: half a minute is within the shortest time after which they drop it.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            options = {socket.TCP_NODELAY: 1, socket.TCP_KEEPIDLE: 30, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}
            for option, value in options.items():
                connection.setsockopt(socket.IPPROTO_TCP, option, value)
        return _Stream(connection, self)

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
        with contextlib.suppress(OSError):
            return _look_up(host, port, socket.AI_NUMERICHOST)  # else it is a name
        found: list[Any] = []
        done, finished = socket.socketpair()

        def look_up() -> None:
            with finished:  # closing it makes the other end readable
                try:
                    found.extend(_look_up(host, port))
                except OSError as failure:
                    found.append(failure)

        with done:
            # Not a `threading.Thread`, which the process would wait for when it exits.
            try:
                _thread.start_new_thread(look_up, ())
            except RuntimeError:  # the limit of processes is reached
                finished.close()
                raise OSError("this machine has no thread to look up its name") from None
            if not self.waiter.wait_ready(done.fileno(), select.POLLIN, ends_s):
                raise OSError("its name cannot be looked up in time")
        if found and isinstance(found[0], OSError):
            raise found[0]
        return found


class _Stream(httpcore.NetworkStream):
    """An open connection: a socket that does not block, or TLS over one."""

    def __init__(self, connection: socket.socket, network: Network) -> None:
        self._connection = connection
        self._network = network
        self._exchange: Exchange | None = None  # the last one over it
        self._early_answer = b""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._network.exchange.begin_read()
        if self._early_answer:
            read, self._early_answer = self._early_answer[:max_bytes], self._early_answer[max_bytes:]
            return read
        with _translated(httpcore.ReadTimeout, httpcore.ReadError):
            self._network.exchange.raise_if_late()
            read = self._until_ready(lambda: self._connection.recv(max_bytes), select.POLLIN, _ends_s(timeout))
        self._network.waiter.poll_events()
        return read

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not buffer:  # httpcore ends a body with it
            return
        exchange, left = self._network.exchange, memoryview(buffer)
        exchange.begin_write(self._connection, self._exchange)
        self._exchange = exchange
        events = select.POLLOUT | (select.POLLIN if exchange.phase is Phase.BODY else 0)
        with _translated(httpcore.WriteTimeout, httpcore.WriteError):
            try:
                while left:  # each piece has its own time-out
                    left = left[self._until_ready(partial(self._send, left), events, _ends_s(timeout)) :]
                    self._network.waiter.poll_events()
            except OSError:
                exchange.step(Step.FAIL)
                raise

    def _send(self, left: memoryview) -> int:
        """Send what the kernel takes of it. Raises `OSError`, upon which httpcore reads, if the server has answered."""
        if self._network.exchange.phase is Phase.BODY:
            with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                read = self._connection.recv(_READ_BYTES)
                self._early_answer = _INFORMATIONAL.sub(b"", read, 1)
                if self._early_answer or not read:
                    raise OSError("the server wants no more of the request")
        return self._connection.send(left)

    def _until_ready(self, act: Callable[[], Result], events: int, ends_s: float) -> Result:
        """Return the result of `act`, called until the socket is ready; `events` are those a plain socket waits for.

        Raises `TimeoutError` at that second of the monotonic clock, and where the answer takes too long.
        """
        while True:
            try:
                return act()
            except ssl.SSLWantReadError:
                awaited = select.POLLIN
            except ssl.SSLWantWriteError:
                awaited = events | select.POLLOUT
            except BlockingIOError:
                awaited = events
            exchange, descriptor = self._network.exchange, self._connection.fileno()
            while not self._network.waiter.wait_ready(descriptor, awaited, min(ends_s, exchange.overdue_s)):
                exchange.raise_if_late(ends_s)

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> _Stream:
        try:
            with _translated(httpcore.ConnectTimeout, httpcore.ConnectError):
                self._connection = tls = ssl_context.wrap_socket(
                    self._connection, do_handshake_on_connect=False, server_hostname=server_hostname
                )
                self._until_ready(tls.do_handshake, select.POLLIN, _ends_s(timeout))
        except BaseException:
            self.close()
            raise
        return _Stream(tls, self._network)

    def get_extra_info(self, info: str) -> Any:
        """Tell if a connection that expects nothing can be read, so the other side has closed it."""
        if info != "is_readable":
            return None
        if self._connection.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        if self._exchange is not None and self._exchange is self._network.exchange:
            self._exchange.end()
        self._connection.close()


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
