"""Checks if someone can look for changes in the sandbox: a program there, else its archive.

The look asks for nothing and only reads; it has the same time as the look of a sync.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable

from syncd.cli.check.finding import Finding, Grade
from syncd.cli.check.thresholds import LookAttempt, judge_look
from syncd.core.api_key import ApiKey
from syncd.core.choices import AgentChanges
from syncd.core.clock import Clock
from syncd.core.interrupt import Interrupt
from syncd.core.text import one_line
from syncd.core.waiter import Waiter
from syncd.remote.api import Api
from syncd.remote.bucket import Dump
from syncd.remote.failure import ApiStep, RetrySettings, StepFailed
from syncd.remote.http_client import HttpClient
from syncd.remote.remote_job import JobRunner, Purpose
from syncd.remote.target import Target
from syncd.sandbox.look import Looker
from syncd.sandbox.look_by_dump import DumpLooker
from syncd.sandbox.look_request import LookRequest
from syncd.sandbox.pending_removals import PendingRemovals
from syncd.sandbox.remote_changes import LOOK_S

_NO_RETRIES = RetrySettings(1.0, 1.0, 0.0)
_LONGEST_REASON = 120
_LOOK = Purpose(ApiStep.EXECUTION, "a look")


def check_look(target: Target, agent_changes: AgentChanges, *, key: ApiKey, clock: Clock) -> Finding:
    """Look once by a program, and by `/dump` if that fails; each within `LOOK_S`. `agent_changes` is the setting."""
    if agent_changes is AgentChanges.OVERWRITE:
        what = 'nobody looks for what the agent changed, as sandbox.agent_changes = "overwrite"'
        return Finding("looks", Grade.NOTE, what)
    waiter = Waiter(Interrupt(), clock)
    client = HttpClient(waiter)
    api = Api(target, key, client, clock)
    with tempfile.TemporaryDirectory(prefix="syncd-check-") as folder:
        looker = Looker(JobRunner(api, client, waiter), PendingRemovals(folder, target), waiter)
        dump_looker = DumpLooker(Dump(api, client, _NO_RETRIES, waiter))
        request = LookRequest({})
        try:
            program = archive = _attempt(waiter, lambda: looker.look(request, folder, waiter.poll_events))
            if program.failure:
                archive = _attempt(waiter, lambda: dump_looker.look(request, folder, waiter.poll_events))
        finally:
            client.drop()
    return judge_look(agent_changes, program, archive)


def _attempt(waiter: Waiter, look: Callable[[], object]) -> LookAttempt:
    """Call `look`, which is ended in time."""
    began_s = waiter.clock.monotonic_s()
    failure = ""
    try:
        with _LOOK.limited(waiter, LOOK_S):
            look()
    except StepFailed as failed:
        failure = one_line(failed.message, _LONGEST_REASON)
    return LookAttempt(waiter.clock.monotonic_s() - began_s, failure)
