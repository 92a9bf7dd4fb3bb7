"""Polls: how often, of what, and which files they read once more."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from math import inf
from typing import Any

import pytest

from syncd.model.manifest import Difference
from syncd.watch.mounts import Polling, WorkspaceMounts, poll_interval_s

NOW_S = 1_000.0
SHARED_PART = WorkspaceMounts({"data": "nfs4", "excluded": "nfs4"}, frozenset({"", "data/local"}))
SHARED = WorkspaceMounts({"": "drvfs"}, frozenset({"local"}))
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


@pytest.mark.parametrize(
    ("kernel", "polled", "warned"),
    [
        (Kernel(), NONE, []),
        (Kernel(WorkspaceMounts(local=frozenset({"", "data"}))), NONE, []),
        (Kernel(SHARED_PART), ON_SHARE, ["shared:data"]),
        (Kernel(SHARED_PART, needs_polling=True), None, ["shared:data"]),
        (Kernel(needs_polling=True), None, []),
    ],
)
def test_the_polled_part(kernel: Kernel, polled: frozenset[str] | None, warned: list[str]) -> None:
    """The directories on shared file systems, or everything if a part is not watched."""
    polling = _polling(kernel)
    polling.scanned(None, NOW_S, 0.0)
    assert [warning.key for warning in polling.warnings] == warned
    assert polling.due_s == (inf if polled == NONE else NOW_S + 2)
    assert polling.add_due(frozenset({"src"}), NONE, NOW_S) == ({"src"}, NONE)
    found, _ = polling.add_due(frozenset({"src"}), NONE, NOW_S + 2)
    assert found == (None if polled is None else polled | {"src"})


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


def test_what_was_sent_is_read_once_more() -> None:
    """That of shared file systems, by a poll at least two seconds later, and only once."""
    polling = _polling(Kernel(SHARED_PART))
    polling.scanned(None, NOW_S, 0.0)
    polling.sent(
        Difference(["data/new", "src/new"], ["data/deep/changed", "data/local/file"], ["data/gone"]), NOW_S + 1
    )
    polling.sent(None, NOW_S + 1)
    assert polling.add_due(NONE, frozenset({"src/a"}), NOW_S + 2) == (ON_SHARE, {"src/a"})
    polling.sent(Difference(["data/later"]), NOW_S + 3)
    assert polling.add_due(None, None, NOW_S + 4) == (None, None)
    assert polling.add_due(NONE, NONE, NOW_S + 4) == (ON_SHARE, {"data/new", "data/deep/changed"})
    assert polling.add_due(NONE, NONE, NOW_S + 5) == (ON_SHARE, {"data/later"})
    assert polling.add_due(NONE, NONE, NOW_S + 9) == (ON_SHARE, NONE)
