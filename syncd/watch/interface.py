"""What the daemon asks of any watch, and which one it gets."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

from syncd.core.warning import SyncWarning
from syncd.selection.selection import Scope
from syncd.watch.changes import Changes, WakeCallback

logger = logging.getLogger(__name__)


class Watcher(Protocol):
    """See `syncd.watch.inotify_watch.InotifyWatch`, which says what each does."""

    def open(self) -> None: ...
    def close(self) -> None: ...
    def begin(self) -> None: ...
    def cover_rules(self, places: Mapping[str, frozenset[str]]) -> None: ...
    def cover(self, path: str, fd: int, scope: Scope) -> None: ...
    def cover_file(self, path: str, name: str, parent: int) -> None: ...
    def finish(self) -> None: ...
    def abandon(self) -> None: ...
    def take(self) -> Changes: ...
    def warnings(self) -> tuple[SyncWarning, ...]: ...
    def unwatched(self) -> int: ...
    @property
    def needs_polling(self) -> bool: ...
    def alive(self) -> bool: ...


def watcher(root: str, wake: WakeCallback) -> Watcher:
    """A watch of the workspace at `root`: the exact one, or a coarse one where watchdog is not the one we know."""
    try:
        from syncd.watch.inotify_watch import InotifyWatch  # noqa: PLC0415 - whether it can be imported is the question
    except Exception as error:  # noqa: BLE001 - watchdog's own errors among them: a libc without inotify
        from syncd.watch.fallback_watch import FallbackWatch  # noqa: PLC0415 - loads much that is hardly ever needed

        logger.warning("watchdog's inotify layer is not as expected, watching coarsely: %s", error)
        return FallbackWatch(root, wake)
    return InotifyWatch(root, wake)
