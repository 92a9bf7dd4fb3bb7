"""Shows on the desktop that syncing fails, that it works again, and what happened to the agent's work.

The rule is in `report.notification_rules`.
"""

from __future__ import annotations

import logging
import os

from syncd.core.clock import Clock, utc
from syncd.core.text import shown_path
from syncd.report.desktop import Desktop, NotShown
from syncd.report.notification_rules import (
    AgentEvent,
    Condition,
    Failing,
    Healthy,
    SavedWork,
    UnsavedWork,
    after_event_shown,
    after_failed_event,
    after_failed_try,
    after_failure,
    after_saved,
    after_shown,
    plan,
    plan_event,
    render,
    render_event,
)
from syncd.report.notification_store import NotificationStore

_log = logging.getLogger("syncd")


class DesktopNotifier:
    """The notifications of one daemon. Nothing here fails, and nothing takes longer than `desktop.REPLY_TIMEOUT_S`."""

    def __init__(
        self, workspace: str, after_s: float, *, desktop: Desktop | None, file: NotificationStore, clock: Clock
    ) -> None:
        """`after_s` is how long failing lasts before it is shown (seconds awake); `desktop` None: nothing is shown."""
        self._name = os.path.basename(workspace)
        self._after_s = after_s
        self._desktop = desktop
        self._file = file
        self._clock = clock
        self._condition: Condition = None
        self._saved: SavedWork | None = None
        self._unsaved: UnsavedWork | None = None
        self._state, self._shown = file.load()

    def failed(self, text: str, *, needs_person: bool) -> None:
        """A sync or a step of it failed, with the error's own line; with `needs_person` it will not pass by itself."""
        now_s, wall_s = self._clock.monotonic_s(), self._clock.wall_s()
        self._condition = after_failure(self._condition, text, now_s, wall_s, needs_person=needs_person)
        self.show_due()

    def succeeded(self) -> None:
        """A sync succeeded."""
        self._condition = Healthy()
        self.show_due()

    def paused(self) -> None:
        """Syncing is paused: it neither fails nor works."""
        self._condition = None

    def saved(self, files: int) -> None:
        """So many files of the agent were saved, as both sides had changed, before they were overwritten."""
        self._saved = after_saved(self._saved, files)
        self._show_events()

    def unsaved(self, text: str) -> None:
        """Changes in a sandbox that ends, or was left, could not be saved; `text` says which, and why."""
        self._unsaved = UnsavedWork(text)
        self._show_events()

    @property
    def due_s(self) -> float | None:
        """The monotonic second from which on `show_due` has something to show; None: nothing is planned."""
        if self._desktop is None:
            return None
        now_s, wall_s = self._clock.monotonic_s(), self._clock.wall_s()
        planned = plan(self._condition, self._state, self._after_s, now_s, wall_s)
        times = [plan_event(event, self._state, now_s, wall_s).at_s for event in self._events]
        return min(times if planned is None else [planned.at_s, *times], default=None)

    def show_due(self) -> None:
        """Show the notifications that are due now, if any."""
        self._show_events()
        now_s, wall_s = self._clock.monotonic_s(), self._clock.wall_s()
        due = plan(self._condition, self._state, self._after_s, now_s, wall_s)
        if self._desktop is None or due is None or due.at_s > now_s:
            return
        since_s = self._condition.since_wall_s if isinstance(self._condition, Failing) else wall_s
        since, today = utc(since_s).astimezone(), utc(wall_s).astimezone()
        try:
            notice = render(due.kind, self._condition, shown_path(self._name), since, today)
            self._shown = self._desktop.show(notice, self._shown)
        except NotShown as failure:
            if not self._state.failed_tries:
                _log.debug("no desktop notification: %s", failure)
            self._state = after_failed_try(self._state, due.kind, now_s)
        else:
            self._state = after_shown(self._state, due.kind, self._condition, wall_s)
        if not self._state.failed_tries:
            self._file.save(self._state, self._shown)

    @property
    def _events(self) -> list[AgentEvent]:
        return [event for event in (self._saved, self._unsaved) if event is not None]

    def _show_events(self) -> None:
        """Show what happened to the agent's work, beside what is shown about syncing."""
        if self._desktop is None:
            return
        now_s, wall_s = self._clock.monotonic_s(), self._clock.wall_s()
        for event in self._events:
            if plan_event(event, self._state, now_s, wall_s).at_s > now_s:
                continue
            left: AgentEvent | None = None
            try:
                self._desktop.show(render_event(event, shown_path(self._name)), None)
            except NotShown as failure:
                if not event.failed_tries:
                    _log.debug("no desktop notification: %s", failure)
                left = after_failed_event(event, now_s)
            else:
                self._state = after_event_shown(self._state, event, wall_s)
                self._file.save(self._state, self._shown)
            if isinstance(event, SavedWork):
                self._saved = left if isinstance(left, SavedWork) else None
            else:
                self._unsaved = left if isinstance(left, UnsavedWork) else None
