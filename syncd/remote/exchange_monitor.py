"""Monitors the connection of one exchange: the bytes that the kernel counts, and the deadline of the answer.

The HTTP library does not know these: `HttpClient` reports each stage of the exchange, and tcp(7) counts the bytes.

- A server may close a kept connection in the same instant as the next request is sent over it. Then not one byte of the
  request is acknowledged: in all likelihood none was read, and it may be sent again at once (RFC 9112, 9.3.1).
- A server, or a proxy, may answer twice. What is left over from the last exchange was read from the network before this
  request was sent, so it is no answer to it.
- A time-out for each read never ends an answer that comes one byte a minute, or interim answers without end; and it
  begins when the kernel has taken the request, which a slow uplink may go on sending for minutes.
- The kernel takes some MiB of a body at once. Only the other side's acknowledgements show how much of it has arrived.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import sys
import termios
from abc import abstractmethod
from collections.abc import Iterable
from math import inf

from msgspec import Struct

from syncd.core.clock import SystemClock

# Of `struct tcp_info` (linux/tcp.h): tcpi_bytes_acked and tcpi_bytes_received, two numbers of 64 bits.
_COUNTS = struct.Struct("QQ")
_COUNTS_AT = 120
# These waits are for the kernel, which no test's clock can hurry.
_CLOCK = SystemClock()


class StaleResponse(Exception):
    """An answer that was received before its request was sent."""


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


class ObservedBody(Iterable[bytes]):
    """A request's body that is given its connection."""

    @abstractmethod
    def use_connection(self, connection: socket.socket) -> None:
        """Note that the body is about to be sent over this connection."""


class ExchangeMonitor:
    """Monitors one exchange over its connection: `kept`, or a new one.

    The answer may take `answer_s` seconds from the request's end, and as long again each time that more of the request
    has left this machine. `reached`: a connection was made; `unread`: it ended before it took a byte; `overdue`: the
    answer took too long; `overdue_s`: the monotonic second of that, if nothing more leaves; `body`: the request's, if
    it has one.
    """

    def __init__(self, answer_s: float, kept: socket.socket | None = None) -> None:
        self.connection = kept
        self.reached = False
        self.overdue = False
        self.overdue_s = inf
        self.unread = False
        self.body: Iterable[bytes] | None = None
        self._answer_s = answer_s
        self._kept = kept
        self._before: ByteCounts | None = None
        self._queued_bytes = 0
        self._has_read = False

    def cancel_deadline(self) -> None:
        """Allow the rest of the answer any time."""
        self.overdue_s = inf

    def note_read(self) -> None:
        """Note that something was read from the connection."""
        self._has_read = True

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

    def note_connection(self, connection: socket.socket | None) -> None:
        """Note the connection, which was made or has begun to speak TLS."""
        self.connection = connection

    def note_head(self) -> None:
        """Note that the head of a request, also of one to a proxy, is about to be sent."""
        self.reached = True
        self._before = self._counts()
        self._has_read = False
        self.cancel_deadline()  # a proxy's answer comes before the server's

    def note_body(self) -> None:
        """Note that the request's body is about to be sent."""
        if isinstance(self.body, ObservedBody) and self.connection is not None:
            self.body.use_connection(self.connection)

    def note_sent(self) -> None:
        """Note that the whole request was written; the time for the answer begins."""
        self.overdue_s, self._queued_bytes = _CLOCK.monotonic_s() + self._answer_s, 0

    def note_unsent(self) -> None:
        """Note that the request could not be written."""
        self._discard_unsent()

    def note_no_answer(self) -> None:
        """Note that no head of an answer came."""
        self.unread = self._is_kept and self._is_same_count("acked_bytes")
        self._discard_unsent()

    def note_answer(self) -> None:
        """Note that the head of an answer was read. Raises `StaleResponse`."""
        # The kernel's count is not enough: the genuine answer may have come while the old one was buffered.
        if self._is_kept and (not self._has_read or self._is_same_count("received_bytes")):
            raise StaleResponse

    @property
    def _is_kept(self) -> bool:
        return self._kept is not None and self.connection is self._kept

    def _counts(self) -> ByteCounts | None:
        return None if self.connection is None else byte_counts(self.connection)

    def _discard_unsent(self) -> None:
        """Have the kernel send nothing more of the request once the connection is closed.

        It would go on for minutes with what it holds: an upload that was given up would be complete in the end and
        might replace a newer one just before that is initialized.
        """
        if self.connection is not None:
            with contextlib.suppress(OSError):
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _is_same_count(self, which: str) -> bool:
        now = self._counts()
        return now is not None and self._before is not None and getattr(now, which) == getattr(self._before, which)
