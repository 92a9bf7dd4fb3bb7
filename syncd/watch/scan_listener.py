"""Who wants to know which directories a scan walks: the watch, so that it hears of just those; or nobody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from syncd.selection.selection import Scope


class ScanListener(Protocol):
    """What wants to know which directories a scan walks: the watch, or nobody."""

    def begin(self) -> None:
        """A scan of the whole workspace starts."""

    def cover_rules(self, places: Mapping[str, frozenset[str]]) -> None:
        """Rules lie outside of the scan's directories, or may come to: the names that matter in each place."""

    def cover(self, path: str, fd: int, scope: Scope) -> None:
        """The directory is about to be listed."""

    def cover_file(self, path: str, name: str, parent: int) -> None:
        """The file of that name in the directory open at `parent` has other names too, and is about to be looked at."""

    def finish(self) -> None:
        """The scan is whole: what it did not cover is gone."""

    def abandon(self) -> None:
        """The scan failed and says nothing."""


class NoScanListener:
    """For commands that look once."""

    def begin(self) -> None:
        pass

    def cover_rules(self, places: Mapping[str, frozenset[str]]) -> None:
        pass

    def cover(self, path: str, fd: int, scope: Scope) -> None:
        pass

    def cover_file(self, path: str, name: str, parent: int) -> None:
        pass

    def finish(self) -> None:
        pass

    def abandon(self) -> None:
        pass
