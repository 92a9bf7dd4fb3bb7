"""The syncs that are recorded."""

from __future__ import annotations

from typing import Any

import pytest

from syncd.core.clock import utc
from syncd.report.history import ErrorRecord, SyncEnding, SyncRecord, should_record
from syncd.sync.outcome import SyncReason
from tests.clock import NOON_S

NOON = utc(NOON_S)
BUSY = ErrorRecord("upload", "Klavis' storage answered 503")
STILL_BUSY = ErrorRecord("upload", "Klavis' storage answered 500")
GONE = ErrorRecord("initialize", "no such sandbox")
CHANGES, ASKED, LOOK, RETRY = (
    reason.value for reason in (SyncReason.CHANGE, SyncReason.ORDER, SyncReason.RESCAN, SyncReason.RETRY)
)


def record(outcome: str, why: str = CHANGES, error: ErrorRecord | None = None, **more: Any) -> SyncRecord:
    return SyncRecord(**{"at": NOON, "why": why, "outcome": outcome, "error": error, **more})


def failed(error: ErrorRecord) -> SyncRecord:
    return record(SyncEnding.FAILED, error=error)


@pytest.mark.parametrize(
    ("ended", "before", "is_recorded"),
    [
        (record(SyncEnding.UNCHANGED, LOOK), None, False),
        (record(SyncEnding.UNCHANGED), None, False),
        (record(SyncEnding.UNCHANGED, ASKED), None, True),
        (record(SyncEnding.UNCHANGED, RETRY), failed(BUSY), True),
        (record(SyncEnding.INITIALIZED, LOOK), None, True),
        (record(SyncEnding.INITIALIZED, error=BUSY), failed(BUSY), True),
        (record(SyncEnding.FAILED, error=BUSY), None, True),
        (record(SyncEnding.FAILED, RETRY, BUSY), failed(BUSY), False),
        (record(SyncEnding.FAILED, RETRY, STILL_BUSY), failed(BUSY), False),
        (record(SyncEnding.FAILED, ASKED, BUSY), failed(BUSY), True),
        (record(SyncEnding.FAILED, RETRY, GONE), failed(BUSY), True),
        (record(SyncEnding.SUPERSEDED), failed(BUSY), False),
        (record(SyncEnding.SUPERSEDED, ASKED), None, False),
        (record(SyncEnding.SUPERSEDED, error=BUSY), None, True),
        (record(SyncEnding.SUPERSEDED, error=BUSY), failed(BUSY), False),
        (record(SyncEnding.STOPPED), None, False),
        (record(SyncEnding.STOPPED, ASKED), None, True),
        (record(SyncEnding.UNCHANGED, RETRY), record(SyncEnding.INITIALIZED, error=BUSY), False),
        (record("a word of a later version", LOOK), None, False),
    ],
)
def test_which_syncs_are_recorded(ended: SyncRecord, before: SyncRecord | None, is_recorded: bool) -> None:
    """Those that were requested or initialized, and those that ended otherwise than the one before."""
    assert should_record(ended, before) is is_recorded
