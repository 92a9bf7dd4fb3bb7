"""A look whose requests hang is given up in time, and what it does not concern arrives. In real time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from syncd.archive.snapshotter import SyncMode
from syncd.core.clock import SystemClock
from syncd.core.signals import Interrupt
from syncd.core.waiter import Waiter
from syncd.remote.failure import FailureAction
from syncd.remote.http_client import HttpClient
from syncd.sandbox import looks
from syncd.sandbox.look_request import LookAction, LookItem, LookRequest
from syncd.sandbox.looks import Times
from tests.emulator import Emulator
from tests.integration.sync_rig import KEY, Rig

# Long enough for a program there to begin and end on a busy machine.
_TIMES = {"OF_SYNC": Times(2.5, 9.0, 0.0, 2.5), "AFTER_UPLOAD_S": 1.2, "_START_S": 1.2}
_LONG = pytest.mark.long


class _RealTime(SystemClock):
    """The machine's clock, of which no time is skipped."""

    def go_on(self, seconds: float) -> None:
        pass


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """`a` and `b` are in the sandbox; the agent changed `a`, and so did someone here, who also made `new`."""
    for name, times in _TIMES.items():
        monkeypatch.setattr(looks, name, times)
    clock = _RealTime()
    with Emulator(tmp_path / "emulator", api_key=KEY, clock=clock) as emulator:
        rig = Rig(tmp_path, emulator, clock)  # type: ignore[arg-type]
        rig.client = HttpClient(Waiter(Interrupt(), clock))
        rig.use_defaults()
        rig.send({"a": "ours: a", "b": "ours: b"})
        rig.agent.write("a", "theirs: a")
        rig.edit(a="newer", new="new")
        yield rig
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
def test_the_archive_is_read_instead(rig: Rig, fault: str) -> None:
    """What the agent changed is saved all the same, and the status names what hangs."""
    rig.emulator.faults.script(fault)
    began_s = rig.clock.monotonic_s()
    rig.sync()
    assert rig.clock.monotonic_s() - began_s < 20
    assert (rig.there("a"), rig.there("new")) == ("newer", "new")
    assert rig.saved == {"a": ["theirs: a"]}
    assert "takes longer than" in rig.warnings["remote-changes"]


@pytest.mark.parametrize(
    ("fault", "hung"),
    [("execution-logs: hang 60 always", "execute"), pytest.param("download: drip 0.1 always", "dump", marks=_LONG)],
)
def test_what_hung_is_waited_for_once(rig: Rig, fault: str, hung: str) -> None:
    """One path is held and all else is packed again: the second look of the sync does without what hung."""
    rig.set(agent_changes="hold" if hung == "execute" else "save")
    rig.emulator.faults.script(fault)
    before = rig.asked().count(hung)
    rig.sync()
    assert rig.asked().count(hung) == before + 1
    assert (rig.there("a"), rig.there("new")) == ("theirs: a", "new")
    assert "held:a" in rig.warnings


@pytest.mark.parametrize("fault", [pytest.param("dump: drip 0.3 always", marks=_LONG), "dump: 503 always"])
def test_nobody_can_look(rig: Rig, fault: str) -> None:
    """The API answers all else, so the sync goes on, and says so; the next one does not wait for the same at once."""
    rig.emulator.faults.script("execute: hang 60 always", fault)
    rig.sync()
    assert (rig.there("a"), rig.there("new")) == ("newer", "new")
    asked = rig.asked().count("execute")
    rig.send({"new": "newest"})
    assert (rig.there("new"), rig.asked().count("execute")) == ("newest", asked)
    assert rig.warnings["remote-changes"].startswith("nobody could look for changes in the sandbox (")
    assert "a sync within 15 minutes looks again" in rig.warnings["remote-changes"]
    rig.edit(new="asked")
    rig.sync(SyncMode.ASKED)
    assert rig.asked().count("execute") == asked + 1
    rig.keys["retry"]["give_up_after_seconds"] = 1
    rig.set(agent_changes="hold")
    rig.edit(new="held")
    for _ in range(2):  # and none is put off
        asked = rig.asked().count("execute")
        assert rig.fail()[0].message.endswith("so nothing is written there")
        assert rig.asked().count("execute") > asked


def test_an_archive_that_hung_puts_off_no_program(rig: Rig) -> None:
    """Where a program is refused at once, only the archive is not read again soon: the next sync looks and saves."""
    rig.emulator.faults.script("execute: 501 always", "download: drip 0.1 always")
    rig.sync()
    rig.send({"new": "newer"})
    assert rig.asked().count("dump") == 1
    assert rig.warnings["remote-changes"].startswith("nobody could look for changes in the sandbox (")
    rig.emulator.faults.clear()
    rig.agent.write("b", "theirs: b")
    rig.send({"b": "newer"})
    assert (rig.there("b"), rig.saved) == ("newer", {"b": ["theirs: b"]})


@pytest.mark.parametrize("fault", [pytest.param("hang 60 always", marks=_LONG), "503 always"])
def test_a_network_that_is_away_is_no_sandbox_without_looks(rig: Rig, fault: str) -> None:
    """Nothing is overwritten unsaved as soon as it is back."""
    rig.set("retry", give_up_after_seconds=1)
    rig.emulator.faults.script(*(f"{op}: {fault}" for op in ("execution-upload-url", "dump", "get")))
    failure, _ = rig.fail()
    assert failure.action is not FailureAction.REFUSED
    assert rig.there("a") == "theirs: a"
    rig.emulator.faults.clear()
    rig.sync()
    assert (rig.there("a"), rig.saved) == ("newer", {"a": ["theirs: a"]})


def test_what_a_look_did_not_come_to_waits(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not known, so it is not overwritten; it is named, and looked at again although nothing changes here."""
    monkeypatch.setattr(looks, "OF_SYNC", replace(looks.OF_SYNC, program_s=-1.0))
    rig.sync()
    assert (rig.there("a"), rig.there("new"), rig.saved) == ("theirs: a", None, {})
    assert "could not be looked at in time" in rig.warnings["remote-changes"]
    assert rig.warnings["held:a"].startswith("'a' could not be read in the sandbox, or not in time")
    monkeypatch.undo()
    rig.cycle.sandbox.looks.look(LookRequest({"b": LookItem((), LookAction.EXISTS)}))
    assert "could not be looked at in time" in rig.warnings["remote-changes"]  # another look tells nothing of these
    rig.settle()
    assert (rig.there("a"), rig.there("new")) == ("newer", "new")
    assert (rig.saved, rig.warnings) == ({"a": ["theirs: a"]}, {})
