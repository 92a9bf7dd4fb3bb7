"""The interface through which a scan reports the directories that it walks; the watch watches exactly these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from syncd.selection.selection import Scope


class ScanListener(Protocol):
    """Receives the directories of a scan."""

    def begin(self) -> None:
        """Begin a full scan."""

    def add_rule_files(self, directories: Mapping[str, frozenset[str]]) -> None:
        """Add directories outside of the scan that hold or may later hold rules, each with the files' names."""

    def add_directory(self, path: str, fd: int, scope: Scope) -> None:
        """Add a directory; the scan lists it afterwards."""

    def add_file(self, path: str, name: str, parent: int) -> None:
        """Add a file with several names, in the directory open at `parent`; the scan reads its status afterwards."""

    def finish(self) -> None:
        """End a full scan that succeeded: what it did not add no longer exists."""

    def abort(self) -> None:
        """End a full scan that failed."""


class NoScanListener:
    """A listener that does nothing, for commands that scan once."""

    def begin(self) -> None:
        pass

    def add_rule_files(self, directories: Mapping[str, frozenset[str]]) -> None:
        pass

    def add_directory(self, path: str, fd: int, scope: Scope) -> None:
        pass

    def add_file(self, path: str, name: str, parent: int) -> None:
        pass

    def finish(self) -> None:
        pass

    def abort(self) -> None:
        pass
