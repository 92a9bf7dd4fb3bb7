"""One sandbox that a workspace is synced to: what is known of it, and all that asks it or changes something there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from msgspec import Struct, field

from syncd.archive.base_store import BaseStore
from syncd.archive.chunk_store import ChunkStore
from syncd.archive.snapshotter import SyncMode
from syncd.core.api_key import ApiKey
from syncd.core.choices import GitThere
from syncd.core.clock import Clock
from syncd.core.directories import Directories
from syncd.core.errors import KeyRefused, SyncWarning
from syncd.core.settings import Config, table_of
from syncd.core.waiter import Waiter
from syncd.model.entry import SeenEntry, is_savable
from syncd.model.manifest import is_within
from syncd.remote.api import Account, Api
from syncd.remote.bucket import Bucket, Dump, Throttle
from syncd.remote.failure import ApiLimit, FailureAction, RetrySettings, StepFailed
from syncd.remote.http_client import HttpClient
from syncd.remote.retry import WaitOut
from syncd.remote.target import Target
from syncd.remote.upload_url import UploadUrlStore
from syncd.sandbox.agent_repository import AgentRepository
from syncd.sandbox.deletions import Removals
from syncd.sandbox.executions import Executions
from syncd.sandbox.look_request import LookAction, LookItem, LookRequest, was_emptied
from syncd.sandbox.looks import Looks
from syncd.sandbox.partial_archives import PartialArchives
from syncd.sandbox.provider import AcquiredSandboxStore, SandboxProvider
from syncd.sandbox.sandbox_content import UNKNOWN, SandboxContent
from syncd.sandbox.sandbox_state import SandboxState, last_target
from syncd.sandbox.saved_versions import SavedVersions, VersionSaver, why_unsaved
from syncd.sandbox.setup import SandboxSetup
from syncd.selection.ignore_files import branch_of, repository_around
from syncd.store.state_db import StateDb
from syncd.sync.delivery import Delivery, FirstArchives
from syncd.sync.outcome import EMPTY_PERHAPS
from syncd.sync.sync_plan import SAMPLE

_log = logging.getLogger("syncd.sync")


def retry_settings_of(config: Config) -> RetrySettings:
    """The settings of `[retry]`."""
    keys = config.retry
    return RetrySettings(keys.first_delay_seconds, keys.max_delay_seconds, keys.give_up_after_seconds)


class Access(Struct, frozen=True):
    """The access to the sandbox of one name in the configuration: its key, its connections, and the state.

    With a `refusal` there is no key for it, and nothing is asked. `throttle`, `first_archives` and `api_limit` are
    those of all sandboxes of the workspace.
    """

    config: Config
    folders: Directories
    db: StateDb
    key: ApiKey
    client: HttpClient
    throttle: Throttle
    first_archives: FirstArchives = field(default_factory=FirstArchives)
    api_limit: ApiLimit = field(default_factory=ApiLimit)
    refusal: KeyRefused | None = None

    @property
    def waiter(self) -> Waiter:
        """The one that waits, for connections too."""
        return self.client.waiter

    @property
    def clock(self) -> Clock:
        """The process's clock."""
        return self.waiter.clock

    def account(self) -> Account:
        return Account(self.config.sandbox.base_url, self.key, self.client, self.api_limit)

    def api(self, target: Target) -> Api:
        if_unknown = "" if self.config.sandbox.acquire is None else "the next sync acquires another one: `syncd push`"
        table = table_of(self.config.sandbox_name)
        return Api(target, self.key, self.client, table, self.api_limit, if_unknown=if_unknown)

    def executions(self, target: Target) -> Executions:
        return Executions(self.api(target), self.client, self.waiter, self.db, target)

    def looks(self, state: SandboxState, executions: Executions, copies_folder: str) -> Looks:
        """The looks at the sandbox whose state this is; what they fetch is in the folder."""
        api = self.api(state.target)
        return Looks(
            agent_changes=self.config.sandbox.agent_changes,
            executions=executions,
            dump=Dump(api, self.client, retry_settings_of(self.config)),
            seen=state.seen,
            state_folder=self.folders.state,
            copies_folder=copies_folder,
            waiter=self.waiter,
            ask_for_sandbox=api.sandbox,
        )

    def provider(self) -> SandboxProvider:
        config, store = self.config, AcquiredSandboxStore(self.config, self.folders.state)
        settings, refusal = retry_settings_of(config), self.refusal
        return SandboxProvider(self.account(), store, config.sandbox, settings, self.clock, refusal=refusal)


class Sandbox:
    """One sandbox. What its looks fetch is in `copies_folder`, and `searched` is the search for secrets.

    `before` is what it held when the sync under way began, or one before that failed, perhaps after its archive had
    arrived; UNKNOWN if it was emptied since. What arrived is told of by that.
    """

    def __init__(
        self,
        access: Access,
        target: Target,
        copies_folder: str,
        searched: str = "",
        is_excluded: Callable[[str, bool], bool] = lambda _path, _is_dir: False,
    ) -> None:
        """`is_excluded` says of a path that is gone here, and if it is a directory, that the rules exclude it."""
        config, db, waiter = access.config, access.db, access.waiter
        executions = access.executions(target)
        self.name = config.sandbox_name
        self.target = target
        self.state = SandboxState(db, target, searched, config.sandbox_name)
        self.delivery = Delivery(
            state=self.state,
            api=access.api(target),
            bucket=Bucket(access.client, access.throttle),
            upload_url_store=UploadUrlStore(db, target, waiter.clock),
            retry_settings=retry_settings_of(config),
            waiter=waiter,
            first_archives=access.first_archives,
        )
        self.looks = access.looks(self.state, executions, copies_folder)
        spool = access.folders.spool
        self.saver = VersionSaver(
            SavedVersions(db, waiter.clock, config.sandbox_name),
            target.sandbox_id,
            BaseStore(spool, ChunkStore(spool)),
        )
        self.removals = Removals(config.sandbox.deletions, self.state, self.looks, waiter.clock, is_excluded)
        self.partial_archives = PartialArchives(config.sync.archive, target, self.looks.look, db=db, clock=waiter.clock)
        self.agent_repository = AgentRepository(partial(_home_branch, config), executions, target, db, waiter)
        self.setup, last = SandboxSetup(config.sandbox, db, target), last_target(db, config.sandbox_name)
        if last is not None and not last.same_sandbox(target):
            self.setup.forget()  # nobody knows what became of it while another one was in use
        self.before: SandboxContent | None = None
        self._was_asked = False  # by this process if it has what was put there, or all was sent
        self._is_unknown = False  # nobody could look if it has that

    def forget(self) -> None:
        """Forget what is known of the sandbox: it does not exist any more."""
        self.state.forget()
        self.agent_repository.forget()

    def ask_if_emptied(self, mode: SyncMode, wait_out: WaitOut) -> bool:
        """Ask for a sample of what was put there, as nothing has to be sent; True if the sandbox was emptied.

        It is asked on request, however soon the last look failed, and once in each process. Without a request it is
        asked at another sync if the API is not to be reached. Raises `StepFailed`, `Superseded`, `Stop`.
        """
        if self._was_asked and mode is not SyncMode.ASKED:
            return False
        stays = self.state.seen.stays
        sample = [path for path in self.state.content.base.spread(SAMPLE) if not is_within(path, stays)]
        items = dict.fromkeys(sample, LookItem((), LookAction.EXISTS))
        if not items:
            return False
        if mode is SyncMode.ASKED:
            self.looks.retry()
        look = partial(self.looks.finish, LookRequest(items, most_copied_bytes=0))
        try:
            result = self.delivery.asked(look, wait_out) if mode is SyncMode.ASKED else look()
        except StepFailed as failure:
            if mode is SyncMode.ASKED or failure.action is FailureAction.REFUSED:
                raise
            _log.info("the sandbox could not be asked if it still has what was sent: %s", failure)
            return False
        self._was_asked, self._is_unknown = True, result is None
        if result is None or not was_emptied(result.missing, len(items)):
            return False
        self.note_emptied()
        return True

    def note_filled(self) -> None:
        """Note that a whole archive has arrived, or a part after a look."""
        self._was_asked, self._is_unknown = True, False

    def note_emptied(self) -> None:
        """Have everything be sent and set up anew, as nearly all that was put there is gone."""
        self.before = UNKNOWN
        self.partial_archives.withdraw()
        self.setup.note_emptied()
        self.state.mark_uncertain()

    def why_unsaved(self, there: SeenEntry) -> str:
        """Return the reason why a version of the last look was not saved, for people."""
        return why_unsaved(there, self.saver.not_kept if is_savable(there) else self.looks.not_kept)

    @property
    def warnings(self) -> list[SyncWarning]:
        # Where a sync looks, its own warning says that nobody could.
        unknown = [EMPTY_PERHAPS] if self._is_unknown and not self.looks.are_made else []
        parts = (self.removals, self.partial_archives, self.looks, self.state.seen, self.setup)
        return [*unknown, *(each for part in parts for each in part.warnings), *self.agent_repository.warnings]


def _home_branch(config: Config) -> str | None:
    """The branch that the sandbox's repository is to have; None: it is to have no repository."""
    path = config.workspace.path
    try:
        repository = repository_around(path) if config.workspace.git is GitThere.BASELINE else None
    except OSError:
        return None
    return branch_of(path) if repository is not None and repository.folder else None
