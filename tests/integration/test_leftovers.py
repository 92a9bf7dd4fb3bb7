"""What was deleted here and is still in the sandbox: counted, remembered with it, removed once that is asked."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.archive.snapshotter import SyncMode
from syncd.cli.progress.observer import NoProgress
from syncd.cli.standalone_sync import sync_alone
from syncd.core.context import RuntimeContext
from syncd.core.interrupt import Interrupt
from syncd.core.settings import check_config
from syncd.daemon.build import folders_of, status_publisher_of
from syncd.emulator.request_log import RequestRecord
from syncd.report.status_publisher import RunTotals
from syncd.report.status_store import read_last
from syncd.report.systemd_notify import SystemdNotifier
from syncd.sync.status_document import SandboxName, State, Status
from tests.integration.sync_rig import KEY, SANDBOX, RecordingObserver, Rig, rigged

LATER_S = 4_000_000_000.0  # by this clock every file is old enough for its stamp to be believed


class Killed(BaseException):
    """The process is gone."""


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """`a`, `d/b` and `stay` are in the sandbox."""
    with rigged(tmp_path) as it:
        it.clock.wall = LATER_S

        def wait(entry: RequestRecord) -> None:
            """The program runs in real time: in the test's, it has ended whenever someone looks."""
            sandbox = it.emulator.sandbox(entry.sandbox or "")
            if sandbox is not None:
                sandbox.wait()

        for op in ("execution-logs", "execution-status"):
            it.emulator.faults.on(op, "before", wait)
        for path in ("a", "d/b", "stay"):
            it.write(path)
        it.sync()
        yield it


def mirrored(rig: Rig) -> None:
    """The next process removes what is deleted."""
    rig.keys["sandbox"]["deletions"] = "mirror"
    rig.restart()


def delete(rig: Rig, *paths: str) -> None:
    for path in paths:
        (rig.workspace / path).unlink()


def agent(rig: Rig, path: str, content: str) -> None:
    (rig.sandbox.workspace / path).write_text(content)


def lingering(rig: Rig) -> int:
    return rig.cycle.lingering_files


def keys(rig: Rig) -> list[str]:
    return [warning.key for warning in rig.cycle.warnings]


def record(rig: Rig) -> Path:
    (folder,) = rig.folder.glob("state/syncd/*")
    return folder / "lingering"


def test_kept_and_counted(rig: Rig) -> None:
    """Files, not folders; until they are at home again; it is no warning, and outlives the process."""
    delete(rig, "a", "d/b")
    (rig.workspace / "d").rmdir()
    rig.sync()
    assert lingering(rig) == 2
    assert keys(rig) == []
    rig.restart()
    assert lingering(rig) == 2
    rig.write("a", "another")
    rig.sync()
    assert lingering(rig) == 1
    rig.write("d/b")
    rig.sync()
    assert lingering(rig) == 0
    assert not record(rig).exists()


def test_no_deletion_no_write(rig: Rig) -> None:
    """A sync that deletes nothing writes no record, whether there is one or not."""
    rig.write("new")
    rig.sync()
    assert not record(rig).exists()
    delete(rig, "a")
    rig.sync()
    before = record(rig).stat()
    rig.write("newer")
    rig.sync()
    assert (record(rig).stat().st_ino, record(rig).stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_removed_once_that_is_asked(rig: Rig) -> None:
    """With no other change: only what is as it was uploaded, and the rest is told."""
    delete(rig, "a", "d/b")
    (rig.workspace / "d").rmdir()
    rig.sync()
    agent(rig, "a", "the agent's")
    mirrored(rig)
    outcome, _ = rig.sync()
    assert outcome.word == "initialized"
    assert rig.arrived() == {"a": "the agent's", "stay": "hello"}
    assert not (rig.sandbox.workspace / "d").exists()
    assert keys(rig) == ["kept:a"]
    assert lingering(rig) == 1
    assert rig.sync()[0].word == "unchanged"


def test_either_version_that_came(rig: Rig) -> None:
    """A change whose initialize went unanswered, then the file is deleted: both are ours."""
    rig.write("a", "second")
    rig.emulator.faults.script("initialize: lost")
    with pytest.raises(Killed):
        rig.sync(observer=RecordingObserver(rig.clock, ends=Killed()))
    delete(rig, "a")
    rig.sync()
    assert lingering(rig) == 1
    mirrored(rig)
    rig.sync()
    assert rig.arrived() == {"d/b": "hello", "stay": "hello"}


def test_by_a_reset(rig: Rig) -> None:
    """What lingers is something deleted, and after it nothing does."""
    delete(rig, "a")
    rig.sync()
    rig.keys["sandbox"]["deletions"] = "reset"
    rig.restart()
    rig.sync()
    assert rig.asked()[-2:] == ["reset", "initialize"]
    assert rig.arrived() == {"d/b": "hello", "stay": "hello"}
    assert lingering(rig) == 0
    assert not record(rig).exists()


def test_the_warning_outlives_the_process(rig: Rig) -> None:
    """Until it is here again."""
    mirrored(rig)
    agent(rig, "a", "the agent's")
    delete(rig, "a")
    rig.sync()
    rig.restart()
    assert keys(rig) == ["kept:a"]
    assert rig.sync()[0].word == "unchanged"
    assert keys(rig) == ["kept:a"]
    rig.write("a")
    rig.sync()
    assert keys(rig) == []
    rig.restart()
    assert keys(rig) == []


@pytest.mark.parametrize("by", ["force", "another removal"])
def test_someone_elses_is_looked_at_again(rig: Rig, by: str) -> None:
    """Not for its own sake, but with the next removal, or by `push --force`: it may be gone, or ours again."""
    mirrored(rig)
    agent(rig, "a", "the agent's")
    agent(rig, "d/b", "the agent's")
    delete(rig, "a", "d/b")
    rig.sync()
    assert keys(rig) == ["kept:a", "kept:d/b"]
    (rig.sandbox.workspace / "a").unlink()
    agent(rig, "d/b", "hello")
    executed = rig.asked().count("execute")
    rig.write("new")
    rig.sync()
    assert rig.asked().count("execute") == executed
    if by == "force":
        rig.sync(SyncMode.FORCED)
    else:
        delete(rig, "new")
        rig.sync()
    assert rig.asked().count("execute") == executed + 1
    assert keys(rig) == []
    assert lingering(rig) == 0
    assert set(rig.arrived()) == {"stay"} | ({"new"} if by == "force" else set())


def test_what_could_not_be_removed(rig: Rig) -> None:
    """It is counted, and the next process tries once more."""
    mirrored(rig)
    rig.emulator.faults.script("execution-upload-url: 404 always")
    delete(rig, "a")
    rig.sync()
    assert lingering(rig) == 1
    assert rig.sync()[0].word == "unchanged"
    rig.emulator.faults.clear()
    rig.restart()
    assert rig.sync()[0].word == "initialized"
    assert "a" not in rig.arrived()
    assert lingering(rig) == 0


@pytest.mark.parametrize("deletions", ["keep", "mirror"])
def test_what_never_arrived_does_not_linger(rig: Rig, deletions: str) -> None:
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
    assert lingering(rig) == 0
    assert "execute" not in rig.asked()


def test_gone_while_it_was_packed(rig: Rig) -> None:
    """A snapshot in which it is missing by chance cannot tell whether it was deleted; the one after it can."""
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
        assert lingering(rig) == 0
    assert missed
    assert step < 29


@pytest.mark.parametrize("young", [False, True], ids=["believed", "young"])
def test_held_back_and_then_deleted(rig: Rig, *, young: bool) -> None:
    """While it stays home for the secret in it, what arrived before is not deleted; once it is, that goes too."""
    mirrored(rig)
    if young:
        rig.clock.wall = os.stat(rig.workspace).st_ctime
    secret = "ghp_" + "".join(random.Random(7).choices("ABCDEFGHJKabcdefghjk23456789", k=36))
    rig.write("a", f"token = {secret}\n")
    rig.write("stay", "changed")
    rig.sync()
    assert rig.arrived()["a"] == "hello"
    assert lingering(rig) == 0
    assert rig.sync()[0].word == "unchanged"
    rig.restart()
    assert rig.sync()[0].word == "unchanged"
    delete(rig, "a")
    rig.sync()
    assert "a" not in rig.arrived()
    assert lingering(rig) == 0


def test_of_one_sandbox(rig: Rig) -> None:
    """Another one has nothing of it, and does not make it forgotten; one that is gone does."""
    delete(rig, "a")
    rig.sync()
    rig.emulator.create_sandbox("other")
    rig.keys["sandbox"]["id"] = "other"
    rig.restart()
    rig.sync()
    assert lingering(rig) == 0
    rig.keys["sandbox"]["id"] = SANDBOX
    rig.restart()
    assert lingering(rig) == 1
    rig.emulator.faults.script("initialize: gone")
    failure, _ = rig.fail()
    assert "knows no sandbox" in str(failure)
    assert lingering(rig) == 0


def test_a_damaged_record_costs_the_count(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """It is told, and nothing else is lost."""
    delete(rig, "a")
    rig.sync()
    record(rig).write_bytes(b"garbage")
    rig.restart()
    assert lingering(rig) == 0
    assert "may stay in the sandbox uncounted" in caplog.text
    assert rig.sync()[0].word == "unchanged"


def test_a_daemon_tells(rig: Rig) -> None:
    """From its start on, by what an earlier process left."""
    delete(rig, "a")
    rig.sync()
    rig.restart()
    config = check_config(rig.keys)
    context = RuntimeContext(rig.clock, rig.environ, Interrupt())
    manager = SystemdNotifier(rig.environ, rig.clock, 1)
    folders = folders_of(config, rig.environ)
    publisher = status_publisher_of(
        config, folders, context, totals=RunTotals(), manager=manager, target=rig.cycle.target
    )
    publisher.learn(rig.cycle, {})
    assert publisher.document().lingering == 1


def test_the_status_tells(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A push without a daemon writes it down."""
    for name, value in {**rig.environ, "KLAVIS_API_KEY": KEY}.items():
        monkeypatch.setenv(name, value)
    delete(rig, "a", "d/b")
    sync_alone(check_config(rig.keys), SyncMode.CHANGED, NoProgress())
    nowhere = SandboxName("", "", "")
    nothing = Status(running=False, pid=None, state=State.STOPPED, workspace="", sandbox=nowhere)
    assert read_last(str(record(rig).parent), nothing).lingering == 2
