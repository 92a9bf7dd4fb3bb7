"""The reasons for a sync. Their values are the words of the history."""

from __future__ import annotations

from enum import Enum


class SyncReason(Enum):
    """A reason for a sync."""

    ORDER = "asked for"
    CHANGE = "changes"
    RESCAN = "a periodic look"
    POLL = "a poll"
    RETRY = "another try after a failure"
