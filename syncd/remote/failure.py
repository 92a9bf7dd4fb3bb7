"""Failed steps: what the program does about one, and when it tries again; `api` and `bucket` say what happened.

And the pace of requests, once the API refused one for their number.

The bucket is judged by status and `<Code>`, never by its message (Google Cloud Storage, "XML API: HTTP status and error
codes"); the API by its status.
"""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum, StrEnum
from math import inf

from msgspec import Struct

from syncd.core.errors import NeedsPerson, SandboxRefused, SyncdError, Unavailable

SIGN_IN = "sign in to this network if it asks for that"
# The longest `Retry-After` that is kept to: a mistake of a server must not stop the daemon for a week.
LONGEST_RETRY_AFTER_S = 3600.0
# A wait goes beyond a `Retry-After` by up to this share of it, and this time, at random: laptops that were told the
# same do not all come back at once.
ASKED_SPREAD, ASKED_SPREAD_S = 0.2, 60.0
# The waits for the next try of what fails again and again and delays nothing else.
FIRST_WAIT_S, LONGEST_WAIT_S = 15.0, 900.0
# Upload URLs that one sync asks for at once; then a refused one is followed by a wait, like any failure.
FRESH_URLS = 2
# The API's limit of requests a second, as far as it is known.
REQUESTS_PER_WINDOW = 2
WINDOW_S = 1.0
# A limit may be one of the account, so its end is not announced: a request that is refused again begins a new hour.
PACED_S = 3600.0


class ApiStep(StrEnum):
    """The step that failed; the words are those of `status --json`."""

    WATCH = "watch"
    SNAPSHOT = "snapshot"
    UPLOAD_URL = "upload-url"
    UPLOAD = "upload"
    INITIALIZE = "initialize"
    DELETE = "delete"
    EXECUTION = "execution"  # part of a check or a removal: `executions.Purpose` names the step that it belongs to
    DUMP = "dump"  # only `syncd pull` and `verify` ask for it
    SANDBOX = "sandbox"  # only `syncd check` and `syncd sandbox` ask for it; no status names it


class FailureAction(Enum):
    """The program's reaction to a failure."""

    RETRY = "the same step again, after a wait"
    OFFLINE = "no answer at all: the same step again, after a wait that a newer change may cut short"
    RENEW_URL = "a new signed URL, at once"
    UPLOAD_AGAIN = "what lies in Klavis' storage is not what was sent"
    REFUSED = "a person must change something"


class StepFailed(Exception):
    """One attempt at one step failed.

    `retry_after_s` is the wait that the server asked for; `refusal` is the error that a refused attempt ends a command
    with; `possibly_applied` is False if the server surely did not do what it was asked. `gives_up_in_s` is what is left
    of the time for retries, once that is known.
    """

    def __init__(
        self,
        step: ApiStep,
        action: FailureAction,
        message: str,
        hint: str = "",
        *,
        retry_after_s: float | None = None,
        refusal: type[NeedsPerson] = SandboxRefused,
        possibly_applied: bool = True,
    ) -> None:
        super().__init__(message)
        self.step = step
        self.action = action
        self.message = message
        self.hint = hint
        self.retry_after_s = retry_after_s
        self.refusal = refusal
        self.possibly_applied = possibly_applied
        self.gives_up_in_s: float | None = None

    def as_error(self) -> SyncdError:
        if self.action is FailureAction.REFUSED:
            return self.refusal(self.message, self.hint)
        return Unavailable(self.message, self.hint or "wait a minute, and see `syncd check`")

    def __str__(self) -> str:
        return f"{self.message}: {self.hint}" if self.hint else self.message


# "Retry 408, 429, 5xx": Google's retry strategy; 409 and 425 are the API's "not now"; 407 is a proxy's, 421 is about
# the connection.
RETRYABLE = frozenset({407, 408, 409, 421, 423, 425, 429})
# No new URL and no wait changes these.
HOPELESS_CODES = frozenset({"EntityTooLarge"})


def classify_api_status(step: ApiStep, status: int) -> FailureAction:
    """Return what to do about an API answer with this error status."""
    if status >= 500 or status in RETRYABLE:
        return FailureAction.RETRY
    if status < 400:
        return FailureAction.RETRY  # a captive portal redirects until someone has signed in; nothing else was asked for
    if step is ApiStep.INITIALIZE and status == 400:
        return FailureAction.UPLOAD_AGAIN  # "no uploaded archive": the slot was emptied, or never filled
    return FailureAction.REFUSED


def classify_bucket_status(status: int, code: str) -> FailureAction:
    """Return what to do about a bucket's answer with this status and XML `<Code>`."""
    if status >= 500 or status in RETRYABLE or status < 400:
        return FailureAction.RETRY
    if code in HOPELESS_CODES or status == 413:
        return FailureAction.REFUSED
    # The signed URL is no longer accepted: `ExpiredToken`, or 403 where its signature no longer verifies after a change
    # of keys. Other causes (a malformed header, no such bucket) also lie in the URL, if in anything of ours.
    return FailureAction.RENEW_URL


class RetrySettings(Struct, frozen=True):
    """The values of `[retry]`, in seconds."""

    first_s: float
    max_s: float
    give_up_s: float


def retry_after_s(value: str | None, server_wall_s: float) -> float | None:
    """Return the seconds that a `Retry-After` header asks for (RFC 9110, 10.2.3: seconds or an HTTP date), if valid.

    `server_wall_s` is the server's own time, since a date is by its clock.
    """
    seconds = (value or "").strip()
    if seconds.isascii() and seconds.isdigit():
        return min(float(seconds), LONGEST_RETRY_AFTER_S)
    when_s = http_date_s(value)
    return None if when_s is None else min(max(0.0, when_s - server_wall_s), LONGEST_RETRY_AFTER_S)


def http_date_s(value: str | None) -> float | None:
    """Return the seconds since 1970 of a header with a date, if it is valid; a date without a zone is in UTC."""
    try:
        date = parsedate_to_datetime(value or "")
        return (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def backoff_limit_s(failures: int, first_s: float, max_s: float) -> float:
    """Return the upper end of the wait after this many failures in a row (1 is the first): doubling, up to `max_s`."""
    doublings = min(max(failures, 1) - 1, 32)
    return min(max_s, first_s * (1 << doublings))


class NextTry(Struct):
    """The time of the next try of what fails again and again, of the monotonic clock; infinity if it does not fail."""

    at_s: float = inf
    _tries: int = 0

    def clear(self) -> None:
        self.at_s, self._tries = inf, 0

    def failed(self, now_s: float) -> None:
        """Plan the next try after one that failed now, later each time; one that came before its time plans none."""
        if not now_s < self.at_s < inf:
            self._tries += 1
            self.at_s = now_s + backoff_limit_s(self._tries, FIRST_WAIT_S, LONGEST_WAIT_S)

    def hasten(self) -> None:
        """Have the next try, if one is planned, be due."""
        self.at_s = inf if self.at_s == inf else -inf

    def is_waiting(self, now_s: float) -> bool:
        """True if it failed, and its next try is not due."""
        return now_s < self.at_s < inf


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


# -- the pace of requests


class RequestKind(Enum):
    """The way in which a request repeats."""

    SINGLE = "a step of its own"
    POLL = "asks again how an execution goes on: half of the requests are left to others"


class ApiLimit(Struct):
    """The API's limit of requests a second, for all of this process. Times are monotonic seconds.

    Requests wait only after an answer of 429, since an account may have a limit of two a second, or none. From then on
    it is kept to for an hour, so that the next ones are not refused as well: a refused one costs a wait, and often a
    step that is begun again. The state is not stored: a new process learns it by one refused request. The API counts a
    request at some moment between its sending and its answer. So one is sent a second after the answer before the last:
    however slow the network, no three are counted within a second. Where several sandboxes are asked side by side, one
    that is not answered yet counts from its sending: one that takes a minute delays no other. Requests to the bucket do
    not count.

    `counted_s` are the times of the last requests, `polled_s` is that of the last poll.
    """

    paced_until_s: float = -inf
    counted_s: tuple[float, ...] = ()
    polled_s: float = -inf

    def wait_s(self, kind: RequestKind, now_s: float) -> float:
        if now_s >= self.paced_until_s:
            return 0.0
        before_s = [self.counted_s[0]] if len(self.counted_s) == REQUESTS_PER_WINDOW else []
        if kind is RequestKind.POLL:
            before_s.append(self.polled_s)
        return max(0.0, max(before_s, default=-inf) + WINDOW_S - now_s)

    def count(self, kind: RequestKind, now_s: float) -> None:
        """Count a request that is sent now."""
        self.counted_s = (*self.counted_s, now_s)[-REQUESTS_PER_WINDOW:]
        if kind is RequestKind.POLL:
            self.polled_s = now_s

    def answered(self, kind: RequestKind, status: int | None, sent_s: float, now_s: float) -> None:
        """Count a request from its answer on, which came now, and not from when it was sent; None: it got none."""
        others_s = [*self.counted_s]
        if sent_s in others_s:
            others_s.remove(sent_s)
        self.counted_s = tuple(others_s)
        self.count(kind, now_s)
        if status == 429:
            self.paced_until_s = now_s + PACED_S
