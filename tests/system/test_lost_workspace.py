"""A workspace that is gone, replaced or suddenly empty is held, never mirrored; back again it goes on by itself."""

from __future__ import annotations

import shutil

import pytest
from rig import Rig, emptied

FILES = 30


@pytest.fixture
def watched(rig: Rig) -> Rig:
    """A daemon that has synced thirty files."""
    rig.fill(FILES)
    rig.up()
    return rig


def _nothing_was_sent(rig: Rig) -> None:
    """However one asks, the daemon refuses, and the sandbox keeps its files."""
    status = rig.in_state("held")
    assert status["last_error"]["step"] in ("watch", "snapshot")
    assert rig.run("flush").code == 78
    assert rig.count("upload") == 1
    assert sum(path.is_file() for path in rig.sandbox.workspace.rglob("*")) == FILES


def _goes_on(rig: Rig) -> None:
    """The hold ends by itself, and changes are heard again."""
    rig.in_state("watching")
    assert rig.status()["last_error"] is None
    rig.write("after", "the hold")
    rig.converged()
    rig.write("after", "heard as well")
    rig.converged()


def test_removed_and_made_again(watched: Rig) -> None:
    """`rm -r` of the workspace, and a new checkout in its place."""
    copy = watched.home / "copy"
    shutil.copytree(watched.workspace, copy)
    shutil.rmtree(watched.workspace)
    _nothing_was_sent(watched)
    shutil.copytree(copy, watched.workspace)
    _goes_on(watched)


def test_renamed_and_renamed_back(watched: Rig) -> None:
    """The same directory, away for a while."""
    aside = watched.home / "aside"
    watched.workspace.rename(aside)
    _nothing_was_sent(watched)
    aside.rename(watched.workspace)
    _goes_on(watched)


def test_replaced_by_an_empty_directory(watched: Rig) -> None:
    """What a mount point looks like when the disk is not mounted."""
    aside = watched.home / "aside"
    watched.workspace.rename(aside)
    watched.workspace.mkdir()
    _nothing_was_sent(watched)
    watched.workspace.rmdir()
    aside.rename(watched.workspace)
    _goes_on(watched)


def test_emptied(watched: Rig) -> None:
    """Nearly all files gone at once, the directory being the same one."""
    emptied(watched.workspace)
    watched.write("left", "the only file")
    _nothing_was_sent(watched)
    watched.fill(FILES)
    _goes_on(watched)


def test_emptied_while_nothing_ran(watched: Rig) -> None:
    """A restart is no reason to believe it."""
    watched.daemons[0].stop()
    emptied(watched.workspace)
    watched.start()
    _nothing_was_sent(watched)
    watched.fill(FILES)
    _goes_on(watched)


def test_emptied_and_meant_so(watched: Rig) -> None:
    """`push --force` says that it is meant, and from then on it is the workspace."""
    emptied(watched.workspace)
    watched.write("left", "the only file")
    watched.in_state("held")
    watched.ok("push", "--force")
    assert watched.archived() == ["left"]
    _goes_on(watched)


def test_replaced_by_a_file(watched: Rig) -> None:
    """A workspace that is no directory is no workspace."""
    aside = watched.home / "aside"
    watched.workspace.rename(aside)
    watched.workspace.write_text("not a directory")
    _nothing_was_sent(watched)
    watched.workspace.unlink()
    aside.rename(watched.workspace)
    _goes_on(watched)


def test_missing_at_the_start(rig: Rig) -> None:
    """That is a wrong path: exit 78 and one line that names it."""
    rig.workspace.rmdir()
    daemon = rig.start("--log-level", "error")
    assert daemon.wait() == 78
    (line,) = daemon.err.splitlines()
    assert str(rig.workspace) in line
