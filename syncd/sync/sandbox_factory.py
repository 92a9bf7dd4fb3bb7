"""Makes what works at a sandbox, each time that there is another one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from syncd.core.api_key import ApiKey
from syncd.core.context import Surroundings
from syncd.core.directories import Folders
from syncd.core.settings import Config
from syncd.remote.account import Account
from syncd.remote.api import Api
from syncd.remote.bucket import Bucket, Throttle
from syncd.remote.dump import Dump
from syncd.remote.http_client import Exchanger
from syncd.remote.remote_job import Runner
from syncd.remote.retry import Patience
from syncd.remote.target import Target
from syncd.remote.uplink_store import UplinkFile
from syncd.remote.upload_url_store import LeaseFile
from syncd.sandbox.blocked_paths import BlockedPaths
from syncd.sandbox.deletions import Clearing
from syncd.sandbox.leftovers_store import LingeringFile
from syncd.sandbox.overwrite_check import Inspection, Inspector, NoInspection
from syncd.sandbox.partial_archives import Archives, SmallArchives
from syncd.sandbox.pending_removals import StartedFile
from syncd.sandbox.provider import AcquiredLodging, FixedLodging, Lodging, TenancyFile
from syncd.sandbox.removal_plan import Deletions
from syncd.sandbox.remover import Remover
from syncd.sync.delivery import Delivery
from syncd.sync.sync_cycle import Premises
from syncd.sync.sync_state import Journal


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
