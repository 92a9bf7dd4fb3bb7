"""The parts of a sync that work with one sandbox."""

from __future__ import annotations

from msgspec import Struct

from syncd.core.warning import SyncWarning
from syncd.remote.target import Target
from syncd.sandbox.deletions import DeletionSync
from syncd.sandbox.partial_archives import PartialArchives
from syncd.sandbox.remote_changes import RemoteChanges
from syncd.sandbox.repository.agent_repository import AgentRepository
from syncd.sandbox.sandbox_state import SandboxState
from syncd.sync.delivery import Delivery


class SandboxServices(Struct, frozen=True):
    """The parts of a sync that work with one sandbox."""

    state: SandboxState
    delivery: Delivery
    deletion_sync: DeletionSync
    partial_archives: PartialArchives
    remote_changes: RemoteChanges
    agent_repository: AgentRepository

    @property
    def target(self) -> Target:
        """The sandbox's names."""
        return self.state.target

    def forget(self) -> None:
        """Forget what is known of the sandbox: it does not exist any more."""
        self.state.forget()
        self.agent_repository.forget()

    @property
    def warnings(self) -> list[SyncWarning]:
        """The warnings about the sandbox."""
        parts = (self.deletion_sync, self.partial_archives, self.remote_changes, self.state.seen)
        return [*(each for part in parts for each in part.warnings), *self.agent_repository.warnings]
