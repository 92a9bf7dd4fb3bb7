"""The connection of one exchange, as the kernel counts what passes over it, and the end of patience with its answer.

What httpx does not know is seen here. Its `trace` extension tells of each stage, tcp(7) counts the bytes.

- A server may close a kept connection in the same instant as the next request is sent over it. Then not one byte of the
  request is acknowledged: in all likelihood none was read, and it may be sent again at once (RFC 9112, 9.3.1).
- A server, or a proxy, may answer twice. What is left over from the last exchange was read from the network before this
  request was sent, so it is no answer to it, whatever it says.
- A time-out for each read never ends an answer that comes one byte a minute, or interim answers without end; and it
  begins when the kernel has taken the request, which a slow uplink may go on sending for minutes.
"""

from __future__ import annotations

import _thread
import contextlib
import fcntl
import socket
import struct
import sys
import termios
import threading
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from syncd.base.clock import SystemClock

# Of `struct tcp_info` (linux/tcp.h): tcpi_bytes_acked and tcpi_bytes_received, two numbers of 64 bits.
_COUNTS = struct.Struct("QQ")
_COUNTS_AT = 120
# What is waited for here is the kernel, which no test can hurry.
_CLOCK = SystemClock()


class Leftover(Exception):
    """An answer that was there before its request."""


@dataclass(frozen=True)
class Counts:
    """Bytes that the other side has acknowledged, and that came from it, since the connection was made."""

    acked_bytes: int
    received_bytes: int


def counts(connection: socket.socket) -> Counts | None:
    """What passed over a connection so far; None: this system does not count it."""
    try:
        known = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _COUNTS_AT + _COUNTS.size)
        return Counts(*_COUNTS.unpack_from(known, _COUNTS_AT))
    except (AttributeError, OSError, struct.error):
        return None


class Body(Iterable[bytes]):
    """A request's body that wants to know its way."""

    @abstractmethod
    def goes_over(self, connection: socket.socket) -> None:
        """It is about to be sent over this connection."""


class Line:
    """One exchange's connection: `kept`, or a new one. The answer may take `answer_s` seconds from the request's end,
    and as long again for each time that more of the request has left this machine.

    `reached`: a connection stood; `untouched`: it ended before it took a byte; `overdue`: the answer took too long.
    `body`: the request's, if it has one.
    """

    def __init__(self, answer_s: float, kept: socket.socket | None = None) -> None:
        self.connection = kept
        self.reached = False
        self.overdue = False
        self.untouched = False
        self.body: Iterable[bytes] | None = None
        self._answer_s = answer_s
        self._kept = kept
        self._before: Counts | None = None
        self._answered: threading.Lock | None = None
        self._sent_s: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.be_patient()

    def be_patient(self) -> None:
        """The rest of the answer may take as long as it takes."""
        if self._answered is not None:
            self._answered.release()
            self._answered = None

    def hear(self, name: str, info: Mapping[str, Any]) -> None:
        """The `trace` extension's callback. Raises `Leftover`."""
        match name.partition(".")[2]:
            case "connect_tcp.complete" | "start_tls.complete":
                self.connection = info["return_value"].get_extra_info("socket")
            case "send_request_headers.started":
                self.reached = True
                self._before = self._counts()
                self._watch()
            case "send_request_body.started":
                if isinstance(self.body, Body) and self.connection is not None:
                    self.body.goes_over(self.connection)
            case "receive_response_headers.started":
                self._sent_s = _CLOCK.monotonic_s()
            case "send_request_headers.failed" | "send_request_body.failed":
                self._leave_nothing_behind()
            case "receive_response_headers.failed":
                self.untouched = self._is_kept and self._stands_still("acked_bytes")
                self._leave_nothing_behind()
            case "receive_response_headers.complete":
                if self._is_kept and self._stands_still("received_bytes"):
                    raise Leftover

    @property
    def _is_kept(self) -> bool:
        return self._kept is not None and self.connection is self._kept

    def _counts(self) -> Counts | None:
        return None if self.connection is None else counts(self.connection)

    def _leave_nothing_behind(self) -> None:
        """Once it is closed, send nothing more of the request.

        The kernel would go on for minutes with what it holds: an upload that was given up would be whole in the end
        and might lie over a newer one just before that is initialized.
        """
        if self.connection is not None:
            with contextlib.suppress(OSError):
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _queued_bytes(self) -> int:
        """What the kernel still holds of the request, because nobody has acknowledged it (tcp(7), SIOCOUTQ)."""
        try:
            return int.from_bytes(fcntl.ioctl(self.connection or -1, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        except (OSError, ValueError):
            return 0

    def _stands_still(self, which: str) -> bool:
        now = self._counts()
        return now is not None and self._before is not None and getattr(now, which) == getattr(self._before, which)

    def _watch(self) -> None:
        self.be_patient()  # a proxy's answer comes before the server's
        answered = threading.Lock()
        answered.acquire()
        self._answered, self._sent_s = answered, None
        # A `threading.Timer` takes many steps to start: a signal that raises between two of them leaves it half begun.
        # And it starts before the request is sent: a signal in the instant between Python's last look for one and the
        # system call that waits for the answer is slept through, and a new thread makes that instant longer.
        _thread.start_new_thread(self._give_up, (answered,))

    def _give_up(self, answered: threading.Lock) -> None:
        """In a thread of its own: when the time is over, end the read that the main thread waits in."""
        left_s, queued_bytes = self._answer_s, 0
        while left_s > 0:
            if answered.acquire(timeout=left_s):
                return
            before, queued_bytes = queued_bytes, self._queued_bytes()
            if self._sent_s is None or 0 < queued_bytes != before:
                left_s = self._answer_s
            else:
                left_s = self._sent_s + self._answer_s - _CLOCK.monotonic_s()
        self.overdue = True
        if self.connection is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self.connection, socket.SHUT_RDWR)  # TLS has no say in it
