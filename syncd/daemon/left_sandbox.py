"""An acquired sandbox whose table a person removed from the configuration: its agent's work is saved before it ends."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from syncd.core.errors import SyncdError, SyncWarning
from syncd.core.waiter import Waiter
from syncd.remote.failure import StepFailed, backoff_limit_s
from syncd.remote.target import Target
from syncd.sandbox.seen_paths import FIRST_WAIT_S, LONGEST_WAIT_S
from syncd.sync.sandbox import SandboxServices
from syncd.sync.work_saver import WorkSaver


class LeftSandbox(Struct):
    """Saves what differs in one such sandbox, and has it forgotten then.

    `services` raises `SyncdError` if nobody can ask the sandbox. `is_over`: it is not to be saved by this process any
    more. `forget` raises `OSError`. `told` is called when the warnings are others.
    """

    name: str
    target: Target
    services: Callable[[], SandboxServices]
    work_saver: WorkSaver
    waiter: Waiter
    is_over: Callable[[], bool]
    forget: Callable[[], None]
    told: Callable[[], None]
    warnings: list[SyncWarning] = []

    def run(self) -> None:
        """Try until it is saved. Raises `Stop`."""
        failures, clock = 0, self.waiter.clock
        while not self.is_over() and not self._is_saved():
            failures += 1
            due_s = clock.monotonic_s() + backoff_limit_s(failures, FIRST_WAIT_S, LONGEST_WAIT_S)
            while not self.is_over() and clock.monotonic_s() < due_s:
                self.waiter.wait(due_s)

    def try_once(self) -> None:
        """Try to save it. Raises `Stop`."""
        self._is_saved()

    def _is_saved(self) -> bool:
        try:
            self.work_saver.before_move(self.services())
            self.forget()
        except OSError as failure:
            self._warn(f"the state folder cannot be written ({failure.strerror})")
            return False
        except (StepFailed, SyncdError) as failure:
            self._warn(failure.message)
            return False
        self.warnings = self.work_saver.warnings
        self.told()
        return True

    def _warn(self, why: str) -> None:
        what = f"[sandboxes.{self.name}] was removed before its agent's work was saved ({why})"
        remedy = f"it is tried again by itself; `syncd sandbox release --yes {self.target.sandbox_id}` gives it up"
        self.warnings = [SyncWarning(f"removed:{self.name}", what, remedy)]
        self.told()
