"""Polls: how often, of what, and which files they read once more."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import pytest

from syncd.watch.mounts import Polling, WorkspaceMounts, poll_interval_s

NOW_S = 1_000.0
SHARED_PART = WorkspaceMounts({"data": "nfs4", "excluded": "nfs4"}, frozenset({"", "data/local"}))
ON_SHARE = frozenset({"data", "data/deep"})
NONE: frozenset[str] = frozenset()


@dataclass
class Kernel:
    """What the watch and the list of mounts say, and the directories of the last scan."""

    mounts: WorkspaceMounts = field(default_factory=WorkspaceMounts)
    needs_polling: bool = False

    def directories_within(self, paths: Collection[str], without: Collection[str]) -> frozenset[str]:
        assert (paths, without) == (self.mounts.shared, self.mounts.local)
        return ON_SHARE if "data" in paths else NONE


def _polling(kernel: Any) -> Polling:
    return Polling(kernel, kernel, kernel.directories_within)


@pytest.mark.parametrize(("took_s", "interval_s"), [(0.0, 2.0), (0.1, 2.0), (0.2, 4.0), (30.0, 600.0)])
def test_poll_interval(took_s: float, interval_s: float) -> None:
    """Every two seconds, and for at most a twentieth of the time."""
    assert poll_interval_s(took_s) == interval_s


def test_several_sandboxes() -> None:
    """Together they poll for a twentieth of the time."""
    kernel: Any = Kernel(SHARED_PART)
    polling = Polling(kernel, kernel, kernel.directories_within, lambda: 3)
    polling.due_s = NOW_S
    polling.add_due(NONE, NONE, NOW_S)
    polling.scanned(ON_SHARE, NOW_S, 0.5)
    assert polling.due_s == NOW_S + 30


def test_the_pace_of_a_part() -> None:
    """The time that a poll took decides when the next one is due; that of a full scan, or of an event's, does not."""
    polling = _polling(Kernel(SHARED_PART))
    polling.scanned(None, NOW_S, 30.0)
    assert polling.due_s == NOW_S + 2
    polling.add_due(NONE, NONE, NOW_S + 2)
    polling.scanned(ON_SHARE, NOW_S + 2, 0.5)
    assert polling.due_s == NOW_S + 12
    polling.add_due(frozenset({"src"}), NONE, NOW_S + 5)
    polling.scanned(frozenset({"src"}), NOW_S + 5, 0.1)
    assert polling.due_s == NOW_S + 12
    polling.scanned(None, NOW_S + 11, 30.0)
    assert polling.due_s == NOW_S + 21
