"""`syncd check` looks at the sandbox as a sync does: by a program, else by its archive, and never for long."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.cli.check import look_check
from syncd.cli.check.finding import Finding, Grade
from syncd.cli.check.look_check import check_look
from syncd.core.api_key import ApiKey
from syncd.core.choices import AgentChanges
from syncd.core.clock import Clock, SystemClock
from syncd.remote.target import Target
from tests.clock import ScriptedClock
from tests.emulator import Emulator

BY_PROGRAM = ["execution-upload-url", "execution-upload", "execute", "execution-logs"]


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[Emulator]:
    """A sandbox that somebody filled."""
    with Emulator(tmp_path / "cloud") as emulator:
        (emulator.create_sandbox("box").workspace / "theirs.txt").write_text("text\n")
        yield emulator


def _look(emulator: Emulator, agent_changes: AgentChanges = AgentChanges.SAVE, clock: Clock | None = None) -> Finding:
    target = Target(emulator.base_url, "box", "us")
    key = ApiKey(emulator.api_key, "a test")
    return check_look(target, agent_changes, key=key, clock=clock or SystemClock())


def _ops(emulator: Emulator) -> set[str]:
    return set(emulator.request_log.ops())


@pytest.mark.parametrize("agent_changes", [AgentChanges.SAVE, AgentChanges.HOLD])
def test_a_program_looks(emulator: Emulator, agent_changes: AgentChanges) -> None:
    """One execution, which fetches and changes nothing."""
    assert _look(emulator, agent_changes).grade is Grade.PASS
    assert _ops(emulator) == set(BY_PROGRAM)
    assert [path.name for path in emulator.sandbox("box").workspace.iterdir()] == ["theirs.txt"]


def test_nobody_looks_where_all_is_overwritten(emulator: Emulator) -> None:
    """With "overwrite" no request is sent."""
    found = _look(emulator, AgentChanges.OVERWRITE)
    assert (found.grade, found.remedy) == (Grade.NOTE, "")
    assert "nobody looks" in found.what
    assert _ops(emulator) == set()


@pytest.mark.parametrize("fault", ["execute: 501 always", "execute: failed always", "execute: pending always"])
def test_no_program_runs(emulator: Emulator, fault: str) -> None:
    """The archive is read instead, also after a program that never begins."""
    emulator.faults.script(fault)
    found = _look(emulator, clock=ScriptedClock())
    assert found.grade is Grade.NOTE
    assert "takes the whole archive" in found.what
    assert emulator.request_log.ops()[-2:] == ["dump", "download"]


@pytest.mark.parametrize(
    ("agent_changes", "grade", "words"),
    [
        (AgentChanges.SAVE, Grade.WARN, "overwritten unsaved"),
        (AgentChanges.HOLD, Grade.FAIL_FOR_NOW, "nothing is sent"),
    ],
)
@pytest.mark.parametrize("fault", ["dump: 501 always", "download: cut always", "download: reset always"])
def test_nobody_can_look(emulator: Emulator, agent_changes: AgentChanges, grade: Grade, words: str, fault: str) -> None:
    """It says what follows, by the setting."""
    emulator.faults.script("execute: 501 always", fault)
    found = _look(emulator, agent_changes)
    assert found.grade is grade
    assert words in found.what
    assert "run `syncd check` again" in found.remedy


@pytest.mark.parametrize("fault", ["execution-upload-url: hang 60 always", "execution-logs: drip 1 always"])
def test_a_server_that_hangs(emulator: Emulator, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """Each of the two is given up in time."""
    monkeypatch.setattr(look_check, "LOOK_S", 0.3)
    emulator.faults.script(fault, "dump: hang 60 always")
    found = _look(emulator)
    assert found.grade is Grade.WARN
    assert found.what.count("takes longer than") == 2
