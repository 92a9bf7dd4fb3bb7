"""Brings the agent's work home: planned by three sides, merged, written, and recorded as sent.

`apply`, `resolve` and `saved restore --here` make a plan each, and all write it here. What is asked and told is theirs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from syncd.archive.base_store import LARGEST_MERGED_BYTES, SentFiles
from syncd.core.errors import TryLater
from syncd.core.process import original_umask
from syncd.core.text import counted, shown_path
from syncd.merge.git import (
    Git,
    is_binary,
    merge,
    needed,
    why_submodules_are_refused,
)
from syncd.merge.path_changes import PathChange, link_at, opened
from syncd.merge.workspace_writer import OpenConflicts, WorkspaceWriter, Written
from syncd.model.entry import ABSENT, ALL_BITS, EXECUTABLE, Entry, Kind, SeenEntry, arrived_digest, mode_at_home, same
from syncd.model.manifest import Manifest, directories_above, is_within
from syncd.model.reconcile import (
    CHANGES,
    UNREAD_HERE,
    Choice,
    Home,
    PathOutcome,
    Plan,
    PlannedPath,
    Sides,
    plan_home,
)
from syncd.remote.failure import StepFailed
from syncd.sandbox.look_request import LookAction, LookItem, LookRequest
from syncd.sandbox.sandbox_content import TakenPath
from syncd.sandbox.saved_versions import Why
from syncd.scan.exclusions import PathRules
from syncd.selection.selection import Selection
from syncd.store.state_db import StateDb
from syncd.sync.agent_work import AgentWork, IsExcluded
from syncd.sync.sandbox import Sandbox


class HomeFolder(Struct, frozen=True):
    """The workspace that work comes home to. `scratch` is a private folder that somebody else removes.

    `search` returns those of some paths that hold a secret here. At `unmounted` places something was mounted that is
    missing: what is written there is hidden once it is back, and would then count as deleted here.
    """

    path: str
    scratch: str
    selection: Selection
    excludes: str
    search: Callable[[Iterable[str]], Collection[str]]
    sent_files: SentFiles
    writer: WorkspaceWriter
    db: StateDb
    git: Git | None
    unmounted: Collection[str]

    def rules(self) -> PathRules:
        """Return the workspace's rules as they are now. Raises `WorkspaceError`."""
        return PathRules(self.path, self.selection, self.excludes)

    def place(self, path: str) -> str:
        """Return where the path is on this machine."""
        return os.path.join(self.path, path)

    def base_bytes(self, planned: PlannedPath) -> bytes | None:
        """Return the bytes that were sent as this path, None if they are gone, or too many to be merged."""
        sent = self.sent_files.version(planned.path, planned.base) if planned.base.kind is Kind.FILE else None
        return None if sent is None or os.path.getsize(sent.copy) > LARGEST_MERGED_BYTES else _content_of(sent.copy)

    def without_unmounted(self, plan: Plan) -> Plan:
        """Return the plan, which changes nothing where something is not mounted."""
        hidden = {each.path for each in plan.of(*CHANGES) if is_within(each.path, self.unmounted)}
        return plan.with_outcome(hidden, PathOutcome.STAYS, "what was mounted there is missing here: mount it again")

    def facts(self, *, deletions: bool = False) -> Home:
        """Return what a plan needs to know of the workspace."""

        def names_in(path: str) -> Collection[str]:
            try:
                return os.listdir(self.place(path))
            except OSError:
                return ()  # it is written to by its own rules

        refused = partial(why_submodules_are_refused, self.git)
        return Home(deletions, partial(link_at, self.path), names_in, refused_submodules=refused)


class AgentSide(Struct, frozen=True):
    """The three sides: what was sent, what is here, and, in `work`, what differs in the sandbox.

    `is_excluded` says which paths stay home by the rules, but for those that the person included. Of `saved` paths
    theirs is a saved version, and the sandbox has something else.
    """

    home: HomeFolder
    sandbox: Sandbox
    work: AgentWork
    rules: PathRules
    is_excluded: IsExcluded
    base_revision: str
    saved: frozenset[str] = frozenset()

    @property
    def base(self) -> Manifest:
        """The base of that look; empty where none is known."""
        return self.work.content.base

    def local(self) -> dict[str, Entry]:
        """Return what is here at each path that differs, and above it. Raises `TryLater`."""
        return self.home.writer.look({*self.work.changed, *directories_above(self.work.changed)})

    @property
    def excluded(self) -> int:
        """The number of paths in the sandbox that the rules exclude."""
        return len(self.work.excluded) + len(self.work.pruned)


# -- the plan


def make_plan(
    side: AgentSide,
    here: Mapping[str, Entry],
    is_wanted: Callable[[str], bool] = lambda _: True,
    *,
    deletions: bool = False,
    choices: Mapping[str, Choice] = MappingProxyType({}),
) -> Plan:
    """Return the plan for the paths that are wanted, with what was `here`, by a person's choices."""
    changed, wanted = side.work.changed, {path for path in side.work.changed if is_wanted(path)}
    # A directory that only the sandbox has is made along with what is taken in it, and counts as sent then, too.
    new = {path for path in directories_above(wanted) if path in changed and side.work.base_of(path) is None}
    there = {path: entry for path, entry in changed.items() if path in wanted or path in new}
    base = {path: entry for path in there if (entry := side.work.base_of(path)) is not None}
    for path in [path for path in base if not side.work.content.has_arrived(path)]:
        if Kind.ABSENT not in (here[path].kind, there[path].kind):
            del base[path]  # the agent's may be older than what was sent
    facts = replace(side.home.facts(deletions=deletions), choices=choices)
    plan = side.home.without_unmounted(plan_home(Sides(base, here, there), facts))
    filled = directories_above(each.path for each in plan.of(*CHANGES) if each.path in wanted)
    unseen = dict.fromkeys(side.work.unsearched, (PathOutcome.UNFETCHED, "it could not be searched in the sandbox"))
    never = PathOutcome.NEVER, "it may be a .git, of which nothing is applied"
    unseen |= dict.fromkeys(side.work.repositories, never)
    if more := side.work.unlisted:
        unseen["."] = PathOutcome.UNFETCHED, f"{counted(more, 'more new path')} in the sandbox could not be listed"
    folders = [
        PlannedPath(path, outcome, ABSENT, ABSENT, ABSENT, reason)
        for path, (outcome, reason) in unseen.items()
        if is_wanted(path)
    ]
    paths = [each for each in plan.paths if each.path in wanted or each.path in filled]
    plan = Plan(tuple(sorted((*paths, *folders), key=lambda each: each.path)))
    if not side.work.content.uncertain:
        return plan
    # A reset or a removal of ours may be why it is gone.
    gone = [each.path for each in plan.of(PathOutcome.DELETE)]
    return plan.with_outcome(gone, PathOutcome.STAYS, "the last sync was not answered: run `syncd push` first")


def plan_of_version(home: HomeFolder, bases: Mapping[str, Entry], there: Mapping[str, SeenEntry]) -> Plan:
    """Return the plan for a saved version. What the rules exclude stays, and what a secret in it does."""
    here = home.writer.look({*there, *directories_above(there)})
    # What is not here any more is what was asked for.
    base = {path: entry for path, entry in bases.items() if path in there and here[path].kind is not Kind.ABSENT}
    plan, rules = home.without_unmounted(plan_home(Sides(base, here, there), home.facts())), home.rules()
    written = {each.path: each.there.is_directory for each in plan.of(PathOutcome.TAKE, PathOutcome.MERGE)}
    excluded = {path for path, is_dir in written.items() if rules.exclude(path, is_dir)}.union(home.search(written))
    return plan.with_outcome(excluded, PathOutcome.STAYS, "the workspace's rules exclude it")


def why_no_text(planned: PlannedPath) -> str:
    """Return the reason for which both sides of a path cannot be in one text; empty if they can."""
    here, there = planned.here, planned.there
    if {here.kind, there.kind} != {Kind.FILE}:
        return "it is no file on both sides"
    if max(here.size_bytes, there.size_bytes) > LARGEST_MERGED_BYTES:
        return "it is too large to be merged"
    return "it is no text" if is_binary(_content_of(there.copy)) else ""


def with_texts(home: HomeFolder, plan: Plan) -> Plan:
    """Merge the texts, with markers where a person chose so; what cannot be is a conflict. Raises `SyncdError`."""
    paths: list[PlannedPath] = []
    for planned in plan.paths:
        if planned.outcome is PathOutcome.MERGE:
            merged, here = _merged(home, planned), planned.here
            if isinstance(merged, str):
                planned = replace(planned, outcome=PathOutcome.CONFLICT, reason=merged)  # noqa: PLW2901
            elif here.digest != merged.digest or here.mode & ALL_BITS != _mode(planned):
                # To write what is here would cost the file its time, and the last write its undo.
                planned = replace(planned, merged=merged)  # noqa: PLW2901
        paths.append(planned)
    return Plan(tuple(paths))


def _merged(home: HomeFolder, planned: PlannedPath) -> SeenEntry | str:
    """Return the file that both sides' changes make, with git's markers if those were chosen, or why there is none.

    Where one side has what was sent, or both have the same, no merge is needed: it may be of any size.
    """
    place, has_markers = home.place(planned.path), planned.choice is Choice.MARKERS
    sent, here, there = arrived_digest(planned.base), planned.here, planned.there
    if not has_markers and (here.digest == there.digest or there.digest == sent != b""):
        return SeenEntry(Kind.FILE, digest=here.digest, copy=place)
    if not has_markers and here.digest == sent != b"":
        return there
    if reason := why_no_text(planned):
        return reason
    before, git = home.base_bytes(planned), needed(home.git) if has_markers else home.git
    if before is None and not has_markers:
        return "what was sent is not known any more"
    merged = merge(git, before or b"", _content_of(place), _content_of(there.copy), home.scratch)
    if isinstance(merged, str):
        return merged
    if merged.has_conflicts and not has_markers:
        return "both sides changed the same lines"
    descriptor, copy = tempfile.mkstemp(prefix="merged-", dir=home.scratch)
    with open(descriptor, "wb") as file:
        file.write(merged.content)
    return SeenEntry(Kind.FILE, digest=hashlib.sha256(merged.content).digest(), copy=copy)


def _content_of(place: str) -> bytes:
    try:
        with open(place, "rb") as file:
            return file.read()
    except OSError as failure:
        raise TryLater(f"{place} cannot be read ({failure.strerror})", "nothing was changed; try again") from None


# -- the write, and what counts as sent


def bring_home(side: AgentSide, plan: Plan) -> Plan:
    """Write, and record what counts as sent with that. Returns the plan as it turned out, whose conflicts are unsaved.

    Raises `TryLater`, and `Stop` before anything was changed.

    No sync may begin meanwhile; one that was made since the look is known by its record.
    """
    state, base = side.sandbox.state, side.base
    state.read()
    is_as_planned = not state.content.uncertain and state.revision == side.base_revision
    if not is_as_planned:
        # What is there by the plan was sent from here, by a sync that had not been recorded.
        now = state.content.base
        sent = {
            each.path for each in plan.of(*CHANGES, PathOutcome.WRITE) if same(now.get(each.path, ABSENT), each.there)
        }
        plan = plan.with_outcome(sent, PathOutcome.SAME, "")
    rows = {planned.path: row for planned in plan.paths if (row := _row(side, planned)) is not None}
    ours = set() if is_as_planned else _ours_there(side, rows)
    for path in rows.keys() & side.saved:  # the sandbox has something else
        rows[path] = TakenPath(path, base.get(path), base.get(path))
    arrived = (
        _content_of(planned.there.copy)
        for planned in plan.of(PathOutcome.TAKE, PathOutcome.MERGE, PathOutcome.WRITE)
        if planned.there.copy and planned.there.size_bytes <= LARGEST_MERGED_BYTES
    )
    side.home.sent_files.base_store.add(arrived, base.content_bytes)

    def record(written: Written) -> None:
        # By the rules as they are now: a rule file may have come along, and what it excludes would be removed there.
        rules, left = side.home.rules(), set(written.left)
        done = [_excluded_by(rules, row) for path, row in rows.items() if path not in left]
        taken = [row for row in done if row.is_excluded or (row.before != row.after and row.path not in ours)]
        if taken:
            state.record_taken(taken)
        OpenConflicts(state.db, state.target.owner).decide([row.path for row in done])

    # From the record on a sync may overwrite these.
    save_theirs(side, [each for each in plan.of(PathOutcome.WRITE, PathOutcome.MERGE) if each.choice])
    return write(side.home, plan, rows.values(), record)


def _ours_there(side: AgentSide, rows: Iterable[str]) -> set[str]:
    """Return the paths at which the sandbox has a version of ours by now; all of them where nobody can look.

    Their next sync compares them. Whatever else is there, someone has made of what is taken.
    """
    content = side.sandbox.state.content
    items = {path: LookItem(tuple(content.versions_of(path)), LookAction.COMPARE) for path in rows}
    request = LookRequest(items, most_copied_bytes=0)  # what was fetched is still to be written
    try:
        found = side.sandbox.looks.look(request).differing if items else {}
    except StepFailed:
        found = {}
    return items.keys() - found.keys()


def write(
    home: HomeFolder,
    plan: Plan,
    taken: Iterable[TakenPath] = (),
    record: Callable[[Written], None] = lambda _: None,
) -> Plan:
    """Write what the plan's outcomes need. Returns the plan with what changed here meanwhile as conflicts."""
    changes = [change for planned in plan.paths if (change := _change(planned)) is not None]
    beside, changed = plan.of(PathOutcome.MERGE, PathOutcome.WRITE), {change.path for change in changes}
    # Nothing changes here since a person decided so; it counts as sent all the same.
    decided = [each.path for each in beside if each.choice and each.path not in changed]
    theirs = [each.there for each in beside if each.there.kind is Kind.FILE]
    written = home.writer.write(changes, taken, record, decided, theirs)
    unread = {each.path for each in plan.paths if each.path in written.left and each.here.kind is Kind.UNREAD}
    plan = plan.with_outcome(unread, PathOutcome.CONFLICT, UNREAD_HERE)
    return plan.with_outcome({*written.left} - unread, PathOutcome.CONFLICT, "it changed here meanwhile")


def _change(planned: PlannedPath) -> PathChange | None:
    """Return what changes here, None if nothing does."""
    becomes = planned.merged if planned.outcome is PathOutcome.MERGE else planned.there
    if planned.outcome not in CHANGES or becomes is None:
        return None
    after = Entry(becomes.kind, _mode(planned), target=becomes.target, digest=becomes.digest)
    return PathChange(planned.path, planned.here, ABSENT if becomes.kind is Kind.ABSENT else after, becomes.copy)


def save_theirs(side: AgentSide, paths: Iterable[PlannedPath]) -> None:
    """Save the sandbox's versions of these paths. Raises `TryLater`."""
    versions = {planned.path: planned.there for planned in paths}
    unsaved = side.sandbox.saver.save(Why.CONFLICT, versions, side.work.arrived)
    if unsaved:
        first = min(unsaved)
        raise TryLater(
            f"the agent's version of '{shown_path(first)}' cannot be saved "
            f"({side.sandbox.why_unsaved(versions[first])}); it is in the sandbox alone",
            "see to that, and run `syncd apply` again",
        )


def save_conflicts(side: AgentSide, done: Plan, is_covered: Callable[[str], bool]) -> None:
    """Save theirs of the conflicts, and note that these wait, but no other covered path. Raises `TryLater`."""
    conflicts = done.of(PathOutcome.CONFLICT)
    save_theirs(side, conflicts)
    found = side.sandbox.saver.saved_versions.holders({each.path: each.there for each in conflicts})
    with contextlib.suppress(OSError):  # it costs what `resolve` lists, and all is written
        OpenConflicts(side.sandbox.state.db, side.sandbox.target.owner).note(found, is_covered)


# -- modes, and what counts as sent

_READABLE = 0o444
_LINK_MODE = 0o777  # as a scan has it


def taken_mode(base: Entry, here: Entry, there: Entry, umask: int) -> int:
    """Return the permission bits that a path gets here; the person's umask keeps others from new ones.

    A new path gets the sandbox's. Otherwise the bits here stay, but for a change of the owner's executable bit there:
    then whoever may read may execute, or nobody may.
    """
    if here.kind is not there.kind:
        mode = mode_at_home(there.mode, umask)
        return opened(mode) if there.is_directory else mode | stat.S_IRUSR  # an undo compares what is in it
    before = here.mode if base.kind is Kind.ABSENT else base.mode
    if here.is_directory or not (before ^ there.mode) & EXECUTABLE:
        return here.mode & ALL_BITS
    if there.mode & EXECUTABLE:
        return here.mode & ALL_BITS | mode_at_home((here.mode & _READABLE) >> 2, umask)
    return here.mode & 0o666


def merged_mode(base: Entry, here: Entry, there: Entry, umask: int) -> int:
    """Return the permission bits of a merged file: the side that changed the executable bit decides about it."""
    if base.kind is Kind.ABSENT or (here.mode ^ base.mode) & EXECUTABLE:
        return here.mode & ALL_BITS
    return taken_mode(base, here, there, umask)


def next_base(planned: PlannedPath, mode: int) -> Entry | None:
    """Return what counts as sent once the path was taken: the sandbox's version, with the mode that it has here."""
    there = planned.there
    if there.kind is Kind.ABSENT:
        return None
    mode = _LINK_MODE if there.kind is Kind.SYMLINK else mode
    taken = Entry(there.kind, mode, max(0, there.mtime_s), target=there.target)
    return replace(taken, size_bytes=there.size_bytes, digest=there.digest) if there.kind is Kind.FILE else taken


def _mode(planned: PlannedPath) -> int:
    if planned.outcome is PathOutcome.MERGE:
        return merged_mode(planned.base, planned.here, planned.there, original_umask())
    if planned.outcome is PathOutcome.SAME:
        return planned.here.mode & ALL_BITS
    return taken_mode(planned.base, planned.here, planned.there, original_umask())


def _row(side: AgentSide, planned: PlannedPath) -> TakenPath | None:
    if planned.outcome not in (*CHANGES, PathOutcome.SAME, PathOutcome.WRITE):
        return None
    mode = _mode(planned)
    if planned.outcome in (PathOutcome.MERGE, PathOutcome.WRITE):
        # As executable as there: a change of that bit here alone is still to be sent.
        mode = taken_mode(planned.here, planned.here, planned.there, original_umask())
    return _excluded_by(side.rules, TakenPath(planned.path, side.base.get(planned.path), next_base(planned, mode)))


def _excluded_by(rules: PathRules, row: TakenPath) -> TakenPath:
    is_directory = row.after is not None and row.after.kind is Kind.DIRECTORY
    return replace(row, is_excluded=row.is_excluded or rules.exclude(row.path, is_directory))
