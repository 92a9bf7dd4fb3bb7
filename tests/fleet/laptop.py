"""One laptop in simulated time: the program's own rules, driven in the order of the loop, the sync and the delivery.

What decides is called as the daemon calls it. What is done here in its place is only the order of the steps, which
`tests/integration/test_fleet.py` compares with the real program's requests.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import Protocol

from syncd.core.choices import ArchiveContent
from syncd.core.errors import SandboxNotFound, SandboxRefused
from syncd.core.waiter import Superseded
from syncd.daemon.scheduler import (
    FailureBackoff,
    RetryPause,
    SaveAgentWork,
    SchedulerInput,
    Sync,
    next_action,
)
from syncd.daemon.sync_requests import RequestQueue, SyncRequest
from syncd.remote.failure import (
    ApiStep,
    FailureAction,
    RetrySettings,
    StepFailed,
    asks_first,
    backoff_limit_s,
    classify_api_status,
    classify_bucket_status,
    delay_s,
    failures_in_row,
    gives_up,
)
from syncd.remote.http_client import ConnectionTime, RequestKind, RequestPacing, is_over
from syncd.remote.remote_job import FIRST_POLL_S, poll_wait_s
from syncd.remote.target import AcquiredSandbox, acquire_wait_s, margin_s, replace_in_s, should_be_replaced
from syncd.remote.upload_url import UploadUrl, is_usable
from syncd.report.status_publisher import sync_failure
from syncd.sandbox import remote_changes
from syncd.sandbox.partial_archives import next_proof_s, proof_is_due
from syncd.sandbox.repository import agent_repository
from syncd.sync.following import Pace
from syncd.sync.outcome import Outcome, SyncReason
from syncd.sync.work_saver import LAST_S
from syncd.watch.changes import Burst, due_s, extend
from tests.fleet.api_model import BUCKET_OPS, Reply, Sent
from tests.fleet.events import Process, Timeline, Wait
from tests.fleet.working_day import Act

_NO_SYNC = Outcome(None)
# Retries of the repository's program begin as rarely as this module says.
_FIRST_WAIT_S, _LONGEST_WAIT_S = agent_repository._FIRST_WAIT_S, agent_repository._LONGEST_WAIT_S
_FOLLOW_POLL_S = agent_repository._FIRST_POLL_S
_CHANGES_BYTES = 40_000  # an archive of what changed; one of everything has `Settings.whole_bytes`
_PROGRAM_BYTES = 10_000
_URL_LIFE_S = 1800.0
_PATIENCE_S = 600.0
_LOOK_REQUESTS = 6
_RETRY = RetrySettings(first_s=1.0, max_s=60.0, give_up_s=300.0)

Steps = Generator[Wait, None, None]


class Api(Protocol):
    """Answers requests: the model of the API."""

    def request(self, op: str, now_s: float, sent: Sent) -> Reply: ...

    def was_cut(self, since_s: float, now_s: float) -> bool: ...


@dataclass(frozen=True)
class Settings:
    """The keys of the configuration that count here, with their defaults, and the size of a whole archive.

    `ttl_s` is that of acquired sandboxes; None: one sandbox is configured. `follows`: there is a git repository. With
    `follow_s` the agent, who works all the time, is followed.
    """

    quiet_s: float = 1.0
    max_wait_s: float = 15.0
    rescan_s: float = 600.0
    retry: RetrySettings = _RETRY
    ttl_s: float | None = None
    follows: bool = True
    follow_s: float = 0.0
    whole_bytes: int = 20_000_000
    program_s: tuple[float, float] = (0.15, 0.5)


@dataclass
class Arrivals:
    """What the laptops' people waited for.

    Of each change: when it was saved, when it arrived, and since when its laptop had a network then.
    `unlooked` counts initializes without a look before them.
    """

    saved_s: list[float] = field(default_factory=list)
    arrived_s: list[float] = field(default_factory=list)
    online_s: list[float] = field(default_factory=list)
    awaited_s: list[float] = field(default_factory=list)
    syncs: Counter[int] = field(default_factory=Counter)
    whole: int = 0
    unlooked: int = 0


@dataclass
class _Flush:
    """A person who waits for a sync, but not for ever; in the place of a command's connection."""

    arrivals: Arrivals
    timeline: Timeline
    since_s: float
    is_answered: bool = False

    @property
    def waits(self) -> bool:
        return not self.is_answered and self.timeline.now_s < self.since_s + _PATIENCE_S

    def send(self, message: object) -> None:
        pass

    def done(self, code: int, message: str = "", *, result: object = None) -> None:
        self.is_answered = True
        self.arrivals.awaited_s.append(self.timeline.now_s - self.since_s)


@dataclass
class _Upload:
    """The progress of one archive."""

    identity: str
    is_whole: bool
    looks: bool
    removes: bool
    bytes_out: int
    uploaded: bool
    look_began_s: float | None = None
    fresh_urls: int = 0
    is_searched: bool = False


class Laptop:
    """One daemon and its workspace. Times are monotonic seconds but where a name says otherwise."""

    def __init__(
        self,
        number: int,
        timeline: Timeline,
        api: Api,
        random: Random,
        settings: Settings,
        arrivals: Arrivals,
    ) -> None:
        self.number = number
        self._timeline = timeline
        self._api = api
        self._random = random
        self._settings = settings
        self._arrivals = arrivals
        self._process = Process(timeline, self._run())
        self._follower = Process(timeline, self._follow_agent())
        # The loop's
        self._requests = RequestQueue()
        self._burst: Burst | None = None
        self._backoff = FailureBackoff(settings.retry)
        self._rescan_at_s = 0.0
        self._follow_at_s = -inf
        self._starting = True
        self._retry_wait_s = 0.0
        self._slept_s = 0.0
        self._closed_at_s: float | None = None
        self._network_from_s = -inf
        self._network_back_s = -inf
        # The workspace's and the sandbox's
        self._saved_s: list[float] = []
        self._version = 1
        self._deleted = False
        self._base: int | None = None
        self._uncertain = False
        self._whole_next = False
        self._proved = False
        self._proof_not_before_s = 0.0
        self._followed: int | None = None
        self._follow_failures = 0
        self._follow_not_before_s = 0.0
        self._acquired: AcquiredSandbox | None = None
        self._acquired_wall_s: list[float] = []
        self._acquire_failures = 0
        self._work_saved_for: str | None = None
        self._work_ends_at_s = self._save_again_at_s = inf  # of the sandbox whose work was saved last
        # The delivery's
        self._upload_url: UploadUrl | None = None
        self._uploaded = ""
        self._failures: Counter[ApiStep] = Counter()
        self._asks_first = False
        self._look_failures = 0
        self._look_is_repeated = False
        self._look_not_before_s = 0.0
        self._pacing = RequestPacing()
        self._connections: dict[bool, ConnectionTime] = {}

    # -- what happens to it

    def start(self, at_s: float, wait_s: float = 0.0) -> None:
        """Begin then; the first sync is `wait_s` later."""
        self._rescan_at_s = at_s + wait_s
        self._process.start(at_s)
        if self._settings.follow_s:
            self._follower.start(at_s)

    def know(self, sandbox: AcquiredSandbox | None = None, url_left_s: float = 0.0) -> None:
        """Have the state of a laptop whose workspace was synced before, to that sandbox if it was acquired.

        Its upload URL can be used for `url_left_s` yet; 0: it has none.
        """
        self._base = self._followed = self._version
        self._proved, self._acquired = True, sandbox
        if url_left_s:
            self._upload_url = UploadUrl("", self._timeline.now_s + url_left_s, _URL_LIFE_S)
        if sandbox is not None:
            self._acquired_wall_s = [sandbox.acquired_wall_s]

    def act(self, act: Act) -> None:
        """Have the person do that now."""
        match act:
            case Act.EDIT | Act.DELETE:
                self._version += 1
                self._deleted = self._deleted or act is Act.DELETE
                self._saved_s.append(self._timeline.now_s)
                self._burst = extend(self._burst, self._now_s())
            case Act.FLUSH:
                flush = _Flush(self._arrivals, self._timeline, self._timeline.now_s)
                self._requests.add(SyncRequest(flush, lasting=True))  # type: ignore[arg-type]
            case Act.CLOSE:
                self._closed_at_s = self._timeline.now_s
            case Act.OPEN:
                self._open()
        self._process.wake()
        self._follower.wake()

    def change_rules(self) -> None:
        """Have everything be sent, as after a change of a rule file that concerns all paths."""
        self._whole_next = True
        self.act(Act.EDIT)

    def wake_at_network(self, network_s: float) -> None:
        """Have no network until then."""
        self._network_from_s = network_s
        self._timeline.at(network_s + 2.0 * self._random.random(), self._find_network)

    def _open(self) -> None:
        if self._closed_at_s is None:
            return
        slept_s = self._timeline.now_s - self._closed_at_s
        self._closed_at_s = None
        self._slept_s += slept_s
        self._connections.clear()
        self._burst = extend(self._burst, self._now_s())
        self._backoff.woke(slept_s)
        self.wake_at_network(self._timeline.now_s + 0.5 + 4.0 * self._random.random())

    def _find_network(self, _: object) -> None:
        """Notice it, as the loop does within two seconds, if there was an outage."""
        if self._backoff.is_outage:
            self._network_back_s = self._now_s()
            self._backoff.network_returned(self._network_back_s)
            self._process.wake()

    # -- the loop

    def _run(self) -> Steps:
        while True:
            action = next_action(self._scheduler_input(), self._now_s(), *self._times)
            if isinstance(action, Sync):
                yield from self._sync(action.reason)
            elif isinstance(action, SaveAgentWork):
                yield from self._save_before_end()
            else:
                yield from self._wait(inf if action.until_s is None else action.until_s)

    def _sync(self, reason: SyncReason) -> Steps:
        self._starting = False
        burst, self._burst = self._burst, None
        self._requests.begin()
        is_rescan = reason is not SyncReason.CHANGE or bool(self._requests.serving)
        started_s = self._now_s()
        try:
            yield from self._sync_somewhere()
        except Superseded:
            self._requests.put_back()
            self._burst = self._burst or burst or extend(None, started_s)
        except StepFailed as exception:
            failed, now_s = sync_failure(exception), self._now_s()
            self._requests.failed(failed.error, for_good=False)
            awaited, chance = self._requests.awaited, self._random.random()
            self._backoff.after(failed.error, now_s, now_s - started_s, chance, failed.retry_after_s, awaited=awaited)
        else:
            now_s = self._now_s()
            self._follow_at_s = max(self._follow_at_s, self._backoff.follow_at_s(now_s, self._random.random()))
            self._backoff.clear()
            if self._requests.awaited or now_s >= self._follow_at_s:
                self._follow_at_s = -inf
                yield from self._follow()
            self._requests.succeeded(_NO_SYNC)
        if is_rescan:
            self._rescan_at_s = self._now_s() + self._settings.rescan_s
        if self._follow_at_s > -inf:
            self._rescan_at_s = min(self._rescan_at_s, self._follow_at_s)

    def _retrying(self, wait_s: float) -> None:
        self._retry_wait_s = wait_s
        if wait_s == 0:
            return
        now_s = self._now_s()
        self._backoff.note_outage(now_s)
        if not self._requests.awaited:
            self._retry_wait_s = self._backoff.outage_wait_s(wait_s, now_s, self._random.random())

    def _pause(self, wait_s: float, action: FailureAction) -> Steps:
        slept_before_s = self._slept_s
        is_offline = action is FailureAction.OFFLINE
        pause = RetryPause(self._now_s(), wait_s, self._retry_wait_s, self._settings.retry.first_s, is_offline)
        while True:
            if self._requests.fresh:
                raise Superseded
            now_s, slept_s = self._now_s(), self._slept_s - slept_before_s
            due = due_s(self._burst, *self._times) if self._burst is not None else None
            until_s = pause.ends_s(slept_s, self._network_back_s, due)
            if now_s >= until_s:
                break
            yield from self._wait(until_s)
        if self._burst is not None:
            raise Superseded

    def _wait(self, until_s: float) -> Steps:
        """Wait until then, for an event, or for the end of a sleep."""
        # A rounding error of the sum must not make a wait that takes no time.
        yield Wait(max(until_s + self._slept_s, self._timeline.now_s + 1e-6), is_open=True)
        while self._closed_at_s is not None:
            yield Wait(inf, is_open=True)

    def _now_s(self) -> float:
        return self._timeline.now_s - self._slept_s

    @property
    def _times(self) -> tuple[float, float]:
        return self._settings.quiet_s, self._settings.max_wait_s

    def _scheduler_input(self) -> SchedulerInput:
        moves_at_s = save_at_s = inf
        if self._acquired is not None:
            in_s = replace_in_s(self._acquired, self._timeline.now_s)
            moves_at_s = inf if in_s is None else self._now_s() + in_s
            save_at_s = inf if self._work_saved_for == self._acquired.sandbox_id else moves_at_s
        save_at_s = min(save_at_s, self._save_again_at_s)
        return SchedulerInput(
            save_at_s=save_at_s,
            burst=self._burst,
            requested=bool(self._requests.fresh),
            hold=self._backoff.hold,
            not_before_s=self._backoff.not_before_s,
            changes_not_before_s=self._backoff.changes_not_before_s,
            rescan_at_s=min(self._rescan_at_s, moves_at_s),
            starting=self._starting,
        )

    # -- the sync cycle

    def _sync_somewhere(self) -> Steps:
        yield from self._have_sandbox()
        try:
            yield from self._sync_content()
        except StepFailed as failure:
            gone = failure.action is FailureAction.REFUSED and issubclass(failure.refusal, SandboxNotFound)
            if not gone or self._acquired is None:
                raise
            self._acquired = None
            yield from self._have_sandbox()
            yield from self._sync_content()

    def _sync_content(self) -> Steps:
        version, saved_s = self._version, len(self._saved_s)
        if version == self._base and not self._uncertain and not self._whole_next:
            return
        is_certain = self._base is not None and not self._uncertain and not self._whole_next
        is_whole = not (is_certain and self._proved)
        removes, self._deleted = self._deleted, False
        try:
            yield from self._deliver(self._new_upload(version, is_whole=is_whole, looks=True, removes=removes))
        except (StepFailed, Superseded):
            self._deleted = self._deleted or removes
            raise
        self._whole_next = self._uncertain = False
        self._base = version
        self._arrive(saved_s, is_whole=is_whole)
        is_due = proof_is_due(ArchiveContent.AUTO, self._proof_not_before_s, self._now_s())
        if is_whole and not self._proved and is_due:
            yield from self._prove()

    def _arrive(self, saved: int, *, is_whole: bool) -> None:
        arrivals = self._arrivals
        arrivals.syncs[self.number] += 1
        arrivals.whole += is_whole
        arrivals.saved_s += self._saved_s[:saved]
        arrivals.arrived_s += [self._timeline.now_s] * saved
        arrivals.online_s += [self._network_from_s] * saved
        del self._saved_s[:saved]

    def _prove(self) -> Steps:
        yield from self._deliver(self._new_upload(self._version, is_whole=False, looks=False, removes=False))
        try:
            began_s = yield from self._start_program(ApiStep.INITIALIZE)
            yield from self._finish_program(ApiStep.INITIALIZE, began_s, FIRST_POLL_S)
        except StepFailed:
            self._proof_not_before_s, self._whole_next = next_proof_s(self._now_s()), True
            yield from self._sync_content()
        else:
            self._proved, self._uncertain = True, False

    def _new_upload(self, version: int, *, is_whole: bool, looks: bool, removes: bool) -> _Upload:
        identity = f"{version} {is_whole} {looks}"
        size = self._settings.whole_bytes if is_whole else _CHANGES_BYTES
        return _Upload(identity, is_whole, looks, removes, size, self._uploaded == identity)

    # -- the delivery

    def _deliver(self, upload: _Upload) -> Steps:
        def failures(failure: StepFailed) -> int:
            return failures_in_row(failure.action, upload.fresh_urls, self._failures[failure.step])

        try:
            yield from self._with_retries(lambda: self._advance(upload), failures)
        except StepFailed as failure:
            if failure.action is not FailureAction.OFFLINE:
                self._uploaded = ""
            raise

    def _with_retries(self, step: Callable[[], Steps], failures: Callable[[StepFailed], int]) -> Steps:
        retry, started_s = self._settings.retry, self._now_s()
        while True:
            try:
                yield from step()
            except StepFailed as failure:
                in_row = failures(failure)
                wait_s, chance = 0.0, self._random.random()
                if in_row:
                    wait_s = delay_s(in_row, retry.first_s, retry.max_s, chance, failure.retry_after_s)
                is_over = gives_up(wait_s, started_s, self._now_s(), retry.give_up_s)
                if failure.action is FailureAction.REFUSED or is_over:
                    raise
                action = failure.action
            else:
                return
            self._retrying(wait_s)
            yield from self._pause(wait_s, action)

    def _advance(self, upload: _Upload) -> Steps:
        initializes = 0
        try:
            if self._asks_first:
                yield from self._request_upload_url()
                self._asks_first = False
            if not upload.uploaded:
                yield from self._upload(upload)
            if upload.looks:
                yield from self._look(upload)
            self._failures[ApiStep.DELETE] = 0
            self._uncertain = True
            initializes = self._failures[ApiStep.INITIALIZE] + 1
            yield from self._request("initialize", ApiStep.INITIALIZE, is_whole=upload.is_whole)
            self._failures[ApiStep.INITIALIZE] = 0
        except StepFailed as failure:
            step = failure.step
            self._failures[step] += 1
            self._asks_first = self._asks_first or asks_first(step, failure.action, initializes)
            if failure.action is FailureAction.RENEW_URL:
                upload.fresh_urls += 1
                self._upload_url = None
            elif failure.action is FailureAction.UPLOAD_AGAIN:
                upload.uploaded, self._uploaded = False, ""
            if self._archive_may_be_at_fault(failure) and not upload.is_searched:
                yield from self._find_reason(upload)
            raise

    def _archive_may_be_at_fault(self, failure: StepFailed) -> bool:
        answered = failure.action in (FailureAction.RETRY, FailureAction.UPLOAD_AGAIN)
        is_third = self._failures[ApiStep.INITIALIZE] > 2
        return failure.step is ApiStep.INITIALIZE and answered and failure.retry_after_s is None and is_third

    def _find_reason(self, upload: _Upload) -> Steps:
        try:
            began_s = yield from self._start_program(ApiStep.EXECUTION)
            yield from self._finish_program(ApiStep.EXECUTION, began_s, 0.0)
        except StepFailed:
            return
        upload.is_searched = True

    def _upload(self, upload: _Upload) -> Steps:
        if self._upload_url is None or not is_usable(self._upload_url, self._timeline.now_s):
            yield from self._request_upload_url()
        if upload.looks and not upload.removes:
            upload.look_began_s = None
            if not self._look_waits:
                with contextlib.suppress(StepFailed):  # `_look` tries again
                    upload.look_began_s = yield from self._start_program(ApiStep.INITIALIZE)
        self._uploaded = ""
        yield from self._request("upload", ApiStep.UPLOAD, bytes_out=upload.bytes_out)
        self._failures[ApiStep.UPLOAD] = 0
        upload.uploaded, self._uploaded = True, upload.identity

    def _request_upload_url(self) -> Steps:
        yield from self._request("upload-url", ApiStep.UPLOAD_URL)
        now_s = self._timeline.now_s
        self._upload_url = UploadUrl("", now_s + _URL_LIFE_S, _URL_LIFE_S)
        self._failures[ApiStep.UPLOAD_URL] = 0

    # -- looks, and the repository

    @property
    def _look_waits(self) -> bool:
        return self._look_failures > 0 and self._now_s() < self._look_not_before_s

    def _look(self, upload: _Upload) -> Steps:
        """Look as `RemoteChanges.finish` does, and go on without a look as it does."""
        began_s, upload.look_began_s = upload.look_began_s, None
        if self._look_waits:
            self._arrivals.unlooked += 1
            return
        step = ApiStep.DELETE if upload.removes else ApiStep.INITIALIZE
        self._uncertain = self._uncertain or upload.removes
        started_s = self._now_s()
        try:
            if began_s is None or self._timeline.now_s - began_s > remote_changes._STALE_S:
                began_s = yield from self._start_program(step)
            yield from self._finish_program(step, began_s, FIRST_POLL_S)
        except StepFailed as failure:
            was_quick = self._now_s() - started_s < remote_changes._AFTER_UPLOAD_S
            is_first = self._look_failures == 0 and not self._look_is_repeated
            if is_first and was_quick and remote_changes._may_pass(failure):
                self._look_is_repeated = True
                raise
            yield from self._look_by_dump(failure)
        else:
            self._look_failures, self._look_is_repeated = 0, False

    def _look_by_dump(self, failure: StepFailed) -> Steps:
        try:
            yield from self._request("dump", ApiStep.DUMP)
            yield from self._request("download", ApiStep.DUMP)
        except StepFailed as other:
            if other.action is not FailureAction.REFUSED:
                try:
                    yield from self._request("get", ApiStep.SANDBOX)
                except StepFailed:
                    raise failure from None
            if failure.action is FailureAction.REFUSED:
                raise failure from None
        else:
            self._look_failures, self._look_is_repeated = 0, False
            return
        self._look_is_repeated = False
        self._look_failures += 1
        first_s, longest_s = remote_changes.FIRST_WAIT_S, remote_changes.LONGEST_WAIT_S
        self._look_not_before_s = self._now_s() + backoff_limit_s(self._look_failures, first_s, longest_s)
        self._arrivals.unlooked += 1

    def _start_program(self, step: ApiStep) -> Generator[Wait, None, float]:
        """Start a program in the sandbox, and return the second of the timeline at which that was asked for."""
        yield from self._request("execution-upload-url", step)
        yield from self._request("execution-upload", step, bytes_out=_PROGRAM_BYTES)
        asked_s = self._timeline.now_s
        yield from self._request("execute", step)
        return asked_s

    def _finish_program(self, step: ApiStep, began_s: float, first_poll_s: float) -> Steps:
        least_s, most_s = self._settings.program_s
        ends_s, polls = began_s + least_s + (most_s - least_s) * self._random.random(), 0
        yield Wait(began_s + first_poll_s, is_open=False)
        while True:
            yield from self._request("execution-logs", step, kind=RequestKind.POLL)
            if self._timeline.now_s >= ends_s:
                return
            yield Wait(self._timeline.now_s + poll_wait_s(polls), is_open=False)
            polls += 1

    def _follow(self) -> Steps:
        """Have the repository in the sandbox follow, unless a newer change is due: the next sync has it follow."""
        if not self._settings.follows or self._followed == self._base or self._now_s() < self._follow_not_before_s:
            return
        base = self._base
        try:
            began_s = yield from self._start_program(ApiStep.EXECUTION)
            if self._is_overtaken():
                return
            yield from self._finish_program(ApiStep.EXECUTION, began_s, _FOLLOW_POLL_S)
        except StepFailed:
            self._follow_failures += 1
            wait_s = backoff_limit_s(self._follow_failures, _FIRST_WAIT_S, _LONGEST_WAIT_S)
            self._follow_not_before_s = self._now_s() + wait_s
        else:
            self._followed, self._follow_failures = base, 0

    def _is_overtaken(self) -> bool:
        is_due = self._burst is not None and due_s(self._burst, *self._times) <= self._now_s()
        return is_due or bool(self._requests.fresh)

    def _follow_agent(self) -> Steps:
        """Look again and again, beside the loop; each look finds something."""
        pace = Pace(self._settings.follow_s)
        while True:
            now_s = self._now_s()
            pace.synced(now_s)
            due_s = pace.due_s(now_s, is_paced=now_s < self._pacing.paced_until_s)
            if due_s > now_s:
                yield from self._wait(due_s)
                continue
            requests = _LOOK_REQUESTS
            try:
                began_s = yield from self._start_program(ApiStep.EXECUTION)
                yield from self._finish_program(ApiStep.EXECUTION, began_s, FIRST_POLL_S)
                yield from self._request("export-artifacts", ApiStep.EXECUTION)
                yield from self._request("download", ApiStep.EXECUTION)
            except StepFailed:
                requests = 0
            pace.looked(now_s, self._now_s(), requests, has_changed=True)

    # -- the sandbox

    def _have_sandbox(self) -> Steps:
        """Acquire a sandbox if that is configured and the last one is gone or about to end."""
        if self._settings.ttl_s is None:
            return
        if self._acquired is not None and not should_be_replaced(self._acquired, self._timeline.now_s):
            return
        yield from self._save_before_end()
        yield from self._with_retries(self._acquire, lambda _: self._acquire_failures)
        self._base = self._followed = self._upload_url = None
        self._proved, self._uploaded, self._look_failures = False, "", 0

    def _acquire(self) -> Steps:
        self._acquire_failures += 1
        now_s = self._timeline.now_s
        must_wait_s = acquire_wait_s(self._acquired_wall_s, now_s)
        if must_wait_s > 0:
            raise StepFailed(ApiStep.UPLOAD_URL, FailureAction.RETRY, "too many", retry_after_s=must_wait_s)
        before = self._acquired_wall_s[-2:]
        self._acquired_wall_s = [*before, now_s]
        try:
            yield from self._request("acquire", ApiStep.UPLOAD_URL)
        except StepFailed as failure:
            if not failure.possibly_applied:
                self._acquired_wall_s = before
            raise
        self._acquire_failures = 0
        ends_s = now_s + (self._settings.ttl_s or inf)
        self._acquired = AcquiredSandbox(f"{self.number}-{now_s}", now_s, ends_s, {})

    def _save_before_end(self) -> Steps:
        acquired, now_s = self._acquired, self._now_s()
        if acquired is not None and self._work_saved_for != acquired.sandbox_id:
            self._work_saved_for = acquired.sandbox_id
            self._work_ends_at_s, self._save_again_at_s = now_s + margin_s(acquired), now_s
        if now_s < self._save_again_at_s:
            return
        left_s = self._work_ends_at_s - now_s
        self._save_again_at_s = now_s + left_s / 2 if left_s > 2 * LAST_S else inf
        if left_s <= 0:
            return
        try:
            began_s = yield from self._start_program(ApiStep.INITIALIZE)
            yield from self._finish_program(ApiStep.INITIALIZE, began_s, FIRST_POLL_S)
        except StepFailed:
            return  # a warning

    # -- requests

    def _request(
        self,
        op: str,
        step: ApiStep,
        *,
        bytes_out: int = 0,
        is_whole: bool = False,
        kind: RequestKind = RequestKind.SINGLE,
    ) -> Steps:
        """Send a request, after the wait that the API's limit takes. Raises `StepFailed`."""
        timeline, is_bucket = self._timeline, op in BUCKET_OPS
        if not is_bucket:
            wait_s = self._pacing.wait_s(kind, self._now_s())
            if wait_s > 0:
                yield Wait(timeline.now_s + wait_s, is_open=False)
        if timeline.now_s < self._network_from_s:
            raise StepFailed(step, FailureAction.OFFLINE, "no network", possibly_applied=False)
        sent = Sent(self.number, bytes_out, is_whole, self._is_connected(is_bucket))
        reply = self._api.request(op, timeline.now_s, sent)
        yield Wait(reply.at_s, is_open=False)
        while self._closed_at_s is not None:
            yield Wait(inf, is_open=True)  # what was under way is cut off by a sleep
            reply = Reply(reply.at_s, None)
        now_s = self._now_s()
        if not is_bucket:
            self._pacing = self._pacing.answered(kind, reply.status, now_s, now_s)
        if reply.status is None:
            self._connections.pop(is_bucket, None)
            raise StepFailed(step, FailureAction.OFFLINE, "no answer")
        self._connections[is_bucket] = ConnectionTime(now_s, timeline.now_s)
        if reply.status != 200:
            raise _failed(step, op, reply)

    def _is_connected(self, is_bucket: bool) -> bool:
        last = self._connections.get(is_bucket)
        if last is None or (not is_bucket and self._api.was_cut(last.boottime_s, self._timeline.now_s)):
            return False
        return not is_over(last, ConnectionTime(self._now_s(), self._timeline.now_s))


def _failed(step: ApiStep, op: str, reply: Reply) -> StepFailed:
    """Return the failure that a bad answer is, as the API's and the bucket's clients do."""
    status = reply.status or 0
    if op in BUCKET_OPS:
        action = classify_bucket_status(status, reply.code)
    else:
        action = classify_api_status(step if op == "initialize" else ApiStep.EXECUTION, status)
    refusal = SandboxNotFound if status in (404, 410) else SandboxRefused
    possibly = status < 300 or (status >= 500 and status != 503)
    asked_s = reply.retry_after_s
    return StepFailed(step, action, op, retry_after_s=asked_s, refusal=refusal, possibly_applied=possibly)
