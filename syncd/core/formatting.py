"""Formats times, sizes and counts for people, and splits a message into what happened and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

_MINUTE_S = 60
_HOUR_S = 3600
_DAY_S = 86_400
# A text names so many paths at most, and a document, or a command that lists, so many.
_FEW_NAMED = 5
MOST_NAMED = 50


def seconds_of(stamp: str | None) -> float | None:
    """Parse a time of the status document into seconds since 1970; None if there is none or it is not a time."""
    if stamp is None:
        return None
    try:
        return datetime.fromisoformat(stamp).timestamp()
    except (ValueError, OverflowError):
        return None


def duration(seconds: float) -> str:
    """Format a duration in one or two units: `8 s`, `3 min`, `1 h 12 min`, `2 days`. A negative one is `0 s`."""
    whole = max(0, int(seconds))
    if whole < 2 * _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min"
    if whole < _DAY_S:
        minutes = whole % _HOUR_S // _MINUTE_S
        return f"{whole // _HOUR_S} h {minutes} min" if minutes else f"{whole // _HOUR_S} h"
    return counted(whole // _DAY_S, "day")


def ago(seconds: float) -> str:
    """Format the time since an event; `just now` also where a clock that was set back makes it negative."""
    return "just now" if seconds < 2 else f"{duration(seconds)} ago"


def countdown(seconds: float) -> str:
    """Format the time that is left as a clock does: `0:08`, `1:02:03`."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, _HOUR_S)
    minutes, left = divmod(rest, _MINUTE_S)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def counted(number: int, thing: str) -> str:
    """Format a count with its noun: `1 sync`, `1,204 syncs`."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def few(names: Sequence[str], number: int, see: str = "") -> list[str]:
    """Return the first of `number` names, and then `and 7 more`, with a place where all are to be seen."""
    first = [*names[:_FEW_NAMED]]
    return [*first, f"and {number - len(first):,} more{see}"] if number > len(first) else first


def size(size_bytes: int) -> str:
    """Format a size: `950 bytes`, `5,003 KiB`, `61.2 MiB`."""
    if size_bytes < 10_000:
        return counted(size_bytes, "byte")
    if size_bytes < 10 << 20:
        return f"{size_bytes / 1024:,.0f} KiB"
    return f"{size_bytes / (1 << 20):,.1f} MiB" if size_bytes < 10 << 30 else f"{size_bytes / (1 << 30):,.0f} GiB"


def split_remedy(message: str) -> tuple[str, str]:
    """Split a message `what: remedy` at its last colon, unless that colon is within quotes.

    Errors and warnings have this form. A message without a remedy may be split at another colon; nothing is lost, as
    both parts are shown.
    """
    what, colon, remedy = message.rpartition(": ")
    if not colon or what.count("'") % 2 or what.count('"') % 2 or what.count("`") % 2:
        return message, ""
    return what, remedy
