"""Carries out the plan of an `apply`: merges texts, writes all or nothing, and records what counts as sent now."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from syncd.archive.base_store import LARGEST_BYTES
from syncd.cli.agent_side import AgentSide, path_rules
from syncd.core.errors import Stop, TryLater
from syncd.core.text import shown_path
from syncd.merge.git import Git
from syncd.merge.text_merge import merge
from syncd.merge.writes import Write, merged_mode, next_base, taken_mode
from syncd.model.entry import (
    ABSENT,
    Entry,
    Kind,
    arrived_digest,
    same,
)
from syncd.model.reconcile import PathOutcome, Plan, PlannedPath
from syncd.remote.failure import StepFailed
from syncd.sandbox.look_request import LookAction, LookItem, LookRequest
from syncd.sandbox.saved_versions_rules import Why
from syncd.scan.path_rules import PathRules
from syncd.sync.sync_state import SyncState
from syncd.sync.taken import TakenPath, TakenStore, encode_taken, with_taken

_GONE = "what was sent is not known any more"


class Prepared(Struct, frozen=True):
    """A plan whose texts are merged: `contents` are the files with the new content of each path that changes."""

    plan: Plan
    contents: dict[str, str] = field(default_factory=dict)


def prepare(side: AgentSide, plan: Plan, git: Git | None, folder: str) -> Prepared:
    """Merge the texts into files in `folder`. What cannot be merged becomes a conflict."""

    def base_bytes(planned: PlannedPath) -> bytes | None:
        return side.base_bytes(planned.path, planned.base, planned.here)

    return merged_content(plan, side.config.workspace.path, base_bytes, git, folder)


def merged_content(
    plan: Plan,
    workspace: str,
    base_bytes: Callable[[PlannedPath], bytes | None],
    git: Git | None,
    folder: str,
) -> Prepared:
    """Merge texts of the workspace into files in `folder`. What cannot be merged becomes a conflict."""
    contents: dict[str, str] = {}
    paths: list[PlannedPath] = []
    for planned in plan.paths:
        if planned.outcome is PathOutcome.MERGE:
            merged = _merged(planned, os.path.join(workspace, planned.path), base_bytes, git, folder)
            if isinstance(merged, str):
                planned = replace(planned, outcome=PathOutcome.CONFLICT, reason=merged)  # noqa: PLW2901
            elif _differs_here(planned, merged):
                contents[planned.path] = os.path.join(folder, f"merged-{len(contents)}")
                with open(contents[planned.path], "xb") as file:
                    file.write(merged)
        elif planned.outcome is PathOutcome.TAKE and planned.there.copy:
            contents[planned.path] = planned.there.copy
        paths.append(planned)
    return Prepared(Plan(tuple(paths)), contents)


def _merged(
    planned: PlannedPath,
    place: str,
    base_bytes: Callable[[PlannedPath], bytes | None],
    git: Git | None,
    folder: str,
) -> bytes | str:
    """Return the content that both sides' changes make, or the reason why there is none."""
    sent, here, there = arrived_digest(planned.base), planned.here, planned.there
    if here.digest == there.digest:
        return _content(place)
    if here.digest == sent != b"":
        return _content(there.copy)
    if there.digest == sent != b"":
        return _content(place)
    if max(here.size_bytes, there.size_bytes) > LARGEST_BYTES:
        return "too large to be merged"
    before = base_bytes(planned)
    if before is None:
        return _GONE
    merged = merge(git, before, _content(place), _content(there.copy), folder)
    return merged if isinstance(merged, bytes) else merged.value


def _differs_here(planned: PlannedPath, merged: bytes) -> bool:
    """True unless the merge is what is here: writing that would cost the file its time, and the last write its undo."""
    here = planned.here
    if here.digest != hashlib.sha256(merged).digest():
        return True
    return here.mode & 0o777 != merged_mode(planned.base, here, planned.there)


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as failure:
        raise TryLater(f"{path} cannot be read ({failure.strerror})", "nothing was changed; try again") from None


def carry_out(side: AgentSide, prepared: Prepared) -> Plan:
    """Write, save conflicts, and record what counts as sent. Returns the plan as it turned out. Raises `TryLater`.

    No sync may begin meanwhile; one that was made since the look is known by its record.
    """
    sync_state = SyncState(side.folders.state)
    taken_store = TakenStore(side.folders.state)
    base, _ = sync_state.initialized(side.target)
    if base is not None:
        base = with_taken(base, taken_store.load(side.target))
    is_as_planned = base is not None and not sync_state.uncertain and sync_state.base_identity == side.base_identity
    plan = prepared.plan
    if base is not None and not is_as_planned:
        sent = [each.path for each in plan.paths if _was_sent(base, side.base, each)]
        plan = plan.with_outcome(sent, PathOutcome.SAME, "")
    writes = [write for planned in plan.paths if (write := write_of(planned, prepared)) is not None]
    rows = {planned.path: row for planned in plan.paths if (row := _row(side, planned)) is not None}
    written = side.writer.write(writes, msgspec.msgpack.encode(encode_taken(list(rows.values()))))
    changed = set(written.conflicts)
    plan = plan.with_outcome(changed, PathOutcome.CONFLICT, "it changed here meanwhile")
    conflicts = {planned.path: planned.there for planned in plan.of(PathOutcome.CONFLICT)}
    unsaved = side.remote_changes.save(Why.CONFLICT, conflicts, side.sent)
    for planned in plan.of(PathOutcome.TAKE, PathOutcome.MERGE):
        if planned.there.copy and planned.there.size_bytes <= LARGEST_BYTES:
            side.base_store.add(_content(planned.there.copy))
    # By the rules as they are now: a rule file may have come along, and what it leaves out would be removed there.
    rules = path_rules(side.config)
    done = (_left_out_by(rules, row) for path, row in rows.items() if path not in changed)
    taken = [row for row in done if row.is_left_out or row.before != row.after]
    if not is_as_planned:
        taken = _still_there(side, taken)
    if taken:
        try:
            taken_store.save(side.target, taken)
        except OSError as failure:
            raise TryLater(
                f"what was taken cannot be recorded ({failure.strerror}), so it is sent once more",
                "make the state folder writable",
            ) from None
    side.remote_changes.changes_there.note((), {row.path for row in taken}.__contains__)
    if unsaved:
        first = min(unsaved)
        raise TryLater(
            f"the agent's version of {shown_path(first)!r} cannot be saved "
            f"({side.remote_changes.why_unsaved(conflicts[first])}); it is in the sandbox alone",
            "see to that, and run `syncd apply` again",
        )
    return plan


def _was_sent(base: Mapping[str, Entry], base_before: Mapping[str, Entry], planned: PlannedPath) -> bool:
    """True if what is there by the plan was sent from here, by a sync that had not been recorded."""
    now, before = base.get(planned.path, ABSENT), base_before.get(planned.path, ABSENT)
    return same(now, planned.there) and not same(before, planned.there)


def _still_there(side: AgentSide, taken: list[TakenPath]) -> list[TakenPath]:
    """Return those that the sandbox holds as they were taken: a sync may have written others."""
    items = {
        each.path: LookItem(() if each.after is None else (each.after,), LookAction.COMPARE)
        for each in taken
        if not each.is_left_out
    }
    try:
        differing = side.remote_changes.look(LookRequest(items)).differing if items else {}
    except (StepFailed, Stop):
        differing = dict.fromkeys(items, ABSENT)  # the next sync compares them once more
    return [each for each in taken if each.path not in differing]


def write_of(planned: PlannedPath, prepared: Prepared) -> Write | None:
    """Return the write that a path's outcome needs, None if it needs none."""
    if planned.outcome is PathOutcome.DELETE:
        return Write(planned.path, planned.here, ABSENT)
    content = prepared.contents.get(planned.path, "")
    if planned.outcome is PathOutcome.TAKE or (planned.outcome is PathOutcome.MERGE and content):
        becomes = Entry(planned.there.kind, _mode(planned), target=planned.there.target)
        return Write(planned.path, planned.here, becomes, content)
    return None


def _mode(planned: PlannedPath) -> int:
    if planned.outcome is PathOutcome.MERGE:
        return merged_mode(planned.base, planned.here, planned.there)
    if planned.outcome is PathOutcome.SAME:
        return planned.here.mode & 0o777
    return taken_mode(planned.base, planned.here, planned.there)


def _row(side: AgentSide, planned: PlannedPath) -> TakenPath | None:
    if planned.outcome not in (PathOutcome.TAKE, PathOutcome.MERGE, PathOutcome.DELETE, PathOutcome.SAME):
        return None
    mode = _mode(planned)
    if planned.outcome is PathOutcome.MERGE:
        # As executable as there: a change of that bit here alone is still to be sent.
        mode = taken_mode(planned.here, planned.here, planned.there)
    return _left_out_by(side.rules, TakenPath(planned.path, side.base.get(planned.path), next_base(planned, mode)))


def _left_out_by(rules: PathRules, row: TakenPath) -> TakenPath:
    is_directory = row.after is not None and row.after.kind is Kind.DIRECTORY
    return replace(row, is_left_out=row.is_left_out or rules.leave_out(row.path, is_directory))


def paths_of(plan: Plan, *outcomes: PathOutcome) -> list[str]:
    """Return the paths with one of these outcomes."""
    return [planned.path for planned in plan.of(*outcomes)]
