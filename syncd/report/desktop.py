"""The desktop, as far as it shows notifications: a few messages on the session bus, and gone again.

How to ask is in the Desktop Notifications Specification 1.2 (`org.freedesktop.Notifications`). What speaks to the bus
is loaded when there is something to say: most daemons never have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from syncd.core.clock import Clock
from syncd.report.notification_rules import Notice

if TYPE_CHECKING:
    from syncd.report.session_bus import SessionBus

# For everything together: a desktop answers within milliseconds.
REPLY_TIMEOUT_S = 1.0

_SERVER = ("/org/freedesktop/Notifications", "org.freedesktop.Notifications")
_APP = "syncd"
_NORMAL = 1  # of the specification's urgencies
_AS_LONG_AS_USUAL = -1


class Shown(Struct, frozen=True):
    """A notification on the desktop: its number, and who gave it (the bus and the server's name there)."""

    number: int
    server: str


class NotShown(Exception):
    """Nothing was shown, for this reason."""


class Desktop:
    """The desktop of the session that the environment names."""

    def __init__(self, environ: Mapping[str, str], clock: Clock) -> None:
        self._environ = environ
        self._clock = clock

    def show(self, notice: Notice, instead_of: Shown | None) -> Shown:
        """Show it, in the place of an earlier one where that can be, within `REPLY_TIMEOUT_S`. Raises `NotShown`."""
        from syncd.report.session_bus import session_bus  # noqa: PLC0415 - only when there is something to say

        try:
            with session_bus(self._environ, self._clock, self._clock.monotonic_s() + REPLY_TIMEOUT_S) as bus:
                return _shown(bus, notice, instead_of)
        except OSError as failure:
            raise NotShown(failure.strerror or str(failure)) from None
        except Exception as failure:  # noqa: BLE001 - who knows what answers there; it must not end the daemon
            raise NotShown(f"the session bus makes no sense ({type(failure).__name__})") from None


def _shown(bus: SessionBus, notice: Notice, instead_of: Shown | None) -> Shown:
    import html  # noqa: PLC0415 - it brings a table of 2,000 names along, which no idle daemon needs

    (abilities,), server = bus.ask(*_SERVER, "GetCapabilities")
    # Where markup is understood, a message from somewhere could look like anything.
    body = html.escape(notice.body, quote=False) if "body-markup" in abilities else notice.body
    replaced = instead_of.number if instead_of is not None and instead_of.server == server else 0
    changes = {"urgency": ("y", _NORMAL), "category": ("s", notice.category)}
    words: tuple[Any, ...] = (_APP, replaced, notice.icon, notice.summary, body, [], changes, _AS_LONG_AS_USUAL)
    try:
        (number,), server = bus.ask(*_SERVER, "Notify", "susssasa{sv}i", words)
    except TimeoutError:
        number = 0  # it was sent and may be seen yet; to say it again would be worse than to lose it
    return Shown(number, server)
