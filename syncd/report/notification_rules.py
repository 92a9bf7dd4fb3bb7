"""The rule of desktop notifications: failing is shown once it has lasted, success only after that, and never many.

What happened to the agent's work is shown at once, beside the rest, but once an hour and kind at most. Failing is
counted in seconds awake (monotonic): a night with a closed lid is no night of failing. The times of notifications are
wall time, the only clock that goes on over a boot.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from msgspec import Struct
from msgspec.structs import replace as changed

from syncd.core.formatting import counted
from syncd.core.text import one_line, redacted

# A failure that waits for a person is shown this soon: by then a disk would be mounted again, a key file saved.
NEEDED_AFTER_S = 60.0
# Failing is shown again after this, if it lasts.
REPEAT_AFTER_S = 86_400.0
# Failing is not shown where an hour has this many notifications already; success may follow as one more.
MOST_BEFORE_FAILING = 3
HOUR_S = 3_600.0
# The next try where nothing could be shown, as before a person logs in or while a desktop starts.
TRY_AGAIN_S = 300.0
# Success, and what happened to the agent's work, is not shown any more if it could not be shown so often.
SUCCESS_TRIES = 3

_LONGEST = 400
# Of a URL only the host is for people.
_URL = re.compile(r"""(?i)\b[a-z][a-z0-9+.-]*://(?:[^\s/?#@'"]*@)?([^\s/?#'"]*)[^\s'"]*?(?=[.,:;)\]]*(?:[\s'"]|$))""")


class NotificationKind(StrEnum):
    """The notifications: three about syncing, two about the agent's work."""

    FAILING = "failing"
    NEEDED = "needed"
    IN_SYNC = "in sync"
    SAVED = "saved"
    UNSAVED = "unsaved"


@dataclass(frozen=True)
class Failing:
    """Syncing fails. `since_s` and `needed_since_s` are seconds awake; the second is None where it may pass."""

    text: str
    since_s: float
    since_wall_s: float
    needed_since_s: float | None

    @property
    def trouble(self) -> str:
        """The text without its numbers: the same trouble, however many files it counts."""
        return re.sub(r"\d+", "#", self.text)


@dataclass(frozen=True)
class Healthy:
    """Syncing works."""


# None: unknown, as at the start or in a pause.
Condition = Failing | Healthy | None


class NoticeState(Struct, frozen=True):
    """The last notification about syncing and its trouble, and the times of the last `MOST_BEFORE_FAILING` (wall).

    `failed_tries` to show the next one followed; it is not tried again before `retry_at_s` (awake). `saved_at_s` and
    `unsaved_at_s` are the times (wall) of the last notifications about the agent's work.
    """

    kind: NotificationKind | None = None
    trouble: str = ""
    times: tuple[float, ...] = ()
    failed_tries: int = 0
    retry_at_s: float | None = None
    saved_at_s: float | None = None
    unsaved_at_s: float | None = None


@dataclass(frozen=True)
class SavedWork:
    """So many files of the agent were saved before they were overwritten, since the last notification of that."""

    kind: ClassVar = NotificationKind.SAVED
    files: int
    failed_tries: int = 0
    retry_at_s: float | None = None  # awake


@dataclass(frozen=True)
class UnsavedWork:
    """Changes in a sandbox that ends could not be saved; `text` says which, and why."""

    kind: ClassVar = NotificationKind.UNSAVED
    text: str
    failed_tries: int = 0
    retry_at_s: float | None = None  # awake


AgentEvent = SavedWork | UnsavedWork


@dataclass(frozen=True)
class Plan:
    """The next notification, and the second (awake) from which on it is shown if nothing changes."""

    kind: NotificationKind
    at_s: float


@dataclass(frozen=True)
class Notice:
    """One notification, as the Desktop Notifications Specification 1.2 has it; plain text, no markup."""

    summary: str
    body: str
    category: str
    icon: str


def after_failure(before: Condition, text: str, now_s: float, wall_s: float, *, needs_person: bool) -> Failing:
    """The condition after a failure now (seconds awake), with the error's own line as `text`."""
    if not isinstance(before, Failing):
        before = Failing("", now_s, wall_s, None)
    text = one_line(redacted(text), _LONGEST)
    needed_since_s = now_s if before.needed_since_s is None else before.needed_since_s
    return replace(before, text=text, needed_since_s=needed_since_s if needs_person else None)


def plan(condition: Condition, state: NoticeState, after_s: float, now_s: float, wall_s: float) -> Plan | None:
    """The next notification, if any; `after_s` is how long failing lasts before it is shown (seconds awake)."""
    failing_shown = state.kind in (NotificationKind.FAILING, NotificationKind.NEEDED)
    retry_at_s = now_s if state.retry_at_s is None else state.retry_at_s
    if isinstance(condition, Healthy):
        return Plan(NotificationKind.IN_SYNC, retry_at_s) if failing_shown else None
    if condition is None:
        return None
    if condition.needed_since_s is None:
        kind, at_s, is_repeated = NotificationKind.FAILING, condition.since_s + after_s, failing_shown
    else:
        kind, at_s = NotificationKind.NEEDED, condition.needed_since_s + min(after_s, NEEDED_AFTER_S)
        is_repeated = state.kind is kind and state.trouble == condition.trouble
    # A clock that was set back has made the later times meaningless.
    times = [time_s for time_s in state.times if time_s <= wall_s]
    waits_s = [0.0]
    if is_repeated and times:
        waits_s.append(times[-1] + REPEAT_AFTER_S - wall_s)
    if len(times) >= MOST_BEFORE_FAILING:
        waits_s.append(times[-MOST_BEFORE_FAILING] + HOUR_S - wall_s)
    return Plan(kind, max(at_s, retry_at_s, now_s + max(waits_s)))


def after_shown(state: NoticeState, kind: NotificationKind, condition: Condition, wall_s: float) -> NoticeState:
    """The state after this notification was shown now."""
    trouble = condition.trouble if isinstance(condition, Failing) else ""
    times = (*state.times, wall_s)[-MOST_BEFORE_FAILING:]
    return changed(state, kind=kind, trouble=trouble, times=times, failed_tries=0, retry_at_s=None)


def after_failed_try(state: NoticeState, kind: NotificationKind, now_s: float) -> NoticeState:
    """The state after this notification could not be shown now (seconds awake).

    Where success is given up, failing is forgotten too: the next failure is shown to a person who logs in later.
    """
    tries = state.failed_tries + 1
    if kind is NotificationKind.IN_SYNC and tries >= SUCCESS_TRIES:
        return changed(state, kind=None, trouble="", failed_tries=0, retry_at_s=None)
    return changed(state, failed_tries=tries, retry_at_s=now_s + TRY_AGAIN_S)


def after_saved(before: SavedWork | None, files: int) -> SavedWork:
    """The event after so many more files of the agent were saved."""
    return SavedWork(files) if before is None else replace(before, files=before.files + files)


def plan_event(event: AgentEvent, state: NoticeState, now_s: float, wall_s: float) -> Plan:
    """The notification of an event: now, but not before an hour after the last one of its kind."""
    last_s = state.saved_at_s if isinstance(event, SavedWork) else state.unsaved_at_s
    wait_s = 0.0
    if last_s is not None and last_s <= wall_s:  # a clock that was set back has made it meaningless
        wait_s = max(wait_s, last_s + HOUR_S - wall_s)
    return Plan(event.kind, max(now_s + wait_s, now_s if event.retry_at_s is None else event.retry_at_s))


def after_event_shown(state: NoticeState, event: AgentEvent, wall_s: float) -> NoticeState:
    """The state after the notification of an event was shown now."""
    if isinstance(event, SavedWork):
        return changed(state, saved_at_s=wall_s)
    return changed(state, unsaved_at_s=wall_s)


def after_failed_event(event: AgentEvent, now_s: float) -> AgentEvent | None:
    """The event after its notification could not be shown now (seconds awake); None: it is given up."""
    tries = event.failed_tries + 1
    return None if tries >= SUCCESS_TRIES else replace(event, failed_tries=tries, retry_at_s=now_s + TRY_AGAIN_S)


def render_event(event: AgentEvent, name: str) -> Notice:
    """The text of the notification of an event in a workspace of this name."""
    name = one_line(name, 40)
    if isinstance(event, SavedWork):
        was = "was" if event.files == 1 else "were"
        it = "it" if event.files == 1 else "they"
        body = f"{counted(event.files, 'file')} of the agent {was} saved before {it} {was} overwritten."
        body += "\n`syncd saved` says more."
        return Notice(f"{name}: both sides had changed", body, "transfer", "dialog-information")
    body = _without_urls(one_line(redacted(event.text), _LONGEST))
    summary = f"{name}: the agent's work is not saved"
    return Notice(summary, f"{body}\n`syncd status` says more.", "transfer.error", "dialog-warning")


def render(kind: NotificationKind, condition: Condition, name: str, since: datetime, now: datetime) -> Notice:
    """The text of the notification for a workspace of this name. Both times are local."""
    name = one_line(name, 40)
    if kind is NotificationKind.IN_SYNC or not isinstance(condition, Failing):
        return Notice(f"{name} is in sync again", "The last sync went through.", "transfer.complete", "emblem-default")
    when = f"{since:%H:%M}" if since.date() == now.date() else f"{since:%Y-%m-%d %H:%M}"
    body = f"Since {when}: {_without_urls(condition.text)}"
    if kind is NotificationKind.NEEDED:
        return Notice(f"{name} is not synced: you are needed", body, "transfer.error", "dialog-warning")
    body += "\nIt goes on by itself; `syncd status` says more."
    return Notice(f"{name} is not synced", body, "transfer.error", "dialog-warning")


def _without_urls(text: str) -> str:
    return _URL.sub(r"\1", text)
