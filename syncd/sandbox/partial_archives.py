"""Decides if a sandbox may be sent partial archives, which hold only what changed; this is proved there first.

`initialize` probably leaves alone what is not in an archive, but this is not documented. So the first archive is whole,
and one with a single path follows it at once. Then a look counts what is missing: if nearly everything is, only whole
archives are sent from then on. If nobody can count, a whole archive follows, and the proof is tried again later. From
its initialize on the state is uncertain, so that a process that dies in between is followed by a whole archive too. A
sandbox that is found emptied may have become one that keeps nothing: the proof does not count any more, and is made
anew.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection

from syncd.core.choices import ArchiveContent
from syncd.core.clock import Clock
from syncd.core.errors import SyncWarning
from syncd.core.text import counted
from syncd.remote.failure import StepFailed
from syncd.remote.target import Target
from syncd.sandbox.look_request import LookAction, LookItem, LookRequest, LookResult, was_emptied
from syncd.store.state_db import Record, StateDb

_log = logging.getLogger("syncd.partial_archives")
# After a failed proof. Each one costs a whole archive as well.
_TRY_AGAIN_S = 900.0


class PartialArchives:
    """Partial archives for one sandbox."""

    def __init__(
        self,
        archives: ArchiveContent,
        target: Target,
        look: Callable[[LookRequest], LookResult],
        *,
        db: StateDb,
        clock: Clock,
    ) -> None:
        self._archives = archives
        self._look = look
        self._clock = clock
        self._not_before_s = 0.0
        self._record = Record(db, "proof", bool, "small archives are tried once more", target.owner)
        self._is_kept = self._record.load()  # what an archive does not hold; None: it is not known

    @property
    def whole_because(self) -> str:
        """The reason, for people, that only whole archives are sent; empty: a partial one may be."""
        if self._archives is ArchiveContent.FULL:
            return "`sync.archive` says"
        if self._is_kept is None:
            return "it is not known yet if the sandbox keeps what an archive lacks"
        return "" if self._is_kept else "the sandbox removes what an archive lacks"

    @property
    def replaces(self) -> bool:
        """True if an initialize is known to remove what its archive does not hold."""
        return self._is_kept is False

    @property
    def may_replace(self) -> bool:
        """True if it is not known what an initialize does with what its archive does not hold."""
        return self._is_kept is None

    @property
    def wants_proof(self) -> bool:
        """True if it is to be proved, after a whole archive, that the sandbox keeps what an archive does not hold."""
        is_due = self._clock.monotonic_s() >= self._not_before_s
        return self.may_replace and self._archives is ArchiveContent.AUTO and is_due

    @property
    def warnings(self) -> list[SyncWarning]:
        """The warning that an initialize removes what its archive lacks."""
        if not self.replaces:
            return []
        what = "this sandbox removes what an archive does not hold, so whole archives are sent"
        return [SyncWarning("small-archives", what, "`syncd saved` lists what only the sandbox had before")]

    def withdraw(self) -> None:
        """Forget the proof that the sandbox keeps what an archive does not hold, as it was found emptied."""
        if not self._is_kept:
            return
        _log.warning("the sandbox was emptied, so it is to prove again that it keeps what an archive lacks")
        self._is_kept, self._not_before_s = None, 0.0
        with contextlib.suppress(OSError):  # the next process finds out as this one did
            self._record.remove()

    def ask_if_kept(self, left_out: Collection[str]) -> bool | None:
        """Return True if these paths, which an archive did not hold, are still there; None: nobody could count.

        Raises `Stop`, and what ends a wait early.
        """
        items = {path: LookItem((), LookAction.EXISTS) for path in left_out}
        try:
            missing = self._look(LookRequest(items)).missing
        except StepFailed as failure:
            _log.warning("cannot prove yet that this sandbox keeps what an archive lacks: %s", failure)
            return None
        finally:
            self._not_before_s = self._clock.monotonic_s() + _TRY_AGAIN_S
        # Someone there may remove a file meanwhile, but not nearly all: so a single one proves nothing.
        is_kept = not was_emptied(missing, len(items))
        if not is_kept and len(items) == 1:
            return False
        self._is_kept = is_kept
        with contextlib.suppress(OSError):  # then the next process proves it again
            self._record.save(is_kept)
        if not is_kept:
            _log.warning("missing in the sandbox: %s that no archive held", counted(missing, "path"))
        return is_kept
