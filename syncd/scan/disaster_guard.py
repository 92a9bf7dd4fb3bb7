"""Stands before every snapshot, and lets no workspace pass that vanished (`policy.guard`).

To tell a workspace from one that was put in its place, it is kept which directory it was, in the state folder, since a
restart is no reason to believe in a disaster. A directory that seems to be another one is held only where its files are
others, too: a device's number may change with a reboot, and with the file system's driver what is known of an inode.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from syncd.core.durable_file import StateFile
from syncd.core.errors import NearlyEmpty, TryLater
from syncd.core.file_identity import FileIdentity
from syncd.scan.disaster_rule import is_replaced, lost_nearly_all
from syncd.scan.manifest import Entry, count_files
from syncd.scan.scanner import Scan

_MEANT = "run `syncd push --force` if it is meant to be so"


class DisasterGuard:
    """Guards one workspace."""

    def __init__(self, state_folder: str) -> None:
        self._file = StateFile(
            state_folder,
            "workspace",
            FileIdentity,
            "another directory put in the workspace's place goes unnoticed once",
        )
        self._known: FileIdentity | None = None

    def recall(self) -> None:
        """Read which directory an earlier process knew as the workspace."""
        self._known = self._file.load()

    def check(self, baseline: Mapping[str, Entry], scan: Scan) -> None:
        """Compare with what the sandbox holds. Raises `NearlyEmpty` for what no person has said to be meant."""
        before, now = count_files(baseline.values()), count_files(scan.manifest.values())
        if lost_nearly_all(before, now):
            raise NearlyEmpty(
                f"the workspace holds {now} files where it held {before}, so nothing is synced",
                f"bring it back, or {_MEANT}",
            )
        is_same = self._known is None or self._known.same(scan.identity)
        if not is_same and is_replaced(baseline, scan.manifest):
            raise NearlyEmpty(
                "another directory is in the workspace's place, with hardly any of its files, so nothing is synced",
                f"bring the old one back, or {_MEANT}",
            )

    def confirm(self, manifest: Mapping[str, Entry], vanished: int) -> None:
        """So many of the files that a scan found were gone when they were to be packed. Raises `TryLater`."""
        found = count_files(manifest.values())
        if lost_nearly_all(found, found - vanished):
            # The next scan says what has become of it; what was packed would be believed to be all there was.
            raise TryLater(f"{vanished} of the workspace's {found} files vanished while they were packed")

    def accept(self, scan: Scan) -> None:
        """This is the workspace, from now on."""
        if scan.identity != self._known:
            self._known = scan.identity
            with contextlib.suppress(OSError):  # costs the next process its suspicion
                self._file.save(self._known)
