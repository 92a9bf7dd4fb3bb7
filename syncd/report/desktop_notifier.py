"""Shows notices on the desktop, by a few messages on the session bus; the rule is in `report.notices`.

The messages are those of the Desktop Notifications Specification 1.2. The library for the bus, and asyncio, which gives
one deadline to all of its waits, are loaded when there is something to show: most daemons never have.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from math import inf
from typing import Any

from syncd.core.clock import Clock, utc
from syncd.core.text import one_line, shown_path
from syncd.report.notices import (
    AGENT_EVERY_S,
    LastNotice,
    Notice,
    Told,
    Trouble,
    after_failure,
    agent_notice,
    due_s,
    in_sync_notice,
    trouble_notice,
)

_log = logging.getLogger("syncd")

# For all messages together: a desktop answers within milliseconds.
REPLY_TIMEOUT_S = 1.0
# A trouble that could not be shown, as before a person logs in, is tried again after this.
TRY_AGAIN_S = 300.0

_PATH, _NAME = "/org/freedesktop/Notifications", "org.freedesktop.Notifications"
_NORMAL = 1  # of the specification's urgencies
_DEFAULT_TIMEOUT = -1


class DesktopNotifier:
    """The notices of one daemon. Nothing here fails, and nothing takes longer than `REPLY_TIMEOUT_S`."""

    def __init__(
        self, workspace: str, after_s: float, environ: Mapping[str, str] | None, last: LastNotice, clock: Clock
    ) -> None:
        """`after_s` is how long failing lasts before it is told (seconds awake); `environ` None: nothing is shown."""
        self._name = one_line(shown_path(os.path.basename(workspace)), 40)
        self._after_s = after_s
        self._bus_address = "" if environ is None else _session_bus(environ)
        self._clock = clock
        self._trouble: Trouble | None = None
        self._last = last
        self._try_again_s = -inf
        self._saved = 0
        self._unsaved = ""
        self._agent_at_s = -inf

    def failed(self, text: str, *, needs_person: bool) -> None:
        """A sync or a step of it failed, with the error's own line; with `needs_person` it will not pass by itself."""
        now_s, wall_s = self._clock.monotonic_s(), self._clock.wall_s()
        self._trouble = after_failure(self._trouble, text, now_s, wall_s, needs_person=needs_person)
        self.show_due()

    def succeeded(self) -> None:
        """A sync succeeded."""
        self._trouble = None
        if self._last.told is not Told.NOTHING:
            self._last.told = Told.NOTHING
            self._show(in_sync_notice(self._name), self._last.number)

    def paused(self) -> None:
        """Syncing is paused: it neither fails nor works."""
        self._trouble = None

    def saved(self, files: int) -> None:
        """So many files of the agent were saved, as both sides had changed, before they were overwritten."""
        self._saved += files
        self.show_due()

    def unsaved(self, text: str) -> None:
        """Changes in a sandbox that ends, or was left, could not be saved; `text` says which, and why."""
        self._unsaved = text
        self.show_due()

    @property
    def due_s(self) -> float | None:
        """The monotonic second from which on `show_due` has something to show; None: nothing is planned."""
        times = [self._trouble_due_s, self._agent_at_s if self._saved or self._unsaved else None]
        return min((time_s for time_s in times if time_s is not None), default=None) if self._bus_address else None

    @property
    def _trouble_due_s(self) -> float | None:
        at_s = None if self._trouble is None else due_s(self._trouble, self._last.told, self._after_s)
        return None if at_s is None else max(at_s, self._try_again_s)

    def show_due(self) -> None:
        """Show the notices that are due now, if any."""
        now_s, wall_s = self._clock.monotonic_s(), self._clock.wall_s()
        if (self._saved or self._unsaved) and self._agent_at_s <= now_s:
            self._show(agent_notice(self._saved, self._unsaved, self._name), 0)
            self._saved, self._unsaved, self._agent_at_s = 0, "", now_s + AGENT_EVERY_S
        if self._trouble is None or self._trouble_due_s is None or self._trouble_due_s > now_s:
            return
        since, today = utc(self._trouble.since_wall_s).astimezone(), utc(wall_s).astimezone()
        number = self._show(trouble_notice(self._trouble, self._name, since, today), self._last.number)
        if number is None:
            self._try_again_s = now_s + TRY_AGAIN_S
        else:
            self._last.number = number
            self._last.told = Told.FAILING if self._trouble.needed_since_s is None else Told.NEEDED

    def _show(self, notice: Notice, replaced: int) -> int | None:
        """Show it in the place of an earlier one; returns its number. None: it could not be shown."""
        if not self._bus_address:
            return None
        import asyncio  # noqa: PLC0415 - only when there is something to show

        try:
            return asyncio.run(asyncio.wait_for(_sent(self._bus_address, notice, replaced), REPLY_TIMEOUT_S))
        except Exception as failure:  # noqa: BLE001 - anything may answer there; it must not end the daemon
            _log.debug("no desktop notification: %s", str(failure) or type(failure).__name__)
            return None


def _session_bus(environ: Mapping[str, str]) -> str:
    """The address of the session's bus: the one in the environment, else the default one."""
    return environ.get("DBUS_SESSION_BUS_ADDRESS") or f"unix:path={environ.get('XDG_RUNTIME_DIR', '')}/bus"


async def _sent(bus_address: str, notice: Notice, replaced: int) -> int:
    """Send the notice, and return the number that the desktop gave it."""
    import html  # noqa: PLC0415 - it loads a table of 2,000 names, which no idle daemon needs

    from jeepney import DBusAddress, new_method_call  # noqa: PLC0415
    from jeepney.io.asyncio import open_dbus_router  # noqa: PLC0415
    from jeepney.wrappers import unwrap_msg  # noqa: PLC0415

    server = DBusAddress(_PATH, _NAME, _NAME)
    async with open_dbus_router(bus_address) as router:

        async def call(method: str, signature: str | None, *arguments: Any) -> Any:
            (answer,) = unwrap_msg(
                await router.send_and_get_reply(new_method_call(server, method, signature, arguments))
            )
            return answer

        # Where markup is supported, a message from a server could look like anything.
        is_markup = "body-markup" in await call("GetCapabilities", None)
        body = html.escape(notice.body, quote=False) if is_markup else notice.body
        hints = {"urgency": ("y", _NORMAL), "category": ("s", notice.category)}
        text = (notice.icon, notice.summary, body)
        number: int = await call("Notify", "susssasa{sv}i", "syncd", replaced, *text, [], hints, _DEFAULT_TIMEOUT)
        return number
