"""Guards against syncing a workspace that was lost, or a part of it, as if a person had deleted it.

A directory that was emptied, by a program or because its disk is not mounted, holds next to nothing. Another directory
in the workspace's place may hold many files, so the names of the earlier files are compared. In the same directory they
are not, as a checkout of an unrelated branch is ordinary work.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Mapping
from itertools import chain

from syncd.core import safe_open
from syncd.core.durable_file import StateFile
from syncd.core.errors import NearlyEmpty, TryLater
from syncd.core.text import counted
from syncd.model.entry import Entry, Kind
from syncd.model.manifest import Manifest, directories_above, is_within, removed_paths
from syncd.scan.exclusions import unmounted
from syncd.scan.file_reader import FileIdentity, lasting_identity_of
from syncd.scan.scanner import Scan
from syncd.watch.mounts import filesystems_of

# With fewer files, emptying the workspace is a change like any other, unless another directory is in its place.
SMALL_FILES = 20
# With fewer than one file in so many left, a larger workspace counts as lost.
LEFT_ONE_IN = 10
_INTENDED = "run `syncd push --force` if this is intended"


def lost_nearly_all(files_before: int, files_now: int) -> bool:
    """True if there were at least `SMALL_FILES` files, and fewer than a tenth are left."""
    return files_before >= SMALL_FILES and files_now * LEFT_ONE_IN < files_before


def is_replaced(before: Mapping[str, Entry], now: Mapping[str, Entry]) -> bool:
    """True if fewer than a tenth of the names of its files are left; `now` has what is here of these names, at least.

    However few there were: a directory that was deleted and made again has some of its names, a mount point without its
    disk has none.
    """
    files = [path for path, entry in before.items() if entry.kind is not Kind.DIRECTORY]
    left = sum(path in now and now[path].kind is not Kind.DIRECTORY for path in files)
    return left * LEFT_ONE_IN < len(files)


def _replaced(undone: str) -> NearlyEmpty:
    return NearlyEmpty(
        f"another directory is in the workspace's place, with hardly any of its files, so nothing is {undone}",
        f"bring the old one back, or {_INTENDED}",
    )


class LossGuard:
    """Checks each scan of one workspace before a snapshot, so that what was lost does not count as deleted.

    It records the identity of the workspace's directory in the state folder, to detect another directory in its place,
    also after a restart. Another directory is refused only if its files differ too: a device number may change with a
    reboot, and the known details of an inode with the file system's driver.

    It also records what is mounted in the workspace: while that is missing, nothing of it counts as deleted. A share
    whose connection broke may be unmounted by its own program, and leaves an empty directory.
    """

    def __init__(self, workspace: str, state_folder: str) -> None:
        self._workspace = workspace
        self._identity_file = StateFile(
            state_folder,
            "workspace",
            FileIdentity,
            "another directory put in the workspace's place goes unnoticed once",
        )
        self._mounts_file = StateFile(
            state_folder,
            "mounts",
            tuple[bytes, ...],
            "what was unmounted in the workspace while no syncd ran counts as deleted",
        )
        self._identity: FileIdentity | None = None
        self._mounts: frozenset[str] = frozenset()
        self._mounted: frozenset[str] = frozenset()  # right before the scan

    def load(self) -> None:
        self._identity = self._identity_file.load()
        self._mounts = frozenset(map(os.fsdecode, self._mounts_file.load() or ()))

    def begin(self) -> None:
        """Read what is mounted, right before a scan."""
        self._mounted = self._inside()

    def _inside(self) -> frozenset[str]:
        return frozenset(filesystems_of(self._workspace))

    def missing_mounts(self) -> frozenset[str]:
        """Return what was mounted, and was not right before the scan."""
        return self._mounts - self._mounted

    def check_mounts(self, scan: Scan, confirmed: Collection[str] = (), other_bases: Collection[Manifest] = ()) -> None:
        """Make what is missing of the mounts count as unread, each with a warning; record those that are there.

        Of `confirmed` ones a person wants all to be removed; they are forgotten once no other sandbox holds any of it.
        """
        # Both before and after the scan, or it may have come or gone meanwhile.
        mounted = self._mounted & self._inside()
        known = {path for path in self._mounts | mounted if path in scan.manifest or is_within(path, scan.unread)}
        missing = known - mounted - {*confirmed}
        scan.unread |= missing
        scan.warnings += map(unmounted, sorted(missing))
        held = directories_above(chain.from_iterable(other_bases)) if confirmed else ()
        self._record_mounts(frozenset(path for path in known if path not in confirmed or path in held))

    def _record_mounts(self, known: frozenset[str]) -> None:
        if known != self._mounts:
            self._mounts = known
            with contextlib.suppress(OSError):  # then the next process does not know of them
                self._mounts_file.save(tuple(sorted(map(os.fsencode, known))))

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
                f"the workspace holds {counted(now, 'file')} where it held {before}, so nothing is synced",
                f"bring it back, or {_INTENDED}",
            )
        return _replaced("synced") if self._is_replaced(baseline, scan) else None

    def check_place(self, base: Callable[[], Manifest]) -> None:
        """Compare the directory in the workspace's place with the base, before a command writes there.

        What is written to another one, such as a mount point without its disk, is gone with it, and would then count as
        deleted here. Raises `NearlyEmpty`, `WorkspaceError`.
        """
        top = safe_open.open_workspace(self._workspace)
        try:
            identity = lasting_identity_of(top)
        finally:
            os.close(top)
        if self._identity is None or self._identity.matches(identity):
            return
        sent = base()
        here = {path: each for path, each in sent.items() if os.path.lexists(os.path.join(self._workspace, path))}
        if is_replaced(sent, here):
            raise _replaced("written there")

    def check_vanished(self, manifest: Manifest, vanished: int) -> None:
        """Raise `TryLater` if nearly all files of the scan had vanished when they were packed."""
        found = manifest.files
        if lost_nearly_all(found, found - vanished):
            # The next scan shows the real state; this archive would make the rest look deleted.
            raise TryLater(
                f"{vanished} of the workspace's {found} files vanished while they were packed",
                "they are looked for again",
            )

    def _is_replaced(self, baseline: Manifest, scan: Scan) -> bool:
        is_same = self._identity is None or self._identity.matches(scan.identity)
        return not is_same and is_replaced(baseline, scan.manifest)

    def record_workspace(self, scan: Scan, other_bases: Collection[Manifest] = ()) -> None:
        """Record the scanned directory as the workspace, unless it is refused for another sandbox, by its base."""
        if scan.identity != self._identity and not any(self._is_replaced(base, scan) for base in other_bases):
            self._identity = scan.identity
            with contextlib.suppress(OSError):  # then the next process cannot detect another directory
                self._identity_file.save(self._identity)
