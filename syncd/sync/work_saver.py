"""Saves the agent's work before it is lost: a sandbox ends, is left for another one, or is reset."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from syncd.core.clock import Clock
from syncd.core.errors import SandboxNotFound, SyncdError, TryLater
from syncd.core.formatting import counted
from syncd.core.text import shown_path
from syncd.core.waiter import Superseded
from syncd.core.warning import SyncWarning
from syncd.remote.failure import FailureAction, StepFailed
from syncd.remote.target import Target
from syncd.sandbox.remote_changes import MOST_NAMED
from syncd.sandbox.saved_versions_rules import Why
from syncd.sync.agent_work import LeaveOut, save_all
from syncd.sync.sandbox_services import SandboxServices
from syncd.sync.sync_plan import SandboxContent

_log = logging.getLogger("syncd.work_saver")
_SHOWN = 3
_TRIES = 3
# Nothing can mend it, so the warning does not stay for ever.
_WARNED_FOR_S = 86_400.0


@dataclass
class WorkSaver:
    """Saves all that differs in a sandbox. `leave_out` reads the workspace's rules as they are at that moment."""

    leave_out: Callable[[], LeaveOut]
    clock: Clock
    _warning: SyncWarning | None = None
    _warned_s: float = 0.0  # by the wall clock
    _done_for: Target | None = None
    _unsaved: str | None = None

    def is_done(self, target: Target) -> bool:
        """True if the work in this sandbox was saved before its end, as far as possible."""
        return self._done_for is not None and self._done_for.same_sandbox(target)

    def before_end(self, services: SandboxServices, content: SandboxContent) -> None:
        """Save the work in a sandbox that ends or is left, once. What is not saved is a warning. Raises `Stop`."""
        if self.is_done(services.target):
            return
        self._done_for = services.target
        if not services.remote_changes.looks:
            return
        try:
            unsaved = self._save_whatever_changes(services, content)
        except (StepFailed, SyncdError) as failure:
            what = f"what was changed in the sandbox could not be saved before it ended ({failure})"
            remedy = "what was brought home before is here; the rest ended with the sandbox"
            remote_changes = services.remote_changes
            # One that ended while the machine slept is no news, unless something is known to have been changed there.
            is_news = not _is_gone(failure) or bool(remote_changes.held or remote_changes.kept)
            self._warn(what, remedy, what if is_news else None)
        else:
            self._warning = None
            if unsaved:
                files = counted(len(unsaved), "file")
                what = f"{files} in the sandbox could not be saved before it ended: {_named(unsaved)}"
                self._warn(what, "while the sandbox is there, `syncd pull` brings all of it home", what)

    @property
    def warnings(self) -> list[SyncWarning]:
        """The warning about work that was not saved, for a day."""
        if self._warning is None or self.clock.wall_s() - self._warned_s > _WARNED_FOR_S:
            return []
        return [self._warning]

    def take_unsaved(self) -> str | None:
        """Return, once, what could not be saved and a person should know; None: there is nothing new."""
        unsaved, self._unsaved = self._unsaved, None
        return unsaved

    def save(self, services: SandboxServices, content: SandboxContent, why: Why) -> list[str]:
        """Save all that differs in the sandbox from what was put there, and return the paths that were not saved.

        Raises `StepFailed`, `SyncdError`, `Superseded`, `Stop`.
        """
        leftovers = services.deletion_sync.leftovers
        try:
            unsaved = save_all(services.remote_changes, content, leftovers, self.leave_out(), why)
        finally:
            services.remote_changes.drop_copies()
        for path in unsaved[:MOST_NAMED]:
            _log.warning("%r in the sandbox was not saved", shown_path(path))
        return unsaved

    def _save_whatever_changes(self, services: SandboxServices, content: SandboxContent) -> list[str]:
        """Save the work; a change here is no reason to lose the work there."""
        for _ in range(_TRIES):
            try:
                return self.save(services, content, Why.SANDBOX_ENDED)
            except Superseded:
                continue
        raise TryLater("the workspace changed all the time", "")

    def _warn(self, what: str, remedy: str, unsaved: str | None) -> None:
        self._warning, self._warned_s = SyncWarning("unsaved", what, remedy), self.clock.wall_s()
        self._unsaved = unsaved


def _is_gone(failure: Exception) -> bool:
    """True if the sandbox does not exist any more."""
    if not isinstance(failure, StepFailed) or failure.action is not FailureAction.REFUSED:
        return False
    return issubclass(failure.refusal, SandboxNotFound)


def _named(paths: list[str]) -> str:
    """Return the first paths, and how many more there are."""
    more = f" and {len(paths) - _SHOWN:,} more" if len(paths) > _SHOWN else ""
    return ", ".join(repr(shown_path(path)) for path in paths[:_SHOWN]) + more
