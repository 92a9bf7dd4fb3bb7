"""Shows notifications on the desktop, by a few messages on the session bus.

The messages are those of the Desktop Notifications Specification 1.2 (`org.freedesktop.Notifications`). The library for
the bus is loaded when there is something to show: most daemons never have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from syncd.core.clock import Clock
from syncd.report.notification_rules import Notice

if TYPE_CHECKING:
    from syncd.core.dbus import MessageBus

# For all messages together: a desktop answers within milliseconds.
REPLY_TIMEOUT_S = 1.0

_SERVER = ("/org/freedesktop/Notifications", "org.freedesktop.Notifications")
_APP = "syncd"
_NORMAL = 1  # of the specification's urgencies
_DEFAULT_TIMEOUT = -1


class Shown(Struct, frozen=True):
    """A notification on the desktop: its number, and the server that gave it (the bus, and its name there)."""

    number: int
    server: str


class NotShown(Exception):
    """The notification could not be shown; the text is the reason."""


class Desktop:
    """The desktop of the session that the environment names."""

    def __init__(self, environ: Mapping[str, str], clock: Clock) -> None:
        self._environ = environ
        self._clock = clock

    def show(self, notice: Notice, replaced: Shown | None) -> Shown:
        """Show it, in the place of an earlier one where that can be, within `REPLY_TIMEOUT_S`. Raises `NotShown`."""
        from syncd.core.dbus import connected, session_addresses  # noqa: PLC0415 - only when there is something to show

        try:
            addresses, until_s = session_addresses(self._environ), self._clock.monotonic_s() + REPLY_TIMEOUT_S
            with connected(addresses, self._clock, until_s) as bus:
                return _shown(bus, notice, replaced)
        except OSError as failure:
            raise NotShown(failure.strerror or str(failure)) from None
        except Exception as failure:  # noqa: BLE001 - anything may answer there; it must not end the daemon
            raise NotShown(f"the session bus sent an invalid answer ({type(failure).__name__})") from None


def _shown(bus: MessageBus, notice: Notice, replaced: Shown | None) -> Shown:
    import html  # noqa: PLC0415 - it loads a table of 2,000 names, which no idle daemon needs

    (capabilities,), server = bus.call(*_SERVER, "GetCapabilities")
    # Where markup is supported, a message from a server could look like anything.
    body = html.escape(notice.body, quote=False) if "body-markup" in capabilities else notice.body
    replaced_number = replaced.number if replaced is not None and replaced.server == server else 0
    hints = {"urgency": ("y", _NORMAL), "category": ("s", notice.category)}
    arguments: tuple[Any, ...] = (_APP, replaced_number, notice.icon, notice.summary, body, [], hints, _DEFAULT_TIMEOUT)
    try:
        (number,), server = bus.call(*_SERVER, "Notify", "susssasa{sv}i", arguments)
    except TimeoutError:
        number = 0  # it was sent and may still be shown; to show it twice would be worse than to lose it
    return Shown(number, server)
