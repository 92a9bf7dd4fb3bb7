"""The sandbox has a git repository of what was sent, which follows each sync, by executions that really run."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from syncd.core.waiter import Event, Superseded
from syncd.sandbox import agent_repository
from tests.fuzz.operations import tree
from tests.integration.sync_rig import Rig
from tests.repositories import git, person_git, tree_of


def here(rig: Rig, *arguments: str) -> str:
    """Git as the person runs it."""
    return person_git(rig.workspace, *arguments)


def there(rig: Rig, *arguments: str, codes: tuple[int, ...] = (0,)) -> str:
    """Git as the agent runs it."""
    return git(rig.sandbox.workspace, *arguments, codes=codes)


def sync(rig: Rig) -> None:
    """Sync once, as a process that has the repository follow."""
    rig.sync()
    rig.cycle.follow_in_repository()


def warnings(rig: Rig) -> list[str]:
    return [warning.what for warning in rig.cycle.warnings if warning.key == "repository"]


def files(top: Path) -> dict[str, tuple[str, bytes]]:
    """Return the mode in git and the content of each path outside of `.git`."""
    found: dict[str, Any] = {path: entry for path, entry in tree(top).items() if entry[0] != "folder"}
    return {
        path: ("120000", os.fsencode(of[0])) if kind == "link" else ("100755" if of[0] else "100644", of[1])
        for path, (kind, *of) in found.items()
    }


def check(rig: Rig) -> None:
    """Have the agent's branch hold exactly what is here, and git find nothing wrong or changed."""
    assert warnings(rig) == []
    assert there(rig, "status", "--porcelain") == ""
    assert there(rig, "fsck", "--no-dangling") == ""
    assert there(rig, "rev-parse", "HEAD") == there(rig, "rev-parse", "home")
    assert tree_of(rig.sandbox.workspace, "home") == files(rig.workspace) == files(rig.sandbox.workspace)


@pytest.fixture
def rig(bare: Rig) -> Rig:
    """A repository here with two branches, and all defaults."""
    bare.use_defaults()
    here(bare, "init", "-q", "-b", "topic")
    bare.write("a.txt", "one\n")
    bare.write("d/b.txt", "two\n")
    bare.write("run.sh", "#!/bin/sh\n")
    (bare.workspace / "run.sh").chmod(0o755)
    here(bare, "add", "-A")
    here(bare, "commit", "-qm", "first")
    return bare


def test_it_follows_what_a_person_does(rig: Rig) -> None:
    """Edits, checkouts, a rebase, deletions, modes, links, kinds and names: the branch is always what is here."""
    work = rig.workspace
    sync(rig)
    check(rig)
    assert there(rig, "symbolic-ref", "--short", "HEAD") == "topic\n"
    here(rig, "checkout", "-q", "-b", "other")
    rig.write("a.txt", "other\n")
    rig.write("only/other.txt", "x")
    here(rig, "add", "-A")
    here(rig, "commit", "-qm", "other")
    sync(rig)
    check(rig)
    here(rig, "checkout", "-q", "topic")
    rig.write("d/b.txt", "topic\n")
    here(rig, "commit", "-qam", "topic")
    sync(rig)
    check(rig)
    here(rig, "rebase", "-q", "other")
    (work / "ln").symlink_to("a.txt")
    (work / "run.sh").chmod(0o644)
    (work / os.fsdecode(b"caf\xe9 \n\"'")).write_text("odd")
    sync(rig)
    check(rig)
    shutil.rmtree(work / "d")
    (work / "d").write_text("a file\n")
    (work / "a.txt").unlink()
    rig.write("a.txt/in", "a folder\n")
    rig.write(".gitattributes", "*.win text ident filter=lfs\n*.utf eol=crlf working-tree-encoding=UTF-16\n")
    (work / "x.win").write_bytes(b"1\r\n2\r\n$Id$")
    (work / "x.utf").write_bytes("1\r\n".encode("utf-16"))
    sync(rig)
    check(rig)
    log = there(rig, "log", "--format=%an %s").splitlines()
    assert len(log) == 5
    assert all(line.startswith("syncd workspace as of 20") for line in log)


def test_nothing_is_made_outside_of_a_repository(rig: Rig) -> None:
    """Nor with "none" and "raw"; a repository that begins here begins there."""
    shutil.rmtree(rig.workspace / ".git")
    sync(rig)
    assert not (rig.sandbox.workspace / ".git").exists()
    here(rig, "init", "-q")
    rig.set("workspace", git="none")
    sync(rig)
    assert not (rig.sandbox.workspace / ".git").exists()
    rig.set("workspace", git="baseline")
    sync(rig)
    check(rig)


def switch(rig: Rig, git: str) -> None:
    """Go on with this `workspace.git`."""
    rig.set("workspace", git=git)
    sync(rig)


def test_commits_in_what_raw_sent_stay_whole(rig: Rig) -> None:
    """With another `workspace.git`, what was sent of `.git` stays there, with all that commits need."""
    for number in range(60):
        rig.write(f"many/{number}", "x")
    switch(rig, "raw")
    rig.agent.write("agents.txt", "the agent's\n")
    there(rig, "add", "-A")
    person_git(rig.sandbox.workspace, "commit", "-qm", "the agent's")
    commit = there(rig, "rev-parse", "HEAD")
    rig.delete("many/1")
    switch(rig, "baseline")
    assert not (rig.sandbox.workspace / "many/1").exists()
    there(rig, "fsck", "--strict")
    assert there(rig, "rev-parse", "topic") == commit
    before = rig.asked().count("execute")
    sync(rig)
    assert rig.asked().count("execute") == before


@pytest.mark.parametrize(
    "fault", ["execution-upload: 503 always", "execute: 501 always", "execution-logs: 500 always", "no git there"]
)
def test_a_failure_is_a_warning(rig: Rig, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """The sync is done, it is not tried again at once, and the repository is made later."""
    if fault == "no git there":
        monkeypatch.setattr(os, "defpath", "/nonexistent")
    else:
        rig.emulator.faults.script(fault)
    sync(rig)
    assert files(rig.sandbox.workspace) == files(rig.workspace)
    (warning,) = warnings(rig)
    if fault == "no git there":
        assert warning == "the git repository in the sandbox could not follow (no git is installed in the sandbox)"
    before = rig.asked().count("execute")
    rig.cycle.follow_in_repository()
    assert rig.asked().count("execute") == before
    monkeypatch.undo()
    rig.end_faults()
    rig.clock.go_on(3600)
    rig.cycle.follow_in_repository()
    check(rig)


def test_newer_changes_end_the_wait(rig: Rig) -> None:
    """What the program did meanwhile counts, also where the change was taken back: nothing is lost."""
    sync(rig)
    rig.send({"a.txt": "2\n", "new.txt": "2\n"})

    def newer() -> dict[Event, float]:
        """A change is due once the program runs."""
        return {Event.CHANGE: rig.clock.monotonic_s()} if rig.asked()[-1] == "execution-logs" else {}

    running = json.dumps({"status": "running", "logs": "", "cursor": 0})
    rig.emulator.faults.script(f"execution-logs: json {running} x1")
    with rig.client.waiter.superseded_by(newer), pytest.raises(Superseded):
        rig.cycle.follow_in_repository()
    assert rig.asked()[-1] == "execution-logs"
    rig.sandbox.wait()
    assert there(rig, "show", "home:a.txt") == "2\n"
    assert warnings(rig) == []
    rig.write("a.txt", "one\n")
    rig.delete("new.txt")
    sync(rig)
    check(rig)


def test_too_many_files(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """None is made, with a warning."""
    monkeypatch.setattr(agent_repository, "MOST_FILES", 2)
    rig.sync()
    before = rig.asked().count("execute")
    rig.cycle.follow_in_repository()
    assert rig.asked().count("execute") == before
    assert warnings(rig) == ["the workspace has more than 2 files, so no git repository is made in the sandbox"]
