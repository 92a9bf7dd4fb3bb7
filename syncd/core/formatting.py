"""Times and counts in the words of a person, and a message taken apart into what happened and what to do."""

from __future__ import annotations

from datetime import datetime

_MINUTE_S = 60
_HOUR_S = 3600
_DAY_S = 86_400


def seconds_of(stamp: str | None) -> float | None:
    """Seconds since 1970 of a time as the status document has it; None where there is none, or none that is a time."""
    if stamp is None:
        return None
    try:
        return datetime.fromisoformat(stamp).timestamp()
    except (ValueError, OverflowError):
        return None


def span(seconds: float) -> str:
    """How long, in one or two units: `8 s`, `3 min`, `1 h 12 min`, `2 days`. What is negative is `0 s`."""
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
    """How long since. A clock that was set back makes no sense of it: `just now`."""
    return "just now" if seconds < 2 else f"{span(seconds)} ago"


def countdown(seconds: float) -> str:
    """What is left, as a clock shows it: `0:08`, `1:02:03`."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, _HOUR_S)
    minutes, left = divmod(rest, _MINUTE_S)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def counted(number: int, thing: str) -> str:
    """`1 sync`, `1,204 syncs`."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def size(size_bytes: int) -> str:
    """A size for people: `950 bytes`, `5,003 KiB`, `61.2 MiB`."""
    if size_bytes < 10_000:
        return counted(size_bytes, "byte")
    if size_bytes < 10 << 20:
        return f"{size_bytes / 1024:,.0f} KiB"
    return f"{size_bytes / (1 << 20):,.1f} MiB" if size_bytes < 10 << 30 else f"{size_bytes / (1 << 30):,.0f} GiB"


def distinguishable(message: str) -> tuple[str, str]:
    """What happened, and what to do about it: what stands after the last colon, unless a quoted path holds that one.

    Errors and problems are written `what: remedy`. A message without a remedy may be cut at another colon; nothing is
    lost by it, as both parts are shown.
    """
    what, colon, remedy = message.rpartition(": ")
    if not colon or what.count("'") % 2 or what.count('"') % 2 or what.count("`") % 2:
        return message, ""
    return what, remedy
