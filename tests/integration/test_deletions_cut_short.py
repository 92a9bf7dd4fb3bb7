"""Removals and resets interrupted at each request by each fault: the next sync makes the sandbox equal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.core.errors import SandboxNotFound, Stop
from syncd.core.waiter import Superseded
from syncd.remote.failure import StepFailed
from tests.integration.sync_rig import SANDBOX, RecordingObserver, Rig, rigged

REMOVING = ["execution-upload-url", "execution-upload", "execute", "execution-logs", "initialize"]
RESETTING = ["reset", "initialize"]
FAULTS = ["reset", "lost", "503", "503 after", "cut", "html", "401"]
WAYS = [("mirror", op) for op in REMOVING] + [("reset", op) for op in RESETTING]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """The sandbox holds a path for every kind of deletion."""
    with rigged(tmp_path) as it:
        it.wait_for_programs()
        for path in ("a", "d/b", "kind", "stay"):
            it.write(path)
        yield it


def deletes(rig: Rig) -> None:
    for path in ("a", "d/b", "kind"):
        (rig.workspace / path).unlink()
    (rig.workspace / "d").rmdir()
    rig.write("kind/in")
    rig.write("stay", "changed")


def tree(top: Path) -> dict[str, str | None]:
    return {str(path.relative_to(top)): path.read_text() if path.is_file() else None for path in top.rglob("*")}


def as_home(rig: Rig) -> bool:
    rig.sandbox.wait()
    return tree(rig.sandbox.workspace) == tree(rig.workspace)


def _cases() -> list[object]:
    """Return some combinations of requests, faults and ends; all of them with `-m long`."""
    found: list[object] = []
    for place, (deletions, op) in enumerate(WAYS):
        for number, fault in enumerate(FAULTS):
            for count, end in enumerate((Stop(), Superseded(), None)):
                short = (place + 2 * number) % len(WAYS) // 2 == count
                name = f"{deletions}-{op}-{fault}-{('stopped', 'superseded', 'given up')[count]}"
                marks = () if short and (place + number) % 2 else pytest.mark.long
                found.append(pytest.param(deletions, op, fault, end, marks=marks, id=name))
    return found


@pytest.mark.parametrize(("deletions", "op", "fault", "end"), _cases())
def test_interrupted(rig: Rig, deletions: str, op: str, fault: str, end: BaseException | None) -> None:
    """Meanwhile a deletion is reverted, or another one made."""
    rig.keys["sandbox"]["deletions"] = deletions
    rig.sync()
    deletes(rig)
    rig.emulator.faults.script(f"{op}: {fault} always")
    try:
        rig.sync(observer=RecordingObserver(rig.clock, ends=end))
    except (Stop, Superseded, StepFailed):
        assert not as_home(rig) or op == "initialize"
    else:
        # A PUT may succeed with half an answer. Else the sync went on, as if no program ran there.
        assert op in REMOVING[:-1]
    rig.emulator.faults.clear()
    rig.write("a", "taken back")
    (rig.workspace / "stay").unlink()
    if end is None:
        rig.restart()
    while rig.sync()[0].follow_up:  # a place that was taken is free now
        pass
    assert as_home(rig)
    assert rig.cycle.warnings == []
    assert rig.cycle.leftover_files == 0
    assert rig.sync()[0].word == "unchanged"


@pytest.mark.parametrize(("deletions", "op"), [way for way in WAYS if way[1] != "execution-upload"])
def test_a_sandbox_that_ends_meanwhile(rig: Rig, deletions: str, op: str) -> None:
    """It is reported as ended, and a new one of that name gets everything."""
    rig.keys["sandbox"]["deletions"] = deletions
    rig.sync()
    deletes(rig)
    rig.emulator.faults.script(f"{op}: gone")
    failure, _ = rig.fail()
    assert issubclass(failure.refusal, SandboxNotFound)
    rig.sandbox = rig.emulator.create_sandbox(SANDBOX)
    rig.restart()
    rig.sync()
    assert as_home(rig)
    assert rig.cycle.warnings == []
    assert rig.cycle.leftover_files == 0
