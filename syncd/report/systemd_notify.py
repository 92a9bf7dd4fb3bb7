"""Notifies the service manager by datagrams to the socket that `$NOTIFY_SOCKET` names (sd_notify(3)).

Outside a service there is no such socket, and the functions here do nothing.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from math import inf

from syncd.core.clock import Clock


class SystemdNotifier:
    """Sends the state of the service, and watchdog pings while its loop runs."""

    def __init__(self, environ: Mapping[str, str], clock: Clock, pid: int) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._clock = clock
        self._status = ""
        self._pinged_s = clock.monotonic_s()
        self._pinged_boottime_s = clock.boottime_s()
        self.ping_every_s = inf
        interval_us = environ.get("WATCHDOG_USEC", "")
        if self._address and interval_us.isdigit() and environ.get("WATCHDOG_PID", str(pid)) == str(pid):
            self.ping_every_s = int(interval_us) / 2_000_000

    def ready(self) -> None:
        self._send("READY=1")

    def reloading(self) -> None:
        self._send(f"RELOADING=1\nMONOTONIC_USEC={int(self._clock.monotonic_s() * 1e6)}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """Send one line for `systemctl status`."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def ping(self) -> None:
        """The loop, or its work, made progress; sent as often as the watchdog requires.

        Counted in boottime: after a sleep a ping is sent at once, whatever clock the watchdog uses.
        """
        now_s = self._clock.boottime_s()
        # A bounded wait may follow that is longer than the rest of the interval, so it is sent a little early.
        if now_s - self._pinged_boottime_s >= self.ping_every_s * 0.9:
            self._pinged_s, self._pinged_boottime_s = self._clock.monotonic_s(), now_s
            self._send("WATCHDOG=1")

    @property
    def due_s(self) -> float:
        """The monotonic second of the next ping; infinity where no watchdog is set."""
        return self._pinged_s + self.ping_every_s

    def _send(self, text: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out,
        ):
            out.setblocking(False)
            out.sendto(text.encode(), address)
