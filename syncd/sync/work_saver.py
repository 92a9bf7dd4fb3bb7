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
_TRIES = 3
_WARNED_FOR_S = 86_400.0
_SHOWN = 3


@dataclass
class WorkSaver:
    """Saves all that differs in a sandbox. `leave_out` reads the workspace's rules as they are at that moment."""

    leave_out: Callable[[], LeaveOut]
    clock: Clock
    _unsaved: tuple[SyncWarning, float] | None = None  # with the second of the wall clock
    _news: str | None = None
    _done_for: Target | None = None

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
        for _ in range(_TRIES):
            try:
                unsaved = self.save(services, content, Why.SANDBOX_ENDED)
            except Superseded:
                continue  # a change here is no reason to lose the work there
            except (StepFailed, SyncdError) as failure:
                self._failed(services, failure)
            else:
                self._note_unsaved(services.target, unsaved)
            return
        self._failed(services, TryLater("the workspace changed all the time", ""))

    def take_news(self) -> str | None:
        """Return, once, what could not be saved and a person should know; None: there is nothing new."""
        news, self._news = self._news, None
        return news

    @property
    def warnings(self) -> list[SyncWarning]:
        """The warning about work that could not be saved, for a day: nothing can mend it."""
        if self._unsaved is None or self.clock.wall_s() - self._unsaved[1] > _WARNED_FOR_S:
            return []
        return [self._unsaved[0]]

    def _failed(self, services: SandboxServices, failure: Exception) -> None:
        sandbox = services.target.sandbox_id
        what = f"what was changed in the sandbox {sandbox} could not be saved before it ended ({failure})"
        self._warn(what, "what was brought home before is here; the rest ended with the sandbox")
        remote_changes = services.remote_changes
        # One that ended while the machine slept is no news, unless something is known to have been changed there.
        if not _is_gone(failure) or remote_changes.held or remote_changes.kept:
            self._news = what

    def _note_unsaved(self, target: Target, unsaved: list[str]) -> None:
        if not unsaved:
            self._unsaved = None
            return
        files = counted(len(unsaved), "file")
        named = ", ".join(repr(shown_path(path)) for path in sorted(unsaved)[:_SHOWN])
        more = f" and {len(unsaved) - _SHOWN:,} more" if len(unsaved) > _SHOWN else ""
        self._news = f"{files} in the sandbox {target.sandbox_id} could not be saved before it ended: {named}{more}"
        self._warn(self._news, "while the sandbox is there, `syncd pull` brings all of it home")

    def _warn(self, what: str, remedy: str) -> None:
        self._unsaved = SyncWarning("unsaved", what, remedy), self.clock.wall_s()

    def save(self, services: SandboxServices, content: SandboxContent, why: Why) -> list[str]:
        """Save all that differs in the sandbox from what was put there, and return the paths that were not saved.

        Raises `StepFailed`, `TryLater`, `Stop`.
        """
        leftovers = services.deletion_sync.leftovers
        try:
            unsaved = save_all(services.remote_changes, content, leftovers, self.leave_out(), why)
        finally:
            services.remote_changes.drop_copies()
        for path in unsaved[:MOST_NAMED]:
            _log.warning("%r in the sandbox was not saved", shown_path(path))
        return unsaved


def _is_gone(failure: Exception) -> bool:
    """True if the sandbox does not exist any more."""
    if isinstance(failure, StepFailed):
        return failure.action is FailureAction.REFUSED and issubclass(failure.refusal, SandboxNotFound)
    return isinstance(failure, SandboxNotFound)
