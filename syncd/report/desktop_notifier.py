"""Says on the desktop that syncing fails, and that it is well again: when is decided in `policy.notice`."""

from __future__ import annotations

import logging
import os

from syncd.core.clock import Clock, utc
from syncd.core.text import shown_path
from syncd.report.desktop import Desktop, NotShown
from syncd.report.notification_rules import (
    Condition,
    Failing,
    Healthy,
    TwoClocks,
    failed,
    in_vain,
    outlived,
    plan,
    render,
    said,
)
from syncd.report.notification_store import NotificationStore

_log = logging.getLogger("syncd")


class DesktopNotifier:
    """One daemon's word to its person. Nothing here fails, and nothing takes longer than `desktop.REPLY_TIMEOUT_S`."""

    def __init__(
        self, workspace: str, after_s: float, *, desktop: Desktop | None, file: NotificationStore, clock: Clock
    ) -> None:
        """`after_s` is how long failing is borne (seconds awake); `desktop` None: nothing is ever said."""
        self._name = os.path.basename(workspace)
        self._after_s = after_s
        self._desktop = desktop
        self._file = file
        self._clock = clock
        self._condition: Condition = None
        self._told, self._shown = file.load()
        self._complained = False

    def failed(self, text: str, *, needs_person: bool) -> None:
        """A sync or a step of it failed, with the error's own line; with `needs_person` it will not pass by itself."""
        now_s, wall_s = self._clock.monotonic_s(), self._clock.wall_s()
        self._told = outlived(self._told, self._condition, self._now())
        self._condition = failed(self._condition, text, now_s, wall_s, needs_person=needs_person)
        self.look()

    def well(self) -> None:
        """A sync succeeded."""
        if not isinstance(self._condition, Healthy):
            self._condition = Healthy(self._clock.boottime_s())
        self.look()

    def paused(self) -> None:
        """Syncing is paused: no news, good or bad, comes of that."""
        self._condition = None

    @property
    def due_s(self) -> float | None:
        """The monotonic second from which on `look` has something to say; None: nothing is ahead."""
        ahead = None if self._desktop is None else plan(self._condition, self._told, self._after_s, self._now())
        return None if ahead is None else ahead.at_s

    def look(self) -> None:
        """Time may have passed: say what is due."""
        now = self._now()
        due = plan(self._condition, self._told, self._after_s, now)
        if self._desktop is None or due is None or due.at_s > now.awake_s:
            return
        wall_s = self._clock.wall_s()
        since_s = self._condition.since_wall_s if isinstance(self._condition, Failing) else wall_s
        since, today = utc(since_s).astimezone(), utc(wall_s).astimezone()
        try:
            notice = render(due.news, self._condition, shown_path(self._name), since, today)
            self._shown = self._desktop.show(notice, self._shown)
        except NotShown as failure:
            self._told = in_vain(self._told, now)
            if not self._complained:
                _log.debug("no desktop notification: %s", failure)
            self._complained = True
        else:
            self._told = said(self._told, due.news, self._condition, now)
            self._complained = False
            self._file.save(self._told, self._shown)

    def _now(self) -> TwoClocks:
        return TwoClocks(self._clock.monotonic_s(), self._clock.boottime_s())
