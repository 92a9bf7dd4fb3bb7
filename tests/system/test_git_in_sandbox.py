"""The sandbox has a git repository after a sync, and no command takes it for a part of the work."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.system.rig import DEFAULTS, Rig


def git(folder: Path, *arguments: str) -> str:
    """Git with no one's settings but the repository's."""
    environ = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(["git", *arguments], cwd=folder, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_git_in_the_sandbox(rig: Rig) -> None:
    """After a `push` it is clean there; `verify`, `diff` and `pull` do not see it."""
    rig.configure(DEFAULTS)
    git(rig.workspace, "init", "-q", "-b", "topic")
    rig.write("a.txt", "one\n")
    rig.write(".gitignore", "*.log\n")
    rig.write("x.log", "stays home")
    rig.ok("push")
    there = rig.sandbox.workspace
    assert git(there, "status", "--porcelain", "--branch") == "## topic\n"
    assert git(there, "ls-files") == ".gitignore\na.txt\n"
    assert rig.ok("verify").out.startswith("equal")
    assert rig.ok("diff").out == ""
    rig.ok("pull", str(rig.home / "pulled"))
    assert sorted(os.listdir(rig.home / "pulled")) == [".gitignore", "a.txt"]
    (there / "a.txt").write_text("the agent's\n")
    git(there, "commit", "-qam", "the agent's")
    assert rig.run("diff", "--name-only").out == "a.txt\n"
    rig.ok("apply", "--yes")
    rig.ok("push")
    assert git(there, "show", "home:a.txt") == "the agent's\n"
    assert git(there, "log", "--format=%an", "topic").split() == ["agent", "syncd"]
    assert rig.ok("verify").out.startswith("equal")


def test_someone_elses_is_seen(rig: Rig) -> None:
    """A repository that the agent made is only there, and is pulled."""
    rig.configure(DEFAULTS)
    git(rig.workspace, "init", "-q")
    rig.write("a.txt", "one\n")
    git(rig.sandbox.workspace, "init", "-q")
    rig.ok("push")
    assert "only there  .git" in rig.run("verify").out
    rig.ok("pull", str(rig.home / "pulled"))
    assert (rig.home / "pulled/.git/HEAD").exists()
    assert not (rig.sandbox.workspace / ".git/syncd").exists()


def test_a_daemon_has_it_follow(rig: Rig) -> None:
    """A `flush` is answered when it holds what was saved before."""
    rig.configure(DEFAULTS)
    git(rig.workspace, "init", "-q")
    rig.write("a.txt", "one\n")
    rig.up()
    for content in ("two\n", "three\n"):
        rig.write("a.txt", content)
        rig.ok("flush")
        assert git(rig.sandbox.workspace, "show", "home:a.txt") == content
        assert git(rig.sandbox.workspace, "status", "--porcelain") == ""
