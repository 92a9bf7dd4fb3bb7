"""The agent's changes in one sandbox: looks for them, and saves them.

Where no program can look, the sandbox's own archive (`/dump`) is read. Where that fails too, and the API answers,
`save` goes on with a warning, and looks again later; `hold` fails. What was found and cannot be fetched, or kept at
home, is held, and tried again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from enum import Enum
from math import inf

from msgspec import Struct
from msgspec.structs import replace

from syncd.archive.base_store import BaseStore
from syncd.archive.exported_files import NotKeptHere
from syncd.core.choices import AgentChanges
from syncd.core.clock import Moment, stamp
from syncd.core.errors import KeyRefused, SandboxNotFound, SyncWarning
from syncd.core.text import counted, shown_path, size
from syncd.core.waiter import Waiter, Work
from syncd.model.entry import Entry, Kind, SeenEntry, arrived_digest, is_savable
from syncd.remote.bucket import Dump
from syncd.remote.failure import ApiStep, FailureAction, NextTry, StepFailed
from syncd.remote.target import Target
from syncd.sandbox.deletions import Programs
from syncd.sandbox.executions import Executions, Purpose, RunningLook
from syncd.sandbox.look_by_dump import look_by_dump
from syncd.sandbox.look_request import LookAction, LookRequest, LookResult
from syncd.sandbox.saved_versions import SavedVersions, SentEntry, Why
from syncd.sandbox.seen_paths import SeenPaths

_log = logging.getLogger("syncd.remote_changes")
# A look, all its requests together, never delays a sync by more than this beside its upload …
LOOK_S = 20.0
# … but it has so long after the upload, however long that took. One that fails sooner is repeated once.
_AFTER_UPLOAD_S = 5.0
# Of that time: until its program is started, and for the program, which then reports what it has.
_START_S, _PROGRAM_S = 8.0, 9.0
# Program and look have so much more for each path: to read a small file and compare it takes half of that.
_PATH_S = 1e-4
# A look at all that is there is a command's, or the last one before its end.
_WHOLE_LOOK_S, _WHOLE_PROGRAM_S = 40.0, 25.0
_DUMP_S = 15.0
# What a look found longer ago is looked at again: an upload may take an hour, and its agent goes on meanwhile.
_STALE_S = 2.0
# The archive of all that is there may be GiBs.
_LONGEST_DOWNLOAD_S = 1800.0
# Before a sandbox ends there is no time to read the bytes of more that had been sent.
_HURRIED, _MOST_BASES = (Why.SANDBOX_ENDED, Why.RELEASED), 1000
_LOOKS_AGAIN = 'the next sync looks again; with sandbox.agent_changes = "overwrite" none does'
_PROGRAM = Purpose(ApiStep.EXECUTION, "the look at the files there")
_DUMP = Purpose(ApiStep.DUMP, "the download of the sandbox's archive")
_INQUIRY = Purpose(ApiStep.SANDBOX, "the request for the sandbox")


class _Hung(Enum):
    """A way that was not answered in its time."""

    PROGRAM = "a look by a program: the archive is read instead"
    FETCH = "the download of copies: what differs stays"


class _Running(Struct, frozen=True):
    request: LookRequest
    look: RunningLook
    began_s: float


class RemoteChanges:
    """The looks at one sandbox, and the versions there that they save.

    `unseen` counts the paths that the last look did not come to, and `warnings` are about looks that failed.
    """

    def __init__(
        self,
        *,
        agent_changes: AgentChanges,
        target: Target,
        executions: Executions,
        dump: Dump,
        saved_versions: SavedVersions,
        seen: SeenPaths,
        state_folder: str,
        copies_folder: str,
        waiter: Waiter,
        ask_for_sandbox: Callable[[], object],
        base_store: BaseStore,
    ) -> None:
        """`ask_for_sandbox` raises `StepFailed` if the API does not know the sandbox."""
        self.agent_changes = agent_changes
        self.saved_versions = saved_versions
        self.seen = seen
        self.unseen = 0
        self.warnings: list[SyncWarning] = []
        self.programs = Programs.SOME  # as the last look of a sync found
        self._target = target
        self._executions = executions
        self.dump = dump
        self._copies_folder = copies_folder
        self._state_folder = state_folder
        self._waiter = waiter
        self._clock = waiter.clock
        self._ask_for_sandbox = ask_for_sandbox
        self._base_store = base_store
        self._took_s = 0.0  # the last look by the archive, or at all that is there, that fetched nothing
        self._running: _Running | StepFailed | None = None  # the look beside the upload, or why it was given up
        self._next_try = NextTry()  # after looks with which nobody could look
        self._is_repeated = False
        self._hung: _Hung | None = None  # in this sync, which does without it from then on
        self._failure = StepFailed(ApiStep.EXECUTION, FailureAction.RETRY, "no look was made")
        self._saved_paths: dict[Why, list[str]] = {}
        self._relied_on: set[str] = set()  # the saved versions without which this sync would lose something
        self._not_kept = ""  # the last reason why a version could not be fetched or saved

    @property
    def looks(self) -> bool:
        """True if a sync looks before it writes."""
        return self.agent_changes is not AgentChanges.OVERWRITE

    # -- looking

    def age_s(self, look: LookResult | None) -> float:
        """Return the seconds that a look is old, as `LookResult.age_s` does; less than none without one."""
        return -inf if look is None else look.age_s(Moment.now(self._clock))

    def retry(self) -> None:
        """Look at the next sync, however soon the last look failed."""
        self._next_try.hasten()

    def begin(self, request: LookRequest) -> None:
        """Start a look that runs beside an upload. One that removes is started by `finish`, when the upload is done."""
        self._running = None
        if (
            self._waits
            or self._hung is _Hung.PROGRAM
            or not (request.items or request.find_new)
            or request.with_action(LookAction.REMOVE)
        ):
            return
        began_s = self._clock.monotonic_s()
        try:
            with self._waiter.doing(Work.UPLOAD):
                self._running = self._begin(request, self._hung)
        except StepFailed as failure:
            _log.debug("the look was not started: %s", failure)
            if not self._was_quick(began_s):
                self._running = failure  # else `finish` tries again

    def finish(self, request: LookRequest) -> LookResult | None:
        """Return what the look found, as `_finished` does; one from before a suspend is worth nothing.

        Raises `Superseded`, too.
        """
        with self._waiter.doing(Work.UPLOAD):
            return self._finished(request)

    def _finished(self, request: LookRequest) -> LookResult | None:
        """Return what the look found; None if nobody could look, and the sync goes on without it.

        Raises `StepFailed` if the API cannot be reached, refuses the key, knows no such sandbox, fails for the first
        time, or, with `hold`, if nobody could look; `NotKeptHere` if there is no room here for what a look found.
        """
        running, self._running = self._running, None
        began_s = -inf if isinstance(running, StepFailed) else self._clock.monotonic_s()
        if self._waits:
            self._could_not(self._failure)
            return None
        if self._hung is _Hung.PROGRAM:
            found = self._look_by_dump(request, self._failure, None)
            return found if found is None else self._read_archive(found, self._failure)
        result = None
        try:
            if isinstance(running, StepFailed):
                raise running
            if running is None or running.request is not request or self._is_stale(running):
                running = self._begin(request, self._hung)
            result = self._finish(running)
            self.programs = Programs.SOME
            if result.unfetched is not None:
                raise result.unfetched
        except NotKeptHere as failure:
            return self._look_by_dump(request, failure, None)
        except StepFailed as failure:
            if failure.refusal is KeyRefused:
                raise
            was_quick = self._was_quick(began_s)
            self.programs = Programs.NONE if failure.action is FailureAction.REFUSED else Programs.SOME
            if self._next_try.at_s == inf and not self._is_repeated and was_quick and _may_pass(failure):
                self._is_repeated = True  # a server that is busy for a moment is no sandbox that runs no programs
                raise
            found = self._look_by_dump(request, failure, result)
            if found is None and self._was_quick(began_s):
                self.retry()  # to ask at each sync costs little, and not to look when one could costs the agent's work
            if found is None or was_quick:
                return found
            self._failure = failure
            self._hung = _Hung.FETCH if found is result else _Hung.PROGRAM
            return found if found is result else self._read_archive(found, failure)
        return self._ended(result)

    def _read_archive(self, found: LookResult, failure: StepFailed) -> LookResult:
        what = f"no program could look for changes in the sandbox ({failure.message})"
        if self.looks:  # else it was to remove something, which is warned of
            self.warnings = [SyncWarning("remote-changes", f"{what}, so its archive was read", _LOOKS_AGAIN)]
        return found

    def look(self, request: LookRequest, left_s: float = inf) -> LookResult:
        """Look now, whatever failed before, with the sandbox's archive once a program took half of `left_s`.

        Raises `StepFailed` if nobody can, `NotKeptHere`.
        """
        return self._ended(self.look_aside(request, left_s))

    def look_aside(self, request: LookRequest, left_s: float = inf) -> LookResult:
        """Look as `look` does for something else than changes: what is known of these stays as it is."""
        is_whole, program_s = request.find_new, left_s / 2
        try:
            with _PROGRAM.limited(self._waiter, program_s) if program_s < _WHOLE_LOOK_S else nullcontext():
                running = self._begin(request, is_whole=is_whole)
                result = self._finish(running, is_whole=is_whole)
            if result.unfetched is not None:
                raise result.unfetched
        except StepFailed as failure:
            if failure.refusal is KeyRefused or request.since is not None:
                raise
            _log.debug("no program can look: %s", failure)
            try:
                return self._dumped(request, _LONGEST_DOWNLOAD_S if request.find_new else _DUMP_S)
            except StepFailed:
                if failure.action is not FailureAction.REFUSED:
                    raise failure from None  # a program may well run the next time
                raise
        return self._with_time(result) if is_whole else result

    def follow(self, request: LookRequest) -> LookResult:
        """Look at everything once more as `look_aside` does, for changes since a look before.

        Raises `StepFailed` if nobody can, `NotKeptHere`, `Superseded`, `Stop`.
        """
        with self._waiter.doing(Work.READ):
            return self.look_aside(request)

    def _was_quick(self, began_s: float) -> bool:
        """True if what failed by now failed at once: what hangs does so again, and another try may soon succeed."""
        return self._clock.monotonic_s() - began_s < _AFTER_UPLOAD_S

    def _is_stale(self, running: _Running) -> bool:
        return running.look.asked.age_s(Moment.now(self._clock)) > _STALE_S

    def _begin(self, request: LookRequest, hung: _Hung | None = None, *, is_whole: bool = False) -> _Running:
        """Start a look. One that `is_whole` is a command's, or the last one, and has more time than a sync's."""
        began_s = self._clock.monotonic_s()
        program_s = (_WHOLE_PROGRAM_S if is_whole else _PROGRAM_S) + _paths_s(request)
        limited = self._within_room(request)
        if hung is _Hung.FETCH:
            limited, self._not_kept = replace(limited, most_copied_bytes=0), self._failure.message
        look = self._executions.start_look(limited, _START_S, program_s)
        return _Running(request, look, began_s)

    def _finish(self, running: _Running, *, is_whole: bool = False) -> LookResult:
        passed_s = self._clock.monotonic_s() - running.began_s
        look_s = (_WHOLE_LOOK_S if is_whole else LOOK_S) + _paths_s(running.request)
        timeout_s = max(_AFTER_UPLOAD_S, look_s - passed_s)
        fetch_s = _LONGEST_DOWNLOAD_S if is_whole else 0.0
        folder = self._folder_for(running.request)
        result = self._executions.finish_look(running.look, folder, timeout_s, fetch_s)
        return replace(result, asked=running.look.asked, takes_s=_paths_s(running.request))

    def _dumped(self, request: LookRequest, timeout_s: float) -> LookResult:
        """Return what a look by the archive found."""
        limited, folder = self._within_room(request), self._folder_for(request)
        asked = Moment.now(self._clock)
        with _DUMP.limited(self._waiter, timeout_s):
            result = look_by_dump(self.dump, limited, folder, self._waiter.poll_events)
        return self._with_time(replace(result, asked=asked, takes_s=_paths_s(request)))

    def _with_time(self, result: LookResult) -> LookResult:
        """Return a look that may take long each time, which the second one shows, with the time that it takes.

        What a program fetched is not fetched once more by the next look, so such a look shows nothing.
        """
        fetched = any(entry.copy for entry in (*result.differing.values(), *result.new.values()))
        if result.asked is None or (fetched and not result.kinds_only):
            return result
        took_s = self._clock.monotonic_s() - result.asked.monotonic_s
        known_s, self._took_s = min(self._took_s, took_s), took_s
        return replace(result, takes_s=max(result.takes_s, known_s))

    def _within_room(self, request: LookRequest) -> LookRequest:
        """Limit what is fetched by the free space, of which a part is left to others.

        For a moment it is in the cache folder packed and unpacked, then there and in the state folder.
        """
        room_bytes = request.most_copied_bytes
        if not room_bytes:
            return request
        for folder, parts in ((os.path.dirname(self._copies_folder), 3), (self._state_folder, 2)):
            with contextlib.suppress(OSError):  # whoever writes there finds out
                disk = os.statvfs(folder)
                room_bytes = min(room_bytes, disk.f_bavail * disk.f_frsize // parts)
        self._not_kept = ""
        if room_bytes < request.most_copied_bytes:
            self._not_kept = f"this machine has room for {size(room_bytes)} from there"
        return replace(request, most_copied_bytes=room_bytes)

    def _look_by_dump(
        self, request: LookRequest, failure: StepFailed | NotKeptHere, seen: LookResult | None
    ) -> LookResult | None:
        """Look by the archive, since a program failed to; `seen` is what it saw, if its copies alone are missing."""
        try:
            found = self._dumped(request, _DUMP_S)
        except StepFailed as other:
            if other.refusal is KeyRefused:
                raise
            if isinstance(failure, NotKeptHere):
                raise failure from None
            if seen is not None:
                return self._ended(seen)  # what differs and has no copy is not overwritten
            if other.action is not FailureAction.REFUSED:
                self._raise_if_offline(failure)
        else:
            return self._ended(found)
        self._is_repeated, self._hung = False, None
        self._failure = failure
        self._next_try.failed(self._clock.monotonic_s())
        self._could_not(failure)
        return None

    def could_not_look(self, failure: StepFailed) -> None:
        """Note that nobody could look before all that is there goes.

        Raises `StepFailed` as `finish` does, and unless the sandbox surely offers no way to look.
        """
        if failure.action is not FailureAction.REFUSED or failure.refusal is KeyRefused:
            raise failure
        self._could_not(failure)

    def _could_not(self, failure: StepFailed) -> None:
        if self.is_gone(failure):
            raise failure
        what = f"nobody could look for changes in the sandbox ({failure.message})"
        if self.agent_changes is AgentChanges.HOLD:
            raise StepFailed(
                ApiStep.INITIALIZE,
                FailureAction.RETRY,
                f"{what}, so nothing is written there",
                'where no program runs, set sandbox.agent_changes = "save" or "overwrite"',
            )
        if self.looks:  # else it was to remove something, which is warned of
            self.warnings = [SyncWarning("remote-changes", f"{what}, and the sync went on", _LOOKS_AGAIN)]

    def _raise_if_offline(self, failure: StepFailed) -> None:
        """Raise the failure if the API does not answer at all: a network that is away is no sandbox without looks."""
        try:
            with _INQUIRY.limited(self._waiter, _AFTER_UPLOAD_S):
                self._ask_for_sandbox()
        except StepFailed as other:
            if other.action is not FailureAction.REFUSED:
                message, asked_s = f"{failure.message}, and {other.message}", other.retry_after_s
                raise StepFailed(failure.step, other.action, message, other.hint, retry_after_s=asked_s) from None

    def is_gone(self, failure: StepFailed) -> bool:
        """True if the failure says that there is no such sandbox, and the request for the sandbox itself says so too.

        404 also says that a sandbox has nothing to look with, and one may be a mistake. Raises `StepFailed` if the API
        does not say.
        """
        if failure.action is not FailureAction.REFUSED or not issubclass(failure.refusal, SandboxNotFound):
            return False
        try:
            self._ask_for_sandbox()
        except StepFailed as other:
            if other.action is FailureAction.REFUSED and other.refusal is not KeyRefused:
                return issubclass(other.refusal, SandboxNotFound)
            message, asked_s, refusal = f"{failure.message}, and {other.message}", other.retry_after_s, other.refusal
            raise StepFailed(
                failure.step, other.action, message, other.hint, retry_after_s=asked_s, refusal=refusal
            ) from None
        return False

    def _ended(self, result: LookResult) -> LookResult:
        self._next_try.clear()
        self.warnings, self._is_repeated = [], False
        self._not_kept = result.not_kept or self._not_kept
        self.unseen = result.unseen
        if self.unseen:
            what = f"{counted(self.unseen, 'path')} in the sandbox could not be looked at in time, and stay there"
            self.warnings = [SyncWarning("remote-changes", what, _LOOKS_AGAIN)]
        self.seen.looked_at = stamp(self._clock.wall_s())
        return result

    @property
    def _waits(self) -> bool:
        """True if a look would only delay the sync; with `hold` there is none without, and its own back-off counts."""
        is_early = self._next_try.is_waiting(self._clock.monotonic_s())
        return is_early and self.agent_changes is not AgentChanges.HOLD

    def drop_copies(self) -> None:
        """Delete the files that the last look fetched."""
        shutil.rmtree(self._copies_folder, ignore_errors=True)

    def _folder_for(self, request: LookRequest) -> str:
        """The folder for the copies of a look; those of the last one are gone, unless this one makes none."""
        if request.most_copied_bytes:
            self.drop_copies()
        with contextlib.suppress(OSError):
            os.makedirs(self._copies_folder, mode=0o700, exist_ok=True)
        return self._copies_folder

    # -- saving

    def save(
        self,
        why: Why,
        versions: Mapping[str, SeenEntry],
        base_of: Callable[[str], Entry | None] = lambda _: None,
    ) -> frozenset[str]:
        """Save these versions at home, but not those that are saved already. Return those that cannot be saved here.

        `base_of` returns what had been sent as a path, for a merge, if it is known.
        """
        new = {
            path: remote for path, remote in versions.items() if is_savable(remote) and not self._is_saved(path, remote)
        }
        if not new:
            return frozenset()
        try:
            bases: dict[str, SentEntry] = {}
            reads = why not in _HURRIED or len(new) <= _MOST_BASES
            for path in new:
                if (entry := base_of(path)) is not None:
                    bases[path] = entry, self._base_store.get(path, arrived_digest(entry)) if reads else None
            saved = self.saved_versions.save(why, self._target.sandbox_id, new, bases)
        except OSError as failure:
            if len(new) > 1:  # a part of them may well be saved
                paths = sorted(new)
                parts = paths[: len(paths) // 2], paths[len(paths) // 2 :]
                return frozenset().union(*(self.save(why, {p: new[p] for p in part}, base_of) for part in parts))
            self._not_kept = f"the saved versions cannot be written ({failure.strerror or failure})"
            _log.warning("the agent's version of '%s' cannot be saved (%s)", shown_path(min(new)), failure)
            return frozenset(new)
        self._saved_paths.setdefault(why, []).extend(saved.paths)
        self._relied_on.add(saved.id)
        _log.warning("saved the agent's version of %s as %s (%s)", counted(len(new), "path"), saved.id, why.value)
        return frozenset()

    def take_saved(self) -> dict[Why, list[str]]:
        """Return the paths of what was saved since the last call, for each reason, and drop what has expired.

        What this sync saved, or found to be saved, is not dropped.
        """
        with contextlib.suppress(OSError):
            self.saved_versions.expire(self._relied_on)
        self._relied_on, self._hung = set(), None
        saved, self._saved_paths = self._saved_paths, {}
        return saved

    def _is_saved(self, path: str, remote: SeenEntry) -> bool:
        holder = self.saved_versions.holder_of(path, remote)
        if holder is not None:
            self._relied_on.add(holder)
        return holder is not None

    def why_unsaved(self, there: SeenEntry) -> str:
        """Return the reason why a version of the last look was not saved, for people."""
        return why_unsaved(there, self._not_kept)


def _paths_s(request: LookRequest) -> float:
    """Return the seconds that its paths may take: of a million a look takes a minute, and so would the next one."""
    return _PATH_S * len(request.items)


def _may_pass(failure: StepFailed) -> bool:
    return failure.action is not FailureAction.REFUSED and (failure.retry_after_s or 0.0) < LOOK_S


def why_unsaved(there: SeenEntry, not_kept: str) -> str:
    """Return the reason why this version was not saved, for people; `not_kept` is that of this machine, if any."""
    if there.unstable:
        return "it is still being written"
    if there.kind is Kind.FILE:
        too_large = there.size_bytes > LookRequest({}).most_copied_bytes
        return "it is too large" if too_large else not_kept or "its content could not be copied there"
    if there.kind is Kind.DIRECTORY:
        return "a directory has its place"
    if there.kind is Kind.UNREAD:
        return "it cannot be read there, or not in time"
    return not_kept or "it is no file"
