"""An acquired sandbox whose table a person removed from the configuration: its agent's work is saved before it ends."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from msgspec.structs import replace

from syncd.core.clock import Clock
from syncd.core.errors import ConfigError, SyncdError, SyncWarning
from syncd.core.settings import MAIN, AcquireKeys, Config
from syncd.remote.failure import NextTry, StepFailed
from syncd.remote.target import Target
from syncd.sandbox.provider import AcquiredSandboxStore, acquired_of
from syncd.sandbox.sandbox_state import forget_name, last_target, recorded_names
from syncd.sandbox.saved_versions import SavedVersions
from syncd.store.state_db import StateDb
from syncd.sync.following import save_followed_in_removed
from syncd.sync.sandbox import Access, Sandbox
from syncd.sync.work_saver import WorkSaver
from syncd.sync.workspace import Workspace


class RemovedSandbox:
    """Saves what differs in one such sandbox, and has it forgotten then."""

    def __init__(self, access: Access, target: Target, workspace: Workspace) -> None:
        """`access` has the configuration of `removed_configs`, and the key of main."""
        self.name = access.config.sandbox_name
        self.warnings: list[SyncWarning] = []
        self._access = access
        self._target = target
        self._searched = workspace.searched
        self._work_saver = WorkSaver(access, workspace)

    def save_in_the_end(self, told: Callable[[], None]) -> None:
        """Try to save it until it is saved; `told` is called after each try. Raises `Stop`."""
        waiter, next_try = self._access.waiter, NextTry()
        while not self.save():
            told()
            next_try.failed(waiter.clock.monotonic_s())
            waiter.sleep(next_try.at_s - waiter.clock.monotonic_s())
        told()

    def save(self) -> bool:
        """Try to save it; return True if it is. What keeps it from that is in `warnings`. Raises `Stop`."""
        access = self._access
        try:
            self._work_saver.before_move(self._open())
            _forget(access.db, self.name, access.clock)
            AcquiredSandboxStore(access.config, access.folders.state).save(None, [])
        except OSError as failure:
            self._warn(f"the state folder cannot be written ({failure.strerror})")
            return False
        except (StepFailed, SyncdError) as failure:
            self._warn(failure.message)
            return False
        self.warnings = self._work_saver.warnings
        return True

    def _open(self) -> Sandbox:
        """Return the sandbox. Raises `SyncdError` if nobody can ask it."""
        if self._access.refusal is not None:
            raise self._access.refusal
        if self._target.base_url != self._access.config.sandboxes[MAIN].base_url:
            # No key goes to another server than the one that it is for.
            what = f"nobody can ask it, as its base_url is {self._target.base_url}, and not that of [sandbox]"
            table, command = f"[sandboxes.{self.name}]", f"syncd sandbox remove {self.name}"
            raise ConfigError(what, f"put the table {table} back, and run `{command}`")
        copies_folder = os.path.join(self._access.folders.spool, f"left-{self.name}")
        return Sandbox(self._access, self._target, copies_folder, self._searched)

    def _warn(self, why: str) -> None:
        what = f"[sandboxes.{self.name}] was removed before its agent's work was saved ({why})"
        remedy = f"it is tried again by itself; `syncd sandbox release --yes {self._target.sandbox_id}` gives it up"
        self.warnings = [SyncWarning(f"removed:{self.name}", what, remedy)]


def removed_configs(config: Config, state_folder: str, db: StateDb, clock: Clock) -> list[tuple[Config, Target]]:
    """Forget the sandboxes that the configuration has no more, and return those whose work is to be saved before.

    These were acquired, so they end by themselves. Each has the configuration of main, but for what is known of it.
    """
    main, found = config.sandboxes[MAIN], []
    with suppress(OSError):  # the next process tries again
        for name in recorded_names(db) - config.sandboxes.keys():
            target = last_target(db, name)
            if target is not None:
                keys = replace(main, id=None, acquire=AcquireKeys(), base_url=target.base_url, region=target.region)
                own = replace(config, sandbox=keys, sandbox_name=name)
                acquired_sandbox = acquired_of(own, state_folder)
                if acquired_sandbox is not None and acquired_sandbox.sandbox_id == target.sandbox_id:
                    found.append((own, target))
                    continue
            _forget(db, name, clock)
    return found


def _forget(db: StateDb, name: str, clock: Clock) -> None:
    """Forget a name that the configuration has no more: one that is added again is a new sandbox.

    What was followed there is saved before. Raises `OSError`.
    """
    target = last_target(db, name)
    if target is not None:
        save_followed_in_removed(db, target, SavedVersions(db, clock, name))
    forget_name(db, name)
