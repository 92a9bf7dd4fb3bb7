"""The parts of a sync that work with one sandbox, and how they are built for each sandbox of a workspace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from msgspec import Struct, field

from syncd.core.api_key import ApiKey
from syncd.core.choices import GitThere
from syncd.core.clock import Clock
from syncd.core.directories import Directories
from syncd.core.errors import SyncWarning
from syncd.core.settings import Config, table_of
from syncd.core.waiter import Waiter
from syncd.remote.api import Account, Api
from syncd.remote.bucket import Bucket, Dump, Throttle
from syncd.remote.failure import RetrySettings
from syncd.remote.http_client import HttpClient
from syncd.remote.request_pacing import ApiLimit
from syncd.remote.target import Target
from syncd.remote.upload_url import UploadUrlStore
from syncd.sandbox.agent_repository import AgentRepository
from syncd.sandbox.deletions import DeletionSync
from syncd.sandbox.executions import Executions
from syncd.sandbox.partial_archives import PartialArchives
from syncd.sandbox.provider import AcquiredSandboxStore, AcquiringProvider, SandboxProvider
from syncd.sandbox.remote_changes import RemoteChanges
from syncd.sandbox.sandbox_state import SandboxState, last_target
from syncd.sandbox.saved_versions import SavedVersions
from syncd.sandbox.setup import SandboxSetup, SetupRun
from syncd.selection.ignore_files import branch_of, repository_around
from syncd.store.state_db import StateDb
from syncd.sync.delivery import Delivery, FirstArchives


class SandboxServices(Struct, frozen=True):
    """The parts of a sync that work with one sandbox."""

    state: SandboxState
    delivery: Delivery
    deletion_sync: DeletionSync
    partial_archives: PartialArchives
    remote_changes: RemoteChanges
    agent_repository: AgentRepository
    setup: SandboxSetup

    @property
    def target(self) -> Target:
        """The sandbox's names."""
        return self.state.target

    def forget(self) -> None:
        """Forget what is known of the sandbox: it does not exist any more."""
        self.state.forget()
        self.agent_repository.forget()

    @property
    def warnings(self) -> list[SyncWarning]:
        parts = (self.deletion_sync, self.partial_archives, self.remote_changes, self.state.seen, self.setup)
        return [*(each for part in parts for each in part.warnings), *self.agent_repository.warnings]


def retry_settings_of(config: Config) -> RetrySettings:
    """The settings of `[retry]`."""
    keys = config.retry
    return RetrySettings(keys.first_delay_seconds, keys.max_delay_seconds, keys.give_up_after_seconds)


class Workspace(Struct, frozen=True):
    """One workspace in this process: what all parts that work for it are made of.

    `excludes` is the path of the person's own exclude file, None where git is still to be asked. `first_archives`
    and `api_limit` are those of all sandboxes.
    """

    config: Config
    environ: Mapping[str, str]
    folders: Directories
    key: ApiKey
    client: HttpClient
    db: StateDb
    throttle: Throttle
    excludes: str | None = None
    first_archives: FirstArchives = field(default_factory=FirstArchives)
    api_limit: ApiLimit = field(default_factory=ApiLimit)

    @property
    def waiter(self) -> Waiter:
        """The one that waits, for connections too."""
        return self.client.waiter

    @property
    def clock(self) -> Clock:
        """The process's clock."""
        return self.waiter.clock

    def api(self, target: Target) -> Api:
        return Api(target, self.key, self.client, table_of(self.config.sandbox_name), self.api_limit)

    def setup_run(self, target: Target, tell: Callable[[str], None]) -> SetupRun:
        """Return what runs the set-up in that sandbox, and tells what it prints."""
        api = self.api(target)
        return SetupRun(api, Executions(api, self.client, self.waiter, self.db, target), self.waiter, tell)


class SandboxFactory(Struct, frozen=True):
    """Builds the services of one workspace's sandboxes. `searched` is the identity of the search for secrets."""

    workspace: Workspace
    searched: str
    check: Callable[[], None]
    is_excluded: Callable[[str, bool], bool]
    copies_folder: str

    def provider(self) -> SandboxProvider:
        """The provider that names the sandbox: the configured one, or acquired ones."""
        workspace, sandbox = self.workspace, self.workspace.config.sandbox
        if sandbox.acquire is None:
            return SandboxProvider(Target(sandbox.base_url, sandbox.id or "", sandbox.region))
        return AcquiringProvider(
            Account(sandbox.base_url, workspace.key, workspace.client, workspace.api_limit),
            AcquiredSandboxStore(workspace.config, workspace.folders.state),
            sandbox,
            retry_settings_of(workspace.config),
            workspace.clock,
        )

    def build(self, target: Target) -> SandboxServices:
        config, client = self.workspace.config, self.workspace.client
        db, state = self.workspace.db, SandboxState(self.workspace.db, target, self.searched, config.sandbox_name)
        clock, waiter, api = self.workspace.clock, self.workspace.waiter, self.workspace.api(target)
        retry_settings = retry_settings_of(config)
        delivery = Delivery(
            state=state,
            api=api,
            bucket=Bucket(client, self.workspace.throttle),
            upload_url_store=UploadUrlStore(db, target, clock),
            retry_settings=retry_settings,
            waiter=waiter,
            first_archives=self.workspace.first_archives,
        )
        executions = Executions(api, client, waiter, db, target)
        remote_changes = self._looks(state, api, executions)
        deletions = config.sandbox.deletions
        deletion_sync = DeletionSync(deletions, state, executions, clock, self.check, self.is_excluded)
        partial_archives = PartialArchives(config.sync.archive, target, remote_changes.look, db=db, clock=clock)
        setup, last = SandboxSetup(config.sandbox, db, target), last_target(db, config.sandbox_name)
        if last is not None and not last.same_sandbox(target):
            setup.forget()  # nobody knows what became of it while another one was in use
        return SandboxServices(
            state=state,
            delivery=delivery,
            deletion_sync=deletion_sync,
            partial_archives=partial_archives,
            remote_changes=remote_changes,
            agent_repository=AgentRepository(partial(_home_branch, config), executions, target, db, waiter),
            setup=setup,
        )

    def looks_at(self, state: SandboxState) -> RemoteChanges:
        """The looks at a sandbox beside those of its syncs, whose state this is."""
        workspace, target = self.workspace, state.target
        api = workspace.api(target)
        executions = Executions(api, workspace.client, workspace.waiter, workspace.db, target)
        return self._looks(state, api, executions)

    def _looks(self, state: SandboxState, api: Api, executions: Executions) -> RemoteChanges:
        workspace, config = self.workspace, self.workspace.config
        return RemoteChanges(
            agent_changes=config.sandbox.agent_changes,
            target=state.target,
            executions=executions,
            dump=Dump(api, workspace.client, retry_settings_of(config), workspace.waiter),
            saved_versions=SavedVersions(workspace.db, workspace.clock, config.sandbox_name),
            seen=state.seen,
            state_folder=workspace.folders.state,
            copies_folder=self.copies_folder,
            waiter=workspace.waiter,
            check=self.check,
            ask_for_sandbox=api.sandbox,
        )


def _home_branch(config: Config) -> str | None:
    """The branch that the sandbox's repository is to have; None: it is to have no repository."""
    path = config.workspace.path
    try:
        repository = repository_around(path) if config.workspace.git is GitThere.BASELINE else None
    except OSError:
        return None
    return branch_of(path) if repository is not None and repository.folder else None
