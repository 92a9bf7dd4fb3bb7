"""Decides by three sides what is done with each path: one table for a sync, for `diff` and for `apply`.

The base is what syncd put there and knows to have arrived, *here* the workspace, *there* the sandbox as a look saw it.
First, who changed the path since it was put there; then, by that, what is done:

| changed by | gone there | a sync: save | hold | force | overwrite | home (`apply`) |
| --- | --- | --- | --- | --- | --- | --- |
| nobody, or both to the same | | same | same | same | same | same |
| here | | write | write | write | write | stays |
| there | | keep | keep | save | write | take |
| there | gone | write | write | write | write | delete if asked for, else deleted there |
| both | | save | hold | save | write | files: merge; else conflict |
| both, gone here | | keep | keep | save | write | stays |
| both | gone | write | write | write | write | stays |

*Write* makes it there as it is here, *save* keeps the version there at home and then does that. What cannot be saved
(it is still being written, cannot be read, is too large, or has no room here) is held or kept instead, and not taken.
At home, a person's choice decides what waits for one: a conflict, and what one side deleted and the other changed. Then
theirs is taken, or deleted here; ours is written there by the next sync; or git's markers put both into one text.

Then two rules on directories. What is below a path that stays, stays: its directory is not ours. At home, nothing is
taken below a path that becomes no directory, a directory goes only with all that is in it, and what is gone there since
its directory gave way to something that is not taken is not deleted here.

Last, what is removed in the sandbox, and what is left over there: both are uploaded paths that are gone here. Only
those are removed. A path whose kind changed counts as gone: an extractor cannot put a file in a directory's place.
Leftovers stay there because `sandbox.deletions` says so, because someone changed them there, or because they could not
be removed. Some exist here and could not be read: those are remembered, and not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from enum import Enum
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from syncd.core.choices import AgentChanges
from syncd.model.entry import (
    ABSENT,
    ALL_BITS,
    EXECUTABLE,
    Entry,
    Kind,
    SeenEntry,
    is_savable,
    leads_out,
    same,
    stays_inside,
)
from syncd.model.git_names import is_in_repository, names_submodules
from syncd.model.manifest import entry_changes, is_within, removed_paths


class Changed(Enum):
    """The sides that changed a path since it was put there."""

    NOBODY = "the same on both sides"
    HERE = "only here"
    THERE = "only there"
    BOTH = "on both sides"


class PathOutcome(Enum):
    """The outcome for one path."""

    SAME = "the same on both sides"
    WRITE = "made there as it is here"
    SAVE = "saved, then made there as it is here"
    KEEP = "left as it is there, as only someone there changed it"
    HOLD = "left as it is there until a person decides"
    TAKE = "taken"
    MERGE = "merged; it may turn out a conflict"
    CONFLICT = "changed on both sides"
    DELETE = "deleted here"
    DELETED_THERE = "deleted in the sandbox, and left here"
    STAYS = "left as it is on both sides"
    UNFETCHED = "left as it is here, as it could not be fetched"
    NEVER = "never taken"


CHANGES = (PathOutcome.TAKE, PathOutcome.MERGE, PathOutcome.DELETE)
"""The outcomes at home that change something here."""


class Choice(Enum):
    """A person's decision about a path that waits for one."""

    MINE = "ours, sent by the next sync"
    THEIRS = "the sandbox's, as if only that had changed"
    MARKERS = "both in one text, with git's conflict markers"


class Forced(Enum):
    """`push --force`: all is made as it is here, and what that overwrites is saved."""

    FORCE = "force"


Policy = AgentChanges | Forced


class PlannedPath(Struct, frozen=True):
    """One path with its three sides. `reason` is for people, where the outcome does not say it.

    `choice` is the person's that the outcome follows, or that could not be followed. `merged` is what a merge makes of
    it, None if that is what is here.
    """

    path: str
    outcome: PathOutcome
    base: Entry
    here: Entry
    there: SeenEntry
    reason: str = ""
    choice: Choice | None = None
    merged: SeenEntry | None = None


class Plan(Struct, frozen=True):
    """The paths, in the order of the paths."""

    paths: tuple[PlannedPath, ...] = ()

    def of(self, *outcomes: PathOutcome) -> list[PlannedPath]:
        """Return those with one of these outcomes."""
        return [each for each in self.paths if each.outcome in outcomes]

    def there(self, outcome: PathOutcome) -> dict[str, SeenEntry]:
        """Return the versions there of the paths with this outcome."""
        return {each.path: each.there for each in self.paths if each.outcome is outcome}

    def with_outcome(self, paths: Collection[str], outcome: PathOutcome, reason: str) -> Plan:
        """Return the plan with another outcome of these paths."""
        return Plan(
            tuple(replace(each, outcome=outcome, reason=reason) if each.path in paths else each for each in self.paths)
        )

    @property
    def stays(self) -> dict[str, SeenEntry]:
        """The paths that a sync leaves as they are, with what is there."""
        return {**self.there(PathOutcome.KEEP), **self.there(PathOutcome.HOLD)}


class Sides(Struct, frozen=True):
    """The sides of the paths to decide about, which are those of `there`; for home also what is above them here."""

    base: Mapping[str, Entry]
    here: Mapping[str, Entry]
    there: Mapping[str, SeenEntry]

    def at(self, path: str) -> tuple[Entry, Entry, SeenEntry]:
        """Return base, here and there of a path."""
        return self.base.get(path, ABSENT), self.here.get(path, ABSENT), self.there[path]


def who_changed(base: Entry, here: Entry, there: Entry, bits: int) -> Changed:
    """Return the sides that changed a path; `bits` of a mode count here, of one there only the executable one."""
    is_here, is_there = not same(here, base, bits), not same(there, base)
    if same(here, there) and (is_there or not is_here):
        return Changed.NOBODY
    if not is_there:
        return Changed.HERE
    return Changed.BOTH if is_here else Changed.THERE


# -- a sync


def plan_sync(sides: Sides, policy: Policy, changed_below: Collection[str] = (), unsaved: Collection[str] = ()) -> Plan:
    """Return what a sync does with the paths that a look found to differ from the base and from what is here.

    In directories of `changed_below` something is not as it was put there. `unsaved` are paths whose version there was
    to be saved and could not be.
    """
    paths: list[PlannedPath] = []
    stays: set[str] = set()
    for path in sorted(sides.there):
        base, here, there = sides.at(path)
        changed = who_changed(base, here, there, ALL_BITS)
        if changed is Changed.THERE and path in changed_below:
            changed = Changed.BOTH
        outcome = _sync_outcome(changed, here, there, policy)
        if outcome is PathOutcome.SAVE and path in unsaved:
            outcome = _unsaved_outcome(changed, here)
        if outcome is PathOutcome.WRITE and is_within(path, stays):
            continue  # it is missing only since its directory is not there
        if outcome in (PathOutcome.KEEP, PathOutcome.HOLD):
            stays.add(path)
        paths.append(PlannedPath(path, outcome, base, here, there))
    return Plan(tuple(paths))


def _sync_outcome(changed: Changed, here: Entry, there: SeenEntry, policy: Policy) -> PathOutcome:
    if changed is Changed.NOBODY:
        return PathOutcome.SAME
    if changed is Changed.HERE or there.kind is Kind.ABSENT or policy is AgentChanges.OVERWRITE:
        return PathOutcome.WRITE
    saves = policy is Forced.FORCE or (policy is AgentChanges.SAVE and _is_held(changed, here))
    # A directory is saved with what is in it, path by path, and cannot make room before that is gone.
    if saves and is_savable(there) and there.kind is not Kind.DIRECTORY:
        return PathOutcome.SAVE
    return _unsaved_outcome(changed, here)


def _unsaved_outcome(changed: Changed, here: Entry) -> PathOutcome:
    return PathOutcome.HOLD if _is_held(changed, here) else PathOutcome.KEEP


def _is_held(changed: Changed, here: Entry) -> bool:
    return changed is Changed.BOTH and here.kind is not Kind.ABSENT


# -- home


class Home(Struct, frozen=True):
    """The workspace, as far as a plan for it needs more than its sides.

    `deletions`: what was deleted there is deleted here too. `link_at` returns a link's target here, None for all that
    is no link; `names_in` the names in a directory here. `choices` are a person's, by path. `refused_submodules`
    returns why git refuses the file of this place as a `.gitmodules`, empty if it does not.
    """

    deletions: bool
    link_at: Callable[[str], str | None]
    names_in: Callable[[str], Collection[str]]
    choices: Mapping[str, Choice] = MappingProxyType({})
    refused_submodules: Callable[[str], str] = lambda _: ""


def plan_home(sides: Sides, home: Home) -> Plan:
    """Return what `apply` does with the paths that differ there."""
    found: dict[str, PlannedPath] = {}
    for path in sorted(sides.there):
        base, here, there = sides.at(path)
        if here.kind is Kind.OTHER and _makes_room(sides, path):
            here = ABSENT
        outcome, reason = _home_outcome(sides, home, path, here)
        planned = PlannedPath(path, outcome, base, here, there, reason)
        found[path] = _chosen(planned, home, Choice.THEIRS, Choice.MARKERS)
    # A disk that does not tell letter cases apart has one file for both names of a path that was renamed there.
    kept = {(path.lower(), each.here.stamp) for path, each in found.items() if each.outcome is not PathOutcome.DELETE}
    for path, planned in found.items():
        if planned.outcome is PathOutcome.DELETE and planned.here.stamp and (path.lower(), planned.here.stamp) in kept:
            found[path] = replace(planned, outcome=PathOutcome.STAYS, reason=_OTHER_CASE)
    for path in reversed(found):  # what is in a directory before it
        planned = found[path]
        goes = planned.outcome is PathOutcome.DELETE or (
            planned.outcome is PathOutcome.TAKE and not planned.there.is_directory
        )
        # What waits for `--deletions`, and would not be taken with it either, waits for a person.
        gone = _GONE if goes else (*_GONE, PathOutcome.DELETED_THERE)
        may_go = goes or planned.reason == _WITH_DELETIONS
        if may_go and planned.here.is_directory and not _is_emptied(path, found, home, gone):
            outcome = PathOutcome.STAYS if planned.outcome is PathOutcome.DELETE else PathOutcome.CONFLICT
            found[path] = replace(planned, outcome=outcome, reason=_HOLDS_MORE)
    for path, planned in found.items():
        above = _above(path, found)
        if planned.outcome in (PathOutcome.TAKE, PathOutcome.MERGE) and above is not None and above.there.is_directory:
            reason = f"{_NOT_TAKEN}{above.reason.removeprefix(_NOT_TAKEN) or above.outcome.value}"
            outcome = PathOutcome.NEVER if above.outcome is PathOutcome.NEVER else PathOutcome.CONFLICT
            found[path] = replace(planned, outcome=outcome, reason=reason)
        elif planned.outcome is PathOutcome.DELETE and above is not None and not above.there.is_directory:
            found[path] = replace(planned, outcome=PathOutcome.STAYS, reason=_GAVE_WAY)
        elif planned.outcome in (PathOutcome.TAKE, PathOutcome.MERGE):
            kind = _kind_above(path, sides, found)
            if kind is Kind.SYMLINK:
                found[path] = replace(planned, outcome=PathOutcome.NEVER, reason="its place here is behind a link")
            elif kind is not Kind.DIRECTORY:
                found[path] = replace(planned, outcome=PathOutcome.CONFLICT, reason="its directory is none here")
    # Last, as what cannot be taken for its directory can still be overruled.
    found = {path: _chosen(planned, home, Choice.MINE) for path, planned in found.items()}
    return Plan(tuple(_with_directory(planned, found) for planned in found.values()))


def waits(planned: PlannedPath) -> bool:
    """True if a person has to decide: it is a conflict, or one side deleted what the other changed."""
    if planned.outcome is not PathOutcome.STAYS:
        return planned.outcome is PathOutcome.CONFLICT
    return Kind.ABSENT in (planned.here.kind, planned.there.kind) and differs_on_both(planned)


def differs_on_both(planned: PlannedPath) -> bool:
    """True if both sides have something else than the base, and not the same."""
    return who_changed(planned.base, planned.here, planned.there, EXECUTABLE) is Changed.BOTH


def _chosen(planned: PlannedPath, home: Home, *among: Choice) -> PlannedPath:
    """Return what a person's choice, if it is one of these, makes of a path that both sides changed."""
    choice = home.choices.get(planned.path)
    if choice not in among or not (waits(planned) or planned.outcome is PathOutcome.MERGE):
        return planned
    if choice is Choice.THEIRS:
        outcome = PathOutcome.DELETE if planned.there.kind is Kind.ABSENT else PathOutcome.TAKE
    else:
        outcome = PathOutcome.WRITE if choice is Choice.MINE else PathOutcome.MERGE
    return replace(planned, outcome=outcome, reason="", choice=choice)


def _with_directory(planned: PlannedPath, found: Mapping[str, PlannedPath]) -> PlannedPath:
    """Return the choice of a directory of ours, in whose place something else is there, for what went with it there."""
    above = _above(planned.path, found) if planned.outcome is PathOutcome.DELETED_THERE else None
    if above is None or above.choice is not Choice.MINE or above.there.is_directory:
        return planned
    return replace(planned, outcome=above.outcome, choice=above.choice)


UNREAD_HERE = "it cannot be read here, or is being written"
_WITH_DELETIONS = "a directory here, no directory there; --deletions applies it"
_HOLDS_MORE = "its directory here holds more than was deleted there"
_NOT_TAKEN = "its directory is not applied: "
_OTHER_CASE = "it is here by its new name, too, as this disk does not tell upper from lower case"
_GAVE_WAY = "its directory gave way there to something that is not applied"


def _home_outcome(sides: Sides, home: Home, path: str, here: Entry) -> tuple[PathOutcome, str]:
    base, _, there = sides.at(path)
    never = never_taken(sides, home, path, here, there)
    if never:
        return PathOutcome.NEVER, never
    if there.unstable:
        return PathOutcome.UNFETCHED, "it is still being written in the sandbox"
    if there.kind is Kind.UNREAD:
        return PathOutcome.UNFETCHED, "it cannot be read in the sandbox"
    changed = who_changed(base, here, there, EXECUTABLE)
    if changed is Changed.NOBODY:
        return PathOutcome.SAME, ""
    if changed is Changed.HERE:
        return PathOutcome.STAYS, "only changed here"
    if there.kind is Kind.ABSENT:
        if changed is Changed.BOTH:
            return PathOutcome.STAYS, "deleted in the sandbox, changed here"
        return (PathOutcome.DELETE, "") if home.deletions else (PathOutcome.DELETED_THERE, "")
    if not is_savable(there):
        return PathOutcome.UNFETCHED, "its content could not be fetched"
    if changed is Changed.THERE:
        if here.is_directory and not there.is_directory and not home.deletions:
            return PathOutcome.STAYS, _WITH_DELETIONS
        return PathOutcome.TAKE, ""
    if here.kind is Kind.ABSENT:
        return PathOutcome.STAYS, "deleted here, changed in the sandbox"
    if {base.kind, here.kind, there.kind} == {Kind.FILE}:
        return PathOutcome.MERGE, ""
    if base.kind is Kind.ABSENT and here.kind is Kind.FILE and here.digest == there.digest != b"":
        return PathOutcome.MERGE, ""  # only the modes differ
    return PathOutcome.CONFLICT, _both_changed(base, here, there)


def _both_changed(base: Entry, here: Entry, there: Entry) -> str:
    if here.kind is Kind.UNREAD:
        return UNREAD_HERE
    if base.kind is Kind.ABSENT:
        return "new on both sides"
    return "of different kinds" if here.kind is not there.kind else "changed on both sides"


def never_taken(sides: Sides, home: Home, path: str, here: Entry, there: SeenEntry) -> str:
    """Return the reason for which a path is never taken, empty if there is none."""
    if is_in_repository(path):
        return "it is inside of a .git"
    if here.kind is Kind.OTHER:
        return "its place here is behind a link, or holds a device"
    if there.kind is Kind.OTHER:
        return "it is a socket, a FIFO or a device"
    if names_submodules(path) and there.kind in (Kind.FILE, Kind.SYMLINK):
        if there.kind is Kind.SYMLINK:
            return "git allows no link of this name"
        if there.copy and (reason := home.refused_submodules(there.copy)):
            return reason
    if there.kind is Kind.SYMLINK:

        def target_of(at: str) -> str | None:
            entry = sides.there.get(at)
            if entry is not None:
                return entry.target if entry.kind is Kind.SYMLINK else None
            return home.link_at(at)

        if not stays_inside(path, there.target) or leads_out(path, there.target, target_of):
            return "it is a link that leads out of the workspace"
    return ""


def _makes_room(sides: Sides, path: str) -> bool:
    """True if a file or link here, which a directory there replaces, is all that is in the path's way."""
    while path := path.rpartition("/")[0]:
        here = sides.here.get(path, ABSENT)
        if here.kind not in (Kind.ABSENT, Kind.OTHER):
            there = sides.there.get(path)
            return there is not None and there.is_directory and not here.is_directory
    return False


_GONE = (PathOutcome.DELETE, PathOutcome.SAME)


def _is_emptied(path: str, found: Mapping[str, PlannedPath], home: Home, gone: Collection[PathOutcome]) -> bool:
    """True if all that is in a directory here goes too, by these outcomes."""
    for name in home.names_in(path):
        each = found.get(f"{path}/{name}")
        if each is None or each.outcome not in gone:
            return False
        is_left = each.outcome is PathOutcome.DELETED_THERE and each.here.is_directory
        if is_left and not _is_emptied(each.path, found, home, gone):
            return False
    return True


def _above(path: str, found: Mapping[str, PlannedPath]) -> PlannedPath | None:
    """Return the nearest path above at which something is there, if it is not taken."""
    while path := path.rpartition("/")[0]:
        above = found.get(path)
        if above is not None and above.there.kind is not Kind.ABSENT:
            return None if above.outcome in (PathOutcome.TAKE, PathOutcome.SAME) else above
    return None


def _kind_above(path: str, sides: Sides, found: Mapping[str, PlannedPath]) -> Kind:
    """Return the kind of the nearest path above that is here and stays as it is; a directory if none is."""
    while (path := path.rpartition("/")[0]) and path not in found:
        above = sides.here.get(path, ABSENT)
        if above.kind is not Kind.ABSENT:
            return above.kind
    return Kind.DIRECTORY


# -- what is removed there, and what is left over

Versions = dict[str, list[Entry]]
"""Paths, each with the uploaded entries that may be there."""


def left_over(
    held: Mapping[str, Entry], wanted: Mapping[str, Entry], gone: Collection[str], failed: Collection[str]
) -> dict[str, Entry]:
    """Return what is left over of what the sandbox held, perhaps in part, once it holds `wanted`.

    `gone` were removed there, and `failed` could not be: of a path that exists locally another kind is left over then.
    """
    paths = {*removed_paths(held, wanted), *(path for path in failed if path in held)}
    return {path: held[path] for path in sorted(paths.difference(gone))}


def paths_to_delete(
    held: Iterable[Mapping[str, Entry]],
    wanted: Mapping[str, Entry],
    unread: Collection[str],
) -> Versions:
    """Return the uploaded paths to delete in the sandbox, the content of a directory before it.

    `held` are manifests of which each may be there, partly or whole. `unread` are local paths that could not be read:
    nothing is known of them and all below. What was in a `.git` stays if that alone is gone here: commits that someone
    made there are made of it.
    """
    found: Versions = {}
    for manifest in held:
        for path, now, entry in entry_changes(wanted, manifest):
            if now is None or now.kind is not entry.kind:
                found.setdefault(path, []).append(entry)
    paths = (path for path in found if not is_within(path, unread) and not _in_gone_repository(path, wanted))
    return {path: found[path] for path in sorted(paths, reverse=True)}


def _in_gone_repository(path: str, wanted: Mapping[str, Entry]) -> bool:
    above, folder, _ = f"/{path}".partition("/.git/")
    return bool(folder) and (not above or above[1:] in wanted) and f"{above}/.git"[1:] not in wanted


def obstructing(found: Versions, wanted: Mapping[str, Entry]) -> Versions:
    """Return the versions that have a wanted path's place, or are below a wanted path that is no directory."""
    return {path: entries for path, entries in found.items() if path in wanted or _below_non_directory(path, wanted)}


def _below_non_directory(path: str, wanted: Mapping[str, Entry]) -> bool:
    while path := path.rpartition("/")[0]:
        now = wanted.get(path)
        if now is not None:
            return now.kind is not Kind.DIRECTORY
    return False


def obstructed_by(unmoved: Mapping[str, Collection[Kind]], wanted: Mapping[str, Entry]) -> dict[str, Kind]:
    """Return the wanted paths whose place is not free while one of these kinds is there, each with that kind.

    Files and links replace one another; a directory replaces nothing, and nothing replaces a directory.
    """
    found: dict[str, Kind] = {}
    for path, kinds in unmoved.items():
        now = wanted.get(path)
        if now is not None:
            for kind in kinds:
                if kind is not now.kind and Kind.DIRECTORY in (kind, now.kind):
                    found[path] = kind
    return found
