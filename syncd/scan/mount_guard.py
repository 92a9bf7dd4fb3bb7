"""Remembers what is mounted in the workspace: while it is missing, nothing of it counts as deleted.

A share whose connection broke may be unmounted by its own program, and leaves an empty directory. The workspace itself
is guarded by `mass_deletion_guard`.
"""

from __future__ import annotations

import contextlib
import os

from syncd.core.durable_file import StateFile
from syncd.model.manifest import is_within
from syncd.scan.exclusions import unmounted
from syncd.scan.scanner import Scan
from syncd.watch.mounts import workspace_mounts_of


class MountGuard:
    """The guard of one workspace."""

    def __init__(self, workspace: str, state_folder: str) -> None:
        self._workspace = workspace
        self._file = StateFile(
            state_folder,
            "mounts",
            tuple[bytes, ...],
            "what was unmounted in the workspace while no syncd ran counts as deleted",
        )
        self._known: frozenset[str] = frozenset()
        self._mounted: frozenset[str] = frozenset()

    def load(self) -> None:
        """Load what an earlier process recorded."""
        self._known = frozenset(map(os.fsdecode, self._file.load() or ()))

    def begin(self) -> None:
        """Read what is mounted, right before a scan."""
        self._mounted = workspace_mounts_of(self._workspace).inside

    def confirm(self) -> None:
        """Forget what is missing: a person wants it to be removed."""
        self._record(self._known & self._mounted)

    def check(self, scan: Scan) -> None:
        """Make what is missing of the mounts count as unread, each with a warning; record those that are there."""
        # Both before and after the scan, or it may have come or gone meanwhile.
        mounted = self._mounted & workspace_mounts_of(self._workspace).inside
        known = {path for path in self._known | mounted if path in scan.manifest or is_within(path, scan.unread)}
        missing = known - mounted
        scan.unread |= missing
        scan.warnings += map(unmounted, sorted(missing))
        self._record(frozenset(known))

    def _record(self, known: frozenset[str]) -> None:
        if known != self._known:
            self._known = known
            with contextlib.suppress(OSError):  # then the next process does not know of them
                self._file.save(tuple(sorted(map(os.fsencode, known))))
