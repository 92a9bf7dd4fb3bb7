"""Makes what works at a sandbox, each time that there is another one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from syncd.base.apikey import ApiKey
from syncd.base.config import Config
from syncd.base.folders import Folders
from syncd.effects.account import Account
from syncd.effects.api import Api
from syncd.effects.blocked import BlockedPaths
from syncd.effects.bucket import Bucket, Throttle
from syncd.effects.clearing import Clearing
from syncd.effects.cycle import Premises
from syncd.effects.delivery import Delivery, Patience
from syncd.effects.dump import Dump
from syncd.effects.execution import Runner
from syncd.effects.http import Exchanger
from syncd.effects.inspection import Inspection, Inspector, NoInspection
from syncd.effects.journal import Journal
from syncd.effects.lease_file import LeaseFile
from syncd.effects.lingering_file import LingeringFile
from syncd.effects.lodging import AcquiredLodging, FixedLodging, Lodging, TenancyFile
from syncd.effects.removal import Remover
from syncd.effects.small_archives import Archives, SmallArchives
from syncd.effects.started_file import StartedFile
from syncd.effects.uplink_file import UplinkFile
from syncd.policy.removal import Deletions
from syncd.policy.target import Target
from syncd.process.surroundings import Surroundings


def patience_of(config: Config) -> Patience:
    """`[retry]`."""
    keys = config.retry
    return Patience(keys.first_delay_seconds, keys.max_delay_seconds, keys.give_up_after_seconds)


@dataclass(frozen=True)
class Furnisher:
    """By one configuration, for one workspace."""

    config: Config
    folders: Folders
    key: ApiKey
    around: Surroundings
    exchanger: Exchanger
    throttle: Throttle
    journal: Journal
    check: Callable[[], None]
    stays_home: Callable[[str, bool], bool]

    def lodging(self) -> Lodging:
        """How it is found out where the workspace goes."""
        sandbox = self.config.sandbox
        if sandbox.acquire is None:
            return FixedLodging(Target(sandbox.base_url, sandbox.id or "", sandbox.region))
        return AcquiredLodging(
            Account(sandbox.base_url, sandbox.region, self.key, self.exchanger, self.around.clock),
            TenancyFile(self.folders.state, sandbox.base_url),
            base_url=sandbox.base_url,
            region=sandbox.region,
            servers=sandbox.acquire.servers,
            ttl_seconds=sandbox.acquire.ttl_seconds,
            patience=patience_of(self.config),
            clock=self.around.clock,
        )

    def furnish(self, target: Target) -> Premises:
        """What works at this sandbox."""
        clock, waiter = self.around.clock, self.exchanger.waiter
        api = Api(target, self.key, self.exchanger, clock)
        patience = patience_of(self.config)
        delivery = Delivery(
            target=target,
            api=api,
            bucket=Bucket(self.exchanger, clock, self.throttle),
            journal=self.journal,
            lease_file=LeaseFile(self.folders.state, clock),
            uplink_file=UplinkFile(self.folders.state),
            patience=patience,
            clock=clock,
        )
        runner = Runner(api, self.exchanger, waiter)
        remover = Remover(runner, StartedFile(self.folders.state, target), waiter)
        blocked = BlockedPaths(runner, self.folders.state, target, self.check)
        clearing = Clearing(
            Deletions(self.config.sandbox.deletions),
            api,
            remover,
            LingeringFile(self.folders.state, target),
            self.check,
            stays_home=self.stays_home,
            hindered=blocked.paths,
        )
        small = SmallArchives(
            Archives(self.config.sync.archive),
            target,
            Dump(api, self.exchanger, patience, waiter),
            workspace=self.config.workspace.path,
            state_folder=self.folders.state,
            clock=clock,
            check=self.check,
        )
        inspection: Inspector = NoInspection()
        if self.config.sandbox.warn_on_remote_changes:
            inspection = Inspection(runner, clock, self.check)
        return Premises(target, delivery, clearing, small, inspection, blocked)
