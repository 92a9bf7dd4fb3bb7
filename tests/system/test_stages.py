"""Events during a sync, at each stage: nothing is lost, and nothing needs repair."""

from __future__ import annotations

import pytest

from tests.recorded import remove
from tests.system.rig import Rig

# Each instant of a sync at which the cloud has the daemon's attention; every other one is a long test.
STAGES = [(op, when) for op in ("upload-url", "upload", "initialize") for when in ("before", "mid-body", "after")]
at_each_stage = pytest.mark.parametrize(
    ("op", "when"),
    [
        pytest.param(*stage, id="-".join(stage), marks=pytest.mark.long if number % 2 else ())
        for number, stage in enumerate(STAGES)
    ],
)


@at_each_stage
def test_a_change_made_in_a_stage_arrives(rig: Rig, op: str, when: str) -> None:
    """Files written, changed and deleted during this stage are in a later sync."""
    rig.fill(20)

    def change() -> None:
        rig.write("folder1/file001.txt", "changed")
        rig.write("late", "written in the middle of a sync")
        (rig.workspace / "folder2/file002.txt").unlink()

    changed = rig.once(op, when, change)
    rig.start()
    assert changed.wait(20), rig.report()
    wanted = rig.converged()
    rig.ok("flush")
    assert rig.archived() == sorted(wanted)


@at_each_stage
def test_a_kill_in_a_stage_needs_no_repair(rig: Rig, op: str, when: str) -> None:
    """After `kill -9` at this stage and a restart the sandbox is equal, without leftovers."""
    rig.fill(20)
    first = rig.up()
    rig.write("late", "the last save before the crash")
    if op == "upload-url":
        first.stop()
        remove(rig.state_folder, "upload_url")  # the next process asks for a URL
        killed = rig.once(op, when, rig.kill)
        rig.start()
    else:
        killed = rig.once(op, when, first.kill)
    assert killed.wait(20), rig.report()
    assert rig.status()["running"] is False
    rig.start()
    wanted = rig.converged()
    rig.in_state("watching")
    rig.ok("flush")
    status = rig.status()
    assert (status["pending"], status["warnings"], status["last_error"]) == (False, [], None)
    assert rig.archived() == sorted(wanted)
    (spool,) = (path.parent for path in (rig.home / ".cache/syncd").rglob("chunks"))
    kept = {"chunks", "base", "chunk-index"}
    assert {path.name for path in spool.iterdir()} <= kept, "the dead process's spool"
    assert {path.suffix for path in (spool / "chunks").iterdir()} == {".chunk"}
