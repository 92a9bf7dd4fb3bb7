"""The paths that a sync leaves as they are in one sandbox, as the looks there saw them, and why.

A path is *kept* while only someone there changed it, and *held* until a person decides: both sides changed it, or an
obstacle keeps it from being extracted. GNU tar puts no file in the place of a directory that is not empty, and nothing
below a path that is no directory; it then fails, whatever else the archive holds. A sync writes neither, nor anything
below them, and looks at them again each time.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from hashlib import sha256
from itertools import islice
from math import inf

from msgspec import Struct, field
from msgspec.structs import replace

from syncd.core.errors import SyncWarning
from syncd.core.text import MOST_NAMED, counted, shown_path
from syncd.model.entry import Entry, Kind, SeenEntry
from syncd.model.git_names import is_in_repository
from syncd.model.manifest import Manifest, directories_above, is_within
from syncd.model.reconcile import PathOutcome, Plan
from syncd.remote.failure import FIRST_WAIT_S, NextTry
from syncd.sandbox.look_request import LookAction, LookItem, Obstacle
from syncd.sandbox.protocol import leads_outside
from syncd.selection.ignore_files import GIT
from syncd.store.state_db import Record, StateDb

# These may be saved the next time; what is a directory or a device there is so until someone moves it.
_MAY_BE_SAVED_LATER = (Kind.FILE, Kind.UNREAD, Kind.SYMLINK)
_PLACE_OF = {kind: LookItem((Entry(kind),), LookAction.PLACE) for kind in Kind}
_REASONS = {
    Obstacle.DIRECTORY: "a directory has its place",
    Obstacle.FILE: "a file has its place",
    Obstacle.COMMITS: "a git repository with commits of the agent's may have its place",
    Obstacle.SYMLINK: "a link has its place",
    Obstacle.OTHER: "something that is neither file nor directory has its place",
    Obstacle.READ_ONLY: "its directory is read-only",
    Obstacle.LINK_ON_ITS_WAY: "a link has the place of a path that it leads through",
    Obstacle.UNKNOWN: "something of another kind may have its place",
}
_DECIDES = "`syncd diff` shows it, `syncd apply` merges, `syncd resolve` decides"
_REMEDIES = {
    Obstacle.COMMITS: "bring them home: `syncd apply --branch NAME`",
    Obstacle.READ_ONLY: "make it writable there",
}


class StayingPath(Struct, frozen=True, array_like=True):
    """A path that stays: kept, or held by an obstacle, or, with none, since both sides changed it.

    Of a held one, `here` is the fingerprint of what was here then, and `there` the kind of a version there that was to
    be saved and could not be, with the reason; None if none was.
    """

    is_kept: bool = False
    obstacle: Obstacle | None = None
    here: bytes = b""
    there: Kind | None = None
    why_unsaved: str = ""


class _SeenRecord(Struct, frozen=True):
    stays: dict[str, StayingPath] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    looked_at: str | None = None


class SeenPaths:
    """The paths of one sandbox that stay as they are there, in memory and recorded.

    `stays` has each of them with its reason: what a sync notes or forgets is recorded at once, but for `retry` and
    `taken`, after which `save` is called. `changed` are all paths that were changed there, as of the last look of
    any process at each, and `looked_at` is the time of the last look.
    """

    def __init__(self, db: StateDb, owner: str) -> None:
        self._db = db
        self._record = Record(db, "seen", _SeenRecord, "what stays in the sandbox is looked at once more", owner)
        self._next_try = NextTry()
        self.read()

    def read(self) -> None:
        """Read what is recorded, as another process may have changed it."""
        record = self._record.load() or _SeenRecord()
        self.stays, self.changed, self.looked_at = record.stays, record.changed, record.looked_at
        self._recorded = dict(self.stays)

    def recall(self) -> None:
        """Read what other processes saw there since; what stays is this process's to say."""
        record = self._record.load()
        if record is not None:
            self.changed = record.changed
            self.looked_at = max(self.looked_at, record.looked_at, key=lambda at: at or "")

    def save(self) -> None:
        """Record all. Raises `OSError`."""
        self._record.save(_SeenRecord(self.stays, self.changed, self.looked_at))
        self._recorded = dict(self.stays)

    def _stay(self, stays: dict[str, StayingPath]) -> None:
        self.stays = stays
        if self._recorded != stays:
            with suppress(OSError):  # the next process looks once more
                self.save()

    # -- what stays

    @property
    def kept(self) -> set[str]:
        """The paths that only someone there changed."""
        return {path for path, each in self.stays.items() if each.is_kept}

    @property
    def held(self) -> set[str]:
        """The paths that wait for a person: both sides changed them, or an obstacle is in the way."""
        return {path for path, each in self.stays.items() if not each.is_kept}

    @property
    def both_changed(self) -> tuple[str, ...]:
        """The held paths that both sides changed, in order."""
        return tuple(sorted(path for path in self.held if self.stays[path].obstacle is None))

    @property
    def obstacles(self) -> dict[str, Obstacle]:
        """The held paths that an obstacle keeps from being extracted, in order; all below them is held as well."""
        return {path: each.obstacle for path, each in sorted(self.stays.items()) if each.obstacle is not None}

    def wants_look(self, here: Manifest, now_s: float) -> bool:
        """True if a held path was changed here since the last look at it, or what could not be saved is due again."""
        if now_s >= self.look_again_at_s:
            return True
        return any(_fingerprint(here, path) != self.stays[path].here for path in self.held)

    @property
    def look_again_at_s(self) -> float:
        """The monotonic second from which on what could not be saved is tried again."""
        return self._next_try.at_s if self.held else inf

    def forget_deleted(self, here: Manifest, is_ours: Callable[[str], object]) -> None:
        """Forget what does not exist here any more, but for kept paths that we put there."""
        self._stay({p: each for p, each in self.stays.items() if p in here or (each.is_kept and is_ours(p))})

    def retry(self, leftovers: Collection[str]) -> None:
        """Have the next sync remove leftovers that were changed there, and put repositories in the place of others."""
        self.stays = {path: each for path, each in self.stays.items() if not (each.is_kept and path in leftovers)}
        held = self.stays.get(GIT)
        if held is not None and held.obstacle in (Obstacle.COMMITS, Obstacle.UNKNOWN):
            del self.stays[GIT]

    def release_changed(self) -> None:
        """Have all be written that was changed there: nobody looks before a sync any more."""
        self._stay({path: each for path, each in self.stays.items() if each.obstacle is not None})

    def taken(self, paths: Collection[str]) -> None:
        """Note that these paths were brought home: they differ and stay no more."""
        self.stays = {path: each for path, each in self.stays.items() if path not in paths}
        self.changed.difference_update(paths)

    def forget(self) -> None:
        """Forget all: the sandbox does not exist any more, or nothing of what is there stays."""
        self.changed = set()
        self._stay({})

    # -- what a look saw

    def note(
        self,
        plan: Plan,
        among: Callable[[str], bool],
        *,
        here: Manifest,
        now_s: float,
        why_unsaved: Callable[[SeenEntry], str] | None = None,
    ) -> None:
        """Remember which of the paths `among` others that were looked at stay as they are there.

        `why_unsaved` returns the reason for which the version of a held path could not be saved; None: none had to be.
        """
        held: dict[str, StayingPath] = {}
        for path, there in plan.there(PathOutcome.HOLD).items():
            kind, why = (None, "") if why_unsaved is None else (there.kind, why_unsaved(there))
            held[path] = StayingPath(here=_fingerprint(here, path), there=kind, why_unsaved=why)
        if any(each.there in _MAY_BE_SAVED_LATER for each in held.values()):
            self._next_try.failed(now_s)
        else:
            self._next_try.clear()
        kept = dict.fromkeys(plan.there(PathOutcome.KEEP), StayingPath(is_kept=True))
        before = {p: each for p, each in self.stays.items() if each.obstacle is not None or not among(p)}
        self.changed = {path for path in self.changed if not among(path)}
        self.changed.update(path for path in plan.stays if not is_in_repository(path))
        self._stay(kept | before | held)

    def hasten(self) -> None:
        """Have what could not be saved be tried by the next sync, as someone waits for that."""
        self._next_try.hasten()

    def try_again_after_start(self, now_s: float) -> None:
        """Plan the first look of a process that saves at what an earlier one held: at once at what that did not save.

        So it is after `sandbox.agent_changes = "hold"`.
        """
        unsaved = [self.stays[path].there for path in self.both_changed]
        if unsaved:
            self._next_try.at_s = now_s if None in unsaved else now_s + FIRST_WAIT_S

    def note_written(self, written: Collection[str]) -> None:
        """Note that these paths are made as they are here, without a look."""
        self.changed = {path for path in self.changed if path not in written}

    def note_obstacles(self, found: Mapping[str, Obstacle], here: Manifest) -> None:
        """Remember these obstacles, and no others: all places that were taken before were looked at.

        A link that leads through a link of someone there is held too, as an extractor may refuse it.
        """
        links = [path for path, obstacle in found.items() if obstacle is Obstacle.SYMLINK]
        ours = {path: obstacle for path, obstacle in found.items() if path in here}
        obstacles = {**ours, **dict.fromkeys(_links_through(here, links), Obstacle.LINK_ON_ITS_WAY)}
        others = {path: each for path, each in self.stays.items() if each.obstacle is None}
        self._stay(
            others | {p: StayingPath(obstacle=each, here=_fingerprint(here, p)) for p, each in obstacles.items()}
        )

    def note_all(self, changed: Collection[str]) -> None:
        """Remember, for `status`, all that the last look, one at everything, found.

        What stays there is not touched: a sync that is under way says it, or another process.
        """
        self.changed = set(changed)
        with suppress(OSError), self._db.transaction():  # it costs the status, not the look
            record = self._record.load() or _SeenRecord()
            self._record.save(replace(record, changed=self.changed, looked_at=self.looked_at))

    # -- what is told

    @property
    def warnings(self) -> list[SyncWarning]:
        obstacles = self.obstacles
        found = [_obstacle_warning(path, obstacle) for path, obstacle in islice(obstacles.items(), MOST_NAMED)]
        if len(obstacles) > MOST_NAMED:
            what = f"{len(obstacles) - MOST_NAMED:,} more paths are not sent, as their places in the sandbox are taken"
            remedy = "free the places of those that are named, then run `syncd push --force`"
            found.append(SyncWarning("obstacle", what, remedy))
        both = self.both_changed
        found += map(self._held_warning, both[:MOST_NAMED])
        if len(both) > MOST_NAMED:
            more = counted(len(both) - MOST_NAMED, "more path")
            what = f"{more} changed here and in the sandbox, held as those that are named"
            found.append(SyncWarning("held", what, "`syncd diff` shows them, `syncd apply` merges"))
        return found

    def _held_warning(self, path: str) -> SyncWarning:
        held = self.stays[path]
        if held.there is Kind.UNREAD:
            what = f"'{shown_path(path)}' could not be read in the sandbox, or not in time, and stays there as it is"
            return SyncWarning(f"held:{path}", what, "a later sync looks again; `syncd diff` has more time for it")
        if held.there is Kind.DIRECTORY:  # it is never saved in one, and waits for a person
            what = f"'{shown_path(path)}' was changed in the sandbox and stays there, as a directory has its place"
            return SyncWarning(f"held:{path}", what, _DECIDES)
        return held_warning(path, None if held.there is None else held.why_unsaved)


def held_warning(path: str, unsaved: str | None) -> SyncWarning:
    """Return the warning about a held path; `unsaved` is why its version there could not be saved, if it had to be."""
    what = f"'{shown_path(path)}' was changed here and in the sandbox, where it stays as it is"
    remedy = _DECIDES
    if unsaved is not None:
        what = f"'{shown_path(path)}' was changed in the sandbox and stays there, as it could not be saved ({unsaved})"
        remedy = "mend that, or move it away there; it is tried again by itself, and by `syncd push --force`"
    return SyncWarning(f"held:{path}", what, remedy)


def _obstacle_warning(path: str, obstacle: Obstacle) -> SyncWarning:
    what = f"'{shown_path(path)}' is not sent: in the sandbox {_REASONS[obstacle]}"
    remedy = _REMEDIES.get(obstacle, "move that away there, or rename it here")
    return SyncWarning(f"obstacle:{path}", what, f"{remedy}; then run `syncd push --force`")


def _fingerprint(here: Manifest, path: str) -> bytes:
    """Return a digest that differs once the path, or anything below it, is changed here."""
    rows = sorted((p, e.kind.value, e.mode, e.size_bytes, e.mtime_s, e.target) for p, e in here.within([path]).items())
    return sha256(repr(rows).encode("utf-8", "surrogateescape")).digest()


# -- places


def place_items(
    entries: Mapping[str, Entry], is_ours: Callable[[str], bool], repositories: Collection[str] = ()
) -> dict[str, LookItem]:
    """Return the items of a look that finds what keeps these entries from being extracted.

    Those of `repositories` come first, since only so many obstacles are reported: they must take no commits' place. An
    extractor may also refuse a link that leads through a link of someone's, where what is there is not ours.
    """
    items = {path: LookItem((entries[path],), LookAction.COMMITS) for path in repositories if path in entries}
    items |= {path: _PLACE_OF[entry.kind] for path, entry in entries.items() if path not in items}
    targets = [_target(path, entry) for path, entry in entries.items() if entry.kind is Kind.SYMLINK]
    inside = [path for path in targets if not leads_outside(path)]
    ways = directories_above(inside).union(inside)
    return items | {path: _PLACE_OF[Kind.DIRECTORY] for path in sorted(ways) if path not in items and not is_ours(path)}


def _target(path: str, entry: Entry) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), entry.target))


def _links_through(entries: Mapping[str, Entry], links: Collection[str]) -> list[str]:
    """Return the symlinks that lead through one of these paths, so that they may lead out of the workspace there."""
    symlinks = {path: entry for path, entry in entries.items() if entry.kind is Kind.SYMLINK} if links else {}
    targets = {path: _target(path, entry) for path, entry in symlinks.items()}
    return [path for path in targets if path not in links and is_within(targets[path], links)]
