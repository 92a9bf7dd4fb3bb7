"""Rules for retries: the wait before the next attempt, and its limits."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime

from msgspec import Struct

from syncd.remote.failure import ApiStep, FailureAction

# The longest `Retry-After` that is kept to: a mistake of a server must not stop the daemon for a week.
LONGEST_RETRY_AFTER_S = 3600.0
# A wait goes beyond a `Retry-After` by up to this share of it, and this time, at random: laptops that were told the
# same do not all come back at once.
ASKED_SPREAD, ASKED_SPREAD_S = 0.2, 60.0
# Upload URLs that one sync asks for at once; then a refused one is followed by a wait, like any failure.
FRESH_URLS = 2


class RetrySettings(Struct, frozen=True):
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
    limit_s, least_s = backoff_limit_s(failures, first_s, max_s), asked_s or 0.0
    return max(limit_s * (0.5 + 0.5 * chance), least_s + min(ASKED_SPREAD * least_s, ASKED_SPREAD_S) * chance)


def failures_in_row(action: FailureAction, fresh_urls: int, failures: int) -> int:
    """Return the failures that the wait grows with; 0: at once, with a new URL.

    `fresh_urls` are the new URLs that were due in this sync, `failures` those of this step since it last succeeded. A
    new URL that the bucket refuses as well is waited out like any failure.
    """
    return 0 if action is FailureAction.RENEW_URL and fresh_urls <= FRESH_URLS else failures


def asks_first(step: ApiStep, action: FailureAction, initializes: int) -> bool:
    """True if the next attempt begins with the request for an upload URL, as the API failed in a later step.

    `initializes` are the failed ones in a row; the first one is only repeated. An attempt then costs an API that is
    down one request; one of a look, an initialize and what follows costs several, and the look would be given up.
    """
    is_later = step not in (ApiStep.UPLOAD_URL, ApiStep.UPLOAD)
    return action is FailureAction.RETRY and is_later and initializes != 1


def gives_up(wait_s: float, started_s: float, now_s: float, give_up_s: float) -> bool:
    """True if the retries that began at `started_s` would last too long with this wait. An attempt at once is made."""
    return wait_s > 0 and now_s + wait_s - started_s > give_up_s
