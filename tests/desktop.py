"""A notification server for a test's session bus, which records its requests.

Run with a bus's address as its argument, it is such a server and prints each summary on a line of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from jeepney import new_error, new_method_return

from tests.bus import named, serve, serving

NAME = "org.freedesktop.Notifications"
READY = "ready"


@dataclass(frozen=True)
class Notification:
    """The arguments of one `Notify` call, and the number that it got."""

    number: int
    app: str
    replaces: int
    icon: str
    summary: str
    body: str
    changes: dict[str, tuple[str, Any]]
    timeout_ms: int


@dataclass
class NotificationServer:
    """A notification server."""

    address: str
    ignores: str = ""  # a method that it never answers
    refuses: str = ""  # a method that it answers with an error
    on_show: Callable[[Notification], None] = lambda _: None
    shown: list[Notification] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: count(41))

    def answer(self, asked: Any) -> Any:
        """Return the answer to a call; None: it gets none."""
        method = asked.header.fields[3]
        if method == self.ignores:
            return None
        if method == self.refuses:
            return new_error(asked, "org.freedesktop.DBus.Error.LimitsExceeded")
        app, replaces, icon, summary, body, _, changes, timeout_ms = asked.body
        seen = Notification(replaces or next(self._numbers), app, replaces, icon, summary, body, changes, timeout_ms)
        self.shown.append(seen)
        self.on_show(seen)
        return new_method_return(asked, "u", (seen.number,))


@contextmanager
def notification_server(address: str, **settings: Any) -> Iterator[NotificationServer]:
    """Run a notification server on the bus."""
    server = NotificationServer(address, **settings)
    with serving(named(address, NAME), server.answer):
        yield server


def main() -> None:
    """Serve until the bus ends."""
    with named(sys.argv[1], NAME) as link:
        print(READY, flush=True)
        server = NotificationServer(sys.argv[1], on_show=lambda seen: print(seen.summary, flush=True))
        serve(link, server.answer)


if __name__ == "__main__":
    main()
