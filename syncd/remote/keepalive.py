"""Rules for kept connections: how long they are kept, and when one may be reused.

They are kept for a developer's burst of work: a save every few minutes finds them open, and needs no handshake. Front
ends close what is idle after one to ten minutes (AWS documents 60 s for its load balancers, Google 610 s). A connection
that they closed is noticed before it is used, so keeping it longer than they do costs nothing.

Nothing reports by itself that this machine's network routes have changed. A connection is dead then, and an outage may
be over: what is sent from an address that this machine no longer has is lost, and TCP repeats it for minutes.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from msgspec import Struct

# After the last exchange. Longer gains little: few servers keep their side open.
KEEP_S = 300.0
# After so short a time the network has hardly changed: the route is not checked.
ROUTE_TRUSTED_S = 20.0
# Two clocks are read one after the other: a smaller difference is no suspend.
LEAST_SUSPEND_S = 1.0
# TCP keepalive shows a dead connection before it is used (tcp(7)), and has the routers between keep its state. Half a
# minute is within the shortest time after which they drop it.
_KEEPALIVE_IDLE_S = 30
_KEEPALIVE_INTERVAL_S = 5
_KEEPALIVE_PROBES = 3
# Addresses for documentation (RFC 5737, RFC 3849): only the default routes lead there.
_ANYWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
_DISCARD_PORT = 9


class ConnectionTime(Struct, frozen=True):
    """One instant by both clocks; boottime gains on monotonic during suspend."""

    monotonic_s: float
    boottime_s: float


class NetworkRoute(Struct, frozen=True):
    """A connection's local address and its peer, as the system writes them."""

    local: str
    peer: tuple[Any, ...]

    def is_unchanged(self) -> bool:
        """True if this machine would still use that local address. No packet is sent."""
        family = socket.AF_INET6 if ":" in self.peer[0] else socket.AF_INET
        return _local_address(family, self.peer) == self.local


def idle_at_s(last: ConnectionTime) -> float:
    """Return the monotonic second at which connections last used then are closed."""
    return last.monotonic_s + KEEP_S


def is_over(last: ConnectionTime, now: ConnectionTime) -> bool:
    """True if a connection that was last used at `last` was idle for too long, or is from before a suspend."""
    slept_s = now.boottime_s - last.boottime_s - (now.monotonic_s - last.monotonic_s)
    return now.monotonic_s >= idle_at_s(last) or slept_s >= LEAST_SUSPEND_S


def may_be_reused(last: ConnectionTime, now: ConnectionTime, route: NetworkRoute | None) -> bool:
    """True if a connection that was last used at `last`, over that route, is alive, as far as known."""
    is_recent = now.monotonic_s - last.monotonic_s < ROUTE_TRUSTED_S
    return not is_over(last, now) and (is_recent or (route is not None and route.is_unchanged()))


def route_of(connection: socket.socket) -> NetworkRoute | None:
    """Return the connection's route; None if it has none any more."""
    try:
        return NetworkRoute(connection.getsockname()[0], connection.getpeername())
    except OSError:
        return None


def default_addresses() -> tuple[str, ...]:
    """Return the local addresses of the default routes; none without a network. No packet is sent.

    A socket of netlink(7) would report a change, but a service may not open one (`RestrictAddressFamilies=`).
    """
    addresses = [_local_address(family, (host, _DISCARD_PORT)) for family, host in _ANYWHERE]
    return tuple(address for address in addresses if address is not None)


def _local_address(family: socket.AddressFamily, peer: tuple[Any, ...]) -> str | None:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(peer)  # for datagrams this only chooses the route (udp(7))
            return str(probe.getsockname()[0])
    except OSError:
        return None


def enable_keepalive(connection: socket.socket) -> None:
    """Have the kernel check that the peer is alive, which wakes up no process."""
    with contextlib.suppress(OSError):  # it has just ended
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES)
