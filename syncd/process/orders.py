"""What commands ask of the running daemon, and who is to be told how it went."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from syncd.base.errors import SyncdError, TryLater
from syncd.effects.control import Client
from syncd.effects.cycle import Outcome
from syncd.effects.snapshot import Demand

PAUSED = TryLater("syncing is paused", "run `syncd resume`")


@dataclass(frozen=True)
class Order:
    """A wish for a sync. Without a client it came by a signal; a flush outlasts failures that pass."""

    client: Client | None = None
    demand: Demand = Demand.CHANGED
    lasting: bool = False


@dataclass
class Orders:
    """Orders not yet served. `fresh` ones call for a sync at once; `lasting` ones wait for whichever succeeds."""

    fresh: list[Order] = field(default_factory=list)
    lasting: list[Order] = field(default_factory=list)

    def add(self, order: Order) -> None:
        """A sync whose scan begins from now on will serve it."""
        self.fresh.append(order)

    def taken(self) -> list[Order]:
        """All orders, which the sync that begins now serves."""
        serving, self.fresh, self.lasting = [*self.lasting, *self.fresh], [], []
        return serving

    def turn_away(self, failure: SyncdError) -> None:
        """Nothing will be synced for those that wait on, until someone says so."""
        tell_failure(self.lasting, failure, for_good=True)
        self.lasting = []

    def put_back(self, serving: list[Order]) -> None:
        """The sync that was to serve them gave way to a newer one."""
        self.fresh = [*serving, *self.fresh]


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
    waiting = [order for order in serving if order.lasting and outcome.follow_up]
    for order in serving:
        if order.client is not None and order not in waiting:
            order.client.done(0, result=described(outcome))
    return waiting


def tell_failure(serving: list[Order], failure: SyncdError, *, for_good: bool) -> list[Order]:
    """It failed. Returns the orders that go on waiting, unless a person must act first."""
    waiting = [order for order in serving if order.lasting and not for_good]
    for order in serving:
        if order.client is not None and order not in waiting:
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
