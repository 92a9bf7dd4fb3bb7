"""A path whose place in the sandbox is taken never stops the others: it is made way for, or left out and named."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from syncd.archive.snapshotter import SyncMode
from tests.integration.sync_rig import Rig

IN_WHOLE_ARCHIVES_TOO = pytest.mark.parametrize("rig", ["full", "auto"], indirect=True)


@pytest.fixture
def rig(bare: Rig, request: pytest.FixtureRequest) -> Rig:
    """`stay`, `file` and a folder `d` are in the sandbox, which has proved that partial archives work."""
    bare.wait_for_programs()
    bare.keys["sync"]["archive"] = getattr(request, "param", "auto")
    (bare.workspace / "0").mkdir()  # the smallest path, which every small archive holds
    for path in ("stay", "file", "d/a", "d/sub/b"):
        bare.write(path)
    bare.sync()
    bare.send({"stay": "proof"})
    return bare


def folder_becomes_file(rig: Rig) -> None:
    shutil.rmtree(rig.workspace / "d")
    rig.write("d", "a file now")


def file_becomes_folder(rig: Rig) -> None:
    rig.delete("file")
    rig.write("file/in/it", "a folder now")


def test_only_what_is_in_the_way_is_removed(rig: Rig) -> None:
    """With `keep` other deleted paths stay, and so does a link that a file replaced."""
    rig.set(deletions="keep")
    rig.delete("file")
    folder_becomes_file(rig)
    rig.sync()
    assert rig.arrived() == {"d": "a file now", "stay": "proof", "file": "hello"}


@IN_WHOLE_ARCHIVES_TOO
@pytest.mark.parametrize("deletions", ["keep", "mirror"])
def test_an_agents_file_in_the_folder(rig: Rig, deletions: str) -> None:
    """It stays, the path is left out and named, all else is synced; once it is removed, the path is sent."""
    rig.set(deletions=deletions)
    rig.agent.write("d/sub/theirs", "the agent's")
    folder_becomes_file(rig)
    rig.write("stay", "changed")
    outcome = rig.settle()
    assert outcome.obstructed == ("d",)
    assert rig.arrived() == {"stay": "changed", "file": "hello", "d/sub/theirs": "the agent's"}
    assert list(rig.warnings) == ["obstacle:d"]
    assert "'d' is not sent: in the sandbox a directory has its place" in str(rig.cycle.warnings[0])
    assert rig.stays_quiet()
    assert list(rig.warnings) == ["obstacle:d"]
    rig.write("stay", "changed again")
    assert rig.settle().obstructed == ("d",)
    assert rig.arrived()["stay"] == "changed again"
    assert list(rig.warnings) == ["obstacle:d"]
    assert rig.is_quiet()
    (rig.sandbox.workspace / "d/sub/theirs").unlink()
    assert rig.send({"stay": "and again"}).obstructed == ()
    assert rig.is_as_home()
    assert rig.warnings == {}
    assert rig.is_quiet()


@IN_WHOLE_ARCHIVES_TOO
@pytest.mark.parametrize("deletions", ["keep", "mirror"])
def test_a_forced_push_frees_what_was_suspected(rig: Rig, deletions: str) -> None:
    """What is in the way of a path, and was put there by a sync, holds it no longer than nobody can look."""
    rig.use_defaults()
    rig.set(deletions=deletions)
    rig.emulator.faults.script("execute: 404 always", "dump: 404 always")
    file_becomes_folder(rig)
    assert rig.settle().obstructed == ("file",)
    rig.end_faults()
    assert rig.sync(SyncMode.FORCED)[0].obstructed == ()
    assert rig.settle().obstructed == ()
    assert rig.is_as_home()
    assert rig.is_quiet()


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("deletions", ["keep", "mirror"])
@pytest.mark.parametrize(("change", "path"), [(folder_becomes_file, "d"), (file_becomes_folder, "file")])
def test_what_no_program_could_remove(
    rig: Rig, change: Callable[[Rig], None], path: str, deletions: str, restarts: bool
) -> None:
    """A path that changed its kind is left out and named while what was put there itself has its place: that makes way
    once programs run again, though nothing changes here, and in the next process too.
    """
    rig.set(deletions=deletions)
    rig.emulator.faults.script("execution-upload-url: 500 always")
    change(rig)
    rig.write("stay", "changed")
    assert rig.settle().obstructed == (path,)
    assert rig.arrived()["stay"] == "changed"
    assert f"obstacle:{path}" in rig.warnings
    assert rig.is_quiet()
    if restarts:
        rig.restart()
        rig.sync()
    rig.end_faults()
    rig.clock.go_on(1_000)
    assert rig.settle().obstructed == ()
    assert rig.is_as_home()
    assert rig.warnings == {}


def test_many(rig: Rig) -> None:
    """Each path is left out, but not each has a line."""
    for number in range(120):
        rig.agent.write(f"many/{number}/theirs", "the agent's")
        rig.write(f"many/{number}", "a file here")
    rig.write("stay", "changed")
    assert len(rig.settle().obstructed) == 120
    assert rig.arrived()["stay"] == "changed"
    assert len(rig.warnings) == 51
    assert "70 more paths are not sent" in str(rig.cycle.warnings[-1])
    assert rig.is_quiet()


def test_a_file_that_took_a_links_place(rig: Rig) -> None:
    """Where nobody could look, the link is a leftover whose place is the file's by then: it is not removed as that."""
    rig.set(deletions="mirror")
    (rig.workspace / "link").symlink_to("stay")
    rig.settle()
    rig.emulator.faults.script("execute: 404 always", "dump: 404 always")
    rig.delete("link")
    rig.write("link", "a file now")
    rig.settle()
    rig.end_faults()
    rig.restart()
    rig.write("stay", "changed")
    rig.settle()
    assert rig.arrived()["link"] == "a file now"
    assert rig.is_quiet()


def test_an_agents_folder_where_no_program_runs(rig: Rig) -> None:
    """The sandbox's archive tells what has a path's place, and when it is free."""
    rig.emulator.faults.script("execution-upload-url: 404 always")
    rig.agent.write("new/theirs", "the agent's")
    rig.write("new", "a file here")
    rig.write("stay", "changed")
    assert rig.settle().obstructed == ("new",)
    assert list(rig.warnings) == ["obstacle:new"]
    assert "a directory has its place" in str(rig.cycle.warnings[0])
    assert rig.arrived()["stay"] == "changed"
    assert rig.is_quiet()
    shutil.rmtree(rig.sandbox.workspace / "new")
    rig.write("stay", "changed again")
    assert rig.settle().obstructed == ()
    assert rig.is_as_home()
    assert rig.is_quiet()


def test_a_forced_push_before_which_nobody_looks(rig: Rig) -> None:
    """What has no place is named there, too."""
    rig.set(agent_changes="overwrite")
    rig.agent.write("new/theirs", "the agent's")
    rig.write("new", "ours")
    outcome, _ = rig.sync(SyncMode.FORCED)
    assert outcome.obstructed == ("new",)
    assert list(rig.warnings) == ["obstacle:new"]
