"""The connection of one exchange, as the kernel counts what passes over it, and the end of patience with its answer.

What httpx does not know is seen here. Its `trace` extension tells of each stage, tcp(7) counts the bytes.

- A server may close a kept connection in the same instant as the next request is sent over it. Then not one byte of the
  request is acknowledged: in all likelihood none was read, and it may be sent again at once (RFC 9112, 9.3.1).
- A server, or a proxy, may answer twice. What is left over from the last exchange was read from the network before this
  request was sent, so it is no answer to it, whatever it says.
- A time-out for each read never ends an answer that comes one byte a minute, or interim answers without end; and it
  begins when the kernel has taken the request, which a slow uplink may go on sending for minutes.
- The kernel takes some MiB of a body at once. How much of it has arrived, only the other side's acknowledgements tell.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import sys
import termios
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from syncd.core.clock import SystemClock

# Of `struct tcp_info` (linux/tcp.h): tcpi_bytes_acked and tcpi_bytes_received, two numbers of 64 bits.
_COUNTS = struct.Struct("QQ")
_COUNTS_AT = 120
# What is waited for here is the kernel, which no test can hurry.
_CLOCK = SystemClock()


class StaleResponse(Exception):
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


def queued_bytes(connection: socket.socket | None) -> int:
    """What the kernel still holds to send, because nobody has acknowledged it (tcp(7), SIOCOUTQ)."""
    try:
        return int.from_bytes(fcntl.ioctl(connection or -1, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except (OSError, ValueError):
        return 0


class Arrival:
    """How much of a body has arrived that is about to be sent over this connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._before_bytes = self._passed()[0]
        self._arrived_bytes = 0

    def arrived_bytes(self, handed_bytes: int) -> int:
        """Of so many that the kernel has taken. All of them, where this system does not count what is acknowledged.

        TLS makes more of them, so it is the share that counts: what is acknowledged of all that went out.
        """
        out_bytes, queued = self._passed()
        if not self._before_bytes or not queued:
            return handed_bytes
        out_bytes -= self._before_bytes
        share = max(0, out_bytes - queued) / max(1, out_bytes)
        self._arrived_bytes = max(self._arrived_bytes, min(handed_bytes, int(share * handed_bytes)))
        return self._arrived_bytes

    def _passed(self) -> tuple[int, int]:
        """What went out in all, and how much of it the kernel still holds. Nothing: that is not known."""
        known = counts(self._connection)  # first: what is acknowledged between the two counts as arrived
        queued = queued_bytes(self._connection)
        return (0, 0) if known is None else (known.acked_bytes + queued, queued)


class ObservedBody(Iterable[bytes]):
    """A request's body that wants to know its way."""

    @abstractmethod
    def goes_over(self, connection: socket.socket) -> None:
        """It is about to be sent over this connection."""


class ExchangeMonitor:
    """One exchange's connection: `kept`, or a new one. The answer may take `answer_s` seconds from the request's end,
    and as long again for each time that more of the request has left this machine.

    `reached`: a connection stood; `untouched`: it ended before it took a byte; `overdue`: the answer took too long.
    `overdue_s`: when it will have, if nothing more leaves, in monotonic seconds. `body`: the request's, if it has one.
    """

    def __init__(self, answer_s: float, kept: socket.socket | None = None) -> None:
        self.connection = kept
        self.reached = False
        self.overdue = False
        self.overdue_s = inf
        self.untouched = False
        self.body: Iterable[bytes] | None = None
        self._answer_s = answer_s
        self._kept = kept
        self._before: Counts | None = None
        self._queued_bytes = 0
        self._has_read = False

    def cancel_deadline(self) -> None:
        """The rest of the answer may take as long as it takes."""
        self.overdue_s = inf

    def note_read(self) -> None:
        """Something was read from the connection."""
        self._has_read = True

    def look_at_the_time(self, now_s: float) -> bool:
        """Whether the answer is overdue now."""
        if now_s < self.overdue_s:
            return False
        before, self._queued_bytes = self._queued_bytes, queued_bytes(self.connection)
        if 0 < self._queued_bytes != before:
            self.overdue_s = now_s + self._answer_s
            return False
        self.overdue = True
        return True

    def hear(self, name: str, info: Mapping[str, Any]) -> None:
        """The `trace` extension's callback. Raises `StaleResponse`."""
        match name.partition(".")[2]:
            case "connect_tcp.complete" | "start_tls.complete":
                self.connection = info["return_value"].get_extra_info("socket")
            case "send_request_headers.started":
                self.reached = True
                self._before = self._counts()
                self._has_read = False
                self.cancel_deadline()  # a proxy's answer comes before the server's
            case "send_request_body.started":
                if isinstance(self.body, ObservedBody) and self.connection is not None:
                    self.body.goes_over(self.connection)
            case "receive_response_headers.started":
                self.overdue_s, self._queued_bytes = _CLOCK.monotonic_s() + self._answer_s, 0
            case "send_request_headers.failed" | "send_request_body.failed":
                self._leave_nothing_behind()
            case "receive_response_headers.failed":
                self.untouched = self._is_kept and self._stands_still("acked_bytes")
                self._leave_nothing_behind()
            case "receive_response_headers.complete":
                # The kernel's count is not enough: the genuine answer may have come while the old one was at hand.
                if self._is_kept and (not self._has_read or self._stands_still("received_bytes")):
                    raise StaleResponse

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

    def _stands_still(self, which: str) -> bool:
        now = self._counts()
        return now is not None and self._before is not None and getattr(now, which) == getattr(self._before, which)
