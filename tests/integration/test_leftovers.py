"""Paths deleted locally and still in the sandbox: counted, recorded with it, and removed once requested."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.archive.snapshotter import SyncMode
from syncd.cli.own_loop import sync_alone
from syncd.cli.progress import ProgressDisplay
from syncd.core.settings import check_config
from syncd.daemon.build import Role, status_publisher_of, workspace_of
from syncd.report.status_publisher import SandboxTotals
from syncd.report.status_store import read_last
from syncd.sync.status_document import SandboxName, State, Status
from tests.integration.sync_rig import KEY, SANDBOX, Rig, rigged
from tests.recorded import damage, records

LATER_S = 4_000_000_000.0  # by this clock every file is old enough for its stamp to be trusted


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


def delete(rig: Rig, *paths: str) -> None:
    for path in paths:
        (rig.workspace / path).unlink()


def agent(rig: Rig, path: str, content: str) -> None:
    (rig.sandbox.workspace / path).write_text(content)


def test_kept_and_counted(rig: Rig) -> None:
    """Files count until they exist locally again, without a warning, also in the next process; folders do not."""
    delete(rig, "a", "d/b")
    (rig.workspace / "d").rmdir()
    rig.sync()
    assert set(rig.arrived()) == {"a", "d/b", "stay"}
    assert not {"execute", "reset"} & set(rig.asked())
    assert rig.cycle.leftover_files == 2
    assert rig.warning_keys == []
    rig.restart()
    assert rig.cycle.leftover_files == 2
    rig.write("a", "another")
    rig.sync()
    assert rig.cycle.leftover_files == 1
    rig.write("d/b")
    rig.sync()
    assert rig.cycle.leftover_files == 0
    assert "leftovers" not in records(rig.state_folder)


def test_removed_after_keep(rig: Rig) -> None:
    """With no other change only unmodified paths are removed, and the others are reported."""
    delete(rig, "a", "d/b")
    (rig.workspace / "d").rmdir()
    rig.sync()
    agent(rig, "a", "the agent's")
    mirrored(rig)
    outcome, _ = rig.sync()
    assert outcome.word == "initialized"
    assert rig.arrived() == {"a": "the agent's", "stay": "hello"}
    assert not (rig.sandbox.workspace / "d").exists()
    assert rig.warning_keys == ["kept:a"]
    assert rig.cycle.leftover_files == 1
    assert rig.sync()[0].word == "unchanged"


def test_by_a_reset(rig: Rig) -> None:
    """A leftover is a deletion, and after the reset nothing is left."""
    delete(rig, "a")
    rig.sync()
    rig.keys["sandbox"]["deletions"] = "reset"
    rig.restart()
    rig.sync()
    assert rig.asked()[-2:] == ["reset", "initialize"]
    assert rig.arrived() == {"d/b": "hello", "stay": "hello"}
    assert rig.cycle.leftover_files == 0
    assert "leftovers" not in records(rig.state_folder)


def test_the_warning_outlives_the_process(rig: Rig) -> None:
    """It stays until the path exists locally again."""
    mirrored(rig)
    agent(rig, "a", "the agent's")
    delete(rig, "a")
    rig.sync()
    rig.restart()
    assert rig.warning_keys == ["kept:a"]
    assert rig.sync()[0].word == "unchanged"
    assert rig.warning_keys == ["kept:a"]
    rig.write("a")
    rig.sync()
    assert rig.warning_keys == []
    rig.restart()
    assert rig.warning_keys == []


@pytest.mark.parametrize("by", ["force", "another removal"])
def test_a_changed_path_is_checked_again(rig: Rig, by: str) -> None:
    """It is checked with the next removal, or by `push --force`: it may have been removed or restored."""
    mirrored(rig)
    agent(rig, "a", "the agent's")
    agent(rig, "d/b", "the agent's")
    delete(rig, "a", "d/b")
    rig.sync()
    assert rig.warning_keys == ["kept:a", "kept:d/b"]
    (rig.sandbox.workspace / "a").unlink()
    agent(rig, "d/b", "hello")
    rig.write("new")
    rig.sync()
    assert rig.warning_keys == ["kept:a", "kept:d/b"]
    if by == "force":
        rig.sync(SyncMode.FORCED)
    else:
        delete(rig, "new")
        rig.sync()
    assert rig.warning_keys == []
    assert rig.cycle.leftover_files == 0
    assert set(rig.arrived()) == {"stay"} | ({"new"} if by == "force" else set())


@pytest.mark.parametrize("deletions", ["keep", "mirror"])
def test_a_path_that_was_never_uploaded_is_no_leftover(rig: Rig, deletions: str) -> None:
    """Its upload failed, and it was deleted before the next one."""
    rig.keys["sandbox"]["deletions"] = deletions
    rig.restart()
    rig.write("new")
    rig.emulator.faults.script("upload: reset always")
    rig.fail()
    rig.emulator.faults.clear()
    delete(rig, "new")
    rig.write("stay", "changed")
    rig.sync()
    assert rig.cycle.leftover_files == 0
    assert "execute" not in rig.asked()


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


@pytest.mark.parametrize("young", [False, True], ids=["believed", "young"])
def test_excluded_as_a_secret_and_then_deleted(rig: Rig, *, young: bool) -> None:
    """While it is excluded the earlier version is not deleted; once it is deleted, that is removed."""
    mirrored(rig)
    if young:
        rig.clock.wall = os.stat(rig.workspace).st_ctime
    secret = "ghp_" + "".join(random.Random(7).choices("ABCDEFGHJKabcdefghjk23456789", k=36))
    rig.write("a", f"token = {secret}\n")
    rig.write("stay", "changed")
    rig.sync()
    assert rig.arrived()["a"] == "hello"
    assert rig.cycle.leftover_files == 0
    assert rig.sync()[0].word == "unchanged"
    rig.restart()
    assert rig.sync()[0].word == "unchanged"
    delete(rig, "a")
    rig.sync()
    assert "a" not in rig.arrived()
    assert rig.cycle.leftover_files == 0


def test_of_one_sandbox(rig: Rig) -> None:
    """Another sandbox has no leftovers and keeps the record; one that has ended drops it."""
    delete(rig, "a")
    rig.sync()
    rig.emulator.create_sandbox("other")
    rig.keys["sandbox"]["id"] = "other"
    rig.restart()
    rig.sync()
    assert rig.cycle.leftover_files == 0
    rig.keys["sandbox"]["id"] = SANDBOX
    rig.restart()
    rig.sync()
    assert rig.cycle.leftover_files == 1
    rig.write("stay", "changed")
    rig.emulator.faults.script("initialize: gone")
    failure, _ = rig.fail()
    assert "knows no sandbox" in str(failure)
    assert rig.cycle.leftover_files == 0


def test_a_damaged_record_costs_the_count(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """It is reported, and nothing else is lost."""
    delete(rig, "a")
    rig.sync()
    damage(rig.state_folder, "leftovers")
    rig.restart()
    assert rig.cycle.leftover_files == 0
    assert "may stay in the sandbox uncounted" in caplog.text
    assert rig.sync()[0].word == "unchanged"


def test_a_daemon_reports_them(rig: Rig) -> None:
    """It reports those of an earlier process from its start on."""
    delete(rig, "a")
    rig.sync()
    rig.restart()
    config = check_config(rig.keys)
    workspace = workspace_of(config, rig.environ, rig.key, rig.client)
    publisher = status_publisher_of(workspace, SandboxTotals(), Role.COMMAND, lambda: None)
    publisher.learn(rig.cycle, {})
    assert publisher.lingering == 1


def test_the_status_reports_them(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A push without a daemon records them."""
    for name, value in {**rig.environ, "KLAVIS_API_KEY": KEY}.items():
        monkeypatch.setenv(name, value)
    delete(rig, "a", "d/b")
    sync_alone(check_config(rig.keys), ProgressDisplay(silent_s=float("inf")))
    nowhere = SandboxName("", "", "")
    nothing = Status(running=False, pid=None, state=State.STOPPED, workspace="", sandbox=nowhere)
    assert read_last(str(rig.state_folder), nothing).lingering == 2
