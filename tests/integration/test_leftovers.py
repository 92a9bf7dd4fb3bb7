"""Paths deleted locally and still in the sandbox: counted, recorded with it, and removed once requested."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.archive.snapshotter import SyncMode
from tests.clock import LATER_S
from tests.integration.sync_rig import Rig, rigged


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """`a`, `d/b` and `stay` are in the sandbox."""
    with rigged(tmp_path) as it:
        it.clock.wall = LATER_S
        it.wait_for_programs()
        for path in ("a", "d/b", "stay"):
            it.write(path)
        it.sync()
        yield it


def mirrored(rig: Rig) -> None:
    """Let the next process remove deleted paths that nobody changed there."""
    rig.keys["sandbox"] |= {"deletions": "mirror", "agent_changes": "save"}
    rig.restart()


@pytest.mark.parametrize("by", [SyncMode.FORCED, SyncMode.CHANGED])
def test_a_changed_path_is_checked_again(rig: Rig, by: SyncMode) -> None:
    """It is looked at by each sync: it may have been removed there, or restored, and then it does not stay."""
    mirrored(rig)
    for path in ("a", "d/b"):
        rig.agent.write(path, "the agent's")
        (rig.workspace / path).unlink()
    rig.sync()
    assert rig.warning_keys == ["kept:a", "kept:d/b"]
    rig.agent.delete("a")
    rig.agent.write("d/b", "hello")
    rig.write("new")
    rig.sync(by)
    assert rig.warning_keys == []
    assert rig.cycle.leftover_files == 0
    assert set(rig.arrived()) == {"stay", "new"}
    assert rig.sync()[0].word == "unchanged"


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("faults", [("initialize: 404",), ("initialize: 404", "get: 404")])
def test_a_404_forgets_none(rig: Rig, faults: tuple[str, ...], *, restarted: bool) -> None:
    """A sandbox that is configured may be there again: what was deleted here is removed then."""
    (rig.workspace / "a").unlink()
    rig.sync()
    rig.emulator.faults.script(*faults)
    rig.write("stay", "changed")
    rig.fail()
    assert rig.cycle.leftover_files == 1
    if restarted:
        rig.restart()
    mirrored(rig)
    rig.sync()
    assert set(rig.arrived()) == {"stay", "d/b"}


def test_missing_while_it_was_packed(rig: Rig) -> None:
    """The snapshot cannot show whether it was deleted; the next one can."""
    mirrored(rig)
    missed = 0
    for step in range(1, 30):
        rig.write("a")
        rig.write("stay", f"{step}")
        rig.meanwhile = lambda: None
        rig.sync()
        rig.write("stay", f"changed {step}")
        steps = iter(range(1, 100))

        def vanish(steps: Iterator[int] = steps, step: int = step) -> None:
            if next(steps) == step:
                (rig.workspace / "a").unlink()

        rig.meanwhile = vanish
        outcome, _ = rig.sync()
        if next(steps) <= step:
            break
        missed += "a" in outcome.follow_up
        rig.meanwhile = lambda: None
        rig.sync()
        assert "a" not in rig.arrived(), step
        assert rig.cycle.leftover_files == 0
    assert missed
    assert step < 29
