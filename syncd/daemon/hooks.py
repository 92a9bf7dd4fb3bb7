"""The person's programs of one process. A reload ends none, and forgets nothing that one is still to be told."""

from __future__ import annotations

import os

from syncd.core.context import RuntimeContext
from syncd.core.directories import Directories
from syncd.core.settings import Config
from syncd.sandbox.agent_notifier import sandbox_hook_of
from syncd.sync.synced_hook import ChangesFile, synced_hook_of


class Hooks:
    """Those of the configuration that was read last."""

    def __init__(self, context: RuntimeContext) -> None:
        self.on_sandbox_change = sandbox_hook_of(context)
        self.on_synced = synced_hook_of(context)
        self._folder = ""

    def configure(self, config: Config, folders: Directories) -> None:
        """Take over a configuration; the programs end if it has another workspace. To be called with its lock held."""
        if folders.state != self._folder:
            self.close()
            self._folder = folders.state
        self.on_sandbox_change.command = config.sandbox.on_sandbox_change
        changes_file = ChangesFile(folders.state)
        self.on_synced.configure(config.sync.on_synced, os.path.abspath(config.file), changes_file)

    def close(self) -> None:
        """End running programs."""
        self.on_sandbox_change.terminate()
        self.on_synced.close()
