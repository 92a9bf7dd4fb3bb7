"""Follows the agent in one sandbox, so that what it makes is at home too: `sandbox.follow_seconds`.

It is a task of its own beside the loop of the sandbox: a long upload keeps nobody from looking, and a look delays no
sync. `sync.following` decides; this asks, keeps what was found, and tells the loop.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from enum import Enum
from itertools import islice
from math import inf

from msgspec.structs import replace

from syncd.core.clock import day_and_time, seconds_of, stamp
from syncd.core.errors import SyncdError, SyncWarning
from syncd.core.text import counted, shown_path
from syncd.core.waiter import Work
from syncd.merge.commits import FollowedCommits
from syncd.model.entry import Kind
from syncd.remote.failure import StepFailed
from syncd.report.status_publisher import sync_failure
from syncd.sandbox.look_request import LookRequest, LookResult, was_emptied
from syncd.sandbox.looks import Looks
from syncd.sandbox.sandbox_content import SandboxContent
from syncd.sandbox.sandbox_state import SandboxState
from syncd.sandbox.saved_versions import Why, why_unsaved
from syncd.sync.agent_work import FoundWork, IsExcluded, agent_work, lacking
from syncd.sync.following import (
    DOWNLOADS_SHARE,
    LOOKS_SHARE,
    WHOLE_S,
    FollowedStore,
    Pace,
    Since,
    follow_request,
    followed,
    request_since,
    save_followed,
    since_look,
    with_gone,
)
from syncd.sync.sandbox import Access, Sandbox
from syncd.sync.status_document import AgentStatus
from syncd.sync.sync_cycle import SyncCycle
from syncd.sync.workspace import Workspace

_log = logging.getLogger("syncd.follower")
_NOTHING = FoundWork(0.0, {})


class LookEnd(Enum):
    """The outcome of a look that followed the agent."""

    FOLLOWED = "what is there is at home, or nobody could look"
    QUIET = "so it is, and for a minute nothing was changed, after changes"
    EMPTIED = "nearly everything that was put there is gone, and has to be sent anew"


class Follower:
    """Follows the agent in the sandbox of a cycle: the loop of the sandbox asks when, and is told what was found."""

    def __init__(self, access: Access, workspace: Workspace, cycle: SyncCycle) -> None:
        """`access` has connections of its own, whose waits are those of the task that looks."""
        self.waiter = access.waiter
        self._access = access
        self._workspace = workspace
        self._cycle = cycle
        self._copies_folder = os.path.join(access.folders.spool, f"follow-{access.config.sandbox_name}")
        self._commits = FollowedCommits(access, workspace)
        self._pace = Pace(access.config.sandbox.follow_seconds)
        self._pace.asked(self.waiter.clock.monotonic_s())
        self._warnings: list[SyncWarning] = []
        self._looks: Looks | None = None
        self._sandbox: Sandbox | None = None  # that of these looks
        self._since: Since | None = None  # the last look, if the next one may ask for changes alone
        self._followed_at: str | None = None
        self._changed_at: str | None = None

    @property
    def due_s(self) -> float:
        """The monotonic second of the next look; infinity if there is nothing to look at, or after a long silence."""
        sandbox = self._cycle.sandbox
        if sandbox is None or not sandbox.state.content.is_known:
            return inf
        now_s = self.waiter.clock.monotonic_s()
        return self._pace.due_s(now_s, is_paced=now_s < self._access.api_limit.paced_until_s)

    @property
    def warnings(self) -> tuple[SyncWarning, ...]:
        """The warnings about looks that failed, and about commits."""
        return (*self._warnings, *self._commits.warnings)

    # -- what the loop tells

    def note_activity(self) -> None:
        """A sync arrived, or a command looked: the agent may be at work."""
        self._pace.active_s = self.waiter.clock.monotonic_s()
        self.waiter.tasks.wake()  # it waits for what no event tells: a first base, the end of a silence

    def asked(self) -> None:
        """A command asked for something, or the machine slept."""
        self._pace.asked(self.waiter.clock.monotonic_s())

    def shown(self, agent: AgentStatus) -> AgentStatus:
        """Return the agent's side for the status, with what following knows."""
        return replace(agent, followed_at=self._followed_at, changed_at=self._changed_at)

    # -- one look

    def look(self) -> LookEnd:
        """Look, keep what is there at home, and return what became of the agent. Raises `Superseded`, `Stop`."""
        sandbox = self._cycle.sandbox
        assert sandbox is not None  # noqa: S101 - else nothing is due
        began_s, requests_before = self.waiter.clock.monotonic_s(), self._access.client.requests
        found, self._pace.has_failed = LookEnd.FOLLOWED, False
        try:
            found = self._follow(sandbox)
        except (StepFailed, SyncdError, OSError) as failure:
            self._failed(failure)
        self._pace.looked(began_s, self.waiter.clock.monotonic_s(), self._access.client.requests - requests_before)
        return found

    def _follow(self, sandbox: Sandbox) -> LookEnd:
        state, store = sandbox.state, FollowedStore(sandbox.state.db, sandbox.target)
        if self._looks is None or self._sandbox is not sandbox:
            executions = self._access.executions(sandbox.target)
            self._looks = self._access.looks(state, executions, self._copies_folder)
            self._sandbox, self._since = sandbox, None
        at_s, before, is_excluded = self.waiter.clock.wall_s(), state.content, self._workspace.is_excluded()
        looks, kept = self._looks, store.load()
        known = kept or _NOTHING
        overwritten: list[Callable[[str], bool]] = []
        state.overwritten = overwritten
        try:
            with self.waiter.doing(Work.READ):
                request, result, whole_s = self._look_there(looks, before, known, is_excluded)
            self._warnings = []
            self._pace.share = DOWNLOADS_SHARE if result.kinds_only else LOOKS_SHARE
            if self._cycle.sandbox is not sandbox:
                return LookEnd.FOLLOWED  # the workspace goes to another sandbox meanwhile
            content, base = state.content, state.content.base
            gone = sum(path in base and there.kind is Kind.ABSENT for path, there in result.differing.items())
            if was_emptied(gone, len(base)):  # unless it was filled meanwhile, which the next look tells
                return LookEnd.FOLLOWED if overwritten else self._note_emptied(sandbox)
            work, has_changed = followed(known, result, content, overwritten, is_excluded, at_s=at_s)
            if kept is None or work != replace(kept, at_s=at_s):
                work = store.save(work, self.waiter.clock.wall_s())
            self._note(work, store, state, is_excluded)
            lacks = lacking(work.there, content, is_excluded)
            is_fetched = all(known.there.get(path) == entry for path, entry in lacks.items())
            if is_fetched and not (before.unanswered or content.unanswered or overwritten):
                self._since = since_look(request, result, before.base, work.there, whole_s)
            self._warn_of(
                {path: why_unsaved(each, looks.not_kept) for path, each in lacks.items() if not each.unstable}
            )
        finally:
            state.overwritten = None
            looks.drop_copies()
        self._followed_at = state.seen.looked_at = stamp(at_s)
        now_s = self.waiter.clock.monotonic_s()
        if has_changed:
            self._changed_at = self._followed_at
            self._pace.found_change(now_s)
        elif self._pace.is_newly_quiet(now_s):
            self._pace.untold_s = inf
            return LookEnd.QUIET if state.seen.changed else LookEnd.FOLLOWED
        return LookEnd.FOLLOWED

    def _look_there(
        self, looks: Looks, content: SandboxContent, known: FoundWork, is_excluded: IsExcluded
    ) -> tuple[LookRequest, LookResult, float]:
        """Look for what has changed since the last look, or compare everything where that cannot tell.

        Returns the look with the monotonic second of the last one that compared everything.
        """
        since, self._since = self._since, None
        whole, now_s = follow_request(content, known, is_excluded), self.waiter.clock.monotonic_s()
        if since is not None and now_s - since.whole_s < WHOLE_S:
            request = request_since(whole, content, known.there, since)
            told = None if request is None else with_gone(looks.look(request), known.there, content)
            if request is not None and told is not None:
                return request, told, since.whole_s
        return whole, looks.look(whole), now_s

    def _note(self, work: FoundWork, store: FollowedStore, state: SandboxState, is_excluded: IsExcluded) -> None:
        """Note what is there for `status`, and commit it."""
        content = state.content
        found = agent_work(work, content, is_excluded)
        if found.seen_paths != state.seen.changed:
            state.seen.note_all(found.seen_paths)
        commits, warned, scratch = self._commits, self._commits.warnings, os.path.join(self._copies_folder, "sent")
        commits.follow(state.target.owner, found, is_excluded, scratch)
        if commits.warnings and commits.warnings != warned:
            store.drop_damaged()  # which may be why; the next look fetches them

    def _note_emptied(self, sandbox: Sandbox) -> LookEnd:
        """Save what was kept of a sandbox that was emptied or reset, and have it filled again, unless that is due.

        A sync that is under way finds it by its own look, or the next look does after that: marked in its midst, the
        sandbox would count as filled once the sync's archive arrives, which may be a partial one.
        """
        state = sandbox.state
        save_followed(sandbox.saver, state, Why.SANDBOX_ENDED)
        if state.content.uncertain or sandbox.name in self._workspace.syncing:
            return LookEnd.FOLLOWED
        sandbox.note_emptied()
        _log.warning("nearly everything that was sent is gone in the sandbox: it is sent anew")
        return LookEnd.EMPTIED

    def _warn_of(self, lacks: Mapping[str, str]) -> None:
        """Warn of the files that cannot be kept, each with the reason."""
        for path, why in islice(lacks.items(), 1):
            what = f"the agent's '{shown_path(path)}' cannot be kept at home ({why})"
            what += f", and {counted(len(lacks) - 1, 'more file')}" if len(lacks) > 1 else ""
            self._warnings = [SyncWarning("follow-kept", what, "`syncd pull DEST` downloads all that is there")]

    def _failed(self, failure: Exception) -> None:
        self._pace.has_failed = True
        error = sync_failure(failure).error
        at_s = seconds_of(self._followed_at)
        since = "a time before this start" if at_s is None else day_and_time(at_s)
        what = f"the agent's work could not be looked at ({error.message}), so what is at home is as of {since}"
        self._warnings = [SyncWarning("follow", what, "it is tried again by itself")]
