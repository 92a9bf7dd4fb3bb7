r"""A small language for faults, so that a test can describe one in a line: `upload: 503 x3`.

    OP: ACTION [VALUE] [WHEN] [OPTIONS] [skip=N] [xN | always]

`OP` is an operation of the request log, or `any`; `OP@SANDBOX` is one of that sandbox alone. `ACTION` is a status, a
word of `Action` or one of `_SHORT`. `WHEN` is another moment than the action's own. A status has the options
`code=CODE` (the bucket's), `location=URL` and `retry-after=VALUE`, which is the last one. `skip=2` lets two requests
pass first, `x3` is for three requests, `always` for all; the default is one.

A request gets the first fault for its operation that is not used up; one whose work is done also gets the first of each
action that changes the work. Some odd sandboxes: `execute: 501 always` (no programs), `execute: pending always`,
`execute: failed always`, `dump: 501 always`, `initialize: replace always`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from enum import StrEnum

from msgspec import Struct

from tests.emulator.request_log import RequestRecord

API_OPS = (
    *("list", "acquire", "get", "release", "reset", "upload-url", "initialize", "dump", "execution-upload-url"),
    *("execute", "execution-status", "execution-logs", "export-artifacts"),
)
BUCKET_OPS = ("upload", "execution-upload", "download")
ANY = "any"


class When(StrEnum):
    """The moment of a request at which a fault or a hook acts."""

    BEFORE = "before"  # the head is read, the body is not
    MID_BODY = "mid-body"  # half of the request's body is read; without a body, half of the answer is sent
    INSTEAD = "instead"  # the body is read, the work is not done
    AFTER = "after"  # the work is done, nothing is sent


class Action(StrEnum):
    """An action of a fault, with what the client gets."""

    # In place of an answer:
    STATUS = "status"  # that status
    HTML = "html"  # 200 with a page, as a captive portal answers
    JSON = "json"  # 200 with the JSON that follows
    ERROR = "error"  # initialize: 200 with `"status": "error"` and the message that follows
    HUGE = "huge"  # 200 and a body without end
    BOMB = "bomb"  # 200 and a few hundred bytes, coded `gzip, gzip`, of 64 MiB
    RAW = "raw"  # exactly the bytes that follow, with escapes such as `\r\n`; then the end
    FLOOD = "flood"  # the bytes before a `|`, then those after it again and again
    # Before the work:
    RESET = "reset"  # a TCP reset
    CLOSE = "close"  # the connection ends without an answer
    HANG = "hang"  # nothing for so many seconds, then the connection ends
    DELAY = "delay"  # nothing for so many seconds, then the genuine answer
    GONE = "gone"  # the sandbox is deleted: 404 from now on
    # The work is done, and its answer changed:
    CUT = "cut"  # only the first half of the body is sent
    DRIP = "drip"  # each byte is sent after so many seconds
    SKEW = "skew"  # its date is ahead by so many seconds, behind with a minus
    WRONG_HASH = "wrong-hash"  # upload: stored as sent, the answer has wrong hashes
    NO_HASH = "no-hash"  # none
    TWO_HASHES = "two-hashes"  # right ones and wrong ones
    # All the time:
    SLOW = "slow"  # the request's body is read, and the answer's sent, at so many bytes per second
    CORRUPT = "corrupt"  # one byte of the upload is stored, or of the download is sent, changed
    # The work is done otherwise:
    REPLACE = "replace"  # initialize: the workspace is emptied first, so the archive replaces it
    PENDING = "pending"  # execute: the execution stays pending, until the sandbox's `start_held`
    FAILED = "failed"  # execute: it ends as failed at once, without output


# Answers without a Content-Length.
UNFRAMED = frozenset({Action.HUGE, Action.RAW, Action.FLOOD})
REPLACES_ANSWER = UNFRAMED | {Action.STATUS, Action.HTML, Action.JSON, Action.ERROR, Action.BOMB}
ENDS_CONNECTION = frozenset({Action.RESET, Action.CLOSE, Action.HANG})
# A request gets each of these in addition to another fault.
CHANGES_WORK = frozenset({Action.REPLACE, Action.PENDING, Action.FAILED})
_ORDINARY = frozenset(Action) - CHANGES_WORK
_TIMED = frozenset({Action.HANG, Action.DELAY, Action.SLOW, Action.DRIP, Action.SKEW})
_TEXTS = frozenset({Action.JSON, Action.ERROR, Action.RAW, Action.FLOOD})
_SHORT = {
    "expired": "400 code=ExpiredToken",
    "forbidden": "403 code=SignatureDoesNotMatch",
    "lost": "close after",
}
_COUNTS = re.compile(r"\s(?:x(?P<times>[1-9][0-9]*)|(?P<always>always)|skip=(?P<skip>[0-9]+))$")


class Fault(Struct, frozen=True):
    """A fault, as `line` describes it. `amount` is in seconds, for slow in bytes per second."""

    line: str
    action: Action
    moment: When
    status: int
    amount: float
    text: str
    options: Mapping[str, str]

    def __str__(self) -> str:
        return self.line.partition(":")[2].strip()


class _Queued(Struct):
    """A fault of coming requests: `left` of them, None: all, after `skip` others."""

    op: str
    fault: Fault
    skip: int = 0
    left: int | None = 1


def _queued(line: str) -> _Queued:
    op, _, rest = line.partition(":")
    if op.partition("@")[0] not in (*API_OPS, *BUCKET_OPS, ANY):
        raise ValueError(f"{line!r}: does not begin with an operation and a colon, as in 'upload: 503'")
    skip = 0
    left: int | None = 1
    while found := _COUNTS.search(rest):
        rest = rest[: found.start()]
        if found["skip"]:
            skip = int(found["skip"])
        else:
            left = None if found["always"] else int(found["times"])
    word, _, argument = rest.strip().partition(" ")
    word, _, more = _SHORT.get(word, word).partition(" ")
    return _Queued(op, _fault(line, word, f"{more} {argument}".strip()), skip, left)


def _fault(line: str, word: str, argument: str) -> Fault:
    status = int(word) if re.fullmatch(r"[2-5][0-9]{2}", word) else 0
    if not status and word not in set(Action) - {Action.STATUS}:
        raise ValueError(f"{line!r}: unknown fault {word!r}")
    action = Action.STATUS if status else Action(word)
    if action in REPLACES_ANSWER:
        moment = When.INSTEAD
    else:
        moment = When.BEFORE if action in ENDS_CONNECTION | {Action.DELAY, Action.GONE} else When.AFTER
    amount = 0.0
    options: dict[str, str] = {}
    if action not in _TEXTS:
        argument, mark, value = argument.partition("retry-after=")  # the rest of the line: an HTTP date has spaces
        if mark:
            options["retry-after"] = value
        for given in argument.split():
            if given in set(When):
                moment = When(given)
            elif action in _TIMED and re.fullmatch(r"-?[0-9][0-9.e]*", given):
                amount = float(given)
            elif status and given.startswith(("code=", "location=")):
                name, _, options[name] = given.partition("=")
            else:
                raise ValueError(f"{line!r}: {given!r} is not known")
    if action in _TIMED and not amount:
        raise ValueError(f"{line!r}: {word} needs a value")
    if action in ENDS_CONNECTION and moment is When.INSTEAD:
        raise ValueError(f"{line!r}: {word} cannot be 'instead'")
    return Fault(line, action, moment, status, amount, argument, options)


Hook = Callable[[RequestRecord], None]
Changes = Mapping[Action, Fault]


class Faults:
    """The faults of future requests and the hooks, by operation; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queued: list[_Queued] = []
        self._hooks: list[tuple[str, When, Hook]] = []

    def script(self, *lines: str) -> None:
        """Add faults after those already added. Raises `ValueError`, and adds none, if a line is wrong."""
        queued = [_queued(line) for line in lines]
        with self._lock:
            self._queued += queued

    def clear(self) -> None:
        """Remove all faults; hooks stay."""
        with self._lock:
            self._queued.clear()

    def take(self, op: str, sandbox: str | None) -> Fault | None:
        """The fault of this request of `op` for that sandbox, which is counted as used; none that changes the work."""
        with self._lock:
            return self._take(op, sandbox, _ORDINARY)

    def take_changes(self, op: str, sandbox: str | None) -> Changes:
        """The faults that change the work of this request of `op`, which are counted as used."""
        with self._lock:
            found = [self._take(op, sandbox, frozenset({action})) for action in sorted(CHANGES_WORK)]
        return {fault.action: fault for fault in found if fault is not None}

    def _take(self, op: str, sandbox: str | None, actions: frozenset[Action]) -> Fault | None:
        named = (op, ANY, f"{op}@{sandbox}", f"{ANY}@{sandbox}")
        for queued in self._queued:
            if queued.op not in named or queued.fault.action not in actions:
                continue
            if queued.skip:
                queued.skip -= 1
                continue
            if queued.left is not None:
                queued.left -= 1
                if not queued.left:
                    self._queued.remove(queued)
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
