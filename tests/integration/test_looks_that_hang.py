"""A look whose requests hang is given up in time, and what it does not concern arrives. In real time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from syncd.core.clock import SystemClock
from syncd.core.signals import Interrupt
from syncd.core.waiter import Waiter
from syncd.remote.failure import FailureAction
from syncd.remote.http_client import HttpClient
from syncd.sandbox import looks
from syncd.sandbox.looks import Times
from tests.emulator import Emulator
from tests.integration.sync_rig import KEY, Rig
from tests.integration.test_three_sides import AgentRig

# Long enough for a program there to begin and end on a busy machine.
_TIMES = {"OF_SYNC": Times(2.5, 9.0, 0.0, 2.5), "AFTER_UPLOAD_S": 1.2, "_START_S": 1.2}
_LONG = pytest.mark.long


class _RealTime(SystemClock):
    """The machine's clock, of which no time is skipped."""

    def go_on(self, seconds: float) -> None:
        pass


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AgentRig]:
    """`a` and `b` are in the sandbox; the agent changed `a`, and so did someone here, who also made `new`."""
    for name, times in _TIMES.items():
        monkeypatch.setattr(looks, name, times)
    clock = _RealTime()
    with Emulator(tmp_path / "emulator", api_key=KEY, clock=clock) as emulator:
        rig = Rig(tmp_path, emulator, clock)  # type: ignore[arg-type]
        rig.client = HttpClient(Waiter(Interrupt(), clock))
        rig.use_defaults()
        made = AgentRig(rig)
        made.edit(a="ours: a", b="ours: b")
        rig.sync()
        made.agent.write("a", "theirs: a")
        made.edit(a="newer", new="new")
        yield made
        rig.client.drop()


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param("execution-upload-url: drip 0.3 always", marks=_LONG),
        "execution-upload: hang 60 mid-body always",
        pytest.param("execute: hang 60 after always", marks=_LONG),
        pytest.param("execution-logs: hang 60 always", marks=_LONG),
        "export-artifacts: drip 0.3 always",
    ],
)
def test_the_archive_is_read_instead(made: AgentRig, fault: str) -> None:
    """What the agent changed is saved all the same, and the status names what hangs."""
    made.rig.emulator.faults.script(fault)
    began_s = made.rig.clock.monotonic_s()
    made.rig.sync()
    assert made.rig.clock.monotonic_s() - began_s < 20
    assert (made.there("a"), made.there("new")) == ("newer", "new")
    assert made.saved == {"a": ["theirs: a"]}
    assert "takes longer than" in made.warnings["remote-changes"]


@pytest.mark.parametrize(
    ("fault", "hung"),
    [("execution-logs: hang 60 always", "execute"), pytest.param("download: drip 0.1 always", "dump", marks=_LONG)],
)
def test_what_hung_is_waited_for_once(made: AgentRig, fault: str, hung: str) -> None:
    """One path is held and all else is packed again: the second look of the sync does without what hung."""
    made.set(agent_changes="hold" if hung == "execute" else "save")
    made.rig.emulator.faults.script(fault)
    before = made.rig.asked().count(hung)
    made.rig.sync()
    assert made.rig.asked().count(hung) == before + 1
    assert (made.there("a"), made.there("new")) == ("theirs: a", "new")
    assert "held:a" in made.warnings


@pytest.mark.parametrize("fault", [pytest.param("dump: drip 0.3 always", marks=_LONG), "dump: 503 always"])
def test_nobody_can_look(made: AgentRig, fault: str) -> None:
    """The API answers all else, so the sync goes on, and says so; the next one does not wait for the same at once."""
    made.rig.emulator.faults.script("execute: hang 60 always", fault)
    made.rig.sync()
    assert (made.there("a"), made.there("new")) == ("newer", "new")
    asked = made.rig.asked().count("execute")
    made.edit(new="newest")
    made.rig.sync()
    assert (made.there("new"), made.rig.asked().count("execute")) == ("newest", asked)
    assert made.warnings["remote-changes"].startswith("nobody could look for changes in the sandbox (")
    made.rig.keys["retry"]["give_up_after_seconds"] = 1
    made.set(agent_changes="hold")
    made.edit(new="held")
    for _ in range(2):  # and none is put off
        asked = made.rig.asked().count("execute")
        assert made.rig.fail()[0].message.endswith("so nothing is written there")
        assert made.rig.asked().count("execute") > asked


@pytest.mark.parametrize("fault", [pytest.param("hang 60 always", marks=_LONG), "503 always"])
def test_a_network_that_is_away_is_no_sandbox_without_looks(made: AgentRig, fault: str) -> None:
    """Nothing is overwritten unsaved as soon as it is back."""
    made.rig.keys["retry"]["give_up_after_seconds"] = 1
    made.rig.restart()
    made.rig.emulator.faults.script(*(f"{op}: {fault}" for op in ("execution-upload-url", "dump", "get")))
    failure, _ = made.rig.fail()
    assert failure.action is not FailureAction.REFUSED
    assert made.there("a") == "theirs: a"
    made.rig.emulator.faults.clear()
    made.rig.sync()
    assert (made.there("a"), made.saved) == ("newer", {"a": ["theirs: a"]})


def test_what_a_look_did_not_come_to_waits(made: AgentRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not known, so it is not overwritten; it is named, and looked at again although nothing changes here."""
    monkeypatch.setattr(looks, "OF_SYNC", replace(looks.OF_SYNC, program_s=-1.0))
    made.rig.sync()
    assert (made.there("a"), made.there("new"), made.saved) == ("theirs: a", None, {})
    assert "could not be looked at in time" in made.warnings["remote-changes"]
    assert made.warnings["held:a"].startswith("'a' could not be read in the sandbox, or not in time")
    monkeypatch.undo()
    made.settle()
    assert (made.there("a"), made.there("new")) == ("newer", "new")
    assert (made.saved, made.warnings) == ({"a": ["theirs: a"]}, {})
