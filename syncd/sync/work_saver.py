"""Saves the agent's work before it is lost: a sandbox ends, is left for another one, or is reset."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from syncd.core.errors import TryLater
from syncd.core.text import shown_path
from syncd.core.warning import SyncWarning
from syncd.remote.failure import StepFailed
from syncd.remote.target import Target
from syncd.sandbox.remote_changes import MOST_NAMED
from syncd.sandbox.saved_versions_rules import Why
from syncd.sync.agent_work import LeaveOut, save_all
from syncd.sync.sandbox_services import SandboxServices
from syncd.sync.sync_plan import SandboxContent

_log = logging.getLogger("syncd.work_saver")


@dataclass
class WorkSaver:
    """Saves all that differs in a sandbox. `leave_out` reads the workspace's rules as they are at that moment."""

    leave_out: Callable[[], LeaveOut]
    warnings: list[SyncWarning] = field(default_factory=list)
    _done_for: Target | None = None

    def is_done(self, target: Target) -> bool:
        """True if the work in this sandbox was saved before its end, as far as possible."""
        return self._done_for is not None and self._done_for.same_sandbox(target)

    def before_end(self, services: SandboxServices, content: SandboxContent) -> None:
        """Save the work in a sandbox that ends or is left, once. A failure becomes a warning. Raises `Stop`."""
        if self.is_done(services.target):
            return
        self._done_for = services.target
        if not services.remote_changes.looks:
            return
        try:
            self.save(services, content, Why.SANDBOX_ENDED)
        except (StepFailed, TryLater) as failure:
            self.warnings = [
                SyncWarning(
                    "unsaved",
                    f"what was changed in the sandbox could not be saved before it ended ({failure})",
                    "what was brought home before is here; the rest ended with the sandbox",
                )
            ]

    def save(self, services: SandboxServices, content: SandboxContent, why: Why) -> None:
        """Save all that differs in the sandbox from what was put there. Raises `StepFailed`, `TryLater`, `Stop`."""
        leftovers = services.deletion_sync.leftovers
        unsaved = save_all(services.remote_changes, content, leftovers, self.leave_out(), why)
        for path in unsaved[:MOST_NAMED]:
            _log.warning("%r in the sandbox was not saved", shown_path(path))
