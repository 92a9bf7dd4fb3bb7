"""Why a sync is due; the values are the words of the history."""

from __future__ import annotations

from enum import Enum


class SyncReason(Enum):
    """Why a sync is due."""

    ORDER = "asked for"
    CHANGE = "changes"
    RESCAN = "a periodic look"
    RETRY = "another try after a failure"
