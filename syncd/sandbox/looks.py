"""Looks at one sandbox: when, which way, for how long, and what if nobody can.

Where no program can look, the sandbox's own archive (`/dump`) is read. Where that fails too, and the API answers,
`save` goes on with a warning, and looks again later; `hold` fails. What was found and cannot be fetched is held, and
tried again. `LookTries` decides which way is tried next.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Callable
from enum import Enum
from math import inf

from msgspec import Struct, field
from msgspec.structs import replace

from syncd.core.choices import AgentChanges
from syncd.core.clock import Moment, stamp
from syncd.core.errors import KeyRefused, SandboxNotFound, SyncWarning
from syncd.core.text import counted, size
from syncd.core.waiter import Waiter, Work
from syncd.remote.bucket import Dump
from syncd.remote.failure import (
    FIRST_WAIT_S,
    LONGEST_WAIT_S,
    ApiStep,
    FailureAction,
    StepFailed,
    backoff_limit_s,
)
from syncd.sandbox.executions import Executions, Purpose, RunningLook
from syncd.sandbox.look_by_dump import look_in_archive
from syncd.sandbox.look_request import FRESH_S, LookAction, LookRequest, LookResult
from syncd.sandbox.seen_paths import SeenPaths

_log = logging.getLogger("syncd.looks")
# A look has so long after the upload, however long that took. One that fails sooner is repeated once.
AFTER_UPLOAD_S = 5.0
# Until its program is started.
_START_S = 8.0
# Program and look have so much more for each path: to read a small file and compare it takes half of that.
_PATH_S = 1e-4
_LOOKS_AGAIN = 'the next sync looks again; with sandbox.agent_changes = "overwrite" none does'
_LOOKS_LATER = (
    'a sync within 15 minutes looks again, and `syncd push` at once; with sandbox.agent_changes = "overwrite" none does'
)
_PROGRAM = Purpose(ApiStep.EXECUTION, "the look at the files there")
_DUMP = Purpose(ApiStep.DUMP, "the download of the sandbox's archive")
_INQUIRY = Purpose(ApiStep.SANDBOX, "the request for the sandbox")
_NONE = StepFailed(ApiStep.EXECUTION, FailureAction.RETRY, "no look failed")


class Times(Struct, frozen=True):
    """The seconds that a look may take.

    All its requests have `look_s` together, and of that its program `program_s`, which then reports what it has. To
    fetch what was copied may take `fetch_s` beyond, and to read the sandbox's archive instead `archive_s`.
    """

    look_s: float
    program_s: float
    fetch_s: float
    archive_s: float


# A sync is never delayed by more beside its upload.
OF_SYNC = Times(20.0, 9.0, 0.0, 15.0)
# A look at all that is there is a command's, or the last one before its end; its archive may be GiBs.
_OF_ALL = Times(40.0, 25.0, 1800.0, 1800.0)


class Way(Enum):
    """The ways to look."""

    PROGRAM = "a program there, which copies what differs"
    NO_COPIES = "a program there, which copies nothing: what differs stays"
    ARCHIVE = "the sandbox's archive"
    NOBODY = "none, as it is too early for another try"


class LookTries(Struct, frozen=True):
    """What came of the tries to look at one sandbox, for its syncs. Times are monotonic seconds.

    The sync that is under way begins with `way`: what took long and failed in it is not tried again. `failure` is the
    last one of a program. `again_at_s` is infinity while looks succeed, else the second of the next try after so many
    `tries` with which nobody could look. Where only the archive took long, a program is tried by each sync, and the
    archive is not read before `archive_at_s`.
    """

    way: Way = Way.PROGRAM
    failure: StepFailed = _NONE
    again_at_s: float = inf
    tries: int = 0
    archive_at_s: float = -inf

    def reads_archive(self, agent_changes: AgentChanges, now_s: float) -> bool:
        """Return True if the archive may be read where no program looks; with `hold` it always is."""
        return now_s >= self.archive_at_s or agent_changes is AgentChanges.HOLD

    def first_way(self, agent_changes: AgentChanges, now_s: float) -> Way:
        """Return the way that a look begins with. With `hold` nothing is sent without one: none is put off."""
        is_early = now_s < self.again_at_s < inf and agent_changes is not AgentChanges.HOLD
        return Way.NOBODY if is_early else self.way

    def program_failed(self, failure: StepFailed, took_s: float) -> tuple[LookTries, Way]:
        """Return the next way after a program could not look, or its copies did not come; PROGRAM: in another try."""
        is_quick = took_s < AFTER_UPLOAD_S
        may_pass = failure.action is not FailureAction.REFUSED and (failure.retry_after_s or 0.0) < OF_SYNC.look_s
        if self.again_at_s == inf and is_quick and may_pass:
            # A server that is busy for a moment is no sandbox that runs no programs.
            return replace(self, failure=failure, again_at_s=-inf), Way.PROGRAM
        return replace(self, failure=failure, way=self.way if is_quick else Way.ARCHIVE), Way.ARCHIVE

    def archive_failed(self, seen: LookResult | None, took_s: float, now_s: float) -> LookTries:
        """Return what follows after the archive could not be read either; `seen` is what a program saw before."""
        if seen is not None:
            return LookTries(Way.NO_COPIES if self.way is Way.ARCHIVE else self.way, self.failure)
        # To ask at each sync costs little, and not to look when one could costs the agent's work.
        next_s = now_s + backoff_limit_s(self.tries + 1, FIRST_WAIT_S, LONGEST_WAIT_S)
        again_at_s = next_s if self.way is Way.ARCHIVE else -inf
        archive_at_s = next_s if again_at_s == -inf and took_s >= AFTER_UPLOAD_S else -inf
        return LookTries(Way.PROGRAM, self.failure, again_at_s, self.tries + 1, archive_at_s)

    def succeeded(self, result: LookResult) -> LookTries:
        """Return the same after a look that found this."""
        is_mended = self.way is Way.PROGRAM and not result.kinds_only
        return LookTries(self.way, _NONE if is_mended else self.failure)


class Looks(Struct, kw_only=True, eq=False):
    """The looks at one sandbox.

    `ask_for_sandbox` raises `StepFailed` if the API does not know the sandbox. `unseen` counts the paths that the look
    of a sync, or one at all that is there, did not come to, and the looks since. `not_kept` is the last reason why a
    content could not be fetched, and `warnings` are about looks that failed.
    """

    agent_changes: AgentChanges
    executions: Executions
    dump: Dump
    seen: SeenPaths
    state_folder: str
    copies_folder: str
    waiter: Waiter
    ask_for_sandbox: Callable[[], object]
    unseen: int = 0
    warnings: list[SyncWarning] = field(default_factory=list)
    not_kept: str = ""
    _tries: LookTries = LookTries()
    _running: RunningLook | None = None  # beside the upload
    _took_s: float = 0.0  # the last look by the archive, or at all that is there, that fetched nothing

    @property
    def are_made(self) -> bool:
        """True if a sync looks before it writes."""
        return self.agent_changes is not AgentChanges.OVERWRITE

    @property
    def runs_programs(self) -> bool:
        """False if the sandbox surely runs none, as the last look found."""
        return self._tries.failure.action is not FailureAction.REFUSED

    def age_s(self, look: LookResult | None) -> float:
        """Return the seconds that a look is old, as `LookResult.age_s` does; less than none without one."""
        return -inf if look is None else look.age_s(Moment.now(self.waiter.clock))

    def retry(self) -> None:
        """Look at the next sync, however soon the last look failed."""
        if self._tries.again_at_s < inf:
            self._tries = replace(self._tries, again_at_s=-inf, archive_at_s=-inf)

    def sync_ended(self) -> None:
        """Have the next sync begin with a program, however this one looked."""
        self._tries = replace(self._tries, way=Way.PROGRAM)

    def begin(self, request: LookRequest) -> None:
        """Start a look that runs beside an upload. One that removes is started by `finish`, when the upload is done."""
        self._running = None
        began_s = self.waiter.clock.monotonic_s()
        way = self._tries.first_way(self.agent_changes, began_s)
        if way in (Way.ARCHIVE, Way.NOBODY) or not request.asks_something or request.with_action(LookAction.REMOVE):
            return
        try:
            with self.waiter.doing(Work.UPLOAD):
                self._running = self._start(request, way, OF_SYNC)
        except StepFailed as failure:
            _log.debug("the look was not started: %s", failure)
            took_s = self.waiter.clock.monotonic_s() - began_s
            if took_s >= AFTER_UPLOAD_S:  # else `finish` tries again
                self._tries, _ = self._tries.program_failed(failure, took_s)

    def finish(self, request: LookRequest) -> LookResult | None:
        """Return what the look found; None if nobody could look, and the sync goes on without it.

        Raises `StepFailed` if the API cannot be reached, refuses the key, knows no such sandbox, fails for the first
        time, or, with `hold`, if nobody could look; `NotKeptHere` if there is no room here for a long report;
        `Superseded`, `Stop`.
        """
        running, self._running = self._running, None
        began_s, seen = self.waiter.clock.monotonic_s(), None
        way = self._tries.first_way(self.agent_changes, began_s)
        if way is Way.NOBODY:
            self._could_not(self._tries.failure)
            return None
        with self.waiter.doing(Work.UPLOAD):
            if way is not Way.ARCHIVE:
                try:
                    if running is None or not self._is_of_now(running, request):
                        running = self._start(request, way, OF_SYNC)
                    seen = self._found_by(running, OF_SYNC)
                    if seen.unfetched is None:
                        return self._ended(seen)
                    raise seen.unfetched
                except StepFailed as failure:
                    if failure.refusal is KeyRefused:
                        raise
                    took_s = self.waiter.clock.monotonic_s() - began_s
                    self._tries, way = self._tries.program_failed(failure, took_s)
                    if way is Way.PROGRAM:
                        raise
            return self._read_instead(request, seen, began_s)

    def _read_instead(self, request: LookRequest, seen: LookResult | None, began_s: float) -> LookResult | None:
        """Look by the archive, since a program failed to; `seen` is what it saw, if its copies alone are missing."""
        failure, now_s = self._tries.failure, self.waiter.clock.monotonic_s()
        reads_archive = seen is not None or self._tries.reads_archive(self.agent_changes, now_s)
        try:
            if reads_archive:
                return self._ended(self._found_in_archive(request, OF_SYNC.archive_s))
        except StepFailed as other:
            if other.refusal is KeyRefused:
                raise
        if seen is None and not self._ask_if_there(failure):
            raise failure
        now_s = self.waiter.clock.monotonic_s()
        if reads_archive:
            self._tries = self._tries.archive_failed(seen, now_s - began_s, now_s)
        if seen is not None:
            return self._ended(seen)  # what differs and has no copy is not overwritten
        self._could_not(failure)
        return None

    def look(self, request: LookRequest, left_s: float = inf) -> LookResult:
        """Look now, whatever failed before, with the sandbox's archive once a program took half of `left_s`.

        Raises `StepFailed` if nobody can, `NotKeptHere`, `Superseded`, `Stop`.
        """
        times, noted = (_OF_ALL, self._ended) if request.find_new else (OF_SYNC, self._noted)
        try:
            with _PROGRAM.limited(self.waiter, left_s / 2):
                result = self._found_by(self._start(request, Way.PROGRAM, times), times)
            if result.unfetched is not None:
                raise result.unfetched
        except StepFailed as failure:
            if failure.refusal is KeyRefused or request.since is not None:
                raise
            _log.debug("no program can look: %s", failure)
            try:
                return noted(self._found_in_archive(request, times.archive_s))
            except StepFailed:
                if failure.action is not FailureAction.REFUSED:
                    raise failure from None  # a program may well run the next time
                raise
        return noted(self._with_time(result) if request.find_new else result)

    def _is_of_now(self, look: RunningLook, request: LookRequest) -> bool:
        """True if it need not be made once more: an upload may take an hour, and the agent goes on meanwhile."""
        return (
            look.request.items is request.items and look.running.asked.age_s(Moment.now(self.waiter.clock)) <= FRESH_S
        )

    def _start(self, request: LookRequest, way: Way, times: Times) -> RunningLook:
        limited = self._within_room(request)
        if way is Way.NO_COPIES:
            limited, self.not_kept = replace(limited, most_copied_bytes=0), self._tries.failure.message
        return self.executions.start_look(limited, _START_S, times.program_s + _paths_s(request))

    def _found_by(self, look: RunningLook, times: Times) -> LookResult:
        passed_s, paths_s = self.waiter.clock.monotonic_s() - look.began_s, _paths_s(look.request)
        timeout_s = max(AFTER_UPLOAD_S, times.look_s + paths_s - passed_s)
        result = self.executions.finish_look(look, self._folder_for(look.request), timeout_s, times.fetch_s)
        return replace(result, asked=look.running.asked, takes_s=paths_s)

    def _found_in_archive(self, request: LookRequest, timeout_s: float) -> LookResult:
        """Return what a look by the archive found."""
        limited, folder = self._within_room(request), self._folder_for(request)
        asked, check = Moment.now(self.waiter.clock), self.waiter.poll_events
        with _DUMP.limited(self.waiter, timeout_s):
            result = self.dump.read_once(lambda packed: look_in_archive(packed, limited, folder, check))
        return self._with_time(replace(result, asked=asked, takes_s=_paths_s(request)))

    def _with_time(self, result: LookResult) -> LookResult:
        """Return a look that may take long each time, which the second one shows, with the time that it takes.

        What a program fetched is not fetched once more by the next look, so such a look shows nothing.
        """
        fetched = any(entry.copy for entry in (*result.differing.values(), *result.new.values()))
        if result.asked is None or (fetched and not result.kinds_only):
            return result
        took_s = self.waiter.clock.monotonic_s() - result.asked.monotonic_s
        known_s, self._took_s = min(self._took_s, took_s), took_s
        return replace(result, takes_s=max(result.takes_s, known_s))

    def _within_room(self, request: LookRequest) -> LookRequest:
        """Limit what is fetched by the free space, of which a part is left to others.

        For a moment it is in the cache folder packed and unpacked, then there and in the state folder.
        """
        room_bytes = request.most_copied_bytes
        if not room_bytes:
            return request
        for folder, parts in ((os.path.dirname(self.copies_folder), 3), (self.state_folder, 2)):
            with contextlib.suppress(OSError):  # whoever writes there finds out
                disk = os.statvfs(folder)
                room_bytes = min(room_bytes, disk.f_bavail * disk.f_frsize // parts)
        self.not_kept = ""
        if room_bytes < request.most_copied_bytes:
            self.not_kept = f"this machine has room for {size(room_bytes)} from there"
        return replace(request, most_copied_bytes=room_bytes)

    def could_not_look(self, failure: StepFailed) -> None:
        """Note that nobody could look before all that is there goes.

        Raises `StepFailed` as `finish` does, and unless the sandbox surely offers no way to look.
        """
        if failure.action is not FailureAction.REFUSED or failure.refusal is KeyRefused or self.ask_if_gone(failure):
            raise failure
        self._could_not(failure)

    def _could_not(self, failure: StepFailed) -> None:
        what = f"nobody could look for changes in the sandbox ({failure.message})"
        if self.agent_changes is AgentChanges.HOLD:
            raise StepFailed(
                ApiStep.INITIALIZE,
                FailureAction.RETRY,
                f"{what}, so nothing is written there",
                'where no program runs, set sandbox.agent_changes = "save" or "overwrite" with `syncd config edit`',
            )
        self._warn(f"{what}, and the sync went on")

    def _warn(self, what: str) -> None:
        if self.are_made:  # else it was to remove something, which is warned of
            is_put_off = self.waiter.clock.monotonic_s() < self._tries.again_at_s < inf
            self.warnings = [SyncWarning("remote-changes", what, _LOOKS_LATER if is_put_off else _LOOKS_AGAIN)]

    def ask_if_gone(self, failure: StepFailed) -> bool:
        """True if the failure says that there is no such sandbox, and the request for the sandbox itself says so too.

        404 also says that a sandbox has nothing to look with, and one may be a mistake. Raises `StepFailed` if the API
        does not say.
        """
        return failure.refusal is SandboxNotFound and not self._ask_if_there(failure)

    def _ask_if_there(self, failure: StepFailed) -> bool:
        """Ask for the sandbox after a failure: a network that is away is no sandbox without looks.

        Raises `StepFailed` if the API does not answer, or refuses the key.
        """
        try:
            with _INQUIRY.limited(self.waiter, AFTER_UPLOAD_S):
                self.ask_for_sandbox()
        except StepFailed as other:
            if other.action is FailureAction.REFUSED and other.refusal is not KeyRefused:
                return other.refusal is not SandboxNotFound
            message, asked_s, refusal = f"{failure.message}, and {other.message}", other.retry_after_s, other.refusal
            raise StepFailed(
                failure.step, other.action, message, other.hint, retry_after_s=asked_s, refusal=refusal
            ) from None
        return True

    def _ended(self, result: LookResult) -> LookResult:
        """Note a look that tells all that is to be told of its sync."""
        self.warnings, self.unseen = [], 0
        return self._noted(result)

    def _noted(self, result: LookResult) -> LookResult:
        """Note a look, beside what the ones before it told."""
        self._tries = self._tries.succeeded(result)
        self.not_kept = result.not_kept or self.not_kept
        self.unseen += result.unseen
        if self._tries.way is Way.ARCHIVE and result.kinds_only:
            why = self._tries.failure.message
            self._warn(f"no program could look for changes in the sandbox ({why}), so its archive was read")
        if result.unseen:
            self._warn(f"{counted(self.unseen, 'path')} in the sandbox could not be looked at in time, and stay there")
        self.seen.looked_at = stamp(self.waiter.clock.wall_s())
        return result

    def drop_copies(self) -> None:
        """Delete the files that the last look fetched."""
        shutil.rmtree(self.copies_folder, ignore_errors=True)

    def _folder_for(self, request: LookRequest) -> str:
        """The folder for the copies of a look; those of the last one are gone, unless this one makes none."""
        if request.most_copied_bytes:
            self.drop_copies()
        with contextlib.suppress(OSError):
            os.makedirs(self.copies_folder, mode=0o700, exist_ok=True)
        return self.copies_folder


def _paths_s(request: LookRequest) -> float:
    """Return the seconds that its paths may take: of a million a look takes a minute, and so would the next one."""
    return _PATH_S * len(request.items)
