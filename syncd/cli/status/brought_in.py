"""Tells once what `.worktreeinclude` brings in, each time that this file is another one: whoever can push, decides."""

from __future__ import annotations

import hashlib
import os
from contextlib import closing, suppress

import click

from syncd.core.directories import directories_for
from syncd.core.errors import SyncdError
from syncd.core.settings import Config
from syncd.report.status_store import told_of_brought_in
from syncd.selection import safe_open
from syncd.selection.selection import WORKTREEINCLUDE
from syncd.store.state_db import StateDb


def tell_brought_in(config: Config) -> None:
    """Tell on stderr what it brings in, unless that was told. What cannot be read or recorded is told another time."""
    with suppress(OSError, SyncdError):
        descriptor, _ = safe_open.open_file(os.path.join(config.workspace.path, WORKTREEINCLUDE), None)
        with os.fdopen(descriptor, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
        with closing(StateDb(directories_for(config.workspace.path, os.environ).state)) as db:
            told = told_of_brought_in(db)
            if told.load() == digest:
                return
            from syncd.cli.local_scan import brought_in_text, scan_workspace  # noqa: PLC0415 - once

            if paths := scan_workspace(config).brought_in:
                click.echo(f"{WORKTREEINCLUDE}: {brought_in_text(paths)}; `syncd check` has all about it", err=True)
            told.save(digest)
