r"""A small language for faults, so that a test or a person can describe one in a line: `upload: 503 x3`.

    OP: ACTION [WHEN] [OPTIONS] [skip=N] [xN | always]

`OP` is an operation of the request log, or `any`: list acquire get release reset upload-url initialize dump
execution-upload-url execute execution-status execution-logs export-artifacts (the API's), upload execution-upload
download (the bucket's).

    | action                 | what the client gets                                                      | when        |
    | ---------------------- | ------------------------------------------------------------------------- | ----------- |
    | `503`, any status      | that answer; options `code=CODE` (the bucket's), `location=URL`,          | instead     |
    |                        | `retry-after=VALUE`                                                       |             |
    | `expired`              | the bucket's 400 ExpiredToken                                             | instead     |
    | `forbidden`            | the bucket's 403 SignatureDoesNotMatch                                    | instead     |
    | `html`                 | 200 with a page, as a captive portal answers                              | instead     |
    | `json {…}`             | 200 with that JSON                                                        | instead     |
    | `error MESSAGE`        | initialize: 200 with `"status": "error"` and that message                 | instead     |
    | `redirect URL`         | 307 to that URL                                                           | instead     |
    | `huge`                 | 200 and a body without end                                                | instead     |
    | `bomb`                 | 200 and a few hundred bytes, coded `gzip, gzip`, of 64 MiB                | instead     |
    | `raw TEXT`             | exactly these bytes, with escapes such as `\r\n`; then the end            | instead     |
    | `flood TEXT`           | the bytes before a `|`, then those after it again and again               | instead     |
    | `reset`                | a TCP reset                                                               | before      |
    | `close`                | the connection ends without an answer                                     | before      |
    | `hang SECONDS`         | nothing for that time, then the connection ends                           | before      |
    | `delay SECONDS`        | nothing for that time, then the genuine answer                            | before      |
    | `lost`                 | the work is done, the connection ends without an answer (`close after`)   | after       |
    | `cut`                  | the work is done, only the first half of the answer's body is sent        | after       |
    | `slow BYTES`           | the request's body is read, and the answer's sent, at BYTES per second    | throughout  |
    | `drip SECONDS`         | the work is done, each byte of the answer is sent after that time         | after       |
    | `twice`                | the work is done, and the answer is sent twice                            | after       |
    | `skew SECONDS`         | the answer's date is ahead by that time, behind with a minus              | after       |
    | `corrupt`              | one byte of the upload is stored, or of the download is sent, changed     | throughout  |
    | `wrong-hash`, `no-hash`| upload: stored as sent, the answer has wrong hashes or none               | after       |
    | `two-hashes`           | upload: stored as sent, the answer has right hashes and wrong ones        | after       |
    | `gone`                 | the sandbox is deleted: 404 from now on                                   | before      |
    | `replace`              | initialize: the workspace is emptied first, so the archive replaces it    | change      |
    | `new-mtimes`           | initialize: files get the time of extraction, not the archive's mtimes    | change      |
    | `pending`              | execute: the execution stays pending, until the sandbox's `start_held`    | change      |
    | `late SECONDS`         | execute: the execution stays pending for that time, and then begins       | change      |
    | `failed`               | execute: the execution ends as failed at once, without output             | change      |

`WHEN` changes the moment: `before` (the head is read, the body is not), `mid-body` (half of the request's body is read;
without a body, half of the answer is sent), `instead` (the body is read, the work is not done), `after` (the work is
done, nothing is sent).
A request gets the first fault for its operation that is not used up. `skip=2` lets two requests pass first, `x3` is for
three requests, `always` for all; the default is one request.
A fault with `change` makes a sandbox that works differently. A request whose work is done gets the first one of each
action, in addition to another fault.

Some odd sandboxes: `execute: 501 always` (no programs), `execute: pending always`, `execute: failed always`,
`dump: 501 always`, `initialize: replace always`.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Mapping
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from tests.emulator.hostile_bodies import unescaped
from tests.emulator.request_log import RequestRecord

API_OPS = (
    "list",
    "acquire",
    "get",
    "release",
    "reset",
    "upload-url",
    "initialize",
    "dump",
    "execution-upload-url",
    "execute",
    "execution-status",
    "execution-logs",
    "export-artifacts",
)
BUCKET_OPS = ("upload", "execution-upload", "download")
ANY = "any"


class When(StrEnum):
    """The moment of a request at which a fault or a hook acts."""

    BEFORE = "before"
    MID_BODY = "mid-body"
    INSTEAD = "instead"
    AFTER = "after"


class Action(StrEnum):
    """An action of a fault; see the module's table."""

    STATUS = "status"
    HTML = "html"
    JSON = "json"
    ERROR = "error"
    REDIRECT = "redirect"
    HUGE = "huge"
    BOMB = "bomb"
    RAW = "raw"
    FLOOD = "flood"
    RESET = "reset"
    CLOSE = "close"
    HANG = "hang"
    DELAY = "delay"
    CUT = "cut"
    SLOW = "slow"
    DRIP = "drip"
    TWICE = "twice"
    SKEW = "skew"
    CORRUPT = "corrupt"
    WRONG_HASH = "wrong-hash"
    NO_HASH = "no-hash"
    TWO_HASHES = "two-hashes"
    GONE = "gone"
    REPLACE = "replace"
    NEW_MTIMES = "new-mtimes"
    PENDING = "pending"
    LATE = "late"
    FAILED = "failed"


# Answers without a Content-Length.
UNFRAMED = frozenset({Action.HUGE, Action.RAW, Action.FLOOD})
REPLACES_ANSWER = UNFRAMED | {Action.STATUS, Action.HTML, Action.JSON, Action.ERROR, Action.REDIRECT, Action.BOMB}
ENDS_CONNECTION = frozenset({Action.RESET, Action.CLOSE, Action.HANG})
# A request gets each of these in addition to another fault.
CHANGES_WORK = frozenset({Action.REPLACE, Action.NEW_MTIMES, Action.PENDING, Action.LATE, Action.FAILED})
_ORDINARY = frozenset(Action) - CHANGES_WORK
_TIMED = frozenset({Action.HANG, Action.DELAY, Action.SLOW, Action.DRIP, Action.SKEW, Action.LATE})
_TEXTS = frozenset({Action.JSON, Action.ERROR, Action.RAW, Action.FLOOD})
_MOVABLE = REPLACES_ANSWER | ENDS_CONNECTION | {Action.DELAY}
_BEFORE = ENDS_CONNECTION | {Action.DELAY, Action.GONE}
_ONLY_FOR = {
    Action.ERROR: ("initialize",),
    Action.REPLACE: ("initialize",),
    Action.NEW_MTIMES: ("initialize",),
    Action.PENDING: ("execute",),
    Action.LATE: ("execute",),
    Action.FAILED: ("execute",),
    Action.CORRUPT: BUCKET_OPS,
    Action.WRONG_HASH: ("upload", "execution-upload"),
    Action.NO_HASH: ("upload", "execution-upload"),
    Action.TWO_HASHES: ("upload", "execution-upload"),
}
_ACTIONS = {action.value for action in Action} - {Action.STATUS.value}
_MOMENTS = {when.value for when in When}
_ALIASES = {
    "expired": "400 code=ExpiredToken",
    "forbidden": "403 code=SignatureDoesNotMatch",
    "lost": "close after",
    "vanish": "gone",
}


class BadFault(ValueError):
    """A line that is not in the language; the message says what is wrong with it."""


class Fault(Struct, frozen=True):
    """A fault. `amount` is in seconds, for slow in bytes per second; `times` None: always."""

    action: Action
    when: When | None = None
    status: int = 503
    amount: float = 0.0
    text: str = ""
    code: str = ""
    retry_after: str = ""
    times: int | None = 1
    skip: int = 0

    @property
    def moment(self) -> When:
        """The moment at which it acts: `when`, or the action's default."""
        if self.when is not None:
            return self.when
        if self.action in REPLACES_ANSWER:
            return When.INSTEAD
        return When.BEFORE if self.action in _BEFORE else When.AFTER

    def __str__(self) -> str:
        name = str(self.status) if self.action is Action.STATUS else self.action.value
        amount = f"{self.amount:g}" if self.amount else ""
        moment = "" if self.action in CHANGES_WORK else self.moment.value
        return " ".join(filter(None, (name, self.code, amount, moment)))

    @classmethod
    def parse(cls, line: str) -> tuple[str, Fault]:
        """The operation and the fault of a line, as for `Faults.add(*…)`. Raises BadFault."""
        op, colon, rest = line.partition(":")
        op = op.strip()
        if not colon or op not in (*API_OPS, *BUCKET_OPS, ANY):
            raise BadFault(f"{line!r}: does not begin with an operation and a colon, as in 'upload: 503'")
        fault = _parsed(rest.strip(), line)
        allowed = _ONLY_FOR.get(fault.action, (op,))
        if op not in allowed or (fault.code and op in API_OPS):
            raise BadFault(f"{line!r}: only for {', '.join(BUCKET_OPS if fault.code else allowed)}")
        return op, fault


def _parsed(rest: str, line: str) -> Fault:
    times: int | None = 1
    skip = 0
    while found := re.search(r"(?:^|\s)(x([1-9][0-9]*)|always|skip=([0-9]+))$", rest):
        rest = rest[: found.start()].rstrip()
        if found[1] == "always":
            times = None
        elif found[2]:
            times = int(found[2])
        else:
            skip = int(found[3])
    word, _, argument = rest.partition(" ")
    if word in _ALIASES:
        word, _, more = _ALIASES[word].partition(" ")
        argument = f"{more} {argument}".strip()
    if re.fullmatch(r"[2-5][0-9]{2}", word):
        fault = Fault(Action.STATUS, status=int(word))
    elif word in _ACTIONS:
        fault = Fault(Action(word))
    else:
        raise BadFault(f"{line!r}: unknown fault {word!r}")
    return replace(_with_arguments(fault, argument.strip(), line), times=times, skip=skip)


def _with_arguments(fault: Fault, argument: str, line: str) -> Fault:
    if fault.action in _TEXTS:
        try:
            if fault.action is Action.JSON:
                json.loads(argument)
            elif fault.action is not Action.ERROR:
                unescaped(argument)
        except ValueError as error:
            raise BadFault(f"{line!r}: the text after {fault.action.value} is not valid") from error
        return replace(fault, text=argument)
    words = argument.split()
    if words and words[0] in _MOMENTS and fault.action in _MOVABLE - _TIMED:
        fault = replace(fault, when=When(words.pop(0)))
    elif words and words[-1] in _MOMENTS and fault.action in _MOVABLE:
        fault = replace(fault, when=When(words.pop()))
    if fault.action in _TIMED | {Action.REDIRECT}:
        if not words:
            raise BadFault(f"{line!r}: {fault.action.value} needs a value")
        fault = _with_amount(fault, words.pop(0), line)
    if fault.action is Action.STATUS:
        for word in list(words):
            name, _, value = word.partition("=")
            if name == "retry-after":
                # An HTTP date has spaces: the option takes the rest of the line.
                return replace(fault, retry_after=" ".join([value, *words[words.index(word) + 1 :]]))
            if name not in ("code", "location"):
                break
            fault = replace(fault, code=value) if name == "code" else replace(fault, text=value)
            words.remove(word)
    if words:
        raise BadFault(f"{line!r}: {' '.join(words)!r} is not known")
    if fault.action in ENDS_CONNECTION and fault.when is When.INSTEAD:
        raise BadFault(f"{line!r}: {fault.action.value} cannot be 'instead'")
    return fault


def _with_amount(fault: Fault, word: str, line: str) -> Fault:
    if fault.action is Action.REDIRECT:
        return replace(fault, text=word)
    try:
        amount = float(word)
    except ValueError:
        amount = 0.0
    if fault.action is Action.SKEW and 0 < -amount < float("inf"):
        return replace(fault, amount=amount)
    if not 0 < amount < float("inf"):
        raise BadFault(f"{line!r}: {word!r} is not a positive number")
    return replace(fault, amount=amount)


Hook = Callable[[RequestRecord], None]
Changes = Mapping[Action, Fault]


class _Queued(Struct):
    fault: Fault
    skip: int
    left: int | None


class Faults:
    """The faults of future requests and the hooks, by operation; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queued: list[tuple[str, _Queued]] = []
        self._hooks: list[tuple[str, When, Hook]] = []

    def add(self, op: str, fault: Fault) -> None:
        """Add a fault for the next requests of `op`, after those already added."""
        with self._lock:
            self._queued.append((op, _Queued(fault, fault.skip, fault.times)))

    def script(self, *lines: str) -> None:
        """Add faults in the language. Raises BadFault, and adds none, if a line is wrong."""
        for op, fault in [Fault.parse(line) for line in lines]:
            self.add(op, fault)

    def clear(self) -> None:
        """Remove all faults; hooks stay."""
        with self._lock:
            self._queued.clear()

    def take(self, op: str) -> Fault | None:
        """The fault of this request of `op`, which is counted as used; none that changes the work."""
        with self._lock:
            return self._take(op, _ORDINARY)

    def take_changes(self, op: str) -> Changes:
        """The faults that change the work of this request of `op`, which are counted as used."""
        with self._lock:
            found = [self._take(op, frozenset({action})) for action in sorted(CHANGES_WORK)]
        return {fault.action: fault for fault in found if fault is not None}

    def _take(self, op: str, actions: frozenset[Action]) -> Fault | None:
        for pair in self._queued:
            name, queued = pair
            if name not in (op, ANY) or queued.fault.action not in actions:
                continue
            if queued.skip:
                queued.skip -= 1
                continue
            if queued.left is not None:
                queued.left -= 1
                if not queued.left:
                    self._queued.remove(pair)
            return queued.fault
        return None

    def on(self, op: str, when: When | str, hook: Hook) -> None:
        """Call `hook` with the request's record at that moment (before, mid-body, after) of every request of `op`.

        The request waits for it. An error that it raises is raised again when the emulator is closed.
        """
        with self._lock:
            self._hooks.append((op, When(when), hook))

    def hooks(self, op: str, when: When) -> list[Hook]:
        with self._lock:
            return [hook for name, moment, hook in self._hooks if name in (op, ANY) and moment is when]
