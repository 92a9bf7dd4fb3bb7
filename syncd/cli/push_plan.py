"""`syncd push --dry-run`: tells what a push would send now, by the workspace and what is known of the sandbox."""

from __future__ import annotations

import json
import os
from contextlib import closing

import click
from msgspec import Struct

from syncd.cli.local_scan import scan_workspace
from syncd.cli.options import CLOCK
from syncd.cli.output import print_path
from syncd.cli.progress import ProgressDisplay
from syncd.cli.push import change_words, tell_held
from syncd.core.settings import Config
from syncd.core.text import MOST_NAMED, counted, size
from syncd.daemon.build import places_of, reader_of, target_of
from syncd.model.entry import Kind
from syncd.model.manifest import Difference, Manifest, carry_over_digests, difference
from syncd.sandbox.sandbox_state import SandboxState
from syncd.store.state_db import StateDb


class _Plan(Struct, frozen=True):
    """A scan, its difference from the sandbox, and the held paths; `is_first`: nothing was sent yet."""

    is_first: bool
    manifest: Manifest
    found: Difference
    held: frozenset[str]

    def changes(self) -> dict[str, list[str]]:
        found = self.found
        lists = {"added": found.added, "changed": [*found.changed, *found.uncertain], "removed": found.removed}
        return {name: sorted(path for path in paths if path not in self.held) for name, paths in lists.items()}


def show_plan(config: Config, *, as_json: bool) -> None:
    """Print what differs, a path a line, and the sum; asks no server, and changes nothing. Raises `SyncdError`."""
    with ProgressDisplay(silent_s=0.5) as progress:
        progress.doing("scanning the workspace")
        plan = _plan(config)
    changes, files = plan.changes(), plan.manifest.files
    sent = [plan.manifest[path] for name in ("added", "changed") for path in changes[name]]
    amount = sum(entry.size_bytes for entry in sent if entry.kind is Kind.FILE)
    held = sorted(plan.held)
    if as_json:
        click.echo(json.dumps({**changes, "files": files, "bytes": amount, "held": held}))
        return
    for sign, paths in zip("+~-", changes.values(), strict=True):
        for path in paths:
            is_directory = path in plan.manifest and plan.manifest[path].kind is Kind.DIRECTORY
            print_path(path, "/" if is_directory else "", before=f"{sign} ")
    words = change_words({name: len(paths) for name, paths in changes.items()})
    if words:
        what = counted(files, "file") if plan.is_first else f"{words} ({files:,} in all)"
        click.echo(f"would send {what}, {size(amount)} before compression")
    else:
        click.echo(f"nothing to send: the sandbox holds what is here ({counted(files, 'file')})")
    tell_held({"held": held[:MOST_NAMED], "held_count": len(held)})


def _plan(config: Config) -> _Plan:
    scanned = scan_workspace(config).scan.manifest
    with closing(StateDb(places_of(config, os.environ).state)) as db:
        state = SandboxState(db, target_of(config, os.environ))
        base, held = state.base or Manifest(), frozenset(state.seen.held)
    manifest = carry_over_digests(base, scanned)
    found = difference(base, manifest)
    if found.uncertain:
        manifest.put(reader_of(config, CLOCK, os.environ).digests(found.uncertain))
        found = difference(base, manifest)
    return _Plan(state.base is None, manifest, found, held)
