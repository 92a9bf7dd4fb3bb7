"""What commands ask of the running daemon, and who is to be told how it went.

An order of a client that hung up before its sync began is dropped, a forced one too: nobody waits for its answer, and
changes are sent anyway. A sync that began for it goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from syncd.archive.snapshotter import Demand
from syncd.core.errors import SyncdError, TryLater
from syncd.daemon.control import Client
from syncd.sync.follow_up import FOLLOW_UPS, left_out, still_changing, unsettled
from syncd.sync.sync_cycle import Outcome

PAUSED = TryLater("syncing is paused", "run `syncd resume`")


@dataclass(frozen=True)
class Order:
    """A wish for a sync. Without a client it came by a signal; a flush outlasts failures that pass.

    `served` are the outcomes of the syncs that it waited for and that left some of its files `unsettled`.
    """

    client: Client | None = None
    demand: Demand = Demand.CHANGED
    lasting: bool = False
    served: tuple[Outcome, ...] = ()
    unsettled: frozenset[str] | None = None

    @property
    def waits(self) -> bool:
        """Whether it still matters to someone."""
        return self.client is None or self.client.waits


class Orders:
    """Orders not yet served. `fresh` ones call for a sync at once; `lasting` ones wait for whichever succeeds."""

    def __init__(self) -> None:
        self._fresh: list[Order] = []
        self.lasting: list[Order] = []

    @property
    def fresh(self) -> list[Order]:
        """Those that call for a sync at once."""
        self._fresh = [order for order in self._fresh if order.waits]
        return self._fresh

    def add(self, order: Order) -> None:
        """A sync whose scan begins from now on will serve it."""
        self._fresh.append(order)

    def taken(self) -> list[Order]:
        """All orders, which the sync that begins now serves."""
        serving = [order for order in [*self.lasting, *self._fresh] if order.waits]
        self._fresh, self.lasting = [], []
        return serving

    def turn_away(self, failure: SyncdError) -> None:
        """Nothing will be synced for those that wait on, until someone says so."""
        tell_failure(self.lasting, failure, for_good=True)
        self.lasting = []

    def put_back(self, serving: list[Order]) -> None:
        """The sync that was to serve them gave way to a newer one."""
        self._fresh = [*serving, *self._fresh]


def demanded(serving: list[Order]) -> Demand:
    """What a sync for these orders must do."""
    return Demand.FORCED if any(order.demand is Demand.FORCED for order in serving) else Demand.CHANGED


def tell_progress(serving: list[Order], **what: object) -> None:
    """How it goes: the `state` alone where it is a new one, with figures, or what `failed`."""
    for order in serving:
        if order.client is not None:
            order.client.tell({"event": "progress", **what})


def tell_outcome(serving: list[Order], outcome: Outcome) -> list[Order]:
    """It succeeded. Returns the orders that must wait for one more sync, as files changed under this one."""
    waiting = []
    for order in serving:
        if order.client is None:
            continue
        left = unsettled(order.unsettled, outcome.follow_up, outcome.torn)
        served = (*order.served, outcome)
        if not left and outcome.blocked:
            failure = left_out(outcome.blocked)
            order.client.done(failure.exit_code, str(failure))
        elif not left:
            sent = [one for one in served if one.sync is not None]
            order.client.done(0, result=described(sent[-1] if sent else outcome))
        elif len(order.served) < FOLLOW_UPS:
            waiting.append(replace(order, demand=Demand.CHANGED, served=served, unsettled=left))
        else:
            failure = still_changing(left)
            order.client.done(failure.exit_code, str(failure))
    return waiting


def tell_failure(serving: list[Order], failure: SyncdError, *, for_good: bool) -> list[Order]:
    """It failed. Returns the orders that go on waiting, unless a person must act first."""
    waiting = [order for order in serving if order.lasting and not for_good]
    for order in serving:
        if order.client is not None and (for_good or not order.lasting):
            order.client.done(failure.exit_code, str(failure))
    return waiting


def described(outcome: Outcome) -> dict[str, object]:
    """The outcome as `push --json` prints it; `change` is null where nobody knows what the sandbox held before."""
    sync = msgspec.to_builtins(outcome.sync) if outcome.sync else None
    change = outcome.change
    counts = None
    if change is not None:
        counts = {"added": len(change.added), "changed": len(change.changed), "removed": len(change.removed)}
    return {"outcome": outcome.word, "files": outcome.files, "sync": sync, "change": counts}
