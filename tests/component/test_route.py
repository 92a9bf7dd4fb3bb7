"""A connection's route."""

from __future__ import annotations

import socket

from syncd.remote.network import NetworkRoute, enable_keepalive, route_of


def test_an_ended_connection_has_none() -> None:
    """An ended connection has no route, and causes no error."""
    ended = socket.socket()
    ended.close()
    assert route_of(ended) is None
    enable_keepalive(ended)


def test_no_route() -> None:
    """An address without its link has no route."""
    assert not NetworkRoute("::1", ("fe80::1", 9, 0, 0)).is_unchanged()
