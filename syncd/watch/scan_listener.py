"""The interface through which a scan reports the directories that it walks; the watch watches exactly these."""

from __future__ import annotations

from collections.abc import Mapping

from syncd.selection.selection import Scope


class ScanListener:
    """Receives the directories of a scan, and does nothing with them: commands that scan once need no more."""

    def begin(self) -> None:
        """Begin a full scan."""

    def add_rule_files(self, directories: Mapping[str, frozenset[str]]) -> None:
        """Add directories outside of the scan that hold or may later hold rules, each with the files' names."""

    def add_directory(self, path: str, fd: int, scope: Scope) -> None:
        """Add a directory; the scan lists it afterwards."""

    def finish(self) -> None:
        """End a full scan that succeeded: what it did not add no longer exists."""

    def abort(self) -> None:
        """End a full scan that failed."""
