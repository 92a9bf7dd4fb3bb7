"""Takes snapshots: scans, compares with what the sandbox holds, and packs if something differs."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Collection
from enum import Enum

from msgspec import Struct, field
from msgspec.structs import replace

from syncd.archive.packer import Packed, Packer, PackProgress
from syncd.core import safe_open
from syncd.core.clock import Clock
from syncd.core.errors import SyncWarning, TryLater
from syncd.core.settings import MAIN
from syncd.core.text import counted, shown_path
from syncd.model.directory import differing
from syncd.model.entry import Entry, Kind
from syncd.model.manifest import (
    Difference,
    Manifest,
    carry_over_digests,
    difference,
    sharing,
    without_stamps,
)
from syncd.scan.exclusions import check_size
from syncd.scan.file_reader import ContentReader
from syncd.scan.guards import LossGuard
from syncd.scan.scanner import Scan, Scanner
from syncd.selection.secret_scanner import Secret

MAX_MODIFIED = 4096
"""The most files whose unseen writes are noted."""


class SyncMode(Enum):
    """The condition of a sync. `FORCED` also confirms that a workspace may have lost nearly everything."""

    CHANGED = "sync if something changed"
    ASKED = "as that, for someone who waits; where nothing has to be sent, the sandbox is asked if it still has all"
    FORCED = "sync whatever is there"


class ScanResult(Struct):
    """The manifest that a scan found, with the digests that are known, and its difference from the sandbox's."""

    manifest: Manifest
    difference: Difference


class Snapshotter(Struct, eq=False):
    """Takes the snapshots of one workspace for the sandbox of this name.

    Those of several sandboxes share the scanner, whose tree has the digests of what was read, the guard, the reader and
    the packers.
    """

    scanner: Scanner
    guard: LossGuard
    reader: ContentReader
    packer: Packer
    part_packer: Packer  # with a spool of its own: it deletes all chunks but its own
    clock: Clock
    spool_folder: str
    max_mib: int
    name: str = MAIN
    warnings: list[SyncWarning] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)  # exist, but are not in the last snapshot: they are not deleted
    # Files that hold a secret: while they are as before, no sync reads them again. Their warnings are not in
    # `warnings`, as they depend on the sandbox.
    secret_files: dict[str, tuple[Entry, Secret]] = field(default_factory=dict)
    _scan_number: int = 0  # of the scanner's, the last one for this sandbox
    _full_scans: int = 0  # of the scanner, until then
    _modified: set[str] = field(default_factory=set)  # files to be read, whatever their times say
    _unreadable_files: dict[str, tuple[Entry, SyncWarning]] = field(default_factory=dict)
    _sent: Manifest = field(default_factory=Manifest)
    _by_rules: Counter[str] = field(default_factory=Counter)

    def shared(self, baseline: Manifest) -> Manifest:
        """Return the baseline with the directories of the last scan, where these are the same.

        Syncs to other sandboxes have the scanner keep theirs: each edit would be compared with everything.
        """
        found = sharing(baseline, self.scanner.tree.manifest)
        self.scanner.expect(found)
        return found

    def scan(
        self,
        baseline: Manifest,
        sync_mode: SyncMode,
        only: Collection[str] | None = None,
        other_bases: Collection[Manifest] = (),
    ) -> ScanResult:
        """Scan, and read only the files of which the scan cannot tell if they changed.

        `only` are the directories in which something may have changed, None: in any. `other_bases` are what the
        workspace's other sandboxes hold.

        Raises `WorkspaceError` (the workspace is missing, or lost nearly everything), `SnapshotTooLarge`, `Stop`.
        """
        began_s = self.clock.monotonic_s()
        self.guard.begin()
        full_scans = self.scanner.full_scans
        scan = self.scanner.scan(only)
        self._full_scans = self.scanner.full_scans
        is_full = self._full_scans > full_scans
        if sync_mode is SyncMode.FORCED or is_full:
            self._unreadable_files = {}  # a disk that is repaired changes no inode
        self._scan_number = self.scanner.scans
        confirmed = self.guard.missing_mounts() if sync_mode is SyncMode.FORCED else ()
        self.guard.check_mounts(scan, confirmed, other_bases)
        self.warnings, self._by_rules = scan.warnings, scan.excluded
        self._read_secret_files_again(self._modified)
        self._exclude_known(scan)
        self.unread = scan.unread
        if sync_mode is not SyncMode.FORCED:
            self.guard.check(
                baseline,
                scan,
                lambda paths: self.scanner.existing_exclusions(paths) | (self.secret_files.keys() & paths),
            )
        self.guard.record_workspace(scan, other_bases)
        check_size(scan.manifest, self.max_mib)
        self._sent = baseline
        manifest = carry_over_digests(baseline, scan.manifest)
        self._read_modified(manifest)
        self.scanner.tree.adopt(manifest)
        scanned = ScanResult(manifest, difference(baseline, manifest))
        if not scanned.difference.certain:
            scanned = self.resolved(scanned, baseline)
        if is_full:
            self.scanner.full_scan_took_s = self.clock.monotonic_s() - began_s
        return scanned

    @property
    def misses_a_scan(self) -> bool:
        """True if all was scanned for another sandbox since: that may have found what no event told of."""
        return self.scanner.full_scans > self._full_scans

    def note_modified(self, paths: Collection[str]) -> None:
        """Have the next scan read these files, which were modified, whatever their times say."""
        self._modified.update(paths)
        if len(self._modified) > MAX_MODIFIED:  # nobody maps so many, and all other writes change the times
            self._modified.clear()

    def _read_modified(self, manifest: Manifest) -> None:
        """Read the files that were modified and have the times of before, as after a write through a mapping."""
        seem_known = {path: manifest[path] for path in self._modified if path in manifest and manifest[path].digest}
        manifest.put((path, replace(entry, stamp=None, digest=b"")) for path, entry in seem_known.items())
        read = dict(self.reader.digests(seem_known)) if seem_known else {}
        manifest.put(read.items())
        self._modified = seem_known.keys() - read.keys()

    def _read_secret_files_again(self, paths: Collection[str]) -> None:
        for path in self.secret_files.keys() & paths:
            entry, secret = self.secret_files[path]
            self.secret_files[path] = replace(entry, stamp=None), secret

    def forget_all_stamps(self, baseline: Manifest) -> Manifest:
        """Have the next scan read every file again; return the `baseline` without stamps."""
        self._read_secret_files_again(self.secret_files)
        baseline = without_stamps(baseline)
        tree = self.scanner.tree
        tree.manifest = without_stamps(tree.manifest, baseline)
        return baseline

    @property
    def excluded(self) -> dict[str, int]:
        """The number of paths that are not in the last snapshot, by the source of the rule."""
        secrets = len(self.secret_files)
        return dict(self._by_rules + Counter(secrets=secrets, unreadable=len(self.unread) - secrets))

    def resolved(self, scanned: ScanResult, baseline: Manifest) -> ScanResult:
        """The scan's result after the files were read of which it could not tell if they changed."""
        if not scanned.difference.to_read:
            return scanned
        manifest = scanned.manifest.copy()
        read = dict(self.reader.digests(scanned.difference.to_read))
        self.scanner.tree.set_entries(read)
        manifest.put(read.items())
        return ScanResult(manifest, difference(baseline, manifest))

    def with_digests(self, entries: dict[str, Entry]) -> dict[str, Entry]:
        """The entries after those files were read whose contents are not known; what cannot be read stays unknown."""
        unread = [path for path, entry in entries.items() if entry.kind is Kind.FILE and not entry.digest]
        if not unread:
            return entries
        read = dict(self.reader.digests(unread))
        self.scanner.tree.set_entries(read)
        return entries | read

    def pack(
        self,
        manifest: Manifest,
        only: Collection[str] | None = None,
        on_progress: PackProgress = lambda *_: None,
    ) -> Packed:
        """Pack the manifest, or `only` these paths of it, into the spool; `Packed.manifest` is the whole one.

        Raises `TryLater` if the disk has no room, if nearly all files vanished since the scan, or if rules changed.
        """
        try:
            try:
                packed = self._pack(manifest, only, on_progress)
            except OSError as failure:
                kept = self.packer.base_store
                if failure.errno not in (errno.ENOSPC, errno.EDQUOT) or kept is None or not kept.make_room():
                    raise
                packed = self._pack(manifest, only, on_progress)
        except OSError as failure:
            safe_open.raise_if_exhausted(failure)
            raise TryLater(
                f"the archive cannot be written to {self.spool_folder!r} ({failure.strerror or failure})",
                "free some disk space, or set XDG_CACHE_HOME to a roomier disk",
            ) from None
        folders = (path for path, _, _ in differing(self._sent.top, packed.manifest.top))
        if not self.scanner.rules_unchanged(folders):
            raise TryLater(
                "a .gitignore or .syncdignore file changed while the snapshot was taken", "another one is taken at once"
            )
        self.guard.check_vanished(manifest, sum(path not in packed.manifest for path in packed.follow_up))
        self._unreadable_files |= packed.unread
        self.unread |= packed.unread.keys() | packed.secret_files.keys()
        self.warnings = [*self.warnings, *(warning for _, warning in packed.unread.values())]
        self.secret_files |= packed.secret_files
        if self.scanner.scans == self._scan_number:  # else a scan for another sandbox may have found newer contents
            self.scanner.tree.adopt(packed.manifest)  # what was read need not be read again by the next one
        return packed

    def _pack(self, manifest: Manifest, only: Collection[str] | None, on_progress: PackProgress) -> Packed:
        if only is None:
            self.part_packer.store.keep_only(())  # the spool has room for two whole archives, and for nothing else
            packed = self.packer.pack(manifest, self.max_mib << 20, on_progress)
            self.packer.store.use(self.name, packed.archive.pieces)
            return packed
        self.packer.clean_up()
        part = Manifest({path: manifest[path] for path in only if path in manifest})
        packed = self.part_packer.pack(part, self.max_mib << 20, on_progress)
        self.part_packer.store.use(self.name, packed.archive.pieces)
        whole = manifest | packed.manifest
        for path in part.keys() - packed.manifest.keys():
            del whole[path]
        packed.manifest = whole
        return packed

    def release(self) -> None:
        """Let what was packed last go: it was sent, or never will be."""
        for packer in (self.packer, self.part_packer):
            packer.store.use(self.name, ())

    def discard(self) -> None:
        """Delete all that is packed, as one damaged piece is often one of many."""
        for packer in (self.packer, self.part_packer):
            packer.store.clear()

    def _exclude_known(self, scan: Scan) -> None:
        """Remove files that hold a secret or could not be read from the scan while they are as before."""
        found = scan.manifest
        self.secret_files = {
            path: known for path, known in self.secret_files.items() if _is_as_before(found.get(path), known[0])
        }
        self._unreadable_files = {
            path: known for path, known in self._unreadable_files.items() if _is_as_before(found.get(path), known[0])
        }
        self.warnings += [warning for _, warning in self._unreadable_files.values()]
        for path in self.secret_files.keys() | self._unreadable_files:
            del found[path]
            scan.unread.add(path)  # that a secret is found, rightly or not, deletes nothing in the sandbox


def _is_as_before(now: Entry | None, before: Entry) -> bool:
    return now is not None and now.stamp == before.stamp and now.size_bytes == before.size_bytes


def described(found: Difference) -> str:
    """The difference in a few words, for the log."""
    counts = []
    for word, paths in (("new", found.added), ("changed", found.changed), ("removed", found.removed)):
        if paths:
            first, more = shown_path(next(iter(paths))), ", …" if len(paths) > 1 else ""
            counts.append(f"{counted(len(paths), f'{word} path')} ({first}{more})")
    return ", ".join(counts) or "nothing new"
