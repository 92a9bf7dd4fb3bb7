"""A missing, replaced or suddenly empty workspace is held and never mirrored; once restored it is synced again."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.command import AS_ANYONE, Running, as_anyone, works
from tests.system.rig import DEFAULTS, Rig, emptied
from tests.system.trees import is_there, tree

FILES = 30
_AT_FDCWD, _EXCHANGE = -100, 2


@pytest.fixture
def watched(rig: Rig) -> Rig:
    """A daemon that has synced thirty files."""
    rig.fill(FILES)
    rig.up()
    return rig


def _nothing_was_sent(rig: Rig, uploads: int = 1, files: int = FILES) -> None:
    """Check that every command refuses, and the sandbox keeps its files."""
    rig.in_state("held")
    assert rig.shown()["last_error"]["step"] in ("watch", "snapshot")
    assert rig.run("flush").code == 78
    assert rig.count("upload") == uploads
    assert sum(path.is_file() for path in rig.sandbox.workspace.rglob("*")) == files


def _goes_on(rig: Rig, folder: Path | None = None) -> None:
    """Check that the hold ends by itself, and changes are synced; `folder` holds the workspace's files."""
    folder = folder or rig.workspace
    rig.in_state("watching")
    rig.until(lambda: rig.shown()["last_error"] is None, "the end of the error")
    for word in ("after the hold", "heard as well"):
        (folder / "after").write_text(word)
        rig.until(lambda: folder and is_there(tree(folder), rig.sandbox.workspace), f"what was written: {word}")
    rig.ok("flush")  # files are counted next, and an extractor may be replacing one


def test_replaced_by_a_link(watched: Rig) -> None:
    """It is held even if the link leads to the same files, as links are resolved at the start; commands tell of it."""
    aside = watched.home / "aside"
    watched.workspace.rename(aside)
    watched.workspace.symlink_to(aside)
    watched.in_state("held")
    status = watched.status()
    assert (status["pid"], status["state"]) == (watched.daemons[0].pid, "held")
    assert "replaced by a link" in status["last_error"]["message"]
    assert "replaced by a link" in watched.run("flush").err
    (aside / "new").write_text("beyond the link")
    watched.daemons[0].send(signal.SIGUSR1)
    watched.until(lambda: watched.shown()["failures"] > 1, "another look")
    assert watched.count("upload") == 1
    watched.workspace.unlink()
    aside.rename(watched.workspace)
    _goes_on(watched)


def _another(rig: Rig) -> Path:
    """Make another directory with as many files."""
    another = rig.home / "another"
    for number in range(2 * FILES):
        (another / f"private{number % 3}").mkdir(parents=True, exist_ok=True)
        (another / f"private{number % 3}/letter{number}").write_text("not for the sandbox")
    return another


def _exchange(one: Path, other: Path) -> bool:
    """Swap two directories by renameat2(2), without a moment without either; false if the file system cannot."""
    paths = os.fsencode(one), os.fsencode(other)
    done: int = ctypes.CDLL(None).renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _EXCHANGE)
    return done == 0


def test_lost_and_back(watched: Rig) -> None:
    """Removed, renamed, replaced by an empty directory (as a mount point without its disk), by a file or by another
    directory, exchanged in one instant, emptied: each time it is held until the files are back.
    """
    work, aside, copy, another = watched.workspace, watched.home / "aside", watched.home / "copy", _another(watched)

    def remove() -> None:
        shutil.copytree(work, copy)
        shutil.rmtree(work)

    def empty() -> None:
        emptied(work)
        watched.write("left", "the only file")

    losses: list[tuple[Callable[[], object], Callable[[], object]]] = [
        (remove, lambda: shutil.copytree(copy, work)),
        (lambda: work.rename(aside), lambda: aside.rename(work)),
        (lambda: (work.rename(aside), work.mkdir()), lambda: (work.rmdir(), aside.rename(work))),
        (lambda: (work.rename(aside), work.write_text("")), lambda: (work.unlink(), aside.rename(work))),
        (lambda: (work.rename(aside), another.rename(work)), lambda: (work.rename(another), aside.rename(work))),
        (empty, lambda: watched.fill(FILES)),
    ]
    if _exchange(work, another):
        _nothing_was_sent(watched)
        _exchange(work, another)
        _goes_on(watched)
    for lose, restore in losses:
        uploads, files = watched.count("upload"), sum(path.is_file() for path in watched.sandbox.workspace.rglob("*"))
        lose()
        _nothing_was_sent(watched, uploads, files)
        restore()
        _goes_on(watched)


def test_a_small_workspace_on_a_disk_that_is_not_mounted(rig: Rig) -> None:
    """A directory without its files is held; one that was made again, with some of them, goes on."""
    rig.write("only", "one file")
    rig.up()
    aside = rig.home / "aside"
    rig.workspace.rename(aside)
    rig.workspace.mkdir()
    _nothing_was_sent(rig, files=1)
    rig.workspace.rmdir()
    aside.rename(rig.workspace)
    _goes_on(rig)
    shutil.rmtree(rig.workspace)
    rig.in_state("held")
    rig.write("another", "new")
    _nothing_was_sent(rig, rig.count("upload"), 2)
    rig.write("only", "made again")
    rig.converged()


def test_replaced_by_another_directory_while_nothing_ran(watched: Rig) -> None:
    """A restart does not confirm it; a forced push does, for good."""
    watched.daemons[0].stop()
    another = _another(watched)
    watched.workspace.rename(watched.home / "aside")
    another.rename(watched.workspace)
    assert watched.run("push").code == 78
    watched.start()
    _nothing_was_sent(watched)
    watched.ok("push", "--force")
    _goes_on(watched)
    watched.daemons[-1].stop()
    watched.start()
    _goes_on(watched)


def test_a_new_rule_excludes_nearly_everything(rig: Rig) -> None:
    """It is a change like any other: what it excludes goes there, and all else is synced, also by a command."""
    rig.configure(DEFAULTS)
    rig.fill(FILES)
    rig.write("kept", "as before")
    daemon = rig.up()
    rig.write(".gitignore", "folder*/\n")
    rig.until(lambda: not [*rig.sandbox.workspace.glob("folder*")], "the exclusion there")
    rig.in_state("watching")
    assert (rig.workspace / "folder0/file000.txt").exists()
    rig.write("kept", "heard")
    rig.converged(without=lambda path: path.startswith("folder"))
    assert "so nothing is synced" not in daemon.err
    daemon.stop()
    for number in range(FILES):
        rig.write(f"more/{number}")
    rig.ok("push")
    rig.write(".gitignore", "*\n")
    rig.ok("push")
    assert rig.there() == {}


@as_anyone
def test_an_unreadable_workspace(rig: Rig) -> None:
    """It does not count as empty."""
    rig.fill(FILES)
    rig.up(prefix=AS_ANYONE)
    rig.workspace.chmod(0)
    _nothing_was_sent(rig)
    rig.workspace.chmod(0o700)
    _goes_on(rig)


# A namespace of its own, for what can only be done by mounting.
OWN_MOUNTS = ("unshare", "--mount", "--map-root-user")
mounts = pytest.mark.skipif(not works(*OWN_MOUNTS), reason="mount namespaces are not allowed here")


def _inside(daemon: Running) -> Callable[..., None]:
    """Run a command in the daemon's mount namespace."""
    enter = ("nsenter", f"--target={daemon.pid}", "--user", "--mount", "--preserve-credentials")

    def run(*args: str | Path) -> None:
        subprocess.run([*enter, *args], check=True, cwd="/")

    return run


@mounts
def test_a_disk_pulled_out(rig: Rig) -> None:
    """An unmounted file system loses its watches; the next one in its place has the files again."""
    mount = 'mount -t tmpfs none "$1" && cp -R "$2/." "$1" && shift 2 && exec "$@"'
    backup = rig.home / "backup"
    rig.fill(FILES)
    rig.workspace.rename(backup)
    rig.workspace.mkdir()
    daemon = rig.up(prefix=(*OWN_MOUNTS, "sh", "-c", mount, "sh", str(rig.workspace), str(backup)))
    inside = _inside(daemon)
    inside("umount", rig.workspace)
    daemon.send(signal.SIGUSR1)
    _nothing_was_sent(rig)
    inside("mount", "-t", "tmpfs", "none", rig.workspace)
    rig.in_state("held")
    inside("cp", "-R", f"{backup}/.", rig.workspace)
    rig.in_state("watching")
    inside("sh", "-c", f"echo heard >'{rig.workspace}/after'")
    rig.until(lambda: "after" in rig.archived(), "the change on the new disk")


@mounts
def test_something_mounted_below_it(rig: Rig) -> None:
    """A scan finds it: its files are included, and removed with it."""
    rig.fill(FILES)
    rig.write("data/here", "under the mount")
    another = _another(rig)
    daemon = rig.up(prefix=OWN_MOUNTS)
    inside = _inside(daemon)
    inside("mount", "--bind", another, rig.workspace / "data")
    daemon.send(signal.SIGUSR1)
    rig.until(lambda: "data/private0/letter0" in rig.archived(), "what was mounted")
    (another / "private0/new").write_text("heard below the mount")
    rig.until(lambda: "data/private0/new" in rig.archived(), "what is new there")
    inside("umount", rig.workspace / "data")
    daemon.send(signal.SIGUSR1)
    rig.until(lambda: "data/here" in rig.archived(), "what was hidden")
    rig.in_state("watching")


@mounts
def test_nothing_is_written_where_a_disk_was_mounted(rig: Rig) -> None:
    """What the agent has below stays there: it would be hidden here once the disk is back, and count as deleted."""
    rig.configure(DEFAULTS)
    rig.fill(FILES)
    (rig.workspace / "data").mkdir()
    another = _another(rig)
    daemon = rig.up(prefix=OWN_MOUNTS)
    inside = _inside(daemon)
    inside("mount", "--bind", another, rig.workspace / "data")
    daemon.send(signal.SIGUSR1)
    rig.until(lambda: rig.agent.exists("data/private0/letter0"), "what was mounted")
    inside("umount", rig.workspace / "data")
    rig.agent.write("data/new", "agent's")
    place = f"--wd={rig.workspace}"
    enter = ("nsenter", f"--target={daemon.pid}", "--user", "--mount", "--preserve-credentials", place)
    done = rig.run("apply", "--yes", prefix=enter)
    assert (done.code, "stays     data/new: what was mounted there is missing here" in done.out) == (0, True), done
    inside("mount", "--bind", another, rig.workspace / "data")
    rig.ok("flush")
    assert rig.agent.read("data/new") == b"agent's"


def test_a_missing_one_is_named(rig: Rig) -> None:
    """A wrong path at the start ends with 78 and one line. A daemon that began beside the workspace, and has reached no
    server yet, holds as any other, and goes on. No command that brings home takes it for rules that cannot be read.
    """
    aside = rig.home / "elsewhere"
    rig.workspace.rename(aside)
    daemon = rig.start("--log-level", "error")
    assert (daemon.wait(), daemon.err.count("\n"), str(rig.workspace) in daemon.err) == (78, 1, True)
    aside.rename(rig.workspace)
    rig.write("a")
    rig.faults("upload-url: 503 x1")
    rig.configure({"retry.first_delay_seconds": 30, "retry.max_delay_seconds": 30})
    daemon = rig.start()
    rig.in_state("retrying")
    rig.workspace.rename(aside)
    daemon.send(signal.SIGUSR1)
    held = rig.status_in("held")
    assert (daemon.code, "does not exist" in held["last_error"]["message"]) == (None, True)
    aside.rename(rig.workspace)
    rig.converged()
    rig.ok("flush")
    assert daemon.stop() == 0
    rig.workspace.rename(aside)
    for words in (["diff"], ["apply"], ["resolve"], ["apply", "--branch", "b"]):
        refused = rig.run(*words, "--config", "config", place=rig.home)
        assert (refused.code, len(refused.err.splitlines())) == (78, 1)
        assert f"the workspace '{rig.workspace}' does not exist" in refused.err


def test_nothing_is_written_to_another_directory_in_its_place(rig: Rig) -> None:
    """As to a mount point without its disk: what came home there would count as deleted here once the disk is back.
    An undo is still there then.
    """
    rig.configure(DEFAULTS)
    rig.fill(FILES)
    rig.ok("push")
    rig.agent.write("folder0/file000.txt", "agent's")
    rig.ok("apply", "--yes")
    rig.agent.write("new", "agent's")
    work, aside = rig.workspace, rig.home / "aside"
    work.rename(aside)
    work.mkdir()
    for words in (["apply", "--dry-run"], ["apply", "--yes"], ["apply", "--undo"]):
        refused = rig.run(*words)
        assert (refused.code, "another directory is in the workspace's place" in refused.err) == (78, True), refused
    assert [*work.iterdir()] == []
    work.rmdir()
    aside.rename(work)
    assert rig.ok("apply", "--undo").out.startswith("undone    folder0/file000.txt\n")
    rig.ok("apply", "--yes")
    rig.ok("push")
    assert (rig.agent.read("new"), (work / "new").read_text()) == (b"agent's", "agent's")


def _point(link: Path, target: Path) -> None:
    draft = link.with_suffix(".new")
    draft.symlink_to(target)
    draft.replace(link)


def test_a_link_that_leads_elsewhere_is_held(rig: Rig) -> None:
    """The daemon notices at once, and all commands mean its workspace until it has ended; then it is the other one."""
    link, moved, other = rig.home / "link", rig.home / "way", rig.home / "other"
    link.symlink_to(moved)
    _point(moved, rig.workspace)
    other.mkdir()
    (other / "another").write_text("another")
    rig.configure({"workspace.path": str(link)})
    rig.fill(FILES)
    daemon = rig.up()
    _point(moved, other)
    _nothing_was_sent(rig)
    status = rig.status()
    assert (status["pid"], status["workspace"], status["workspace_link"]) == (
        daemon.pid,
        str(rig.workspace),
        str(link),
    )
    assert f"leads to {str(other)!r} now" in status["last_error"]["message"]
    assert rig.run("push", "--force").code == 78
    assert rig.run("run").code == 75
    rig.ok("pause")
    rig.in_state("paused")
    rig.ok("resume")
    _point(moved, rig.workspace)
    _goes_on(rig)
    daemon.stop()
    _point(moved, other)
    rig.start()
    rig.until(lambda: is_there(tree(other), rig.sandbox.workspace), "what the other directory holds")
    assert is_there(tree(rig.workspace), rig.sandbox.workspace)  # it is another workspace: nothing counts as deleted
