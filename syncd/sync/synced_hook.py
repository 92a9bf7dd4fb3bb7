"""Runs the program of `sync.on_synced` after each sync that arrived, and tells it in a file what changed there.

The loop never waits for it. Syncs that arrive while it runs become one more run, which gets all their changes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from itertools import islice

from syncd.core.context import RuntimeContext
from syncd.core.hook import Hook, HookResult
from syncd.core.warning import SyncWarning
from syncd.remote.target import Target
from syncd.sync.arrived_changes import ArrivedChanges, Change, CombinedChanges

_log = logging.getLogger("syncd")

TIMEOUT_S = 60.0
_NAME = "synced-changes.json"
# So many paths are encoded at once: a first sync may have a million.
_BATCH = 10_000


class ChangesFile:
    """The file from which a run reads its changes, for that run alone: the paths of the workspace, so it is private."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, _NAME)

    def write(self, sandbox_id: str, changes: CombinedChanges) -> None:
        """Write the file. Raises `OSError`."""
        self.remove()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(self.path, flags, 0o600), "w", encoding="ascii") as file:
            file.write('{"sandbox_id": ' + json.dumps(sandbox_id))
            for change in Change:
                file.write(f', "{change}": [')
                file.writelines(_listed(changes.paths(change)))
                file.write("]")
            file.write("}\n")

    def remove(self) -> None:
        """Remove the file, if there is one."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)


def _listed(paths: Iterator[str]) -> Iterator[str]:
    """Yield the items of a JSON array."""
    separator = ""
    while batch := list(islice(paths, _BATCH)):
        yield separator + json.dumps(batch)[1:-1]
        separator = ", "


class SyncedHook:
    """Runs the hook of one workspace's syncs."""

    def __init__(self, hook: Hook) -> None:
        self.hook = hook
        self._config_file = ""
        self._changes_file = ChangesFile("")
        self._target: Target | None = None
        self._pending: CombinedChanges | None = None  # of syncs that no run was told of
        self._failure = ""

    def configure(self, command: tuple[str, ...], config_file: str, changes_file: ChangesFile) -> None:
        """Let the next run be that of this configuration; one under way goes on."""
        if command != self.hook.command:
            self.hook.command, self._failure = command, ""
        self._config_file, self._changes_file = config_file, changes_file
        if not self.hook.running:
            changes_file.remove()  # of a process that was killed

    def arrived(self, target: Target | None, changes: ArrivedChanges | None) -> None:
        """Run the program, now or once it has ended, if the sync brought changes to this sandbox; None: it did not."""
        if not self.hook.is_configured or target is None or changes is None:
            return
        if self._target is None or not self._target.same_sandbox(target):
            self._target, self._pending = target, None  # the other sandbox is left
        self._pending = self._pending or CombinedChanges()
        self._pending.add(changes)
        self._run()

    def poll(self) -> bool:
        """Handle the program's output and end; return True if `warnings` may have changed."""
        ended = self.hook.poll()
        if ended is None:
            return False
        self._record_end(ended)
        self._run()
        return True

    def close(self) -> None:
        """End a running program, and forget what waits for the next one."""
        if self.hook.running:
            self.hook.terminate()
            self._changes_file.remove()
        self._target, self._pending = None, None

    @property
    def warnings(self) -> list[SyncWarning]:
        """The warning about the last run that has ended, if it failed."""
        if not self._failure:
            return []
        what = f"sync.on_synced {self._failure}; it is run again after the next sync"
        return [SyncWarning("synced:hook", what, "see its output in the log, then change the command")]

    def _run(self) -> None:
        if self.hook.running or not self.hook.is_configured or self._target is None or self._pending is None:
            return
        try:
            self._changes_file.write(self._target.sandbox_id, self._pending)
        except OSError as failure:
            # The next run tells of these changes too.
            self._record_end(HookResult(f"is not run, as its file cannot be written ({failure.strerror})"))
            return
        self._pending = None
        _log.info("running sync.on_synced")
        variables = {"SYNCD_CONFIG": self._config_file, "SYNCD_CHANGES": self._changes_file.path}
        failed = self.hook.start(variables, {})
        if failed is not None:
            self._record_end(failed)

    def _record_end(self, ended: HookResult) -> None:
        self._changes_file.remove()
        self._failure = ended.failure


def synced_hook_of(context: RuntimeContext) -> SyncedHook:
    """Return the hook of a process, not configured yet."""
    return SyncedHook(Hook("on_synced", TIMEOUT_S, context.environ, context.clock))
