"""The files that hold a secret, remembered while they are what they were: no look reads them again for that."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from msgspec.structs import replace

from syncd.archive.packer import Packed
from syncd.core.warning import SyncWarning
from syncd.scan.manifest import Entry, not_written_back
from syncd.scan.scanner import Scan
from syncd.selection.secret_scanner import Secret, secret_files


class SecretFiles:
    """Those of one workspace."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[Entry, Secret]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def warnings(self, may_be_there: Callable[[str], bool]) -> list[SyncWarning]:
        """The warnings; `may_be_there` says of a path whether the sandbox may hold an earlier version of it."""
        return [secret_files(path, secret, sent=may_be_there(path)) for path, (_, secret) in self._files.items()]

    def not_written_back(self) -> list[str]:
        """As `policy.manifest.not_written_back`."""
        return not_written_back({path: entry for path, (entry, _) in self._files.items()})

    def forget_stamps(self, paths: Collection[str]) -> None:
        """See by the next look whether these files still hold their secrets."""
        for path in self._files.keys() & paths:
            entry, secret = self._files[path]
            self._files[path] = replace(entry, stamp=None, written_back=False), secret

    def leave_out(self, scan: Scan) -> None:
        """Take them out of the scan. What was found too young to be believed is looked at."""
        still = {}
        for path, (entry, secret) in self._files.items():
            now = scan.manifest.get(path)
            if now is not None and now.stamp == entry.stamp and now.size_bytes == entry.size_bytes:
                del scan.manifest[path]
                scan.unread.add(path)  # that the search finds something, rightly or not, deletes nothing anywhere
                still[path] = entry, secret
        self._files = still

    def note(self, packed: Packed) -> None:
        """Remember what packing held back."""
        self._files |= packed.secret_files
