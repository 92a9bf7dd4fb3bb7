"""What commands ask of the running daemon, and who is to be told how it went.

An order of a client that hung up before its sync began is dropped, a forced one too: nobody waits for its answer, and
changes are sent anyway. A sync that began for it goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from syncd.archive.snapshotter import SyncMode
from syncd.core.errors import SyncdError, TryLater
from syncd.daemon.control import Client
from syncd.sync.follow_up import FOLLOW_UPS, left_out, still_changing, unsettled
from syncd.sync.sync_cycle import Outcome

PAUSED = TryLater("syncing is paused", "run `syncd resume`")


@dataclass(frozen=True)
class SyncRequest:
    """A wish for a sync. Without a client it came by a signal; a flush outlasts failures that pass.

    `served` are the outcomes of the syncs that it waited for and that left some of its files `unsettled`.
    """

    client: Client | None = None
    sync_mode: SyncMode = SyncMode.CHANGED
    lasting: bool = False
    served: tuple[Outcome, ...] = ()
    unsettled: frozenset[str] | None = None

    @property
    def waits(self) -> bool:
        """Whether it still matters to someone."""
        return self.client is None or self.client.waits


class RequestQueue:
    """RequestQueue not yet served. `fresh` ones call for a sync at once; `lasting` ones wait for whichever succeeds."""

    def __init__(self) -> None:
        self._fresh: list[SyncRequest] = []
        self.lasting: list[SyncRequest] = []

    @property
    def fresh(self) -> list[SyncRequest]:
        """Those that call for a sync at once."""
        self._fresh = [request for request in self._fresh if request.waits]
        return self._fresh

    def add(self, request: SyncRequest) -> None:
        """A sync whose scan begins from now on will serve it."""
        self._fresh.append(request)

    def taken(self) -> list[SyncRequest]:
        """All orders, which the sync that begins now serves."""
        serving = [request for request in [*self.lasting, *self._fresh] if request.waits]
        self._fresh, self.lasting = [], []
        return serving

    def turn_away(self, failure: SyncdError) -> None:
        """Nothing will be synced for those that wait on, until someone says so."""
        tell_failure(self.lasting, failure, for_good=True)
        self.lasting = []

    def put_back(self, serving: list[SyncRequest]) -> None:
        """The sync that was to serve them gave way to a newer one."""
        self._fresh = [*serving, *self._fresh]


def mode_of(serving: list[SyncRequest]) -> SyncMode:
    """What a sync for these orders must do."""
    return SyncMode.FORCED if any(request.sync_mode is SyncMode.FORCED for request in serving) else SyncMode.CHANGED


def tell_progress(serving: list[SyncRequest], **what: object) -> None:
    """How it goes: the `state` alone where it is a new one, with figures, or what `failed`."""
    for request in serving:
        if request.client is not None:
            request.client.tell({"event": "progress", **what})


def tell_outcome(serving: list[SyncRequest], outcome: Outcome) -> list[SyncRequest]:
    """It succeeded. Returns the orders that must wait for one more sync, as files changed under this one."""
    waiting = []
    for request in serving:
        if request.client is None:
            continue
        left = unsettled(request.unsettled, outcome.follow_up, outcome.torn)
        served = (*request.served, outcome)
        if not left and outcome.blocked:
            failure = left_out(outcome.blocked)
            request.client.done(failure.exit_code, str(failure))
        elif not left:
            sent = [one for one in served if one.sync is not None]
            request.client.done(0, result=described(sent[-1] if sent else outcome))
        elif len(request.served) < FOLLOW_UPS:
            waiting.append(replace(request, sync_mode=SyncMode.CHANGED, served=served, unsettled=left))
        else:
            failure = still_changing(left)
            request.client.done(failure.exit_code, str(failure))
    return waiting


def tell_failure(serving: list[SyncRequest], failure: SyncdError, *, for_good: bool) -> list[SyncRequest]:
    """It failed. Returns the orders that go on waiting, unless a person must act first."""
    waiting = [request for request in serving if request.lasting and not for_good]
    for request in serving:
        if request.client is not None and (for_good or not request.lasting):
            request.client.done(failure.exit_code, str(failure))
    return waiting


def described(outcome: Outcome) -> dict[str, object]:
    """The outcome as `push --json` prints it; `change` is null where nobody knows what the sandbox held before."""
    sync = msgspec.to_builtins(outcome.sync) if outcome.sync else None
    change = outcome.change
    counts = None
    if change is not None:
        counts = {"added": len(change.added), "changed": len(change.changed), "removed": len(change.removed)}
    return {"outcome": outcome.word, "files": outcome.files, "sync": sync, "change": counts}
