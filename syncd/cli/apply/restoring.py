"""`syncd saved restore --here`: a saved version into the workspace, by the rules of `apply`."""

from __future__ import annotations

import os

import click

from syncd.archive.base_store import BaseStore
from syncd.archive.chunk_store import ChunkStore
from syncd.cli.agent_side import path_rules, scratch_folder, secret_paths, writer_of
from syncd.cli.apply.command import home_of, no_sync_begins, print_plan
from syncd.cli.apply.execution import merged_content, write_of
from syncd.cli.apply.newly_sent import newly_sent, newly_sent_line
from syncd.cli.apply.plan_text import plan_lines, summary_line
from syncd.core.errors import ExitCode
from syncd.core.settings import Config
from syncd.core.text import shown_path
from syncd.daemon.build import folders_of
from syncd.merge.git import find_git
from syncd.model.entry import Kind, SeenEntry
from syncd.model.manifest import directories_above
from syncd.model.reconcile import PathOutcome, Plan, PlannedPath, Sides, plan_home
from syncd.sandbox.saved_versions import SavedVersions
from syncd.sandbox.saved_versions_rules import SavedPath, SavedVersion


def restore_here(config: Config, store: SavedVersions, version: SavedVersion, *, as_json: bool) -> int:
    """Merge the version into the workspace, and say what became of each path. Raises `TryLater`, `Locked`."""
    folders = folders_of(config, os.environ)
    writer = writer_of(config)
    damaged = store.damaged(version)
    for path in damaged:
        click.echo(f"left out: {shown_path(path)}: its saved content was damaged on this disk", err=True)
    whole = {path: saved for path, saved in version.paths.items() if path not in damaged}
    there = {path: _saved_entry(store, version, path, saved) for path, saved in whole.items()}
    base_store = BaseStore(folders.spool, ChunkStore(folders.spool))

    def base_bytes(planned: PlannedPath) -> bytes | None:
        digest = version.paths[planned.path].base_digest
        content = store.content(version, digest)
        return content if content is not None else base_store.get(planned.path, digest)

    with (
        no_sync_begins(config),
        scratch_folder(folders.spool) as folder,
    ):
        here = writer.look({*there, *directories_above(there)})
        # What is not here any more is what was asked for.
        base = {p: saved.base for p, saved in whole.items() if saved.base and here[p].kind is not Kind.ABSENT}
        plan = plan_home(Sides(base, here, there), home_of(config))
        plan = plan.with_outcome(_left_out(config, plan), PathOutcome.STAYS, "the workspace's rules leave it out")
        found = merged_content(
            plan,
            config.workspace.path,
            base_bytes,
            find_git(os.environ),
            folder,
        )
        let_out = newly_sent(config, found)
        writes = [write for planned in found.plan.paths if (write := write_of(planned, found)) is not None]
        written = writer.write(writes, b"")
    plan = found.plan.with_outcome(written.conflicts, PathOutcome.CONFLICT, "it changed here meanwhile")
    _report(plan, let_out, as_json=as_json)
    return ExitCode.DIFFERENT if damaged or plan.of(PathOutcome.CONFLICT) else ExitCode.DONE


def _left_out(config: Config, plan: Plan) -> set[str]:
    """Return the paths that would be written although the rules leave them out, or a secret in them does."""
    rules = path_rules(config)
    written = {planned.path: planned.there.kind for planned in plan.of(PathOutcome.TAKE, PathOutcome.MERGE)}
    found = {path for path, kind in written.items() if rules.leave_out(path, kind is Kind.DIRECTORY)}
    return found.union(secret_paths(config, written))


def _report(plan: Plan, let_out: list[str], *, as_json: bool) -> None:
    if as_json:
        print_plan(plan, let_out)
        return
    for line in (*plan_lines(plan), *([newly_sent_line(let_out)] if let_out else [])):
        click.echo(line)
    click.echo(summary_line(plan))


def _saved_entry(store: SavedVersions, version: SavedVersion, path: str, saved: SavedPath) -> SeenEntry:
    copy = store.content_path(version, path) if saved.kind is Kind.FILE else ""
    return SeenEntry(
        saved.kind,
        saved.mode,
        saved.mtime_s,
        saved.size_bytes,
        target=saved.target,
        digest=saved.digest,
        copy=copy,
    )
