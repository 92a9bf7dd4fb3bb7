"""Which way a connection goes, and whether it would still go that way: after a change of network it is dead.

Nothing says so by itself: what is sent from an address that this machine no longer has is lost in silence, and TCP
repeats it for minutes.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from typing import Any

# The kernel asks the other side of an idle connection whether it is there, so that a dead one shows before it is used
# (tcp(7)), and the routers between do not forget it. Half a minute is within what the least patient of them allow.
_ASKED_AFTER_S = 30
_ASKED_EVERY_S = 5
_ASKED_TIMES = 3


@dataclass(frozen=True)
class NetworkRoute:
    """The address that a connection starts from here, and its other end, as the system writes them."""

    here: str
    peer: tuple[Any, ...]

    def is_unchanged(self) -> bool:
        """Whether this machine would still start from that address. No packet is sent."""
        family = socket.AF_INET6 if ":" in self.peer[0] else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect(self.peer)  # for datagrams this only chooses the way (udp(7))
                return bool(probe.getsockname()[0] == self.here)
        except OSError:
            return False


def route_of(connection: socket.socket) -> NetworkRoute | None:
    """The connection's route; None: it has none any more."""
    try:
        return NetworkRoute(connection.getsockname()[0], connection.getpeername())
    except OSError:
        return None


def keep_asking(connection: socket.socket) -> None:
    """Have the kernel find out whether the other side is still there; that wakes up no process."""
    with contextlib.suppress(OSError):  # it ended just now
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _ASKED_AFTER_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _ASKED_EVERY_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _ASKED_TIMES)
