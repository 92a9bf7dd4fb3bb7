"""Finds what an `apply` would let out: files that stay home now, and that the ignore files it brings have sent."""

from __future__ import annotations

import os
from collections.abc import Sequence

from syncd.cli.apply.execution import Prepared
from syncd.cli.options import CLOCK
from syncd.core.formatting import counted, few
from syncd.core.settings import Config
from syncd.core.text import shown_path
from syncd.daemon.build import excludes_for, reader_of, selection_of
from syncd.model.entry import Kind
from syncd.model.reconcile import PathOutcome
from syncd.scan.path_rules import PathRules
from syncd.scan.scanner import Scanner
from syncd.selection.ignore_files import LARGEST_BYTES
from syncd.selection.secret_scanner import LARGEST_BYTES as LARGEST_SEARCHED_BYTES
from syncd.selection.selection import GITIGNORE, SYNCDIGNORE


def newly_sent(config: Config, prepared: Prepared) -> list[str]:
    """Return the files and links that stay home now, and that a sync would send by the rules as the plan leaves them.

    The workspace is scanned for it, if the plan changes an ignore file at all. Raises `SyncdError`.
    """
    planned_rules = _planned_rules(prepared)
    if not planned_rules:
        return []
    workspace, selection, excludes = (
        config.workspace.path,
        selection_of(config, os.environ),
        excludes_for(config, os.environ),
    )
    scan = Scanner(workspace, selection, personal_excludes=excludes, planned_rules=planned_rules).scan()
    rules = PathRules(workspace, selection, excludes)
    found = {
        path: entry
        for path, entry in scan.manifest.items()
        if entry.kind is not Kind.DIRECTORY and rules.leave_out(path, is_dir=False)
    }
    searched = (p for p, e in found.items() if e.kind is Kind.FILE and e.size_bytes <= LARGEST_SEARCHED_BYTES)
    secrets = reader_of(config, CLOCK, os.environ).secrets(searched)
    return [path for path in found if path not in secrets]


def newly_sent_text(paths: Sequence[str]) -> str:
    """Return their number, for a question."""
    return f"{counted(len(paths), 'file')} that {'stays' if len(paths) == 1 else 'stay'} home now would be sent"


def newly_sent_line(paths: Sequence[str]) -> str:
    """Return the line that names some of them."""
    names = few([*map(shown_path, paths)], len(paths))
    return f"look at   {newly_sent_text(paths)}: {', '.join(names)}"


def _planned_rules(prepared: Prepared) -> dict[str, dict[str, bytes | None]]:
    """Return the ignore files that the plan changes, by folder and name; None: none is there then."""
    found: dict[str, dict[str, bytes | None]] = {}
    for planned in prepared.plan.of(PathOutcome.TAKE, PathOutcome.MERGE, PathOutcome.DELETE):
        folder, _, name = planned.path.rpartition("/")
        if name not in (GITIGNORE, SYNCDIGNORE):
            continue
        content = None  # a link or a directory in its place has no rules
        if planned.path in prepared.contents:
            with open(prepared.contents[planned.path], "rb") as file:
                content = file.read(LARGEST_BYTES + 1)
        elif planned.outcome is PathOutcome.MERGE:
            continue  # it is here already
        if content is None or len(content) <= LARGEST_BYTES:  # beside a larger one, nothing is sent
            found.setdefault(folder, {})[name] = content
    return found
