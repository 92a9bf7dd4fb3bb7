"""Builds the parts of a sync that work with one sandbox, for each sandbox of a workspace."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from syncd.core.api_key import ApiKey
from syncd.core.context import RuntimeContext
from syncd.core.directories import Directories
from syncd.core.settings import Config
from syncd.remote.account import Account
from syncd.remote.api import Api
from syncd.remote.bucket import Bucket, Dump, Throttle
from syncd.remote.failure import RetrySettings
from syncd.remote.http_client import HttpClient
from syncd.remote.remote_job import JobRunner
from syncd.remote.target import Target
from syncd.remote.uplink import UplinkStore
from syncd.remote.upload_url import UploadUrlStore
from syncd.sandbox.blocked_paths import BlockedPaths
from syncd.sandbox.deletions import DeletionSync, LeftoversStore
from syncd.sandbox.look import Looker
from syncd.sandbox.look_by_dump import DumpLooker
from syncd.sandbox.partial_archives import PartialArchives
from syncd.sandbox.pending_removals import PendingRemovals
from syncd.sandbox.provider import AcquiredSandboxStore, AcquiringProvider, ConfiguredSandbox, SandboxProvider
from syncd.sandbox.remote_changes import RemoteChanges
from syncd.sandbox.repository.agent_commits import AgentCommits
from syncd.sandbox.repository.agent_repository import AgentRepository
from syncd.sandbox.saved_versions import SavedVersions
from syncd.sync.delivery import Delivery
from syncd.sync.sandbox_services import SandboxServices
from syncd.sync.sync_state import SyncState


def retry_settings_of(config: Config) -> RetrySettings:
    """The settings of `[retry]`."""
    keys = config.retry
    return RetrySettings(keys.first_delay_seconds, keys.max_delay_seconds, keys.give_up_after_seconds)


class SandboxFactory(Struct, frozen=True):
    """Builds services by one configuration, for one workspace."""

    config: Config
    folders: Directories
    key: ApiKey
    context: RuntimeContext
    client: HttpClient
    throttle: Throttle
    sync_state: SyncState
    check: Callable[[], None]
    is_excluded: Callable[[str, bool], bool]
    home_branch: Callable[[], str | None]
    copies_folder: str

    def provider(self) -> SandboxProvider:
        """The provider that names the sandbox: the configured one, or acquired ones."""
        sandbox = self.config.sandbox
        if sandbox.acquire is None:
            return ConfiguredSandbox(Target(sandbox.base_url, sandbox.id or "", sandbox.region))
        return AcquiringProvider(
            Account(sandbox.base_url, self.key, self.client, self.context.clock),
            AcquiredSandboxStore(self.folders.state, sandbox.base_url),
            base_url=sandbox.base_url,
            region=sandbox.region,
            servers=sandbox.acquire.servers,
            ttl_seconds=sandbox.acquire.ttl_seconds,
            retry_settings=retry_settings_of(self.config),
            clock=self.context.clock,
        )

    def build(self, target: Target) -> SandboxServices:
        """The services for this sandbox."""
        clock, waiter = self.context.clock, self.client.waiter
        api = Api(target, self.key, self.client, clock)
        retry_settings = retry_settings_of(self.config)
        delivery = Delivery(
            target=target,
            api=api,
            bucket=Bucket(self.client, self.throttle),
            sync_state=self.sync_state,
            upload_url_store=UploadUrlStore(self.folders.state, clock),
            uplink_file=UplinkStore(self.folders.state),
            retry_settings=retry_settings,
            clock=clock,
        )
        job_runner = JobRunner(api, self.client, waiter)
        looker = Looker(job_runner, PendingRemovals(self.folders.state, target), waiter)
        remote_changes = RemoteChanges(
            agent_changes=self.config.sandbox.agent_changes,
            target=target,
            looker=looker,
            dump_looker=DumpLooker(Dump(api, self.client, retry_settings, waiter)),
            saved_versions=SavedVersions(self.folders.state, clock),
            state_folder=self.folders.state,
            copies_folder=self.copies_folder,
            waiter=waiter,
            check=self.check,
            ask_for_sandbox=api.sandbox,
        )
        blocked_paths = BlockedPaths(job_runner, self.folders.state, target, self.check)
        deletion_sync = DeletionSync(
            self.config.sandbox.deletions,
            api,
            looker,
            LeftoversStore(self.folders.state, target),
            self.check,
            is_excluded=self.is_excluded,
            blocked=blocked_paths.paths,
        )
        partial_archives = PartialArchives(
            self.config.sync.archive,
            target,
            remote_changes.look,
            state_folder=self.folders.state,
            clock=clock,
        )
        return SandboxServices(
            target=target,
            delivery=delivery,
            deletion_sync=deletion_sync,
            partial_archives=partial_archives,
            remote_changes=remote_changes,
            blocked_paths=blocked_paths,
            agent_commits=AgentCommits(job_runner),
            agent_repository=AgentRepository(self.home_branch, job_runner, target, self.folders.state, waiter),
        )
