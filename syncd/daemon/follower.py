"""Follows the agent in one sandbox, so that what it makes is at home too: `sandbox.follow_seconds`.

It is a task of its own beside the loop of the sandbox: a long upload keeps nobody from looking, and a look delays no
sync. `sync.following` decides; this asks, keeps what was found, and tells the loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf

from msgspec import Struct
from msgspec.structs import replace

from syncd.archive.base_store import BaseStore
from syncd.core.clock import stamp
from syncd.core.errors import SyncdError, SyncWarning
from syncd.core.waiter import Event, NewerEvents, Superseded
from syncd.merge.followed_commits import FollowedCommits
from syncd.model.manifest import Manifest
from syncd.remote.failure import StepFailed, backoff_limit_s
from syncd.remote.http_client import HttpClient
from syncd.remote.request_pacing import ApiLimit
from syncd.remote.target import Target
from syncd.report.status_publisher import sync_failure
from syncd.sandbox.followed_work import FollowedStore, FollowedWork
from syncd.sandbox.look_request import LookRequest, LookResult
from syncd.sandbox.remote_changes import RemoteChanges
from syncd.sandbox.sandbox_state import SandboxContent, SandboxState
from syncd.sandbox.saved_versions import Why
from syncd.sync.agent_work import LeaveOut, agent_work, pruned_names
from syncd.sync.following import (
    LONGEST_WAIT_S,
    WHOLE_S,
    Arrivals,
    Followed,
    Pace,
    Since,
    follow_request,
    followed,
    request_since,
    save_followed,
    since_look,
    told_since,
)
from syncd.sync.sandbox import SandboxServices
from syncd.sync.status_document import AgentStatus

_log = logging.getLogger("syncd.follower")
_NOTHING = FollowedWork(0.0, {}, {})


class FollowedSandbox(Struct, frozen=True):
    """The calls between a follower and the loop of its sandbox.

    `services` returns the parts that sync to the sandbox now, None while there is none. `is_barred`: nothing is asked,
    as a person paused or the key is refused. `looked` is called after each look, `quiet` with the number of changed
    files once the agent has changed something and then nothing for a minute, and `emptied` where nearly everything that
    was put there is gone.
    """

    services: Callable[[], SandboxServices | None]
    is_barred: Callable[[], bool]
    ends: Callable[[], bool]
    looked: Callable[[], None]
    quiet: Callable[[int], None]
    emptied: Callable[[], None]


class FollowerParts(Struct, frozen=True):
    """The parts that a follower works with; `daemon.build` makes them.

    `client` is its own, whose waits are those of its task. `looks_at` makes the looks at a sandbox, and `leave_out`
    reads the workspace's rules as they are then. `scratch` is a folder in that of the looks' copies.
    """

    client: HttpClient
    api_limit: ApiLimit
    follow_s: float
    looks_at: Callable[[SandboxState], RemoteChanges]
    leave_out: Callable[[], LeaveOut]
    base_store: BaseStore
    commits: FollowedCommits
    scratch: str


class Follower:
    """Follows the agent in one sandbox."""

    def __init__(self, parts: FollowerParts, sandbox: FollowedSandbox) -> None:
        self._warnings: list[SyncWarning] = []
        self._sandbox = sandbox
        self._parts = parts
        self._client = parts.client
        self._waiter = parts.client.waiter
        self._clock = parts.client.waiter.clock
        self._pace = Pace(parts.follow_s)
        self._pace.asked(self._clock.monotonic_s())
        self._looks: RemoteChanges | None = None
        self._target: Target | None = None
        self._since: Since | None = None  # the last look, if the next one may ask for changes alone
        self._whole_s = 0.0  # when all was compared last
        self._failures = 0
        self._followed_at: str | None = None
        self._changed_wall_s: float | None = None

    def run(self) -> None:
        """Look again and again, until the loop of the sandbox ends. Raises `Stop`."""
        with self._waiter.superseded_by(self._newer_events):
            while not self._sandbox.ends():
                due_s = self._due_s()
                if due_s > self._clock.monotonic_s():
                    self._waiter.wait(due_s)
                else:
                    self._look()

    def _due_s(self) -> float:
        services = self._sandbox.services()
        if services is None or services.state.base is None or self._sandbox.is_barred():
            return inf
        now_s = self._clock.monotonic_s()
        due_s = self._pace.due_s(now_s, is_paced=now_s < self._parts.api_limit.pacing.paced_until_s)
        if self._failures and due_s < inf:
            return self._pace.began_s + backoff_limit_s(self._failures, self._pace.follow_s, LONGEST_WAIT_S)
        return due_s

    @property
    def warnings(self) -> tuple[SyncWarning, ...]:
        """The warnings about looks that failed, and about commits."""
        return (*self._warnings, *self._parts.commits.warnings)

    # -- what the loop tells

    def woken(self) -> None:
        """A sync arrived, or a command looked: the agent may be at work."""
        self._pace.woken_s = self._clock.monotonic_s()

    def asked(self) -> None:
        """A command asked for something."""
        self._failures = 0
        self._pace.asked(self._clock.monotonic_s())

    def woke(self) -> None:
        """The machine slept: connections are dead, and time has passed."""
        self._client.drop()
        self.asked()

    def shown(self, agent: AgentStatus) -> AgentStatus:
        """Return the agent's side for the status, with what following knows."""
        changed_at = None if self._changed_wall_s is None else stamp(self._changed_wall_s)
        return replace(
            agent, followed_at=self._followed_at, changed_at=changed_at, follow_requests=self._client.requests
        )

    def _newer_events(self) -> NewerEvents:
        """Return the events after which nobody wants the look any more."""
        came = {Event.RELOAD: self._sandbox.ends(), Event.PAUSE: self._sandbox.is_barred()}
        now_s = self._clock.monotonic_s()
        return {event: now_s for event, has_come in came.items() if has_come}

    # -- one look

    def _look(self) -> None:
        services = self._sandbox.services()
        assert services is not None  # noqa: S101 - else nothing is due
        began_s, requests_before = self._clock.monotonic_s(), self._client.requests
        has_changed = False
        try:
            has_changed = self._follow(services)
        except Superseded:
            return
        except (StepFailed, SyncdError, OSError) as failure:
            self._failed(failure)
        else:
            self._failures, self._warnings = 0, []
        now_s = self._clock.monotonic_s()
        self._pace.looked(began_s, now_s, self._client.requests - requests_before, has_changed=has_changed)
        self._sandbox.looked()

    def _follow(self, services: SandboxServices) -> bool:
        """Look, and keep what is there; true if something changed there since the last look."""
        state, store = services.state, FollowedStore(services.state.db, services.target)
        if self._looks is None or self._target != services.target:
            self._looks, self._target, self._since = self._parts.looks_at(state), services.target, None
        at_s, before, leave_out = self._clock.wall_s(), state.content, self._parts.leave_out()
        kept = store.load()
        holding = (kept or _NOTHING).holding(before)
        known = holding.still_here()
        if len(known.there) < len(holding.there):
            self._since = None
        looks = self._looks
        overwritten: list[Callable[[str], bool]] = []
        state.overwritten = overwritten
        try:
            request, result = self._look_there(looks, before, known, leave_out)
            if self._sandbox.services() is not services:
                return False  # the workspace goes to another sandbox meanwhile
            arrivals = Arrivals(before, state.content, overwritten)
            found = followed(known, result, arrivals, leave_out, at_s)
            if found.was_emptied:
                self._note_emptied(services, looks)
                return False
            self._keep(store, kept, found, state, leave_out)
            self._since = since_look(request, result, found.work, arrivals, leave_out)
        finally:
            state.overwritten = None
            looks.drop_copies()
        self._followed_at = state.seen.looked_at = stamp(at_s)
        if found.has_changed:
            self._changed_wall_s = at_s
        elif self._pace.becomes_quiet(self._clock.monotonic_s()) and state.seen.changed:
            self._sandbox.quiet(len(state.seen.changed))
        return found.has_changed

    def _look_there(
        self, looks: RemoteChanges, content: SandboxContent, known: FollowedWork, leave_out: LeaveOut
    ) -> tuple[LookRequest, LookResult]:
        """Look for what has changed since the last look, or compare everything where that cannot tell."""
        since, self._since = self._since, None
        whole, now_s = follow_request(content, known, leave_out), self._clock.monotonic_s()
        if since is not None and now_s - self._whole_s < WHOLE_S:
            request = request_since(whole, content, known, leave_out, since)
            told = None if request is None else told_since(looks.follow(request), known, content)
            if request is not None and told is not None:
                return request, told
        self._whole_s = now_s
        return whole, looks.follow(whole)

    def _keep(
        self,
        store: FollowedStore,
        known: FollowedWork | None,
        found: Followed,
        state: SandboxState,
        leave_out: LeaveOut,
    ) -> None:
        content = state.content
        if known is None or found.work != replace(known, at_s=found.work.at_s):
            known = store.save(found.work, self._clock.wall_s())
        work = agent_work(known.result(content), content, leave_out, pruned_names(leave_out))
        if work.seen_paths != state.seen.changed:
            state.seen.note_all(work.seen_paths)
        commits, warned = self._parts.commits, self._parts.commits.warnings
        commits.follow(state.target.owner, content.base or Manifest(), work, leave_out, self._parts.scratch)
        if commits.warnings and commits.warnings != warned:  # a damaged content may be why
            store.checked(known)
            self._whole_s = -inf  # it is fetched once more

    def _note_emptied(self, services: SandboxServices, looks: RemoteChanges) -> None:
        """Save what was kept of a sandbox that was emptied or reset, and have it filled again, unless that is due."""
        state = services.state
        base_bytes, now_s = self._parts.base_store.get, self._clock.wall_s()
        save_followed(looks, state, Why.SANDBOX_ENDED, base_bytes, now_s)
        if state.uncertain:
            return
        state.mark_uncertain()
        services.partial_archives.withdraw()
        services.setup.forget()
        _log.warning("nearly everything that was sent is gone in the sandbox: it is sent anew")
        self._sandbox.emptied()

    def _failed(self, failure: Exception) -> None:
        self._failures += 1
        error = sync_failure(failure).error
        since = self._followed_at or "a time before this start"
        what = f"the agent's work could not be looked at ({error.message}), so what is at home is as of {since}"
        self._warnings = [SyncWarning("follow", what, "it is tried again by itself")]
