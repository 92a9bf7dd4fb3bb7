"""Provides a workspace's sandbox: the configured one, or one that is acquired, and after its end the next.

And the URLs of its MCP servers, for `sync.on_synced`: nothing about these fails a sync.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from math import inf

from syncd.core.clock import Clock
from syncd.core.durable_file import StateFile, Versioned
from syncd.core.errors import KeyRefused, TryLater
from syncd.core.settings import MAIN, AcquireKeys, Config, SandboxKeys
from syncd.remote.api import Account, Api, urls_by_name
from syncd.remote.failure import ApiStep, FailureAction, RetrySettings, StepFailed
from syncd.remote.retry import WaitOut, with_retries
from syncd.remote.target import AcquiredSandbox, Target, replace_in_s
from syncd.store.state_db import required_record

_log = logging.getLogger("syncd.sandbox")
_URL = re.compile(r"https?://[!-~]+")
# A mistake, ours or a server's, must not use up an account: at most so many in so long.
MOST_ACQUIRED = 3
SPAN_S = 600.0


class _ProviderRecord(Versioned, frozen=True, kw_only=True):
    base_url: str
    acquired_sandbox: AcquiredSandbox | None
    acquired_wall_s: list[float]


class AcquiredSandboxStore:
    """Keeps the sandbox that a configuration has acquired, and when sandboxes were acquired, for one API."""

    def __init__(self, config: Config, state_folder: str) -> None:
        name, cost = config.sandbox_name, "the sandbox acquired before is left to its end"
        self._file = StateFile(state_folder, "sandbox" if name == MAIN else f"sandbox-{name}", _ProviderRecord, cost)
        self._base_url = config.sandbox.base_url

    def load(self) -> tuple[AcquiredSandbox | None, list[float]]:
        """Return the acquired sandbox and when sandboxes were acquired; nothing without a valid record."""
        record = self._file.load()
        if record is None or record.base_url != self._base_url:
            return None, []
        return record.acquired_sandbox, record.acquired_wall_s

    def save(self, acquired_sandbox: AcquiredSandbox | None, acquired_wall_s: list[float]) -> None:
        """Keep it. Raises `OSError`; a sandbox that was given up is forgotten also where the disk is full."""
        record = _ProviderRecord(
            base_url=self._base_url, acquired_sandbox=acquired_sandbox, acquired_wall_s=acquired_wall_s
        )
        try:
            self._file.save(record)
        except OSError:
            if acquired_sandbox is None:
                self._file.remove()
            raise


def acquired_of(config: Config, state_folder: str) -> AcquiredSandbox | None:
    """Return the sandbox that was acquired for this configuration; None also where it names one."""
    return None if config.sandbox.acquire is None else AcquiredSandboxStore(config, state_folder).load()[0]


def acquire_wait_s(acquired_wall_s: Sequence[float], wall_s: float) -> float:
    """Return the seconds until one more may be acquired, given when earlier ones were."""
    recent = sorted(at_s for at_s in acquired_wall_s if 0 <= wall_s - at_s < SPAN_S)
    if len(recent) < MOST_ACQUIRED:
        return 0.0
    return recent[-MOST_ACQUIRED] + SPAN_S - wall_s


class SandboxProvider:
    """Provides the sandbox that a workspace is synced to: the one that the configuration names, or acquired ones.

    It acquires one after the other, as `[sandbox.acquire]` says. With a `refusal` none can be asked, as there is no key
    for it.
    """

    def __init__(
        self,
        account: Account,
        file: AcquiredSandboxStore,
        sandbox: SandboxKeys,
        retry_settings: RetrySettings,
        clock: Clock,
        *,
        refusal: KeyRefused | None,
    ) -> None:
        self._account = account
        self._file = file
        self._sandbox = sandbox
        self._named = None if sandbox.acquire is not None else self._target(sandbox.id or "")
        self._acquire_keys = sandbox.acquire or AcquireKeys()
        self._retry_settings = retry_settings
        self._clock = clock
        self._refusal = refusal
        self._acquired_sandbox, self._acquired_wall_s = file.load()
        self._failures = 0
        self._replace_at_s = self._planned_end_s()

    @property
    def acquired_sandbox(self) -> AcquiredSandbox | None:
        """The sandbox, if syncd acquired it and can ask it."""
        return self._acquired_sandbox if self._named is None and self._refusal is None else None

    @property
    def replace_at_s(self) -> float:
        """The monotonic second at which another sandbox is needed, as this one ends soon; infinity if none is known."""
        return inf if self.acquired_sandbox is None else self._ends_s

    @property
    def _ends_s(self) -> float:
        # The wall clock goes on while the machine sleeps; one that is set back puts nothing off.
        return min(self._replace_at_s, self._planned_end_s())

    def _planned_end_s(self) -> float:
        """The monotonic second at which another one is needed, by the wall clock; infinity if that is not known."""
        acquired_sandbox = self._acquired_sandbox
        in_s = None if acquired_sandbox is None else replace_in_s(acquired_sandbox, self._clock.wall_s())
        return inf if in_s is None else self._clock.monotonic_s() + in_s

    @property
    def known(self) -> Target | None:
        """The sandbox, if it is known without a request."""
        if self._named is not None or self._acquired_sandbox is None or self._ends_s <= self._clock.monotonic_s():
            return self._named
        return self._target(self._acquired_sandbox.sandbox_id)

    def _target(self, sandbox_id: str) -> Target:
        return Target(self._sandbox.base_url, sandbox_id, self._sandbox.region)

    def target(self, wait_out: WaitOut) -> Target:
        """Return the sandbox to use now. Raises as `acquire`, and the refusal."""
        if self._refusal is not None:
            raise self._refusal
        return self.known or self._target(self.acquire(wait_out).sandbox_id)

    def acquire(self, wait_out: WaitOut) -> AcquiredSandbox:
        """Acquire a new one, in place of any other. Raises `StepFailed`, `TryLater`, and what `wait_out` raises."""
        return with_retries(self._acquire, self._retry_settings, self._clock, wait_out, lambda _: self._failures)

    def abandon(self) -> None:
        """Forget the sandbox, so that the next sync acquires another one; this one lives until its end."""
        self._save(None)

    def mark_lost(self, target: Target) -> None:
        """Note that the sandbox does not exist any more: an acquired one is replaced by another."""
        if self._acquired_sandbox is not None and self._acquired_sandbox.sandbox_id == target.sandbox_id:
            _log.info("the sandbox %s has ended", target.sandbox_id)
            self._save(None)

    def _acquire(self) -> AcquiredSandbox:
        self._failures += 1  # until it succeeds
        now_s = self._clock.wall_s()
        must_wait_s = acquire_wait_s(self._acquired_wall_s, now_s)
        if must_wait_s > 0:
            message = f"too many sandboxes were asked for recently: no further one is acquired for {must_wait_s:.0f} s"
            hint = "`syncd sandbox list` shows what became of them"
            raise StepFailed(ApiStep.UPLOAD_URL, FailureAction.RETRY, message, hint, retry_after_s=must_wait_s)
        before = [at_s for at_s in self._acquired_wall_s if 0 <= now_s - at_s < SPAN_S]
        self._record([*before, now_s])  # before the request: one that is acquired without an answer counts as well
        try:
            acquired_sandbox = self._account.acquire(self._acquire_keys.servers, self._acquire_keys.ttl_seconds)
        except StepFailed as failure:
            if not failure.possibly_applied:
                with contextlib.suppress(TryLater):
                    self._record(before)
            raise
        self._save(acquired_sandbox)
        self._failures = 0
        _log.info("acquired the sandbox %s for %d s", acquired_sandbox.sandbox_id, self._acquire_keys.ttl_seconds)
        return acquired_sandbox

    def _record(self, acquired_wall_s: list[float]) -> None:
        """Record when sandboxes were acquired. Raises `TryLater`: else restarts could use up the account."""
        with required_record("no sandbox is acquired"):
            self._file.save(None, acquired_wall_s)
        self._acquired_sandbox, self._acquired_wall_s, self._replace_at_s = None, acquired_wall_s, inf

    def _save(self, acquired_sandbox: AcquiredSandbox | None) -> None:
        self._acquired_sandbox = acquired_sandbox
        self._replace_at_s = self._planned_end_s()
        with contextlib.suppress(OSError):  # a sandbox that is not recorded costs the next process one more
            self._file.save(acquired_sandbox, self._acquired_wall_s)


# -- its MCP servers


def callable_servers(servers: Mapping[str, str]) -> dict[str, str]:
    """Return the servers whose URL a client can call; other text from the API is not passed on."""
    return {name: url for name, url in servers.items() if name and _URL.fullmatch(url)}


class McpServers:
    """Those of one sandbox of a workspace; `api_of` returns the API for it."""

    def __init__(self, api_of: Callable[[Target], Api]) -> None:
        self._api_of = api_of
        self._known: dict[Target, Mapping[str, str]] = {}

    def of(self, target: Target, acquired_sandbox: AcquiredSandbox | None) -> Mapping[str, str]:
        """Return their URLs by name. One that syncd did not acquire is asked about them, until the API answers."""
        if acquired_sandbox is not None:
            return callable_servers(acquired_sandbox.servers)
        if target not in self._known:
            try:
                self._known = {target: callable_servers(urls_by_name(self._api_of(target).sandbox().servers))}
            except StepFailed as failure:
                _log.warning("the sandbox's MCP servers are not known: %s; the next sync asks again", failure)
        return self._known.get(target, {})
