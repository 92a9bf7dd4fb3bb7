"""A service manager's end of `$NOTIFY_SOCKET`: it records notifications with their times."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass
from pathlib import Path

from tests.system.command import CLOCK


@dataclass(frozen=True)
class Datagram:
    """One datagram's assignments, and when it came (monotonic seconds)."""

    at_s: float
    fields: dict[str, str]


class ServiceManager:
    """Listens on a datagram socket until closed."""

    def __init__(self, path: Path) -> None:
        self.received: list[Datagram] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._listener = threading.Thread(target=self._listen, name="service-manager")
        self._listener.start()

    def _listen(self) -> None:
        while datagram := self._socket.recv(65536):
            lines = datagram.decode().splitlines()
            self.received.append(Datagram(CLOCK.monotonic_s(), dict(line.split("=", 1) for line in lines)))

    def said(self, field: str) -> list[str]:
        """Return all values of a field, oldest first."""
        return [message.fields[field] for message in list(self.received) if field in message.fields]

    def times(self, field: str) -> list[float]:
        """Return the times of a field."""
        return [message.at_s for message in list(self.received) if field in message.fields]

    def order(self, *fields: str) -> list[str]:
        """Return these fields in the order they came."""
        return [field for message in list(self.received) for field in message.fields if field in fields]

    def close(self) -> None:
        """Send an empty datagram, which ends the listener."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.sendto(b"", self._socket.getsockname())
        self._listener.join()
        self._socket.close()
