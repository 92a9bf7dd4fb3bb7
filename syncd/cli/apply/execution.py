"""Brings a plan home, an `apply`'s or a saved version's: merges texts, writes all or nothing, records what it took."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack, closing, suppress
from functools import partial

import click
from msgspec import Struct
from msgspec.structs import replace

from syncd.archive.base_store import LARGEST_BYTES, BaseStore
from syncd.archive.chunk_store import ChunkStore
from syncd.cli.agent_side import (
    AgentSide,
    look_at,
    no_sync_begins,
    open_sandbox,
    path_rules,
    scratch_folder,
    secret_paths,
    with_copy,
    writer_of,
)
from syncd.cli.apply.decisions import Decisions, content_of, link_at
from syncd.cli.apply.plan_text import (
    CHANGES,
    new_conflicts,
    plan_is_long,
    plan_lines,
    question,
    runs_automatically,
    summary_line,
    to_look_at,
)
from syncd.cli.local_scan import secrets_in
from syncd.cli.options import answered, hinted, is_named, note_done
from syncd.cli.output import paged, print_error
from syncd.core.errors import ExitCode, NeedsPerson, SyncdError, TryLater
from syncd.core.hardening import original_umask
from syncd.core.settings import Config
from syncd.core.text import few, shown_path
from syncd.daemon.build import excludes_for, folders_of, selection_of, target_of
from syncd.merge.git import find_git, merge, why_submodules_are_refused
from syncd.merge.workspace_writer import OpenConflicts, WorkspaceWriter, Written, journal_records, load_journal
from syncd.merge.writes import PathChange, merged_mode, next_base, taken_mode
from syncd.model.entry import ABSENT, ALL_BITS, Entry, Kind, arrived_digest, same
from syncd.model.manifest import directories_above
from syncd.model.reconcile import Choice, Home, PathOutcome, Plan, PlannedPath, Sides, plan_home, waits
from syncd.remote.failure import StepFailed
from syncd.sandbox.look_request import LookAction, LookItem, LookRequest
from syncd.sandbox.sandbox_state import TakenPath
from syncd.sandbox.saved_versions import SavedVersion, SavedVersions, Why
from syncd.scan.path_rules import PathRules
from syncd.scan.scanner import Scanner
from syncd.selection import ignore_files
from syncd.selection.selection import RULE_FILES, WORKTREEINCLUDE, PathPatterns
from syncd.store.state_db import StateDb

# The lists of `--json` by the outcomes that they hold.
_LISTS = {
    "taken": (PathOutcome.TAKE,),
    "merged": (PathOutcome.MERGE,),
    "deleted": (PathOutcome.DELETE,),
    "conflicts": (PathOutcome.CONFLICT,),
    "never": (PathOutcome.NEVER,),
    "stays": (PathOutcome.STAYS, PathOutcome.DELETED_THERE),
}


NO_DECISIONS = Decisions()
_NO_DIGEST = bytes(32)


class Prepared(Struct, frozen=True):
    """A plan whose texts are merged, and the changes of the workspace that it needs, by path.

    `newly_sent` are files and links that stay home now, and that a sync would send by the ignore files of the plan.
    """

    plan: Plan
    changes: dict[str, PathChange]
    newly_sent: list[str]
    decisions: Decisions = NO_DECISIONS

    @property
    def decided(self) -> list[str]:
        """The paths of which nothing changes here since a person decided so; they count as sent all the same."""
        chosen = self.plan.of(PathOutcome.WRITE, PathOutcome.MERGE)
        return [each.path for each in chosen if each.path in self.decisions.choices and each.path not in self.changes]


def apply(
    config: Config,
    named: tuple[str, ...],
    included: tuple[str, ...],
    *,
    deletions: bool,
    dry_run: bool,
    as_json: bool,
    asks: bool,
) -> int:
    """Bring home what was changed in the sandbox, and say what became of each path. Raises `SyncdError`, `Stop`.

    Of `named` paths of the workspace, all if there are none; what matches `included` comes against the rules, too.
    """
    if not dry_run:
        take_back_killed(config)
    with open_sandbox(config) as opened:
        side = look_at(opened, PathPatterns(included) if included else None)
        prepared = prepare(side, make_plan(side, side.local(), named, deletions=deletions))
        plan = prepared.plan
        is_long = asks and plan_is_long(plan)
        lines = plan_lines(plan, prepared.newly_sent, by_folder=is_long)
        if is_long:
            paged(f"{line}\n".encode("utf-8", "backslashreplace") for line in lines)
        elif not as_json:
            print_lines(lines)
        side.tell_left_out("not taken but with --include")
        automatic = [path for path in sorted(side.work.left_out) if is_named(path, named) and runs_automatically(path)]
        if automatic:
            names = few([*map(shown_path, automatic)], len(automatic))
            click.echo(f"of these, some may run by themselves here: {', '.join(names)}", err=True)
        if dry_run:
            return tell_end(plan, prepared, "would be: ", as_json=as_json)
        # Nothing else waits for the answer.
        if asks and plan.of(*CHANGES) and not _agreed(side, named, prepared):
            click.echo("nothing was changed", err=True)
            return ExitCode.DIFFERENT if plan.of(PathOutcome.CONFLICT) else ExitCode.DONE
        with no_sync_begins(config, opened.waiter):
            done = carry_out(side, prepared)
            _note_conflicts(side, done, named)
    if not as_json:
        print_lines(plan_lines(new_conflicts(plan, done)))
    code = tell_end(done, prepared, as_json=as_json)
    if code is ExitCode.DIFFERENT and not as_json:
        # `resolve` writes to no path that the rules exclude.
        excluded = all(
            side.rules.leave_out(each.path, each.here.is_directory) for each in done.of(PathOutcome.CONFLICT)
        )
        decides = "" if excluded else ": `syncd resolve` decides"
        what = f"the sandbox's versions of the conflicts are saved (`syncd saved`){decides}"
        click.echo(hinted(what), err=True)
    return code


def _note_conflicts(side: AgentSide, done: Plan, named: tuple[str, ...]) -> None:
    """Note what waits for a person from now on, whatever becomes of the sandbox's version."""
    services = side.opened.services
    store = services.remote_changes.saved_versions
    held_by = {each.path: store.holder_of(each.path, each.there) for each in done.of(PathOutcome.CONFLICT)}
    found = {path: id_ for path, id_ in held_by.items() if id_ is not None}
    with suppress(OSError):  # it costs what `resolve` lists, and all is written
        OpenConflicts(services.state.db, services.target.owner).note(found, lambda path: is_named(path, named))


def _agreed(side: AgentSide, named: tuple[str, ...], prepared: Prepared) -> bool:
    """True if a person wants the plan carried out; the diff is shown to one who asks for it. Raises `Stop`."""
    asked = question(prepared.plan, prepared.newly_sent)
    while (answer := answered(asked, ("y", "yes", "d", "diff", "n", "no", ""), side.opened.waiter)) in ("d", "diff"):
        from syncd.cli.diff import show  # noqa: PLC0415 - for this answer alone

        try:
            show(side, named, None)
        except SyncdError as failure:
            print_error(str(failure))
    return answer in ("y", "yes")


def restore_here(config: Config, store: SavedVersions, version: SavedVersion, *, as_json: bool) -> int:
    """Merge the version into the workspace, and say what became of each path. Raises `TryLater`, `Locked`."""
    take_back_killed(config)  # before the plan: what it wrote is here no more then
    folders = folders_of(config, os.environ)
    damaged = store.damaged(version)
    for path in damaged:
        click.echo(f"not restored: {shown_path(path)}: its saved content was damaged on this disk", err=True)
    whole = {path: saved for path, saved in version.paths.items() if path not in damaged}
    there = {
        path: with_copy(saved, store.content_path(saved.digest) if saved.kind is Kind.FILE else "")
        for path, saved in whole.items()
    }
    base_store = BaseStore(folders.spool, ChunkStore(folders.spool))

    def base_bytes(planned: PlannedPath) -> bytes | None:
        digest = version.bases[planned.path].digest
        content = store.content(digest)
        return content if content is not None else base_store.get(planned.path, digest)

    db = StateDb(folders.state)
    with no_sync_begins(config), scratch_folder(folders.spool, config.sandbox_name) as folder, closing(db):
        writer = writer_of(config, db)
        here = writer.look({*there, *directories_above(there)})
        # What is not here any more is what was asked for.
        base = {p: entry for p, entry in version.bases.items() if p in whole and here[p].kind is not Kind.ABSENT}
        plan = plan_home(Sides(base, here, there), home_of(config))
        plan = plan.with_outcome(_left_out(config, plan), PathOutcome.STAYS, "the workspace's rules exclude it")
        prepared = _prepare(config, plan, base_bytes, folder)
        plan = _write(writer, prepared, prepared.plan, (), lambda _: None)
        with suppress(NeedsPerson, OSError):  # no sandbox is known, or the state has no room: all is written
            found = {each.path: version.id for each in plan.of(PathOutcome.CONFLICT)}
            OpenConflicts(db, target_of(config, os.environ).owner).note(found, there.__contains__)
    if not as_json:
        print_lines(plan_lines(plan, prepared.newly_sent))
    code = tell_end(plan, prepared, as_json=as_json)
    return ExitCode.DIFFERENT if damaged else code


def take_back_killed(config: Config) -> None:
    """Take back what an `apply` that was killed has written, and say so. Raises `TryLater`, `Locked`."""
    from syncd.cli.apply.undoing import written_config  # noqa: PLC0415 - which needs what is here

    with ExitStack() as stack:
        db = stack.enter_context(closing(StateDb(folders_of(config, os.environ).state)))
        was_killed = load_journal(journal_records(db)[1]) is not None
        # What is looked at is not half of a sync either.
        stack.enter_context(no_sync_begins(written_config(config, db) if was_killed else config))
        taken_back = writer_of(config, db).finish_interrupted()
    if taken_back.done:
        click.echo(f"took back an apply that was killed: {len(taken_back.done):,} paths", err=True)


# -- the plan


def make_plan(
    side: AgentSide,
    here: Mapping[str, Entry],
    named: tuple[str, ...] = (),
    *,
    deletions: bool = False,
    choices: Mapping[str, Choice] = NO_DECISIONS.choices,
) -> Plan:
    """Return the plan for the paths that were named, with what was `here`, by a person's choices."""
    there = {path: entry for path, entry in side.work.changed.items() if is_named(path, named)}
    base = {path: entry for path in there if (entry := side.work.base_of(path)) is not None}
    for path in [path for path in base if not side.work.content.has_arrived(path)]:
        if Kind.ABSENT not in (here[path].kind, there[path].kind):
            del base[path]  # the agent's may be older than what was sent
    home = home_of(side.opened.config, deletions=deletions, choices=choices)
    plan = plan_home(Sides(base, here, there), home)
    never = [
        PlannedPath(path, PathOutcome.NEVER, ABSENT, ABSENT, ABSENT, "it may be a .git, of which nothing is taken")
        for path in side.work.repositories
        if is_named(path, named)
    ]
    plan = Plan(tuple(sorted((*plan.paths, *never), key=lambda each: each.path)))
    if not side.is_unanswered:
        return plan
    # A reset or a removal of ours may be why it is gone.
    gone = [each.path for each in plan.of(PathOutcome.DELETE)]
    return plan.with_outcome(gone, PathOutcome.STAYS, "the last sync was not answered: run `syncd push` first")


def home_of(config: Config, *, deletions: bool = False, choices: Mapping[str, Choice] = NO_DECISIONS.choices) -> Home:
    """Return what a plan for this workspace needs to know of it."""

    def names_in(path: str) -> Collection[str]:
        try:
            return os.listdir(os.path.join(config.workspace.path, path))
        except OSError:
            return ()  # it is written to by its own rules

    def link_here(path: str) -> str | None:
        return link_at(os.path.join(config.workspace.path, path))

    refused = partial(why_submodules_are_refused, find_git(os.environ))
    return Home(deletions, link_here, names_in, choices, refused)


def _left_out(config: Config, plan: Plan) -> set[str]:
    """Return the paths that would be written although the rules leave them out, or a secret in them does."""
    rules = path_rules(config)
    written = {planned.path: planned.there.kind for planned in plan.of(PathOutcome.TAKE, PathOutcome.MERGE)}
    found = {path for path, kind in written.items() if rules.leave_out(path, kind is Kind.DIRECTORY)}
    return found.union(secret_paths(config, written))


def prepare(side: AgentSide, plan: Plan, decisions: Decisions = NO_DECISIONS) -> Prepared:
    """Merge the texts, or take those that were decided. What cannot be merged is a conflict. Raises `SyncdError`."""

    def base_bytes(planned: PlannedPath) -> bytes | None:
        return side.base_bytes(planned.path, planned.base, planned.here)

    return _prepare(side.opened.config, plan, base_bytes, side.opened.scratch, decisions)


def _prepare(
    config: Config,
    plan: Plan,
    base_bytes: Callable[[PlannedPath], bytes | None],
    folder: str,
    decisions: Decisions = NO_DECISIONS,
) -> Prepared:
    """Merge the texts into files in `folder`. What cannot be merged becomes a conflict. Raises `SyncdError`."""
    changes: dict[str, PathChange] = {}
    paths: list[PlannedPath] = []
    for planned in plan.paths:
        path, here, there, content = planned.path, planned.here, planned.there, planned.there.copy
        is_changed = planned.outcome in (PathOutcome.TAKE, PathOutcome.DELETE)
        if planned.outcome is PathOutcome.MERGE:
            decided = decisions.texts.get(path)
            merged = _merged(planned, config.workspace.path, base_bytes, folder) if decided is None else decided
            if isinstance(merged, str):
                planned = replace(planned, outcome=PathOutcome.CONFLICT, reason=merged)  # noqa: PLW2901
            # To write what is here would cost the file its time, and the last write its undo.
            elif here.digest != hashlib.sha256(merged).digest() or here.mode & ALL_BITS != _mode(planned):
                is_changed = True
                descriptor, content = tempfile.mkstemp(prefix="merged-", dir=folder)
                with open(descriptor, "wb") as file:
                    file.write(merged)
        if is_changed:
            digest = there.digest if planned.outcome is PathOutcome.TAKE else b""
            becomes = Entry(there.kind, _mode(planned), target=there.target, digest=digest)
            changes[path] = PathChange(path, here, ABSENT if there.kind is Kind.ABSENT else becomes, content)
        paths.append(planned)
    return Prepared(Plan(tuple(paths)), changes, _newly_sent(config, changes.values()), decisions)


def _merged(
    planned: PlannedPath,
    workspace: str,
    base_bytes: Callable[[PlannedPath], bytes | None],
    folder: str,
) -> bytes | str:
    """Return the content that both sides' changes make, or the reason why there is none."""
    place = os.path.join(workspace, planned.path)
    sent, here, there = arrived_digest(planned.base), planned.here, planned.there
    if here.digest == there.digest:
        return content_of(place)
    if here.digest == sent != b"":
        return content_of(there.copy)
    if there.digest == sent != b"":
        return content_of(place)
    if max(here.size_bytes, there.size_bytes) > LARGEST_BYTES:
        return "too large to be merged"
    before = base_bytes(planned)
    if before is None:
        return "what was sent is not known any more"
    merged = merge(find_git(os.environ), before, content_of(place), content_of(there.copy), folder)
    if isinstance(merged, str):
        return merged
    return "both sides changed the same lines" if merged.has_conflicts else merged.content


def _newly_sent(config: Config, changes: Iterable[PathChange]) -> list[str]:
    """Return the files and links that stay home now, and that a sync would send by the rules as the plan leaves them.

    The workspace is scanned for it, if the plan changes an ignore file at all. Raises `SyncdError`.
    """
    planned_rules = _planned_rules(changes)
    if not planned_rules:
        return []
    workspace, selection = config.workspace.path, selection_of(config, os.environ)
    excludes = excludes_for(config, os.environ)
    scan = Scanner(workspace, selection, personal_excludes=excludes, planned_rules=planned_rules).scan()
    rules = PathRules(workspace, selection, excludes)
    found = {
        path: entry
        for path, entry in scan.manifest.items()
        if entry.kind is not Kind.DIRECTORY and rules.leave_out(path, is_dir=False)
    }
    secrets = secrets_in(config, found.items())
    return [path for path in found if path not in secrets]


def _planned_rules(changes: Iterable[PathChange]) -> dict[str, dict[str, bytes | None]]:
    """Return the ignore files that the plan changes, by folder and name; None: none is there then."""
    found: dict[str, dict[str, bytes | None]] = {}
    for change in changes:
        folder, _, name = change.path.rpartition("/")
        if name not in RULE_FILES or (name == WORKTREEINCLUDE and folder):
            continue
        content = None  # a link or a directory in its place has no rules
        if change.content:
            with open(change.content, "rb") as file:
                content = file.read(ignore_files.LARGEST_BYTES + 1)
        if content is None or len(content) <= ignore_files.LARGEST_BYTES:  # beside a larger one, nothing is sent
            found.setdefault(folder, {})[name] = content
    return found


# -- the write, and what counts as sent


def carry_out(side: AgentSide, prepared: Prepared) -> Plan:
    """Write, record what counts as sent with that, and save conflicts. Returns the plan as it turned out.

    Raises `TryLater`, and `Stop` before anything was changed.

    No sync may begin meanwhile; one that was made since the look is known by its record.
    """
    state, choices = side.opened.services.state, prepared.decisions.choices
    state.read()
    base = state.base
    is_as_planned = base is not None and not state.uncertain and state.identity == side.base_identity
    plan = prepared.plan
    if base is not None and not is_as_planned:
        sent = [each.path for each in plan.paths if _was_sent(base, side.base, each)]
        plan = plan.with_outcome(sent, PathOutcome.SAME, "")
    rows = {planned.path: row for planned in plan.paths if (row := _row(side, planned)) is not None}
    differing, ours = (set(), set()) if is_as_planned else _differing_there(side, rows.values())
    for path in rows.keys() & prepared.decisions.saved:  # the sandbox has something else
        rows[path] = TakenPath(path, base_now := side.base.get(path), base_now)
    arrived = (
        content_of(planned.there.copy)
        for planned in plan.of(PathOutcome.TAKE, PathOutcome.MERGE, PathOutcome.WRITE)
        if planned.there.copy and planned.there.size_bytes <= LARGEST_BYTES
    )
    side.base_store.add(arrived, side.base.content_bytes)
    taken: list[TakenPath] = []

    def record(written: Written) -> None:
        # By the rules as they are now: a rule file may have come along, and what it leaves out would be removed there.
        rules = path_rules(side.opened.config)
        left = set(written.left)
        done = [_left_out_by(rules, row) for path, row in rows.items() if path not in left]
        taken.extend(row for row in done if row.is_left_out or (row.before != row.after and row.path not in ours))
        if taken:
            state.record_taken(taken, differing.intersection(row.path for row in taken))
        decided = [path for path in choices if path in rows and path not in left]
        OpenConflicts(state.db, state.target.owner).decide(decided)

    # From the record on a sync may overwrite these.
    _save_theirs(side, [each for each in plan.of(PathOutcome.WRITE, PathOutcome.MERGE) if each.path in choices])
    plan = _write(side.writer, prepared, plan, rows.values(), record)
    if plan.of(*CHANGES, PathOutcome.WRITE):
        note_done("all was written", "`syncd apply --undo` takes it back")
    _save_theirs(side, plan.of(PathOutcome.CONFLICT))
    return plan


def _save_theirs(side: AgentSide, paths: Iterable[PlannedPath]) -> None:
    """Save the sandbox's versions of these paths. Raises `TryLater`."""
    remote_changes, versions = side.opened.services.remote_changes, {planned.path: planned.there for planned in paths}
    unsaved = remote_changes.save(Why.CONFLICT, versions, side.sent)
    if unsaved:
        first = min(unsaved)
        raise TryLater(
            f"the agent's version of '{shown_path(first)}' cannot be saved "
            f"({remote_changes.why_unsaved(versions[first])}); it is in the sandbox alone",
            "see to that, and run `syncd apply` again",
        )


def _was_sent(base: Mapping[str, Entry], base_before: Mapping[str, Entry], planned: PlannedPath) -> bool:
    """True if what is there by the plan was sent from here, by a sync that had not been recorded."""
    now, before = base.get(planned.path, ABSENT), base_before.get(planned.path, ABSENT)
    return same(now, planned.there) and not same(before, planned.there)


def _differing_there(side: AgentSide, rows: Iterable[TakenPath]) -> tuple[set[str], set[str]]:
    """Return the paths that the sandbox does not hold as they are taken, and those of these that a sync may have sent.

    Whatever else is there, someone has made of what is taken.
    """
    content = side.opened.services.state.content
    rows = [row for row in rows if not row.is_left_out and row.before != row.after]
    sent = {row.path: content.versions_of(row.path) if content.may_hold(row.path) else [ABSENT] for row in rows}
    items: dict[str, LookItem] = {}
    for row in rows:
        # The report has a file's digest if its size is known: of ours, the size alone is named.
        sizes = [replace(each, digest=_NO_DIGEST) for each in sent[row.path] if each.kind is Kind.FILE]
        items[row.path] = LookItem((*sizes, *(() if row.after is None else (row.after,))), LookAction.COMPARE)
    request = LookRequest(items, most_copied_bytes=0)  # what was fetched is still to be written
    try:
        found = side.opened.services.remote_changes.look(request).differing if items else {}
    except StepFailed:
        return set(), set(items)  # the next sync compares them once more
    return set(found), {path for path, there in found.items() if any(same(there, each) for each in sent[path])}


def _write(
    writer: WorkspaceWriter,
    prepared: Prepared,
    plan: Plan,
    taken: Iterable[TakenPath],
    record: Callable[[Written], None],
) -> Plan:
    """Write what the plan's outcomes need. Returns it with what changed here meanwhile as conflicts."""
    changes = [prepared.changes[each.path] for each in plan.of(*CHANGES) if each.path in prepared.changes]
    written = writer.write(changes, taken, record, prepared.decided)
    return plan.with_outcome(written.left, PathOutcome.CONFLICT, "it changed here meanwhile")


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
    return _left_out_by(side.rules, TakenPath(planned.path, side.base.get(planned.path), next_base(planned, mode)))


def _left_out_by(rules: PathRules, row: TakenPath) -> TakenPath:
    is_directory = row.after is not None and row.after.kind is Kind.DIRECTORY
    return replace(row, is_left_out=row.is_left_out or rules.leave_out(row.path, is_directory))


# -- what is said


def tell_end(plan: Plan, prepared: Prepared, prefix: str = "", *, as_json: bool) -> ExitCode:
    """Print the end of an `apply`, and return its exit code."""
    if as_json:
        paths = {name: [each.path for each in plan.of(*outcomes)] for name, outcomes in _LISTS.items()}
        if prepared.decisions.choices:
            paths["mine"] = [each.path for each in plan.of(PathOutcome.WRITE)]
        print_lists(**paths, look_at=to_look_at(plan), newly_sent=prepared.newly_sent)
    else:
        if choices := prepared.decisions.choices:
            decided = Plan(tuple(each for each in plan.paths if each.path in choices))
            print_lines(plan_lines(decided, prepared.newly_sent))
        click.echo(f"{prefix}{summary_line(plan)}")
    is_open = any(waits(each) and each.path in prepared.decisions.choices for each in plan.paths)
    return ExitCode.DIFFERENT if is_open or plan.of(PathOutcome.CONFLICT) else ExitCode.DONE


def print_lines(lines: Iterable[str]) -> None:
    """Print lines on stdout."""
    for line in lines:
        click.echo(line)


def print_lists(**lists: Iterable[object]) -> None:
    """Print the lists that `--json` has, of paths but for `sandboxes`; of those that it always has, none is missing."""
    names = dict.fromkeys((*_LISTS, "undone", "look_at", "newly_sent", *lists))
    click.echo(json.dumps({name: [*lists.get(name, ())] for name in names}))
