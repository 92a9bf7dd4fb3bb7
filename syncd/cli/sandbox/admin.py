"""The operations behind `syncd sandbox`: on the account, and on the record of what was acquired."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

import click
from msgspec import Struct

from syncd.cli.daemon_client import order_daemon
from syncd.cli.options import CLOCK
from syncd.core.api_key import ApiKey
from syncd.core.clock import stamp
from syncd.core.directories import Directories, Lock, holder
from syncd.core.errors import Locked, NeedsPerson, SandboxNotFound, Stop, TryLater
from syncd.core.settings import AcquireKeys, Config
from syncd.core.waiter import Interrupt, Waiter, interrupting
from syncd.daemon.build import folders_of, key_of
from syncd.remote.api import Account, Api
from syncd.remote.failure import StepFailed
from syncd.remote.http_client import HttpClient
from syncd.remote.target import AcquiredSandbox, Target, should_be_replaced
from syncd.report.logs import LogFormat, set_up_logs
from syncd.report.status_store import remove_status
from syncd.sandbox.provider import AcquiredSandboxStore, AcquiringProvider, acquired_sandbox_store
from syncd.sync.sandbox_services import retry_settings_of


class SandboxAdmin(Struct, frozen=True):
    """The account of one configuration, with its workspace's sandbox."""

    config: Config
    folders: Directories
    key: ApiKey
    client: HttpClient
    account: Account
    store: AcquiredSandboxStore

    @property
    def fixed(self) -> bool:
        """True if the configuration names the sandbox."""
        return self.config.sandbox.id is not None

    @property
    def acquired(self) -> AcquiredSandbox | None:
        """This workspace's sandbox, if syncd acquired it."""
        return None if self.fixed else self.store.load()[0]

    @property
    def ours(self) -> str | None:
        """The id of this workspace's sandbox; None if there is none yet."""
        acquired = self.acquired
        return self.config.sandbox.id if acquired is None else acquired.sandbox_id

    @property
    def names(self) -> dict[str, str]:
        """The names of the workspace's sandboxes, by the ids of those that there are."""
        ids = {name: each.id for name, each in self.config.sandboxes.items()}
        acquired = {name: one.sandbox_id for name, one in self._all_acquired().items()}
        return {sandbox_id: name for name, sandbox_id in (ids | acquired).items() if sandbox_id is not None}

    @property
    def ends(self) -> dict[str, str | None]:
        """The ends of the workspace's acquired sandboxes, by their ids."""
        return {one.sandbox_id: ends_at(one) for one in self._all_acquired().values()}

    def _all_acquired(self) -> dict[str, AcquiredSandbox]:
        own = [self.config.for_sandbox(name) for name, each in self.config.sandboxes.items() if each.id is None]
        found = {each.sandbox_name: acquired_sandbox_store(each, self.folders.state).load()[0] for each in own}
        return {name: one for name, one in found.items() if one is not None}

    @property
    def ends_at(self) -> str | None:
        """The end of this workspace's sandbox; None if not known."""
        return ends_at(self.acquired)

    def resolve(self, sandbox_id: str | None) -> str:
        """Return the given id, by default this workspace's. Raises `NeedsPerson` if there is none yet."""
        if sandbox_id in ("", ".", ".."):
            raise click.UsageError(f"{sandbox_id!r} is no sandbox's id.")
        if sandbox_id is not None:
            return sandbox_id
        if self.ours is None:
            raise NeedsPerson("no sandbox has been acquired yet", "run `syncd sandbox acquire`, or `syncd push`")
        return self.ours

    def api(self, sandbox_id: str) -> Api:
        """Return the API of that sandbox."""
        sandbox = self.config.sandbox
        return Api(Target(sandbox.base_url, sandbox_id, sandbox.region), self.key, self.client, CLOCK)

    def current(self) -> AcquiredSandbox | None:
        """Return this workspace's acquired sandbox, if it still exists. Raises `StepFailed`."""
        acquired = self.acquired
        if acquired is None or should_be_replaced(acquired, CLOCK.wall_s()):
            return None
        try:
            self.api(acquired.sandbox_id).sandbox()
        except StepFailed as failure:
            if failure.refusal is not SandboxNotFound:
                raise
            return None
        return acquired

    def acquire(self, servers: tuple[str, ...], ttl_seconds: int | None) -> AcquiredSandbox:
        """Acquire one more, counted with those that syncs acquire. Raises `SyncdError`, `StepFailed`, `Stop`."""
        keys = self.config.sandbox.acquire or AcquireKeys()
        with self._locked():
            provider = AcquiringProvider(
                self.account,
                self.store,
                base_url=self.config.sandbox.base_url,
                region=self.config.sandbox.region,
                servers=servers or keys.servers,
                ttl_seconds=ttl_seconds or keys.ttl_seconds,
                retry_settings=retry_settings_of(self.config),
                clock=CLOCK,
            )
            acquired = provider.acquire(
                lambda failure, wait_s: click.echo(f"{failure}; trying again in {wait_s:.1f} s", err=True),
                self.client.waiter.sleep,
            )
            if self.fixed:
                provider.abandon()  # it is for a person: a later [sandbox.acquire] must not sync to it
            return acquired

    def after_release(self, sandbox_id: str) -> str:
        """Describe in a sentence how syncing goes on once that sandbox is released."""
        if sandbox_id != self.ours:
            return ""
        running = holder(self.folders.state) is not None
        if self.fixed:
            held = " The daemon will be held until then." if running else ""
            return f"Nothing more can be synced before sandbox.id names another one.{held}"
        if running:
            return "The daemon acquires the next one and fills it."
        return "The next sync acquires another one."

    def forget(self, sandbox_id: str) -> None:
        """Have the next sync, and an idle daemon, use another sandbox than this released one.

        Raises `TryLater` if the daemon cannot be reached.
        """
        if self.fixed or sandbox_id != self.ours:
            return
        if order_daemon(self.config, {"do": "left", "id": sandbox_id}):
            return
        with contextlib.suppress(TryLater, OSError), self._locked():
            self.store.save(None, self.store.load()[1])
            remove_status(self.folders.state)  # it tells of the released sandbox

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from writing the record meanwhile. Raises `Locked`."""
        if self.fixed:
            yield  # with a configured sandbox the daemon does not use the record
            return
        lock = Lock(self.folders.state)
        try:
            lock.acquire()
        except Locked:
            what = "a running syncd syncs this workspace, and acquires sandboxes by itself"
            raise Locked(what, "`syncd flush` waits for it") from None
        try:
            yield
        finally:
            lock.release()


def ends_at(acquired: AcquiredSandbox | None) -> str | None:
    """The end of an acquired sandbox; None if not known."""
    return None if acquired is None or acquired.ends_wall_s is None else stamp(acquired.ends_wall_s)


@contextmanager
def sandbox_admin_of(config: Config) -> Iterator[SandboxAdmin]:
    """Open the administration of the account. Raises `SyncdError`."""
    set_up_logs("error", LogFormat.TEXT, {})
    interrupt = Interrupt()
    client = HttpClient(Waiter(interrupt, CLOCK))
    sandbox = config.sandbox
    key = key_of(config, os.environ)
    folders = folders_of(config, os.environ)
    account = Account(sandbox.base_url, key, client, CLOCK)
    store = acquired_sandbox_store(config, folders.state)
    with interrupting(interrupt):
        try:
            yield SandboxAdmin(config, folders, key, client, account, store)
        except Stop:
            raise TryLater("stopped", "`syncd sandbox list` shows what was done before") from None
        finally:
            client.drop()
