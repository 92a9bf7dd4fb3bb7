"""Rules for retries: the wait before the next attempt, and its limits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

# The longest `Retry-After` that is kept to: a mistake of a server must not stop the daemon for a week.
LONGEST_RETRY_AFTER_S = 3600.0
# Upload URLs that one sync asks for at once; then a refused one is followed by a wait, like any failure.
FRESH_URLS = 2


@dataclass(frozen=True)
class RetrySettings:
    """The values of `[retry]`, in seconds."""

    first_s: float
    max_s: float
    give_up_s: float


def retry_after_s(value: str | None, server_wall_s: float) -> float | None:
    """Return the seconds that a `Retry-After` header asks for (RFC 9110, 10.2.3: seconds or an HTTP date), if valid.

    `server_wall_s` is the server's own time, since a date is by its clock.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value), LONGEST_RETRY_AFTER_S)
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return min(max(0.0, when.timestamp() - server_wall_s), LONGEST_RETRY_AFTER_S)


def backoff_limit_s(failures: int, first_s: float, max_s: float) -> float:
    """Return the upper end of the wait after this many failures in a row (1 is the first): doubling, up to `max_s`."""
    doublings = min(max(failures, 1) - 1, 32)
    return min(max_s, first_s * (1 << doublings))


def delay_s(failures: int, first_s: float, max_s: float, chance: float, asked_s: float | None = None) -> float:
    """Return the wait before the next attempt.

    `chance` is a random number from 0 to 1, which decides half of the wait, so that many laptops that lost one server
    do not all come back in the same second. `asked_s` is the server's `Retry-After`, the shortest wait.
    """
    limit_s = backoff_limit_s(failures, first_s, max_s)
    return max(limit_s * (0.5 + 0.5 * chance), asked_s or 0.0)
