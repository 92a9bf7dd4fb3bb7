"""NetworkManager for a test's bus, as far as it tells if the connection is metered.

Run with a bus's address as its argument, it reads values of NMMetered from its input, a line each.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jeepney import DBusAddress, HeaderFields, new_error, new_method_return, new_signal
from jeepney.io.blocking import DBusConnection

from tests.bus import named, serving

NAME = "org.freedesktop.NetworkManager"
UNKNOWN, YES, NO, GUESS_YES, GUESS_NO = range(5)
_PROPERTIES = DBusAddress("/org/freedesktop/NetworkManager", interface="org.freedesktop.DBus.Properties")


class NetworkManager:
    """One that answers as the real one does; `metered` is of NMMetered."""

    def __init__(self, link: DBusConnection, metered: int) -> None:
        self._link = link
        self._metered = metered
        self.asked = 0

    def change(self, metered: int) -> None:
        """Change the property, and say so."""
        self._metered = metered
        body = NAME, {"Metered": ("u", metered)}, []
        self._link.send(new_signal(_PROPERTIES, "PropertiesChanged", "sa{sv}as", body))

    def answer(self, asked: Any) -> Any:
        """Return the answer to a call."""
        fields = asked.header.fields
        place = fields[HeaderFields.path], fields[HeaderFields.interface], asked.body
        if place != (_PROPERTIES.object_path, _PROPERTIES.interface, (NAME, "Metered")):
            return new_error(asked, "org.freedesktop.DBus.Error.UnknownMethod")
        self.asked += 1
        return new_method_return(asked, "v", (("u", self._metered),))


@contextmanager
def network_manager(address: str, metered: int) -> Iterator[NetworkManager]:
    """Run it on the bus."""
    link = named(address, NAME)
    server = NetworkManager(link, metered)
    with serving(link, server.answer):
        yield server


def main() -> None:
    """Serve until the input ends."""
    with network_manager(sys.argv[1], NO) as server:
        for line in sys.stdin:
            server.change(int(line))


if __name__ == "__main__":
    main()
