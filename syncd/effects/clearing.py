"""Makes way in the sandbox for a snapshot, as `sandbox.deletions` says, and remembers what could not be cleared."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable

from syncd.base.errors import KeyRefused
from syncd.base.problem import Problem
from syncd.base.text import shown_path
from syncd.effects.api import Api
from syncd.effects.failure import StepFailed
from syncd.effects.removal import Remover
from syncd.policy.manifest import Manifest
from syncd.policy.removal import Deletions, Versions, doomed
from syncd.policy.verdict import Verdict

_log = logging.getLogger("syncd.clearing")


class Clearing:
    """What goes on before the initializes of one sandbox. `owed` are entries that are still to be removed there."""

    def __init__(
        self, deletions: Deletions, api: Api, remover: Remover, check: Callable[[], None] = lambda: None
    ) -> None:
        self._deletions = deletions
        self._api = api
        self._remover = remover
        self._check = check
        self._kept: dict[str, Problem] = {}
        self._failed: dict[str, Problem] = {}
        self.owed: Manifest = {}

    @property
    def problems(self) -> list[Problem]:
        """What stays in the sandbox although it is gone here, and why."""
        return [*self._kept.values(), *self._failed.values()]

    @property
    def removes(self) -> bool:
        """Whether anything is ever removed."""
        return self._deletions is not Deletions.KEEP

    def doomed(self, held: Iterable[Manifest], wanted: Manifest, unread: Collection[str]) -> Versions:
        """What is to go before `wanted` is initialized over what may be there, and what an earlier time left undone."""
        if not self.removes:
            return {}
        self._kept = {path: problem for path, problem in self._kept.items() if path not in wanted}
        return doomed([*held, self.owed], wanted, unread)

    def empties(self, doomed: Versions) -> bool:
        """Whether clearing takes everything away, so that only a whole archive can follow."""
        return bool(doomed) and self._deletions is Deletions.RESET

    def clear(self, doomed: Versions) -> None:
        """Remove these paths there. Raises `StepFailed`, `Stop`.

        What cannot be removed becomes a problem, and no reason to hold back everything else.
        """
        self.owed, self._failed = {}, {}
        if not self.empties(doomed):
            self._remover.settle(self._check)  # whatever is to happen now: it may have been started when that was other
        if not doomed:
            return
        if self._deletions is Deletions.RESET:
            self._api.reset()
            self._remover.disarm()
            _log.info("the sandbox was reset, as %d paths were deleted", len(doomed))
            return
        try:
            removal = self._remover.remove(doomed, self._check)
        except StepFailed as failure:
            if failure.verdict is not Verdict.REFUSED or failure.refusal is KeyRefused:
                raise
            self.owed = {path: entries[0] for path, entries in doomed.items()}
            what = f"{len(doomed)} deleted paths stay in the sandbox ({failure.message})"
            self._failed = {"": Problem("delete", what, 'remove them there, or set sandbox.deletions = "keep"')}
            return
        self.owed = {path: doomed[path][0] for path in removal.failed}
        self._failed = {
            path: Problem(
                f"delete:{path}",
                f"{shown_path(path)!r} was deleted here and could not be removed in the sandbox ({why})",
                "it is tried again with the next sync",
            )
            for path, why in removal.failed.items()
        }
        for path in removal.changed:
            self._kept[path] = Problem(
                f"kept:{path}",
                f"{shown_path(path)!r} was deleted here and changed in the sandbox, where it stays",
                "remove it there, or run `syncd pull` to have it",
            )
        counts = len(removal.removed), len(removal.changed), len(removal.failed)
        _log.info("%d paths removed in the sandbox, %d changed there and kept, %d failed", *counts)
