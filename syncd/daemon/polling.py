"""Plans the polls: scans of those parts of the workspace from which not every change is reported.

A poll scans the directories on shared file systems in the workspace. It scans everything if the workspace itself is on
one, or if a part of it has no watch. The rest of the workspace is followed by its events meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import inf

from syncd.core.warning import SyncWarning
from syncd.model.entry import YOUNG_NS
from syncd.model.manifest import Difference
from syncd.watch.inotify_watch import InotifyWatch
from syncd.watch.mounts import MountMonitor, poll_interval_s, shared_warning


class Polling:
    """The polls of one workspace. `directories_within` returns those of the last scan, as `Scanner` does."""

    def __init__(
        self,
        watch: InotifyWatch,
        mounts: MountMonitor,
        directories_within: Callable[[Collection[str], Collection[str]], frozenset[str]],
    ) -> None:
        self._watch = watch
        self._mounts = mounts
        self._directories_within = directories_within
        self._is_due = False  # at the sync under way
        self._took_s = 0.0
        self._sent: list[tuple[float, frozenset[str]]] = []
        self.due_s = inf
        self.warnings: tuple[SyncWarning, ...] = ()

    def add_due(
        self, directories: frozenset[str] | None, files: frozenset[str] | None, now_s: float
    ) -> tuple[frozenset[str] | None, frozenset[str] | None]:
        """Return the directories and files to scan, None for all, with those of a poll if one is due."""
        self._is_due = now_s >= self.due_s
        if not self._is_due:
            return directories, files
        polled = self._polled()
        directories = None if directories is None or polled is None else directories | polled
        return directories, None if files is None else files | self._take_sent(now_s)

    def scanned(self, directories: frozenset[str] | None, now_s: float, took_s: float) -> None:
        """Plan the next poll, after a scan of these directories (None: of everything) that took so long."""
        if directories is not None and not self._is_due:
            return
        polled = self._polled()
        if self._is_due or polled is None:  # the time of a full scan says nothing of a part
            self._took_s = took_s
        self._is_due = False
        self.due_s = inf if polled is not None and not polled else now_s + poll_interval_s(self._took_s)
        found = self._on_shared_mounts()
        shared = self._mounts.mounts.shared
        self.warnings = tuple(shared_warning(path, kind) for path, kind in shared.items() if path in found)

    def sent(self, change: Difference | None, now_s: float) -> None:
        """Note what was sent, which a later poll reads once more.

        The clock of a shared file system may be slow and its times coarse: so a file that was written again right after
        it was read may have the stamp of that read, which looked old enough to be trusted.
        """
        mounts = self._mounts.mounts
        if change is None or not mounts.shared or self._watch.needs_polling:
            return
        shared = frozenset(path for path in (*change.added, *change.changed) if mounts.is_shared(path))
        if shared:
            self._sent.append((now_s, shared))

    def _take_sent(self, now_s: float) -> frozenset[str]:
        """Return what was sent so long ago that a later write has another stamp by now."""
        settled = [paths for sent_s, paths in self._sent if now_s - sent_s >= YOUNG_NS / 1e9]
        self._sent = self._sent[len(settled) :]
        return frozenset().union(*settled)

    def _polled(self) -> frozenset[str] | None:
        if self._watch.needs_polling or self._mounts.mounts.share_workspace:
            return None
        return self._on_shared_mounts()

    def _on_shared_mounts(self) -> frozenset[str]:
        return self._directories_within(self._mounts.mounts.shared, self._mounts.mounts.local)
