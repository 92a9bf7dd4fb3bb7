"""Checks each scan before a snapshot, and refuses a workspace that was lost, by the rules of `mass_deletion`.

It records the identity of the workspace's directory in the state folder, to detect another directory in its place, also
after a restart. Another directory is refused only if its files differ too: a device number may change with a reboot,
and the known details of an inode with the file system's driver.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection

from syncd.core.durable_file import StateFile
from syncd.core.errors import NearlyEmpty, TryLater
from syncd.core.file_identity import FileIdentity
from syncd.model.manifest import Manifest, removed_paths
from syncd.scan.mass_deletion_rule import is_replaced, lost_nearly_all
from syncd.scan.scanner import Scan

_INTENDED = "run `syncd push --force` if this is intended"


class MassDeletionGuard:
    """The guard of one workspace."""

    def __init__(self, state_folder: str) -> None:
        self._file = StateFile(
            state_folder,
            "workspace",
            FileIdentity,
            "another directory put in the workspace's place goes unnoticed once",
        )
        self._known: FileIdentity | None = None

    def load(self) -> None:
        """Load the identity of the workspace that an earlier process recorded."""
        self._known = self._file.load()

    def check(
        self,
        baseline: Manifest,
        scan: Scan,
        existing_exclusions: Callable[[Collection[str]], Collection[str]] = lambda _: (),
    ) -> None:
        """Compare the scan with the sandbox's manifest. Raises `NearlyEmpty` if nearly all files were lost.

        `existing_exclusions` returns those of some paths that are still there, excluded by a new rule: they do not
        count. One that is gone counts whatever the rules say, as a program that empties a directory may leave a
        `.gitignore` with `*` in it (`python -m venv --clear`).
        """
        failure = self._loss(baseline, scan)
        if failure is not None:
            counted = baseline.copy()
            for path in existing_exclusions(removed_paths(baseline, scan.manifest)):
                del counted[path]
            failure = self._loss(counted, scan)
        if failure is not None:
            raise failure

    def _loss(self, baseline: Manifest, scan: Scan) -> NearlyEmpty | None:
        before, now = baseline.files, scan.manifest.files
        if lost_nearly_all(before, now):
            return NearlyEmpty(
                f"the workspace holds {now} files where it held {before}, so nothing is synced",
                f"bring it back, or {_INTENDED}",
            )
        is_same = self._known is None or self._known.matches(scan.identity)
        if not is_same and is_replaced(baseline, scan.manifest):
            return NearlyEmpty(
                "another directory is in the workspace's place, with hardly any of its files, so nothing is synced",
                f"bring the old one back, or {_INTENDED}",
            )
        return None

    def check_vanished(self, manifest: Manifest, vanished: int) -> None:
        """Raise `TryLater` if nearly all files of the scan had vanished when they were packed."""
        found = manifest.files
        if lost_nearly_all(found, found - vanished):
            # The next scan shows the real state; this archive would make the rest look deleted.
            raise TryLater(
                f"{vanished} of the workspace's {found} files vanished while they were packed",
                "they are looked for again",
            )

    def record_workspace(self, scan: Scan) -> None:
        """Record the scanned directory as the workspace."""
        if scan.identity != self._known:
            self._known = scan.identity
            with contextlib.suppress(OSError):  # then the next process cannot detect another directory
                self._file.save(self._known)
