"""With a fault that never heals all else arrives, its cause is named, and nothing spins or grows; and planted faults.

Hundreds of random stories with such faults are among those of `python -m tests.fuzz`.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from syncd.daemon import scheduler
from syncd.daemon.loop import Daemon
from syncd.daemon.sync_run import SyncRun
from syncd.remote import retry
from syncd.report.status_publisher import StatusPublisher
from syncd.sandbox.looks import Looks
from tests.fuzz.lasting import FAULTS
from tests.fuzz.runner import run
from tests.fuzz.scenario import parse, render
from tests.fuzz.simulation import Simulation

STORY = """
    settings('mirror', 'auto', 0, 0, 1.0, '{}')
    write('f', 8, 1)
    write('a/g', 300, 2)
    write('a/c/h', 300, 2)
    wait_idle()
    {}
    lasting('{}')
    write('f', 8, 3)
    rest(60.0)
    agent_writes('a/g', 5)
    agent_makes_folder('made', 6)
    write('a/new', 8, 4)
    rest(60.0)
    write('a/c/h', 300, 7)
    remove('f')
"""


def story(folder: Path, fault: str, agent_changes: str = "save") -> Simulation:
    return run(folder / "story", parse(STORY.format(agent_changes, render(FAULTS[fault].before), fault)), Counter())


@pytest.mark.parametrize("fault", FAULTS)
def test_all_else_arrives_and_nothing_spins(tmp_path: Path, fault: str) -> None:
    """An hour later too: a bounded number of requests and wake-ups, and no more memory; and all once it heals."""
    # Without looks, an attempt takes two requests of the emulator and no program.
    simulation = story(tmp_path, fault, "overwrite" if fault == "initialize lost" else "save")
    assert simulation.lost == []
    assert sum(f"beside {fault!r}" in line for line in simulation.log) == 1


def no_backoff(patch: pytest.MonkeyPatch) -> None:
    for module in (scheduler, retry):
        patch.setattr(module, "delay_s", lambda *_: 10.0)


def no_words(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StatusPublisher, "failed", lambda self, step, failure: None)
    patch.setattr(StatusPublisher, "warn", lambda self, warnings: None)


def spins(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Daemon, "deadline_s", lambda self: self.shared.workspace.waiter.clock.monotonic_s() + 1.0)


def grows(patch: pytest.MonkeyPatch) -> None:
    wait_out = SyncRun.wait_out

    def noted(self: Any, failure: Exception, wait_s: float) -> None:
        self.agenda.attempts = [*getattr(self.agenda, "attempts", []), [str(failure), wait_s]]
        wait_out(self, failure, wait_s)  # type: ignore[arg-type]

    patch.setattr(SyncRun, "wait_out", noted)


def gives_up(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Looks, "_could_not", lambda self, failure: (_ for _ in ()).throw(failure))


@pytest.mark.long
@pytest.mark.parametrize(
    ("plant", "fault", "agent_changes", "words"),
    [
        (no_backoff, "initialize lost", "save", "requests an hour"),
        (no_words, "denied", "save", "is short, and what is told is"),
        (no_words, "initialize lost", "overwrite", "is short, and what is told is"),
        (spins, "executions 404", "overwrite", "wakes up"),
        (grows, "initialize lost", "overwrite", "more objects are held"),
        (gives_up, "nobody looks", "save", "this does not arrive"),
    ],
)
def test_planted_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plant: Any, fault: str, agent_changes: str, words: str
) -> None:
    """A daemon without back-off, words, rest or bounds, or that stops for what it cannot do, is noticed."""
    plant(monkeypatch)
    lost = story(tmp_path, fault, agent_changes).lost
    assert any(words in line for line in lost), lost
