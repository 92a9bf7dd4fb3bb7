"""Taking a snapshot: scan, compare with what the sandbox holds, and pack only if something differs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum

from syncd.archive.chunk_store import Piece
from syncd.archive.codec import Codec
from syncd.archive.packer import Packed, Packer, PackProgress, ignore_progress
from syncd.archive.secret_files import SecretFiles
from syncd.core.errors import SnapshotTooLarge, TryLater
from syncd.core.text import shown_path
from syncd.core.warning import SyncWarning
from syncd.scan.disaster_guard import DisasterGuard
from syncd.scan.file_reader import ContentReader
from syncd.scan.manifest import (
    Difference,
    Manifest,
    Stamp,
    difference,
    disbelieve,
    not_written_back,
    replaced,
    settle,
)
from syncd.scan.scanner import Scan, Scanner
from syncd.scan.size_limit import over_limit
from syncd.selection import safe_open


class SyncMode(Enum):
    """What a sync was asked for. `FORCED` also says that a workspace that lost nearly everything is meant so."""

    CHANGED = "sync if something changed"
    FORCED = "sync whatever is there"


@dataclass
class ScanResult:
    """What a scan found: the manifest, as far as content is known, and how it differs from the sandbox's."""

    manifest: Manifest
    difference: Difference


@dataclass(frozen=True)
class _UnreadableFile:
    """A file that could not be read: not tried again before that whole look, twice as many from then each time."""

    stamp: Stamp | None
    warning: SyncWarning
    wait: int
    again_at: int


class Snapshotter:
    """Takes the snapshots of one workspace, and remembers the contents it has read."""

    def __init__(
        self,
        scanner: Scanner,
        guard: DisasterGuard,
        reader: ContentReader,
        packer: Packer,
        part_packer: Packer,
        *,
        spool_folder: str,
        max_mib: int,
    ) -> None:
        self._scanner = scanner
        self._guard = guard
        self._reader = reader
        self._packer = packer
        self._part_packer = part_packer  # with a spool of its own, or it would take the whole archive's chunks away
        self._spool_folder = spool_folder
        self._max_mib = max_mib
        self._known: Manifest = {}
        self._closed_files: dict[str, _UnreadableFile] = {}
        self.secret_files = SecretFiles()  # its warnings are not among `warnings`: the sandbox has a part in them
        self._sent: Manifest = {}
        self._whole_looks = 0
        self._by_rules: dict[str, int] = {}
        self.warnings: list[SyncWarning] = []
        self.unread: set[str] = set()  # there, but not in the last snapshot: nobody deleted them

    def scan(
        self, baseline: Manifest | None, sync_mode: SyncMode, changed: Collection[str] | None = None
    ) -> ScanResult:
        """Scan, and read only the files that may or may not have changed.

        `changed` names the only directories in which something may have changed since the last look. Raises
        `WorkspaceError` (missing, or nearly everything gone), `SnapshotTooLarge`, `Stop`.
        """
        scan = self._scanner.scan(changed)
        self.warnings, self._by_rules = scan.warnings, scan.left_out
        self._whole_looks += changed is None
        self._leave_closed_out(scan, sync_mode)
        self.secret_files.exclude(scan)
        self.unread = scan.unread
        if sync_mode is SyncMode.CHANGED:
            self._guard.check(baseline or {}, scan)
        self._guard.accept(scan)
        refusal = over_limit(scan.manifest, self._max_mib)
        if refusal:
            raise SnapshotTooLarge(refusal, "ignore what is large in .syncdignore, or raise the key")
        self._sent = baseline = baseline or {}
        manifest = scan.manifest
        scanned = {path: manifest[path] for path in replaced(baseline, manifest)}
        learned = settle(baseline, scanned)
        if self._known is not baseline:
            learned = settle(self._known, learned)
        manifest |= learned
        self._known = manifest
        self._scanner.learn({path: learned[path] for path in replaced(scanned, learned)})
        look = ScanResult(manifest, difference(baseline, manifest))
        return look if look.difference.certain else self.resolved(look, baseline)

    def is_excluded(self, path: str, is_dir: bool) -> bool:
        """Whether a path that no snapshot holds any more is left out, rather than deleted."""
        return self._scanner.is_excluded(path, is_dir)

    def forget_stamps(self, baseline: Manifest, paths: Collection[str] | None) -> None:
        """Have these files read again by the next look, whatever their stamps say; None: all that may have changed
        without a word, events having been missed. The `baseline` loses their stamps, too.
        """
        if paths is None:
            rescan_reasons = {*not_written_back(baseline), *not_written_back(self._known)}
            rescan_reasons.update(self.secret_files.not_written_back())
        else:
            rescan_reasons = self._scanner.all_names(paths) if paths else set()
        self._forget_stamps(baseline, rescan_reasons)

    def forget_all_stamps(self, baseline: Manifest) -> None:
        """As `forget_stamps`, with every file."""
        self._forget_stamps(baseline, {*baseline, *self._known, *self.secret_files})

    def _forget_stamps(self, baseline: Manifest, rescan_reasons: Collection[str]) -> None:
        for manifest in (baseline, self._known):
            disbelieve(manifest, rescan_reasons)
        self._scanner.disbelieve(rescan_reasons)
        self.secret_files.forget_stamps(rescan_reasons)

    @property
    def left_out(self) -> dict[str, int]:
        """How much of the last snapshot's workspace stays home, by who says so."""
        counts = dict(self._by_rules)
        secret_files = len(self.secret_files)
        for word, number in (("secrets", secret_files), ("unreadable", len(self.unread) - secret_files)):
            if number > 0:
                counts[word] = counts.get(word, 0) + number
        return counts

    def resolved(self, look: ScanResult, baseline: Manifest) -> ScanResult:
        """The look, with the doubtful files read."""
        if not look.difference.uncertain_reason:
            return look
        read = self._reader.digests(look.difference.uncertain_reason)
        self._known = look.manifest | read
        self._scanner.learn(read)
        return ScanResult(self._known, difference(baseline, self._known))

    def pack(
        self,
        manifest: Manifest,
        codec: Codec = Codec.FAST,
        only: Collection[str] | None = None,
        tell: PackProgress = ignore_progress,
    ) -> Packed:
        """The archive of the manifest, or of these paths of it, in the spool; `Packed.manifest` is the whole one.

        Raises `TryLater` if the disk has no room for it, if nearly all vanished since the scan, or if rules changed.
        """
        try:
            if only is None:
                self._part_packer.clear()  # the spool holds twice a whole archive while one is made, and nothing else
                packed = self._packer.pack(manifest, codec, self._max_mib << 20, tell)
            else:
                packed = self._pack_part(manifest, codec, only, tell)
        except OSError as failure:
            safe_open.raise_if_exhausted(failure)
            raise TryLater(
                f"the archive cannot be written to {self._spool_folder!r} ({failure.strerror or failure})",
                "free some disk space, or set XDG_CACHE_HOME to a roomier disk",
            ) from None
        if not self._scanner.rules_unchanged(replaced(self._sent, packed.manifest)):
            raise TryLater("ignore files changed while the snapshot was taken", "another one is taken at once")
        self._guard.confirm(manifest, sum(path not in packed.manifest for path in packed.follow_up))
        self._note_closed(packed)
        self.unread |= packed.unread.keys() | packed.secret_files.keys()
        self.warnings = self.warnings + packed.warnings
        self.secret_files.add(packed.secret_files)
        self._known = packed.manifest  # contents that were read need not be read again for the next look
        self._scanner.learn({path: packed.manifest[path] for path in replaced(manifest, packed.manifest)})
        return packed

    def _pack_part(self, manifest: Manifest, codec: Codec, only: Collection[str], tell: PackProgress) -> Packed:
        self._packer.tidy(manifest, codec)
        part = {path: manifest[path] for path in manifest if path in only}
        packed = self._part_packer.pack(part, codec, self._max_mib << 20, tell)
        whole = manifest | packed.manifest
        for path in part.keys() - packed.manifest.keys():
            del whole[path]
        packed.manifest = whole
        return packed

    def repack(self, manifest: Manifest, damaged: Piece, codec: Codec) -> Packed:
        """As `pack`, after a piece of the archive proved damaged."""
        self._packer.forget(damaged)
        return self.pack(manifest, codec)

    def _leave_closed_out(self, scan: Scan, sync_mode: SyncMode) -> None:
        """Files that could not be read are tried again once their inode says that something changed, and now and then:
        a disk that is itself again changes no inode.
        """
        still = {}
        for path, closed in self._closed_files.items():
            now = scan.manifest.get(path)
            if now is not None and now.stamp == closed.stamp:
                still[path] = closed
                if self._whole_looks < closed.again_at and sync_mode is SyncMode.CHANGED:
                    del scan.manifest[path]
                    scan.unread.add(path)
                    self.warnings.append(closed.warning)
        self._closed_files = still

    def _note_closed(self, packed: Packed) -> None:
        before = self._closed_files
        self._closed_files = {path: closed for path, closed in before.items() if path not in packed.manifest}
        for path, (entry, warning) in packed.unread.items():
            wait = before[path].wait * 2 if path in before else 1
            self._closed_files[path] = _UnreadableFile(entry.stamp, warning, wait, self._whole_looks + wait)


def described(found: Difference) -> str:
    """The difference in a few words for the log."""
    components = []
    for word, paths in (("new", found.added), ("changed", found.changed), ("gone", found.removed)):
        if paths:
            components.append(f"{len(paths)} {word} ({shown_path(paths[0])}{', …' if len(paths) > 1 else ''})")
    return ", ".join(components) or "nothing new"
