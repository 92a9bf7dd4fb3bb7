"""Finds what waits for a person's decision, and carries one out.

The plan of an `apply` says what waits; a conflict of the last one, whose version in the sandbox a sync has overwritten
since, is planned for with the saved version.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import click
from msgspec import Struct
from msgspec.structs import replace

from syncd.cli.agent_side import AgentSide, no_sync_begins, with_copy
from syncd.cli.apply.decisions import decide, possible
from syncd.cli.apply.execution import carry_out, make_plan, prepare, tell_end
from syncd.core.errors import ExitCode
from syncd.core.text import shown_path
from syncd.merge.workspace_writer import OpenConflicts
from syncd.model.entry import ABSENT, Entry, Kind, SeenEntry, same
from syncd.model.reconcile import Choice, PathOutcome, Plan, waits


class Waiting(Struct, frozen=True):
    """A path that waits, with both sides; one without choices waits for something else than a choice."""

    path: str
    reason: str
    is_held: bool
    here: Entry
    there: Entry
    choices: tuple[Choice, ...] = ()


class FoundWaiting(Struct, frozen=True):
    """The paths that wait, and the sides by which they do; of `saved` ones theirs is a saved version."""

    side: AgentSide
    here: Mapping[str, Entry]
    plan: Plan
    rows: tuple[Waiting, ...]
    saved: frozenset[str]


def find_waiting(side: AgentSide) -> FoundWaiting:
    """Return what waits. Raises `SyncdError`."""
    side, saved = _with_saved(side)
    here = side.local()
    plan = prepare(side, make_plan(side, here)).plan
    seen = side.opened.services.state.seen
    both = {*seen.both_changed, *saved}
    rows = {
        each.path: Waiting(
            each.path,
            each.reason or "both sides changed it; `syncd apply` can merge it",
            each.path in seen.held,
            each.here,
            each.there,
            tuple(possible(each)),
        )
        for each in plan.paths
        if waits(each) or (each.outcome is PathOutcome.MERGE and each.path in both)
    }
    for warning in seen.warnings:
        kind, _, path = warning.key.partition(":")
        if kind == "obstacle" and path not in rows:
            rows[path] = Waiting(path, f"{warning.what}: {warning.remedy}", True, ABSENT, ABSENT)
    return FoundWaiting(side, here, plan, tuple(rows[path] for path in sorted(rows)), saved)


def carry_out_choice(waiting: FoundWaiting, paths: Collection[str], choice: Choice, *, as_json: bool) -> ExitCode:
    """Decide these paths, all or nothing, and say what became of them. Raises `SyncdError`, `click.UsageError`, `Stop`.

    A path that waits for something else stays as it is.
    """
    side, config = waiting.side, waiting.side.opened.config
    stuck = {each.path: each.reason for each in waiting.rows if each.path in paths and not each.choices}
    for path, reason in stuck.items():
        click.echo(f"{shown_path(path)} waits for something else: {reason}", err=True)
    choices = {path: choice for path in paths if path not in stuck}
    decisions = replace(decide(side, waiting.plan, choices, quiet=as_json), saved=waiting.saved)
    plan = make_plan(side, waiting.here, choices=choices)
    plan = Plan(tuple(each for each in plan.paths if each.path in choices))
    prepared = prepare(side, plan, decisions)
    done = prepared.plan
    if choices:
        with no_sync_begins(config, side.opened.waiter):
            done = carry_out(side, prepared)
    code = tell_end(done, prepared, as_json=as_json)
    return ExitCode.DIFFERENT if stuck else code


def _with_saved(side: AgentSide) -> tuple[AgentSide, frozenset[str]]:
    """Return the sides with what only saved versions have of conflicts, and the paths of those."""
    services = side.opened.services
    store = services.remote_changes.saved_versions
    changed: dict[str, SeenEntry] = {}
    base: dict[str, list[Entry]] = {}
    for path, id_ in OpenConflicts(services.state.db, services.target.owner).versions.items():
        version = None if path in side.work.changed else store.find(id_)
        there = None if version is None else version.paths.get(path)
        if (
            version is None
            or there is None
            or side.leave_out(path, there.is_directory)
            or path in store.damaged(version)
        ):
            continue
        changed[path] = with_copy(there, store.content_path(there.digest) if there.kind is Kind.FILE else "")
        base[path] = []
        if path in version.bases:
            base[path] = [version.bases[path]]
            if (content := store.content(version.bases[path].digest)) is not None:
                side.base_store.add(content)
    here = side.writer.look(changed)
    changed = {path: there for path, there in changed.items() if not same(here[path], there)}
    work = replace(side.work, changed={**side.work.changed, **changed}, base={**side.work.base, **base})
    return replace(side, work=work), frozenset(changed)
