"""Saves the agent's work before it is lost: a sandbox ends, is left for another one, or is reset."""

from __future__ import annotations

import logging
from collections.abc import Callable

from msgspec import Struct

from syncd.archive.base_store import BaseStore
from syncd.core.clock import Clock
from syncd.core.errors import KeyRefused, SandboxNotFound, SyncdError, TryLater
from syncd.core.formatting import MOST_NAMED
from syncd.core.text import shown_path
from syncd.core.waiter import Superseded
from syncd.core.warning import SyncWarning
from syncd.remote.failure import FailureAction, StepFailed
from syncd.remote.target import Target
from syncd.sandbox.saved_versions_rules import Why
from syncd.sync.agent_work import LeaveOut, Unsaved, find_agent_work, save_work
from syncd.sync.sandbox_services import SandboxServices
from syncd.sync.sync_plan import SandboxContent

_log = logging.getLogger("syncd.work_saver")
_TRIES = 3
# Nothing can mend it, so the warning does not stay for ever.
_WARNED_FOR_S = 86_400.0


class WorkSaver(Struct):
    """Saves all that differs in a sandbox. `leave_out` reads the workspace's rules as they are at that moment."""

    leave_out: Callable[[], LeaveOut]
    clock: Clock
    base_store: BaseStore
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
                what = f"{unsaved.count} in the sandbox could not be saved before it ended: {unsaved}"
                self._warn(what, "while the sandbox is there, `syncd pull` brings all of it home", what)

    def before_move(self, services: SandboxServices, content: SandboxContent) -> None:
        """Save the work in a sandbox that is left for another one, while it answers.

        Raises `StepFailed` or `SyncdError` if the move has to wait, `Superseded`, `Stop`.
        """
        sandbox_id = services.target.sandbox_id
        give_up = f"a sync follows by itself; `syncd sandbox release --yes {sandbox_id}` gives that work up"
        if self.is_done(services.target) or not services.remote_changes.looks:
            return
        try:
            unsaved = self.save(services, content, Why.SANDBOX_ENDED)
        except StepFailed as failure:
            if failure.action is not FailureAction.REFUSED or failure.refusal is KeyRefused:
                what = f"what was changed in the sandbox {sandbox_id} cannot be saved before it is left"
                message = f"{what} ({failure.message})"
                raise StepFailed(failure.step, failure.action, message, give_up, refusal=failure.refusal) from None
            if not services.remote_changes.is_gone(failure):
                services.remote_changes.could_not_look(failure)
            self.before_end(services, content)
        else:
            if unsaved:
                raise TryLater(
                    f"the sandbox {sandbox_id} is not left, as {unsaved.count} there could not be saved: {unsaved}",
                    give_up,
                )
            self.note_done(services.target)

    def before_reset(self, services: SandboxServices, content: SandboxContent, why: Why) -> None:
        """Save the work in a sandbox of which nothing will be left. Raises as `before_move` does."""
        unsaved = self.save(services, content, why)
        if unsaved:
            raise TryLater(
                f"nothing is sent, as the sandbox would lose {unsaved.count} that could not be saved: {unsaved}",
                "mend that or move it away there; a sync follows by itself",
            )

    def note_done(self, target: Target) -> None:
        """Note that nothing more is to be saved in this sandbox: that was done, or it was released."""
        self._done_for = target

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

    def save(self, services: SandboxServices, content: SandboxContent, why: Why) -> Unsaved:
        """Save all that differs in the sandbox from what was put there, and return what was not saved.

        Raises `StepFailed`, `SyncdError`, `Superseded`, `Stop`.
        """
        remote_changes, leftovers = services.remote_changes, services.deletion_sync.leftovers
        try:
            work = find_agent_work(remote_changes, content, leftovers, self.leave_out())
            unsaved = save_work(remote_changes, work, why, self.base_store.get)
        finally:
            remote_changes.drop_copies()
        for path, reason in list(unsaved.paths.items())[:MOST_NAMED]:
            _log.warning("%r in the sandbox was not saved: %s", shown_path(path), reason)
        return unsaved

    def _save_whatever_changes(self, services: SandboxServices, content: SandboxContent) -> Unsaved:
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
