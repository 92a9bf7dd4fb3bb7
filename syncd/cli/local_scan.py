"""Scans the workspace as a sync would, for commands that show what would be sent and what stays home."""

from __future__ import annotations

import os
from collections.abc import Iterable

from msgspec import Struct

from syncd.cli.options import CLOCK
from syncd.core.settings import Config
from syncd.daemon.build import excludes_for, reader_of, selection_of
from syncd.model.entry import Entry, Kind
from syncd.scan.scanner import Scan, Scanner
from syncd.selection.secret_scanner import Secret
from syncd.selection.selection import Decision
from syncd.watch.changes import ScanListener


class LocalScan(Struct, frozen=True):
    """A scan without the files that hold a secret, which are in `secrets`.

    `left_out` are the paths that a rule left out, a folder with a slash at its end.
    """

    scan: Scan
    left_out: list[tuple[str, Decision]]
    secrets: dict[str, Secret]

    @property
    def left_out_count(self) -> int:
        """The number of paths that stay home; a folder that is left out counts once."""
        return sum(self.scan.excluded.values()) + len(self.secrets)


def scan_workspace(config: Config, listener: ScanListener | None = None) -> LocalScan:
    """Scan the workspace and search it for secrets. Raises `SyncdError`."""
    left_out: list[tuple[str, Decision]] = []

    def note(path: str, is_dir: bool, decision: Decision) -> None:
        left_out.append((f"{path}/" if is_dir else path, decision))

    selection, excludes = selection_of(config, os.environ), excludes_for(config, os.environ)
    scanner = Scanner(config.workspace.path, selection, listener or ScanListener(), note, personal_excludes=excludes)
    scan = scanner.scan()
    # Every file is read, since the daemon's findings are not on disk.
    secrets = secrets_in(config, scan.manifest.items())
    for path in secrets:
        del scan.manifest[path]
    return LocalScan(scan, left_out, secrets)


def secrets_in(config: Config, entries: Iterable[tuple[str, Entry]]) -> dict[str, Secret]:
    """Return the secrets in these files of the workspace, as far as they are searched. Raises `WorkspaceError`."""
    reader = reader_of(config, CLOCK, os.environ)
    most_bytes = config.sync.max_snapshot_mib << 20  # a larger file is never sent, and would take minutes to read
    return reader.secrets(path for path, entry in entries if entry.kind is Kind.FILE and entry.size_bytes <= most_bytes)
