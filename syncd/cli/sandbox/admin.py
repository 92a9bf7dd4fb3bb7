"""What the verbs of `syncd sandbox` work with: the account, and the book of what was acquired."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import click

from syncd.cli.daemon_client import ask_daemon
from syncd.cli.options import CLOCK
from syncd.core.api_key import ApiKey
from syncd.core.clock import stamp
from syncd.core.directories import Folders
from syncd.core.errors import Locked, NeedsPerson, SandboxGone, Stop, TryLater
from syncd.core.interrupt import Interrupt, interrupting
from syncd.core.lock import Lock, holder
from syncd.core.settings import AcquireKeys, Config
from syncd.core.waiter import Waiter
from syncd.daemon.build import folders_of, key_of
from syncd.remote.account import Account
from syncd.remote.acquired_sandbox import Tenancy, is_over
from syncd.remote.api import Api
from syncd.remote.failure import StepFailed
from syncd.remote.failure_action import Verdict
from syncd.remote.http_client import Exchanger
from syncd.remote.target import Target
from syncd.report.logs import LogFormat, set_up_logs
from syncd.sandbox.provider import AcquiredLodging, TenancyFile
from syncd.sync.sandbox_factory import patience_of

Told = TypeVar("Told")
# A daemon answers at once, unless its disk holds it up.
_TELL_S = 30.0


@dataclass(frozen=True)
class Desk:
    """One configuration's account."""

    config: Config
    folders: Folders
    key: ApiKey
    exchanger: Exchanger
    interrupt: Interrupt
    account: Account
    book: TenancyFile

    @property
    def fixed(self) -> bool:
        """Whether the configuration names the sandbox."""
        return self.config.sandbox.id is not None

    @property
    def ours(self) -> str | None:
        """The id of this workspace's sandbox, as far as one is known."""
        if self.config.sandbox.id is not None:
            return self.config.sandbox.id
        tenancy, _ = self.book.load()
        return None if tenancy is None else tenancy.sandbox_id

    @property
    def ends_at(self) -> str | None:
        """When ours ends; None where nobody knows."""
        tenancy = None if self.fixed else self.book.load()[0]
        return None if tenancy is None or tenancy.ends_wall_s is None else stamp(tenancy.ends_wall_s)

    def named(self, sandbox_id: str | None) -> str:
        """The one that a person means. Raises `NeedsPerson` where there is none yet."""
        if sandbox_id in ("", ".", ".."):
            raise click.UsageError(f"{sandbox_id!r} is no sandbox's id")
        if sandbox_id is not None:
            return sandbox_id
        if self.ours is None:
            raise NeedsPerson("no sandbox has been acquired yet", "run `syncd sandbox acquire`, or `syncd push`")
        return self.ours

    def api(self, sandbox_id: str) -> Api:
        """That sandbox's part of the API."""
        sandbox = self.config.sandbox
        return Api(Target(sandbox.base_url, sandbox_id, sandbox.region), self.key, self.exchanger, CLOCK)

    def asked(self, question: Callable[[], Told]) -> Told:
        """The answer. Raises `SyncdError` as a command ends with it."""
        try:
            return question()
        except StepFailed as failure:
            raise failure.as_error() from None

    def living(self) -> Tenancy | None:
        """The acquired one that this workspace goes to, if the API knows it still. Raises `SyncdError`."""
        tenancy = None if self.fixed else self.book.load()[0]
        if tenancy is None or is_over(tenancy, CLOCK.wall_s()):
            return None
        try:
            self.asked(self.api(tenancy.sandbox_id).sandbox)
        except SandboxGone:
            return None
        return tenancy

    def acquire(self, servers: tuple[str, ...], ttl_seconds: int | None) -> Tenancy:
        """One more, counted with those that syncs acquire. Raises `SyncdError`, `Stop`."""
        keys = self.config.sandbox.acquire or AcquireKeys()
        with self._alone():
            lodging = AcquiredLodging(
                self.account,
                self.book,
                base_url=self.config.sandbox.base_url,
                region=self.config.sandbox.region,
                servers=servers or keys.servers,
                ttl_seconds=ttl_seconds or keys.ttl_seconds,
                patience=patience_of(self.config),
                clock=CLOCK,
            )
            tenancy = self.asked(lambda: lodging.acquired(self._retrying, self._pause))
            if self.fixed:
                lodging.leave()  # it is a person's to use: a later [sandbox.acquire] is not to fill it
            return tenancy

    def after_release(self, sandbox_id: str) -> str:
        """What becomes of the workspace once that one is gone, in a sentence."""
        if sandbox_id != self.ours:
            return ""
        runs = holder(self.folders.state) is not None
        if self.fixed:
            held = " The daemon will be held until then." if runs else ""
            return f"Nothing more can be synced before sandbox.id names another one.{held}"
        if runs:
            return "The daemon acquires the next one and fills it."
        return "The next sync acquires another one."

    def forget(self, sandbox_id: str) -> None:
        """It is gone: the next sync is not to try it, and a daemon that has nothing to do is to move.

        Raises `TryLater` where the daemon cannot be told.
        """
        if self.fixed or sandbox_id != self.ours:
            return
        if ask_daemon(self.config, {"do": "left", "sandbox": sandbox_id}, _TELL_S) is not None:
            return
        with contextlib.suppress(TryLater, OSError), self._alone():
            self.book.save(None, self.book.load()[1])

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else writes into the book meanwhile. Raises `Locked`."""
        if self.fixed:
            yield  # the daemon of a named sandbox does not look into it
            return
        lock = Lock(self.folders.state)
        try:
            lock.acquire()
        except Locked:
            raise Locked(
                "a running syncd has this workspace, and acquires by itself", "`syncd flush` waits for it"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def confirmed(self, question: str) -> bool:
        """Whether a person says yes. Raises `Stop`."""
        with self.interrupt.region():  # or Ctrl-C would only be noted
            return click.confirm(question, default=False, err=True)

    def _retrying(self, failure: StepFailed, wait_s: float) -> None:
        click.echo(f"{failure}; trying again in {wait_s:.1f} s", err=True)

    def _pause(self, wait_s: float, verdict: Verdict) -> None:  # noqa: ARG002 - the same for each
        self.exchanger.waiter.sleep(wait_s)


@contextmanager
def desk_of(config: Config) -> Iterator[Desk]:
    """The desk, open. Raises `SyncdError`."""
    set_up_logs("error", LogFormat.TEXT, {})
    interrupt = Interrupt()
    exchanger = Exchanger(Waiter(interrupt, CLOCK))
    sandbox = config.sandbox
    key = key_of(config, os.environ)
    folders = folders_of(config, os.environ)
    account = Account(sandbox.base_url, sandbox.region, key, exchanger, CLOCK)
    book = TenancyFile(folders.state, sandbox.base_url)
    with interrupting(interrupt):
        try:
            yield Desk(config, folders, key, exchanger, interrupt, account, book)
        except Stop:
            raise TryLater("stopped", "`syncd sandbox list` shows what was done all the same") from None
        finally:
            exchanger.drop()
