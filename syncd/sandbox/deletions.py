"""Removes deleted files in the sandbox before a snapshot, as `sandbox.deletions` says, and finds what is left over."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping

from msgspec import Struct, field

from syncd.core.choices import Deletions
from syncd.core.clock import Clock
from syncd.core.errors import SyncWarning
from syncd.core.text import MOST_NAMED, counted, shown_path
from syncd.model.entry import Kind
from syncd.model.manifest import Manifest, directories_above, is_within
from syncd.model.reconcile import Versions, obstructed_by, obstructing, paths_to_delete
from syncd.remote.failure import NextTry
from syncd.sandbox.look_request import LookResult, Obstacle
from syncd.sandbox.looks import Looks
from syncd.sandbox.sandbox_state import SandboxState

_log = logging.getLogger("syncd.deletions")
NOBODY = "nobody could look there"


class Removed(Struct, frozen=True):
    """What became of the paths that were to be deleted in the sandbox, by the looks at them.

    They are `gone` there, or `failed` to be removed, with the reason; all others were changed by someone and are kept.
    `occupied` are wanted places that are not free, with what is there.
    """

    gone: frozenset[str]
    failed: Mapping[str, str]
    occupied: Mapping[str, Obstacle]


def removed_by(looks: Iterable[LookResult], to_delete: Versions, wanted: Manifest) -> Removed:
    """Return what these looks removed of what was to be deleted; the later of two counts."""
    there: dict[str, Kind] = {}
    reasons: dict[str, str] = {}
    holding_more: set[str] = set()
    for look in looks:
        there |= {path: seen.kind for path, seen in look.differing.items()}
        there |= dict.fromkeys(look.removed, Kind.ABSENT) | dict.fromkeys(look.holding_more, Kind.DIRECTORY)
        there |= dict.fromkeys(look.failed, Kind.UNREAD)
        reasons |= look.failed
        holding_more.update(look.holding_more)
    left = {path: there.get(path, Kind.UNREAD) for path in to_delete if there.get(path) is not Kind.ABSENT}
    unread = {path for path, kind in left.items() if kind is Kind.UNREAD}
    kinds = {path: [each.kind for each in to_delete[path]] if path in unread else [left[path]] for path in left}
    occupied = obstructed_by(kinds, wanted)
    # A directory that holds something else than what was put there is the agent's by now.
    holding_ours = directories_above(left.keys() - holding_more)
    given_up = {path for path in left.keys() & holding_more - holding_ours if not is_within(path, occupied)}
    failed = {path: reasons[path] for path in unread if path in reasons}
    return Removed(
        gone=frozenset(to_delete.keys() - left.keys() | given_up),
        failed=failed,
        occupied={
            path: Obstacle.UNKNOWN if reasons.get(path) == NOBODY else Obstacle(kind) for path, kind in occupied.items()
        },
    )


class Removals(Struct):
    """The deletions in one sandbox before each initialize, and the leftovers after it.

    `is_excluded` is True for a path, and whether it is a directory, that the rules exclude: it was not deleted. What
    could not be removed is tried again by itself, and not before, unless it is in the way or someone waits; where no
    program runs, it is tried along with each sync.
    """

    deletions: Deletions
    state: SandboxState
    looks: Looks
    clock: Clock
    is_excluded: Callable[[str, bool], bool] = lambda _path, _is_dir: False
    _next_try: NextTry = field(default_factory=NextTry)

    def __post_init__(self) -> None:
        if self.state.unremoved:  # by an earlier process
            self._next_try.at_s = self.clock.monotonic_s()

    @property
    def warnings(self) -> list[SyncWarning]:
        """The warnings about what stays in the sandbox although it was deleted here."""
        if not self.removes:
            return []  # then it stays as configured
        seen, content = self.state.seen, self.state.content
        found = [
            SyncWarning(
                f"kept:{path}",
                f"'{shown_path(path)}' is excluded here and was changed in the sandbox, where it stays",
                "`syncd apply --include PATTERN` brings it home",
            )
            if self.is_excluded(path, content.versions_of(path)[-1].kind is Kind.DIRECTORY)
            else SyncWarning(
                f"kept:{path}",
                f"'{shown_path(path)}' was deleted here and changed in the sandbox, where it stays",
                "`syncd diff` shows it, `syncd resolve` decides",
            )
            for path in sorted(content.leftovers.intersection(seen.kept))
        ]
        unlooked = sum(reason == NOBODY for reason in self.state.unremoved.values())
        if unlooked:
            stay = "stays" if unlooked == 1 else "stay"
            what = f"{counted(unlooked, 'deleted path')} {stay} in the sandbox ({NOBODY})"
            remedy = 'remove them there, or set sandbox.deletions = "keep" with `syncd config edit`'
            found.append(SyncWarning("delete", what, remedy))
        failed = [
            SyncWarning(
                f"delete:{path}",
                f"'{shown_path(path)}' was deleted here and could not be removed in the sandbox ({reason})",
                "a later sync tries again",
            )
            for path, reason in self.state.unremoved.items()
            if reason != NOBODY and path not in seen.stays
        ]
        if len(failed) > MOST_NAMED:
            what = f"{counted(len(failed) - MOST_NAMED, 'more path')} deleted here could not be removed in the sandbox"
            failed[MOST_NAMED:] = [SyncWarning("delete:more", what, "a later sync tries again")]
        return found + failed

    @property
    def removes(self) -> bool:
        """True if files are removed only because they were deleted here."""
        return self.deletions is Deletions.MIRROR

    @property
    def again_at_s(self) -> float:
        """The monotonic second from which on what could not be removed is tried again; infinity if it never is."""
        return self._next_try.at_s

    def has_pending(self, wanted: Manifest, unread: Collection[str]) -> bool:
        """True if leftovers are to be removed that were not tried just now, or are to be tried again.

        What someone else has the place of waits for a person; what we put there, and could not remove, does not.
        """
        is_due = self.clock.monotonic_s() >= self.again_at_s
        tried = self._given_up if is_due else self._given_up | _with_directories(self.state.unremoved)
        left = (self.state.content.left, *self.state.content.maybe)
        untried = [{path: each[path] for path in each if path not in tried} for each in left]
        others = self.state.seen.obstacles.keys() - self.state.unremoved.keys()
        found = paths_to_delete(untried, wanted, others.union(unread))
        return bool(found if self.removes else obstructing(found, wanted).keys() & self.state.unremoved.keys())

    def hasten(self) -> None:
        """Have what could not be removed be tried by the next sync, as someone waits for that."""
        self._next_try.hasten()

    def due(self, wanted: Manifest, unread: Collection[str]) -> Versions:
        """Return the paths to delete before `wanted` is initialized, earlier leftovers included."""
        found = paths_to_delete(self.state.content.versions, wanted, unread)
        in_the_way = obstructing(found, wanted)
        if not self.removes:
            return in_the_way
        if self._next_try.is_waiting(self.clock.monotonic_s()):
            put_off = _with_directories(self.state.unremoved) - in_the_way.keys()
            found = {path: found[path] for path in found if path not in put_off}
        # A path that someone changed is tried along with others, as it may be as uploaded again, but is no reason for a
        # removal by itself, unless it has a wanted path's place.
        return found if in_the_way or not found.keys() <= self._given_up else {}

    @property
    def _given_up(self) -> set[str]:
        """The leftovers that someone changed, as far as a look saw it; not what could only not be removed."""
        changed = self.state.seen.stays.keys() - self.state.unremoved.keys()
        return _with_directories(changed) & self.state.content.leftovers

    def settle_pending(self, wanted: Manifest) -> None:
        """Make sure that no removal that was started before removes anything that is wanted. Raises `StepFailed`."""
        self.looks.executions.settle(wanted)
        content = self.state.content

        def is_left(path: str) -> bool:
            now = wanted.get(path)
            return any(now is None or now.kind is not entry.kind for entry in content.versions_of(path))

        self.state.unremoved = {path: why for path, why in self.state.unremoved.items() if is_left(path)}

    def note(self, removed: Removed, to_delete: Collection[str]) -> None:
        """Note what became of what was to be deleted: what failed becomes a warning, and holds nothing else back."""
        others = {path: why for path, why in self.state.unremoved.items() if path not in to_delete}
        self.state.unremoved = others | {**removed.failed}
        if not to_delete:
            return
        changed = len(to_delete) - len(removed.gone) - len(removed.failed)
        counts = counted(len(removed.gone), "path"), changed, len(self.state.unremoved)
        _log.info("%s removed in the sandbox, %d changed there and kept, %d failed", *counts)
        if not self.state.unremoved or not self.looks.runs_programs:
            self._next_try.clear()
        else:
            self._next_try.failed(self.clock.monotonic_s())


def _with_directories(paths: Collection[str]) -> set[str]:
    return directories_above(paths).union(paths)
