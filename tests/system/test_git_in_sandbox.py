"""The sandbox has a git repository after a sync, and no command takes it for a part of the work."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.emulator import When
from tests.repositories import committed, git
from tests.system.rig import DEFAULTS, Rig


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
    assert rig.ok("verify").out.startswith("in sync")
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
    assert rig.ok("verify").out.startswith("in sync")


def test_an_agent_commits_before_it_follows(rig: Rig) -> None:
    """Its commit holds what was sent meanwhile, and stays; it comes home alone, and the next process has it follow."""
    rig.configure(DEFAULTS)
    here, there = rig.workspace, rig.sandbox.workspace
    git(here, "init", "-q", "-b", "topic")
    rig.write("a.txt", "one\n")
    rig.up()
    rig.once("initialize", When.AFTER, lambda: (there / "agents.txt").write_text("the agent's\n"))
    initialized = rig.count("initialize", 200)
    rig.write("a.txt", "two\n")
    rig.until(lambda: rig.count("initialize", 200) > initialized, "the edit")
    git(there, "add", "-A")
    git(there, "commit", "-qm", "the agent's")
    commit = git(there, "rev-parse", "HEAD")
    rig.ok("apply", "--branch", "early")
    rig.restart()
    rig.until(lambda: git(there, "show", "home:a.txt") == "two\n", "the repository to follow")
    rig.ok("apply", "--branch", "late")
    for branch in ("early", "late"):
        assert git(here, "log", "--format=%an %s", branch) == "agent the agent's\nsyncd As sent to the sandbox\n"
        assert git(here, "show", f"{branch}:a.txt") == "two\n"
    assert git(there, "rev-parse", "topic") == commit
    assert git(there, "status", "--porcelain") == ""
    assert git(there, "diff", "--stat", "home").split()[0] == "agents.txt"
    assert rig.ok("apply", "--yes", "--json").out.startswith('{"taken": ["agents.txt"]')


OUTSIDE = "the-merger"


def _rules_around(rig: Rig) -> None:
    """Rules of the person, of the repository above, and of the configuration; the branch is that repository's."""
    git(rig.home, "init", "-q", "-b", OUTSIDE)
    (rig.home / ".config/git").mkdir()
    for place in (".config/git/ignore", ".gitignore", ".git/info/exclude"):
        (rig.home / place).write_text(f"/{OUTSIDE}/\n*.{OUTSIDE}\n/.*\n")
    rig.configure({**DEFAULTS, "workspace.ignore": [f"*.{OUTSIDE}"]})


def _outside(rig: Rig) -> Path:
    """Return another repository of the person's, with a file of theirs as its rules."""
    git(rig.home, "init", "-q", "-b", OUTSIDE, "other")
    (rig.home / ".netrc").write_text(f"password {OUTSIDE}\n")
    (rig.home / "other/.git/info/exclude").write_text(f"password {OUTSIDE}\n")
    return rig.home / "other/.git"


def _linked_files(rig: Rig) -> None:
    other = _outside(rig)
    git(rig.workspace, "init", "-q")
    for name, target in (("info/exclude", rig.home / ".netrc"), ("HEAD", other / "HEAD")):
        (rig.workspace / ".git" / name).unlink()
        (rig.workspace / ".git" / name).symlink_to(target)
    (rig.workspace / ".gitignore").symlink_to(rig.home / ".netrc")


def _linked_folder(rig: Rig) -> None:
    (rig.workspace / ".git").symlink_to(_outside(rig))


def _gitdir(rig: Rig) -> None:
    (rig.workspace / ".git").write_text(f"gitdir: {_outside(rig)}\n")


def _commondir(rig: Rig) -> None:
    other = _outside(rig)
    git(rig.workspace, "init", "-q", "-b", "main")
    (rig.workspace / ".git/commondir").write_text(f"{other}\n")


@pytest.mark.parametrize("prepare", [_rules_around, _linked_files, _linked_folder, _gitdir, _commondir])
def test_no_text_from_outside_leaves(rig: Rig, prepare: Callable[[Rig], None]) -> None:
    """Rules from outside of the workspace decide what leaves; neither their text nor a branch there is sent."""
    rig.configure(DEFAULTS)
    prepare(rig)
    rig.write("a.txt", "one\n")
    rig.ok("push")
    there = rig.sandbox.workspace
    assert git(there, "symbolic-ref", "--short", "HEAD") == "main\n"
    assert "node_modules/\n" in (there / ".git/info/exclude").read_text()
    sent = [path.read_bytes() for path in rig.emulator.data_dir.rglob("*") if path.is_file() and not path.is_symlink()]
    sent += [gzip.decompress(content) for content in sent if content.startswith(b"\x1f\x8b")]
    assert not [content for content in sent if OUTSIDE.encode() in content]


def test_raw_takes_the_place_of_no_commits(rig: Rig) -> None:
    """A `.git` that is sent for the first time waits for the agent's commits there to be brought home, or `--force`."""
    here, there = rig.workspace, rig.sandbox.workspace
    rig.write("a.txt", "one\n")
    committed(here)
    rig.configure(DEFAULTS)
    rig.ok("push")
    (there / "a.txt").write_text("the agent's\n")
    git(there, "commit", "-qam", "the agent's")
    commit = git(there, "rev-parse", "HEAD")
    rig.configure({**DEFAULTS, "workspace.git": "raw"})
    refused = rig.run("push")
    assert refused.code == 75
    assert "'.git' is not in the sandbox" in refused.err
    assert git(there, "rev-parse", "main") == commit
    assert "syncd apply --branch NAME" in rig.shown()["warnings"][0]
    rig.ok("apply", "--branch", "agents")
    assert git(here, "log", "--format=%s", "agents").splitlines()[0] == "the agent's"
    rig.ok("push", "--force")
    assert git(there, "rev-parse", "main") == git(here, "rev-parse", "main")
    git(there, "commit", "-qm", "another", "--allow-empty")
    assert rig.run("diff").out == ""  # git takes no patch of what is in a .git
    assert rig.status()["agent"]["changed"] == 0
    rig.write("new")
    rig.ok("push")
    assert rig.status()["agent"]["changed"] == 0
    assert "never     .git/refs/heads/main" in rig.ok("apply").out
