"""How looking at a sandbox goes: what is done next after each failure, as a table."""

from __future__ import annotations

from math import inf

import pytest
from msgspec.structs import replace

from syncd.core.choices import AgentChanges
from syncd.remote.failure import FIRST_WAIT_S, ApiStep, FailureAction, StepFailed
from syncd.sandbox.look_request import LookResult
from syncd.sandbox.looks import AFTER_UPLOAD_S, OF_SYNC, LookTries, Way

BUSY = StepFailed(ApiStep.EXECUTION, FailureAction.RETRY, "busy")
ASKS_TO_WAIT = StepFailed(ApiStep.EXECUTION, FailureAction.RETRY, "busy", retry_after_s=OF_SYNC.look_s)
NO_PROGRAMS = StepFailed(ApiStep.EXECUTION, FailureAction.REFUSED, "no programs")
FINE, FAILED = LookTries(), LookTries(failure=BUSY, again_at_s=-inf)
QUICK_S, LONG_S, NOW_S = 1.0, AFTER_UPLOAD_S, 1000.0
SEEN, BY_ARCHIVE = LookResult(), LookResult(kinds_only=True)


@pytest.mark.parametrize(
    ("before", "failure", "took_s", "way", "follows"),
    [
        # Once, what may pass is tried again …
        (FINE, BUSY, QUICK_S, Way.PROGRAM, FAILED),
        # … and then the archive is read; the next look of the sync begins with a program all the same …
        (FAILED, BUSY, QUICK_S, Way.ARCHIVE, FAILED),
        (FINE, NO_PROGRAMS, QUICK_S, Way.ARCHIVE, LookTries(failure=NO_PROGRAMS)),
        (FINE, ASKS_TO_WAIT, QUICK_S, Way.ARCHIVE, LookTries(failure=ASKS_TO_WAIT)),
        (LookTries(Way.NO_COPIES, BUSY, -inf), BUSY, QUICK_S, Way.ARCHIVE, LookTries(Way.NO_COPIES, BUSY, -inf)),
        # … but not after one that took long.
        (FINE, BUSY, LONG_S, Way.ARCHIVE, LookTries(Way.ARCHIVE, BUSY)),
        (FAILED, BUSY, LONG_S, Way.ARCHIVE, LookTries(Way.ARCHIVE, BUSY, -inf)),
    ],
)
def test_a_program_failed(before: LookTries, failure: StepFailed, took_s: float, way: Way, follows: LookTries) -> None:
    assert before.program_failed(failure, took_s) == (follows, way)


@pytest.mark.parametrize(
    ("before", "seen", "took_s", "follows"),
    [
        # What a program saw counts; where its copies took long to fail, the sync goes on without any.
        (FAILED, SEEN, QUICK_S, LookTries(failure=BUSY)),
        (LookTries(Way.ARCHIVE, BUSY), SEEN, LONG_S, LookTries(Way.NO_COPIES, BUSY)),
        # Else nobody could look. What failed at once is asked again by the next sync …
        (FAILED, None, QUICK_S, LookTries(failure=BUSY, again_at_s=-inf, tries=1)),
        # … and what took long later each time: only the archive, where a program failed at once, …
        (
            FAILED,
            None,
            LONG_S,
            LookTries(failure=BUSY, again_at_s=-inf, tries=1, archive_at_s=NOW_S + FIRST_WAIT_S),
        ),
        # … else both.
        (
            LookTries(Way.ARCHIVE, BUSY),
            None,
            QUICK_S,
            LookTries(failure=BUSY, again_at_s=NOW_S + FIRST_WAIT_S, tries=1),
        ),
        (
            LookTries(failure=BUSY, again_at_s=1.0, tries=1),
            None,
            LONG_S,
            LookTries(failure=BUSY, again_at_s=-inf, tries=2, archive_at_s=NOW_S + 2 * FIRST_WAIT_S),
        ),
    ],
)
def test_the_archive_failed_too(before: LookTries, seen: LookResult | None, took_s: float, follows: LookTries) -> None:
    assert before.archive_failed(seen, took_s, NOW_S) == follows


def test_a_look_succeeded() -> None:
    """A program's mends all; what the sync that is under way goes without, it goes on without."""
    waited = LookTries(failure=NO_PROGRAMS, again_at_s=1.0, tries=3)
    assert waited.succeeded(SEEN) == FINE
    assert waited.succeeded(BY_ARCHIVE) == LookTries(failure=NO_PROGRAMS)
    for way in (Way.NO_COPIES, Way.ARCHIVE):
        assert replace(waited, way=way).succeeded(SEEN) == LookTries(way, NO_PROGRAMS)


def test_the_archive_waits() -> None:
    """It is read again at its time; with `hold`, by which nothing is sent without a look, always."""
    waits = LookTries(failure=BUSY, again_at_s=-inf, tries=1, archive_at_s=NOW_S)
    assert waits.first_way(AgentChanges.SAVE, NOW_S - 1) is Way.PROGRAM
    assert not waits.reads_archive(AgentChanges.SAVE, NOW_S - 1)
    assert waits.reads_archive(AgentChanges.SAVE, NOW_S)
    assert waits.reads_archive(AgentChanges.HOLD, NOW_S - 1)


def test_nobody_looks_until_it_is_time() -> None:
    """With `hold` nothing is sent without a look, so that each sync looks."""
    waits = LookTries(failure=BUSY, again_at_s=NOW_S, tries=1)
    for agent_changes, way in ((AgentChanges.SAVE, Way.NOBODY), (AgentChanges.HOLD, Way.PROGRAM)):
        assert waits.first_way(agent_changes, NOW_S - 1) is way
        for looking in (waits, FINE, FAILED):
            assert looking.first_way(agent_changes, NOW_S) is Way.PROGRAM
    assert LookTries(Way.ARCHIVE, BUSY).first_way(AgentChanges.SAVE, NOW_S) is Way.ARCHIVE
