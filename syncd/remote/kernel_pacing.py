"""Limits a connection in the kernel, too.

During a stall of the network the kernel holds what was written meanwhile; once it goes on, all of that would leave at
once.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys

# socket(7), asm-generic/socket.h: bytes a second, all bits set for no limit. Python has no name for it.
_SO_MAX_PACING_RATE = 47
_NO_LIMIT = 0xFFFF_FFFF
# A little above the limit, since TLS adds to what is sent, and syncd itself paces the blocks.
_ROOM = 32
# The kernel delays each packet by the rate that holds when it is queued, even if the limit is lifted then: a minute for
# 64 KiB at 1 KiB a second. Below this rate the unsent bytes that it may hold are few enough by themselves.
_LEAST_RATE = 64 << 10
# What the kernel may hold unsent (tcp(7)): enough to be busy until more is written.
_UNSENT_S = 0.1
_LEAST_UNSENT_BYTES = 4 << 10


def set_kernel_pacing(connection: socket.socket, limit_bytes_per_s: int) -> None:
    """Have the kernel send at most so many bytes a second, and hold few unsent; 0 is no limit.

    A connection that never had a limit is left as it is.
    """
    rate, unsent_bytes = _NO_LIMIT, 0  # 0 is the system's own
    if limit_bytes_per_s:
        rate = min(_NO_LIMIT - 1, max(_LEAST_RATE, limit_bytes_per_s + limit_bytes_per_s // _ROOM))
        unsent_bytes = max(_LEAST_UNSENT_BYTES, int(limit_bytes_per_s * _UNSENT_S))
    with contextlib.suppress(OSError, AttributeError):  # it has just ended, or this system cannot
        if not limit_bytes_per_s and _rate(connection) == _NO_LIMIT:
            return
        connection.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, struct.pack("I", rate))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, unsent_bytes)


def _rate(connection: socket.socket) -> int:
    return int.from_bytes(connection.getsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, 4), sys.byteorder)
