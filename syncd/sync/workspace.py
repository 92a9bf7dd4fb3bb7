"""The workspace in this process, for all its sandboxes: what scans, reads and packs it, and whose turn it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import inf
from typing import Any

from msgspec import Struct

from syncd.archive.base_store import BaseStore
from syncd.archive.chunk_store import ChunkStore
from syncd.archive.packer import Packer
from syncd.archive.snapshotter import Snapshotter
from syncd.core.directories import Directories
from syncd.core.durable_file import remove_drafts
from syncd.core.settings import Config
from syncd.core.waiter import Waiter
from syncd.model.entry import Kind, arrived_digest
from syncd.model.manifest import Manifest
from syncd.sandbox.sandbox_state import SandboxState
from syncd.scan.exclusions import PathRules
from syncd.scan.file_reader import ContentReader
from syncd.scan.guards import LossGuard
from syncd.scan.scanner import Scanner
from syncd.selection.secret_scanner import SecretSearch
from syncd.selection.selection import Selection
from syncd.sync.agent_work import IsExcluded
from syncd.watch.changes import ScanListener


class Writer(Struct):
    """A command that writes to the workspace. `sandbox` is the name of the one whose state it changes, "" of any."""

    sandbox: str
    is_waiting: Callable[[], bool]
    send: Callable[[dict[str, Any]], None]
    is_ready: bool = False  # it was told that it may


class Workspace:
    """One workspace, with its folders, rules, scanner and packers. One snapshot of it is taken at a time.

    `states` are those of its sandboxes, by name, and `syncing` the names of those that are in a sync. `writers` are the
    commands that write to the workspace, or wait to.
    """

    def __init__(
        self,
        config: Config,
        folders: Directories,
        waiter: Waiter,
        environ: Mapping[str, str],
        *,
        selection: Selection,
        search: SecretSearch | None,
        excludes: str,
        listener: ScanListener | None = None,
    ) -> None:
        """Open its folders, with the lock held. `excludes` is the path of the person's own exclude file."""
        path = config.workspace.path
        self.path = path
        self.folders = folders
        self.waiter = waiter
        self.environ = environ
        self.search = search
        self.searched = "" if search is None else search.digest
        self._selection = selection
        self._excludes = excludes
        self._max_mib = config.sync.max_snapshot_mib
        remove_drafts(folders.state)
        store, part_store = ChunkStore(folders.spool), ChunkStore(os.path.join(folders.spool, "changes"))
        store.open()
        part_store.keep_only([])  # what an earlier process sent in part is of no use to this one
        self.base_store = BaseStore(folders.spool, store)
        self._guard = LossGuard(path, folders.state)
        self._guard.load()
        check, clock = waiter.poll_events, waiter.clock
        self._scanner = Scanner(
            path,
            selection,
            listener or ScanListener(),
            check=check,
            personal_excludes=excludes,
            link=config.workspace_link,
            alone=waiter.tasks.alone,
        )
        self._reader = ContentReader(path, clock, check, search)
        self._packer = Packer(path, store, clock, check, search, base_store=self.base_store)
        self._part_packer = Packer(path, part_store, clock, check, search)
        self._is_snapshotting = False
        self.syncing: set[str] = set()
        self.states: dict[str, SandboxState] = {}
        self.writers: list[Writer] = []

    def snapshotter(self, name: str) -> Snapshotter:
        """Return what takes the snapshots for the sandbox of this name."""
        return Snapshotter(
            self._scanner,
            self._guard,
            self._reader,
            self._packer,
            self._part_packer,
            self.waiter.clock,
            self.folders.spool,
            self._max_mib,
            name,
        )

    def is_excluded(self) -> IsExcluded:
        """Return the workspace's rules as they are now."""
        return PathRules(self.path, self._selection, self._excludes).exclude

    def other_bases(self, name: str) -> list[Manifest]:
        """Return what the other sandboxes hold: what was sent to them is kept for their merges."""
        return [state.content.base for each, state in self.states.items() if each != name]

    def sent_digests(self, name: str, base: Manifest) -> set[bytes]:
        """Return the digests of all files that count as sent, which merges may need: this one's base, and all else."""
        left = (state.content.left for state in self.states.values())
        manifests = (base, *left, *self.other_bases(name))
        return {arrived_digest(each) for sent in manifests for each in sent.values() if each.kind is Kind.FILE}

    # -- whose turn it is

    @contextmanager
    def snapshot_turn(self) -> Iterator[None]:
        """Take a snapshot within the context: no other one is taken meanwhile, and no command writes. Raises `Stop`."""
        while self._is_snapshotting or any(each.is_ready for each in self.writers):
            self.waiter.wait(inf)
        self._is_snapshotting = True
        try:
            yield
        finally:
            self._is_snapshotting = False
            self.let_write()
            self.waiter.tasks.wake()

    @contextmanager
    def sync_of(self, name: str) -> Iterator[None]:
        """Sync to the sandbox of this name within the context; a command may wait for the end."""
        self.syncing.add(name)
        try:
            yield
        finally:
            self.syncing.discard(name)
            self.let_write()

    def let_write(self) -> None:
        """Tell commands that they may write to the workspace, where no sync is in their way."""
        if self._is_snapshotting:
            return
        for writer in self.writers:
            is_in_way = bool(self.syncing) if writer.sandbox == "" else writer.sandbox in self.syncing
            if not writer.is_ready and not is_in_way:
                writer.is_ready = True
                writer.send({"event": "ready"})

    def forget_ended_writers(self) -> bool:
        """Forget the commands that have ended; return True if there were any."""
        before, self.writers = self.writers, [each for each in self.writers if each.is_waiting()]
        return len(self.writers) < len(before)

    def keeps_from_syncing(self, name: str) -> bool:
        """True if no sync to this sandbox may begin, as a command writes to the workspace or waits for that."""
        return any(each.is_ready or each.sandbox in ("", name) for each in self.writers)
