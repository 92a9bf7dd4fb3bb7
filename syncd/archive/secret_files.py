"""Excludes files in which a secret was found: from the daemon's snapshots, and from the lists that commands show."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

from msgspec.structs import replace

from syncd.core.warning import SyncWarning
from syncd.model.entry import Entry, Kind
from syncd.model.manifest import not_written_back
from syncd.scan.file_reader import ContentReader
from syncd.scan.scanner import Scan
from syncd.selection.secret_scanner import LARGEST_BYTES, Secret, secret_warning


class SecretFiles:
    """The files of one workspace that hold a secret. While they are unchanged, no sync reads them again."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[Entry, Secret]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def warnings(self, may_be_sent: Callable[[str], bool]) -> list[SyncWarning]:
        """The warnings; `may_be_sent` is true for a path of which the sandbox may hold an earlier version."""
        return [secret_warning(path, secret, sent=may_be_sent(path)) for path, (_, secret) in self._files.items()]

    def not_written_back(self) -> list[str]:
        """The files that may have changed although their stamps are the same: see `scan.manifest.not_written_back`."""
        return not_written_back({path: entry for path, (entry, _) in self._files.items()})

    def forget_stamps(self, paths: Collection[str]) -> None:
        """Have the next sync read these files again."""
        for path in self._files.keys() & paths:
            entry, secret = self._files[path]
            self._files[path] = replace(entry, stamp=None, written_back=False), secret

    def exclude(self, scan: Scan) -> None:
        """Remove the unchanged files from the scan, and forget the others: they are read again."""
        unchanged = {}
        for path, (entry, secret) in self._files.items():
            now = scan.manifest.get(path)
            if now is not None and now.stamp == entry.stamp and now.size_bytes == entry.size_bytes:
                del scan.manifest[path]
                scan.unread.add(path)  # that a secret is found, rightly or not, deletes nothing in the sandbox
                unchanged[path] = entry, secret
        self._files = unchanged

    def add(self, found: Mapping[str, tuple[Entry, Secret]]) -> None:
        """Remember files in which a secret was found while they were packed."""
        self._files |= found


def exclude_secret_files(scan: Scan, reader: ContentReader) -> dict[str, Secret]:
    """Remove the files that hold a secret from a scan that is not packed, and return their secrets.

    Reads every small file, since the daemon's findings are not on disk. Raises `WorkspaceError`.
    """
    entries = scan.manifest.items()
    secrets = reader.secrets(
        path for path, entry in entries if entry.kind is Kind.FILE and entry.size_bytes <= LARGEST_BYTES
    )
    for path in secrets:
        del scan.manifest[path]
    return secrets
