"""The interface of every watch, and the choice of the one to use."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

from syncd.core.warning import SyncWarning
from syncd.selection.selection import Scope
from syncd.watch.changes import Changes, WakeCallback

logger = logging.getLogger(__name__)


class Watcher(Protocol):
    """The interface of a watch; `syncd.watch.inotify_watch.InotifyWatch` describes each method."""

    def open(self) -> None: ...
    def close(self) -> None: ...
    def begin(self) -> None: ...
    def add_rule_files(self, directories: Mapping[str, frozenset[str]]) -> None: ...
    def add_directory(self, path: str, fd: int, scope: Scope) -> None: ...
    def add_file(self, path: str, name: str, parent: int) -> None: ...
    def finish(self) -> None: ...
    def abort(self) -> None: ...
    def take(self) -> Changes: ...
    def warnings(self) -> tuple[SyncWarning, ...]: ...
    def unwatched(self) -> int: ...
    @property
    def needs_polling(self) -> bool: ...
    def alive(self) -> bool: ...


def watcher(root: str, wake: WakeCallback) -> Watcher:
    """Return a watch of the workspace at `root`: the exact one, or the fallback if watchdog's internals differ."""
    try:
        from syncd.watch.inotify_watch import InotifyWatch  # noqa: PLC0415 - the import may fail
    except Exception as error:  # noqa: BLE001 - also watchdog's own errors, as for a libc without inotify
        from syncd.watch.fallback_watch import FallbackWatch  # noqa: PLC0415 - it loads much, and is rarely needed

        logger.warning("watchdog's inotify layer is not as expected, watching coarsely: %s", error)
        return FallbackWatch(root, wake)
    return InotifyWatch(root, wake)
