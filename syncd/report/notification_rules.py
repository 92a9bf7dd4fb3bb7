"""What is said on the desktop and when: bad news once it has lasted, good news after bad, and never many.

The desktop is brought to say what is true, as the sandbox is: what it was told last is compared with how syncing is.
So nothing is repeated while it stays as it is, and of troubles that come and go only what lasts is told.

Two clocks: trouble is counted in seconds awake (monotonic), as a night with a closed lid is no night of failing; how
often something is said is counted in seconds since boot, as that is what a person sees.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace as changed

from syncd.core.text import one_line, redacted
from syncd.remote.retry import backoff_limit_s

# What waits for a person is said this soon: by then a disk would be mounted again, a key file saved.
NEEDED_AFTER_S = 60.0
DAY_S = 86_400.0
# Whatever happens, no more in any hour and any day. The last of them is kept for good news.
MOST = ((3_600.0, 4), (DAY_S, 12))
# Where nothing could be shown, as before a person logs in or while a desktop starts, the next tries come after these, …
TRY_AGAIN_FIRST_S = 10.0
TRY_AGAIN_MAX_S = 600.0
# … and good news that found nobody for so long is no news any more.
STALE_S = 3_600.0

_LONGEST = 400
# Of a URL only the host is for people.
_URL = re.compile(r"""(?i)\b[a-z][a-z0-9+.-]*://(?:[^\s/?#@'"]*@)?([^\s/?#'"]*)[^\s'"]*?(?=[.,:;)\]]*(?:[\s'"]|$))""")


class NotificationKind(StrEnum):
    """What there is to say."""

    FAILING = "syncing has been failing for long"
    NEEDED = "syncing waits for a person"
    WELL = "in sync again"


@dataclass(frozen=True)
class TwoClocks:
    """The same instant by two clocks."""

    awake_s: float
    boot_s: float


@dataclass(frozen=True)
class Failing:
    """Syncing fails. `since_s` and `needed_since_s` are seconds awake; the second is None where it may pass."""

    text: str
    since_s: float
    since_wall_s: float
    needed_since_s: float | None

    @property
    def kind(self) -> str:
        """The same for the same trouble, however many files it counts."""
        return re.sub(r"\d+", "#", self.text)


@dataclass(frozen=True)
class Healthy:
    """Syncing works, since this second after boot."""

    since_boot_s: float


# None: nobody knows, as at the start; or nobody asks, as in a pause.
Condition = Failing | Healthy | None


class NoticeState(Struct, frozen=True):
    """What the desktop was told. All times are seconds since boot.

    `news` is the last thing; `kinds` the troubles of which it was said, since all was well, that a person is needed;
    `times` when something was said within a day; `vain` how many tries showed nothing since, and `not_before_s` when
    the next one may come.
    """

    news: NotificationKind | None = None
    kinds: dict[str, float] = {}
    times: tuple[float, ...] = ()
    vain: int = 0
    not_before_s: float | None = None


@dataclass(frozen=True)
class Plan:
    """What is to be said if all stays as it is, from this second (awake) on."""

    news: NotificationKind
    at_s: float


@dataclass(frozen=True)
class Notice:
    """One notification, as the Desktop Notifications Specification 1.2 has it; plain text, no markup."""

    summary: str
    body: str
    category: str
    icon: str


def failed(before: Condition, text: str, now_s: float, wall_s: float, *, needs_person: bool) -> Failing:
    """How it is after a failure now (seconds awake), with the error's own line as `text`."""
    if not isinstance(before, Failing):
        before = Failing("", now_s, wall_s, None)
    text = one_line(redacted(text), _LONGEST)
    needed_since_s = now_s if before.needed_since_s is None else before.needed_since_s
    return replace(before, text=text, needed_since_s=needed_since_s if needs_person else None)


def plan(condition: Condition, told: NoticeState, after_s: float, now: TwoClocks) -> Plan | None:
    """What is to be said next, if anything; `after_s` is how long failing is borne (seconds awake)."""
    match condition:
        case Healthy(since_boot_s) if (
            told.news in (NotificationKind.FAILING, NotificationKind.NEEDED) and now.boot_s - since_boot_s < STALE_S
        ):
            return Plan(NotificationKind.WELL, max(now.awake_s, _free_s(told, now, kept=0)))
        case Failing(since_s=since_s, needed_since_s=None) if told.news in (None, NotificationKind.WELL):
            return Plan(NotificationKind.FAILING, max(since_s + after_s, _free_s(told, now, kept=1)))
        case Failing(needed_since_s=float() as needed_since_s):
            at_s = needed_since_s + min(after_s, NEEDED_AFTER_S)
            if condition.kind in told.kinds:
                at_s = max(at_s, _awake_s(told.kinds[condition.kind] + DAY_S, now))
            return Plan(NotificationKind.NEEDED, max(at_s, _free_s(told, now, kept=1)))
        case _:
            return None


def said(told: NoticeState, news: NotificationKind, condition: Condition, now: TwoClocks) -> NoticeState:
    """What the desktop has been told, once this was said now."""
    times = (*(time_s for time_s in told.times if now.boot_s - time_s < DAY_S), now.boot_s)
    kinds = (
        {}
        if news is NotificationKind.WELL
        else {kind: at for kind, at in told.kinds.items() if now.boot_s - at < DAY_S}
    )
    if news is NotificationKind.NEEDED and isinstance(condition, Failing):
        kinds[condition.kind] = now.boot_s
    return NoticeState(news, kinds, times)


def outlived(told: NoticeState, condition: Condition, now: TwoClocks) -> NoticeState:
    """What the desktop has been told, where the good news got too old to be said: then the bad is forgotten too."""
    if isinstance(condition, Healthy) and now.boot_s - condition.since_boot_s >= STALE_S:
        return changed(told, news=None, kinds={}, vain=0)
    return told


def in_vain(told: NoticeState, now: TwoClocks) -> NoticeState:
    """What the desktop has been told, after a try that showed nothing."""
    wait_s = backoff_limit_s(told.vain + 1, TRY_AGAIN_FIRST_S, TRY_AGAIN_MAX_S)
    return changed(told, vain=told.vain + 1, not_before_s=now.boot_s + wait_s)


def shifted(told: NoticeState, by_s: float) -> NoticeState:
    """The same by a clock that is so much ahead: another boot's."""
    return changed(
        told,
        kinds={kind: at_s + by_s for kind, at_s in told.kinds.items()},
        times=tuple(time_s + by_s for time_s in told.times),
        not_before_s=None if told.not_before_s is None else told.not_before_s + by_s,
    )


def render(news: NotificationKind, condition: Condition, name: str, since: datetime, now: datetime) -> Notice:
    """The notification's words for a workspace of this name. Both times are local."""
    name = one_line(name, 40)
    if news is NotificationKind.WELL or not isinstance(condition, Failing):
        return Notice(f"{name} is in sync again", "The last sync went through.", "transfer.complete", "emblem-default")
    when = f"{since:%H:%M}" if since.date() == now.date() else f"{since:%Y-%m-%d %H:%M}"
    body = f"Since {when}: {_without_urls(condition.text)}"
    if news is NotificationKind.NEEDED:
        return Notice(f"{name} is not synced: you are needed", body, "transfer.error", "dialog-warning")
    body += "\nIt goes on by itself; `syncd status` says more."
    return Notice(f"{name} is not synced", body, "transfer.error", "dialog-warning")


def _without_urls(text: str) -> str:
    return _URL.sub(r"\1", text)


def _free_s(told: NoticeState, now: TwoClocks, *, kept: int) -> float:
    """From which second (awake) on something may be said, so that so many more may still follow."""
    free_s = now.boot_s if told.not_before_s is None else told.not_before_s
    for window_s, most in MOST:
        recent = [time_s for time_s in told.times if now.boot_s - time_s < window_s]
        surplus = len(recent) - (most - kept)
        if surplus >= 0:
            free_s = max(free_s, recent[surplus] + window_s)
    return _awake_s(free_s, now)


def _awake_s(boot_s: float, now: TwoClocks) -> float:
    """That second after boot in seconds awake, if no sleep comes between."""
    return now.awake_s + (boot_s - now.boot_s)
