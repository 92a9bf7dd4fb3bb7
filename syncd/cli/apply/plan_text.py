"""The plan of an `apply` as text: a line a path, the outcomes that change something first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from syncd.core.text import shown_path
from syncd.merge.automatic_files import decides_what_is_sent, runs_automatically
from syncd.model.entry import (
    EXECUTABLE,
    Kind,
)
from syncd.model.reconcile import PathOutcome, Plan, PlannedPath

_WORDS = {
    PathOutcome.TAKE: "take",
    PathOutcome.MERGE: "merge",
    PathOutcome.DELETE: "delete",
    PathOutcome.CONFLICT: "conflict",
    PathOutcome.STAYS: "stays",
    PathOutcome.DELETED_THERE: "stays",
    PathOutcome.NEVER: "never",
}
_CHANGES = (PathOutcome.TAKE, PathOutcome.MERGE, PathOutcome.DELETE)


def plan_lines(plan: Plan) -> Iterator[str]:
    """Return the lines; nothing for what is the same on both sides, and for directories that come with a file."""
    for outcome, word in _WORDS.items():
        for planned in plan.of(outcome):
            if not _goes_without_saying(planned, plan):
                yield f"{word:8}  {shown_path(planned.path)}{_note(planned)}"
    for path, why in to_look_at(plan).items():
        yield f"look at   {shown_path(path)}: {why}"


def new_conflicts(planned: Plan, done: Plan) -> Plan:
    """Return the part of what was done that became a conflict since it was planned, as it changed here meanwhile."""
    before = {each.path for each in planned.of(PathOutcome.CONFLICT)}
    return Plan(tuple(each for each in done.of(PathOutcome.CONFLICT) if each.path not in before))


def to_look_at(plan: Plan) -> dict[str, str]:
    """Return the paths that a person should look at before they are used, each with the reason."""
    reasons = {planned.path: _reason_to_look(planned) for planned in plan.of(*_CHANGES)}
    return {path: reason for path, reason in reasons.items() if reason}


def summary_line(plan: Plan) -> str:
    """Return the numbers of paths by outcome, for a question or an end."""
    counts = (
        (plan.of(PathOutcome.TAKE), "taken"),
        (plan.of(PathOutcome.MERGE), "merged"),
        (plan.of(PathOutcome.DELETE), "deleted"),
        (plan.of(PathOutcome.CONFLICT), "in conflict"),
    )
    words = [f"{len(paths):,} {word}" for paths, word in counts if paths]
    return ", ".join(words) or "nothing to take"


def changes_something(plan: Plan) -> bool:
    """True if the workspace is to be changed."""
    return bool(plan.of(*_CHANGES))


def _note(planned: PlannedPath) -> str:
    if planned.outcome is PathOutcome.TAKE:
        return " (new)" if planned.here.kind is Kind.ABSENT else ""
    if planned.outcome is PathOutcome.DELETED_THERE:
        return ": deleted in the sandbox; --deletions deletes it here"
    return f": {planned.reason}" if planned.reason else ""


def _goes_without_saying(planned: PlannedPath, plan: Plan) -> bool:
    if planned.there.kind is not Kind.DIRECTORY or planned.outcome is not PathOutcome.TAKE:
        return False
    return any(other.path.startswith(f"{planned.path}/") for other in _first_below(planned, plan.paths))


def _first_below(planned: PlannedPath, paths: Sequence[PlannedPath]) -> Sequence[PlannedPath]:
    at = paths.index(planned)
    return paths[at + 1 : at + 2]


def _reason_to_look(planned: PlannedPath) -> str:
    if decides_what_is_sent(planned.path):
        return "it decides what is sent"
    if planned.there.kind in (Kind.DIRECTORY, Kind.ABSENT):
        return ""
    if runs_automatically(planned.path):
        return "it may run by itself here"
    was_executable = planned.here.kind is Kind.FILE and planned.here.mode & EXECUTABLE
    if planned.there.kind is Kind.FILE and planned.there.mode & EXECUTABLE and not was_executable:
        return "it is executable now"
    return ""
