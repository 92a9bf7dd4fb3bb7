"""A person is told of the agent's work that had to give way, and of what is lost with a sandbox, and of no more."""

from __future__ import annotations

from functools import partial
from math import inf

import pytest

from syncd.core.errors import TryLater
from syncd.core.waiter import Event
from syncd.sandbox.look_request import LookRequest
from syncd.sync import agent_work
from syncd.sync.work_saver import UNSAVED
from tests.agent import Agent
from tests.integration.sync_rig import Rig
from tests.integration.test_three_sides import without_copies


@pytest.fixture
def rig(bare: Rig) -> Rig:
    """The defaults; `a` and `b` are in the sandbox."""
    bare.use_defaults()
    bare.send({"a": "ours", "b": "ours"})
    return bare


@pytest.fixture
def acquired(bare: Rig) -> Rig:
    """The same in an acquired sandbox, where the agent changed both."""
    bare.use_defaults()
    del bare.keys["sandbox"]["id"]
    bare.set(acquire={"servers": ["filesystem"], "ttl_seconds": 7200})
    bare.send({"a": "ours", "b": "ours"})
    _agent(bare).write("a", "theirs: a")
    _agent(bare).write("b", "theirs: b")
    return bare


def _agent(rig: Rig) -> Agent:
    target = rig.cycle.target
    return Agent(rig.emulator.sandbox(target.sandbox_id).workspace)


def _save_until_the_end(rig: Rig) -> int:
    """Save whenever it is due, as the daemon's loop does; return how often that was."""
    times = 0
    while rig.cycle.save_at_s < inf:
        rig.clock.go_on(max(0.0, rig.cycle.save_at_s - rig.clock.monotonic_s()))
        rig.cycle.save_before_end()
        times += 1
    return times


def test_what_the_agent_does_in_the_last_minute_is_saved(acquired: Rig) -> None:
    """It is looked at again until the end, also once the next sandbox is in use, and if the clock is set back."""
    acquired.clock.go_on(7100)
    acquired.clock.wall -= 3000
    acquired.clock.go_on(max(0.0, acquired.cycle.save_at_s - acquired.clock.monotonic_s()))
    acquired.cycle.save_before_end()
    agent = _agent(acquired)
    acquired.sync()
    agent.write("late", "the last thing")
    assert _save_until_the_end(acquired) == 3 + 4  # of the old one, then of the next
    assert acquired.status.agent.saved == 2


@pytest.mark.parametrize("status", [404, 501, 503])
def test_a_failure_right_before_the_end(acquired: Rig, status: int) -> None:
    """It is tried again, also where the API says that it knows no such sandbox."""
    acquired.clock.go_on(max(0.0, acquired.cycle.save_at_s - acquired.clock.monotonic_s()))
    acquired.emulator.faults.script(f"execute: {status}", f"dump: {status}")
    acquired.cycle.save_before_end()
    assert acquired.emulator.request_log.entries()[-1].status == status
    _save_until_the_end(acquired)
    assert acquired.status.agent.saved == 1
    assert not acquired.cycle.warnings


def test_a_change_here_keeps_nothing_from_being_saved(acquired: Rig) -> None:
    """Where only the sandbox's archive tells, whose download gives way to a change else."""
    acquired.emulator.faults.script("execute: 501 always")
    with acquired.client.waiter.superseded_by(lambda: dict.fromkeys(Event, -inf)):
        _save_until_the_end(acquired)
    assert acquired.status.agent.saved == 1


def test_nobody_can_look_before_the_end(acquired: Rig) -> None:
    """It is a warning of which a person is told at once, and which stays."""
    acquired.emulator.faults.script("execute: 501 always", "dump: 501 always")
    _save_until_the_end(acquired)
    assert list(acquired.warnings) == [UNSAVED]
    assert "could not be saved before it ended" in acquired.warnings[UNSAVED]


def test_some_files_are_not_saved(acquired: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are counted and named; the others are saved."""
    agent = _agent(acquired)
    for number in range(6):
        agent.write(f"large{number}\n", "x" * 1000)
    monkeypatch.setattr(agent_work, "LookRequest", partial(LookRequest, most_copied_bytes=100))
    _save_until_the_end(acquired)
    (warning,) = acquired.cycle.warnings
    told = warning.what
    assert told.startswith("6 paths in the sandbox ")
    assert " could not be saved before it ended: 'large0\\n' (" in told
    assert told.endswith(", and 1 more")
    assert acquired.status.agent.saved == 1
    assert "syncd pull" in warning.remedy


@pytest.mark.parametrize("reason", ["nobody answers", "being written", "gone"])
def test_a_move_waits(rig: Rig, monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    """Nothing goes to the next sandbox before the work in the old one is saved; unless that one is gone."""
    Agent(rig.sandbox.workspace).write("a", "theirs")
    old, new = rig.sandbox, rig.emulator.create_sandbox("next")
    rig.set(id="next")
    if reason == "gone":
        old.record.expires_at_s = 0.0
    elif reason == "being written":
        without_copies(monkeypatch, unstable=True, digest=b"")
        with pytest.raises(TryLater, match=r"is not left, as 1 path there could not be saved: 'a' \(it is still being"):
            rig.sync()
    else:
        rig.emulator.faults.script("execute: 503 always", "dump: 503 always")
        failure, _ = rig.fail()
        assert "cannot be saved before it is left" in str(failure)
    assert not (new.workspace / "a").exists()
    monkeypatch.undo()
    rig.end_faults()
    rig.sync()
    assert (new.workspace / "a").read_text() == "ours"
    assert rig.status.agent.saved == (reason != "gone")
    assert list(rig.warnings) == (["ended"] if reason == "gone" else [])
