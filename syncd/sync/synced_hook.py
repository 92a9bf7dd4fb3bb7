"""Runs the program of `sync.on_synced` after each sync that arrived, and tells it in a file what changed there.

The loop never waits for it. Syncs that arrive while it runs become one more run, which gets all their changes. A reload
ends no run, and forgets nothing that one is still to be told.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from itertools import islice

from msgspec import structs

from syncd.core.clock import Clock
from syncd.core.errors import SyncWarning
from syncd.core.hook import Hook, HookResult
from syncd.core.settings import Config
from syncd.remote.target import Target
from syncd.sandbox.agent_info import callable_servers
from syncd.sandbox.mcp_servers import AgentRecord, agent_state
from syncd.sync.arrived_changes import ArrivedChanges, Change, CombinedChanges

_log = logging.getLogger("syncd")

TIMEOUT_S = 60.0
_NAME = "synced-changes.json"
# The name of the sandbox in the configuration; a workspace has one.
_SANDBOX = "main"
# So many paths are encoded at once: a first sync may have a million.
_BATCH = 10_000


class ChangesFile:
    """The file from which a run reads its changes, for that run alone: the paths of the workspace, so it is private."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, _NAME)

    def write(self, sandbox: Mapping[str, object], changes: CombinedChanges) -> None:
        """Write the file: an object with these members and the lists of paths. Raises `OSError`."""
        self.remove()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(self.path, flags, 0o600), "w", encoding="ascii") as file:
            file.write(json.dumps(sandbox)[:-1])
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
    """Runs the hook of one workspace's syncs; one object a process."""

    def __init__(self, environ: Mapping[str, str], clock: Clock) -> None:
        self._hook = Hook("on_synced", TIMEOUT_S, environ, clock)
        self._config_file = ""
        self._changes_file = ChangesFile("")
        self._state = agent_state("")
        self._target: Target | None = None
        self._servers: Mapping[str, str] = {}
        self._pending: CombinedChanges | None = None  # of syncs that no run was told of
        self._running_for = ""
        self._failure = ""

    def configure(self, config: Config, state_folder: str) -> None:
        """Let the next run be that of this configuration; one under way goes on, unless its workspace is another.

        To be called with the workspace's lock held.
        """
        changes_file = ChangesFile(state_folder)
        if changes_file.path != self._changes_file.path:
            self.close()
        if config.sync.on_synced != self._hook.command:
            self._hook.command, self._failure = config.sync.on_synced, ""
        self._config_file, self._changes_file = os.path.abspath(config.file), changes_file
        self._state = agent_state(state_folder)
        if not self._hook.running:
            changes_file.remove()  # of a process that was killed

    def arrived(self, target: Target | None, changes: ArrivedChanges | None, servers: Mapping[str, str]) -> None:
        """Run the program, now or once it has ended, if the sync brought changes to this sandbox; None: it did not."""
        if not self._hook.is_configured or target is None or changes is None:
            return
        if self._target is None or not self._target.same_sandbox(target):
            self._pending = None  # the other sandbox is left
        self._target, self._servers = target, callable_servers(servers)
        self._pending = self._pending or CombinedChanges()
        self._pending.add(changes)
        self._run()

    @property
    def is_running(self) -> bool:
        """True while the program runs."""
        return self._hook.running

    def filenos(self) -> list[int]:
        """Return the descriptors that become readable when `poll` has something to do."""
        return self._hook.filenos()

    @property
    def due_s(self) -> float | None:
        """The monotonic second at which the program's time is over; None if it does not run."""
        return self._hook.due_s

    def poll(self) -> bool:
        """Handle the program's output and end; return True if `warnings` may have changed."""
        ended = self._hook.poll()
        if ended is None:
            return False
        self._record_end(ended)
        self._run()
        return True

    def close(self) -> None:
        """End a running program, and forget what waits for the next one."""
        if self._hook.running:
            self._hook.terminate()
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
        if self._hook.running or not self._hook.is_configured or self._target is None or self._pending is None:
            return
        self._running_for = f"{self._target.base_url} {self._target.sandbox_id}"
        sandbox = {
            "sandbox": _SANDBOX,
            "sandbox_id": self._target.sandbox_id,
            "sandbox_changed": self._told != self._running_for,
            "mcp_servers": self._servers,
        }
        try:
            self._changes_file.write(sandbox, self._pending)
        except OSError as failure:
            # The next run tells of these changes too.
            self._record_end(HookResult(f"is not run, as its file cannot be written ({failure.strerror})"))
            return
        self._pending = None
        _log.info("running sync.on_synced")
        variables = {"SYNCD_CONFIG": self._config_file, "SYNCD_CHANGES": self._changes_file.path}
        hidden = {url: f"[URL of {name}]" for name, url in self._servers.items()}
        failed = self._hook.start(variables, hidden)
        if failed is not None:
            self._record_end(failed)

    @property
    def _told(self) -> str:
        """The sandbox of the last run that succeeded."""
        record = self._state.load()
        return record.told if record is not None else ""

    def _record_end(self, ended: HookResult) -> None:
        self._changes_file.remove()
        self._failure = ended.failure
        if not ended.failure and self._told != self._running_for:
            record = self._state.load() or AgentRecord()
            with contextlib.suppress(OSError):  # then the next run is told of its sandbox once more
                self._state.save(structs.replace(record, told=self._running_for))
