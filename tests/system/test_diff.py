"""`syncd diff`: what was changed in the sandbox, as a patch that git takes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from tests.agent import Agent
from tests.emulator.faults import When
from tests.system.rig import DEFAULTS, Rig
from tests.system.trees import tree

ODD = "sp ace\t\"quo'te\n-x"
TEXT = "".join(f"line {number}\n" for number in range(30))


@pytest.fixture
def agent(rig: Rig) -> Agent:
    """A workspace that was sent: texts, a binary file, a link, an executable, odd names; and the agent there."""
    rig.configure(DEFAULTS)
    for path in ("a", "d/b", "d/e/c", ODD, "gone", "mode"):
        rig.write(path, TEXT + path)
    rig.write("binary", bytes(range(256)) * 20)
    rig.write("empty", "")
    (rig.workspace / "link").symlink_to("a")
    rig.write(".gitignore", "*.log\nbuild/\n")
    rig.ok("push")
    return rig.agent


def test_git_applies_the_patch(rig: Rig, agent: Agent) -> None:
    """To a copy of what was sent, it makes what is in the sandbox: text, binary, modes, kinds, new and deleted."""
    sent = rig.home / "sent"
    shutil.copytree(rig.workspace, sent, symlinks=True)
    agent.write_with_old_mtime("a", (TEXT + "a").replace("line 7", "LINE 7"))  # neither size nor time tell
    agent.write("d/b", TEXT)
    agent.write("binary", bytes(reversed(range(256))) * 20)
    agent.write(ODD, "theirs\n")
    agent.write(f"new dir/{ODD}", "theirs\r\n")
    agent.write("no-newline", "x")
    agent.write("empty too", "")
    agent.chmod("mode", 0o755)
    agent.delete("gone")
    agent.rename("d/e/c", "moved")
    agent.symlink("link", "d/b")
    rig.write("a", "changed here since\n")
    found = rig.run("diff")
    assert (found.code, found.told) == (1, "")
    subprocess.run(["git", "apply", "-p1"], input=os.fsencode(found.out), cwd=sent, check=True)
    # An empty directory is in no patch.
    there = {path: entry for path, entry in tree(rig.sandbox.workspace).items() if entry != ("folder",)}
    assert {path: entry for path, entry in tree(sent).items() if entry != ("folder",)} == there
    assert "rename" not in found.out
    assert (rig.workspace / "a").read_text() == "changed here since\n"


def test_a_file_that_no_patch_can_hold(rig: Rig, agent: Agent) -> None:
    """It is named, and the rest is shown."""
    agent.write("a", "theirs\n")
    with (rig.sandbox.workspace / "huge").open("wb") as file:
        file.truncate((256 << 20) + 1)
    found = rig.run("diff")
    assert (found.code, "+theirs" in found.out, "huge" in found.out) == (1, True, False)
    assert found.told == "not shown: huge is too large for a patch; `syncd apply` brings it home\n"


def test_what_is_no_file_here_any_more(rig: Rig, agent: Agent) -> None:
    """A FIFO, or a link to a device, in the place of a file that was sent is not read."""
    for path in ("a", "d/b"):
        agent.write(path, "theirs\n")
        (rig.workspace / path).unlink()
    os.mkfifo(rig.workspace / "a")
    (rig.workspace / "d/b").symlink_to("/dev/zero")
    shown = rig.run("diff", "--name-only")
    assert (shown.code, shown.out.splitlines()) == (1, ["a", "d/b"])
    applied = rig.run("apply", "--json")
    assert [json.loads(applied.out)[name] for name in ("conflicts", "never")] == [["d/b"], ["a"]]


def test_a_repository_with_longer_ids(rig: Rig, agent: Agent) -> None:
    """With SHA-256, git takes the patch in the repository of the workspace; its ids are compared for binary files."""
    made = subprocess.run(["git", "init", "-q", "--object-format=sha256"], cwd=rig.workspace, check=False)
    if made.returncode:
        pytest.skip("this git does not know the format")
    agent.write("binary", bytes(reversed(range(256))) * 20)
    agent.write("new binary", b"\0\1")
    agent.write("a", "theirs\n")
    agent.delete("gone")
    found = rig.run("diff")
    subprocess.run(["git", "apply"], input=os.fsencode(found.out), cwd=rig.workspace, check=True)
    assert (rig.workspace / "binary").read_bytes() == bytes(reversed(range(256))) * 20
    assert (rig.workspace / "new binary").read_bytes() == b"\0\1"
    assert not (rig.workspace / "gone").exists()


def test_nothing_was_changed(rig: Rig, agent: Agent) -> None:
    """0, and nothing is printed; what stays home and what is new here is nobody's change, nor a repository that the
    agent made. What the rules leave out there is counted, on stderr alone.
    """
    rig.write(".env", "SECRET=1\n")
    rig.write("x.log", "stays home")
    rig.write("new-here", "not sent yet")
    rig.write("a", "changed here")
    (rig.workspace / "gone").unlink()
    for form in ((), ("--stat",)):
        found = rig.run("diff", *form)
        assert (found.code, found.out, found.told) == (0, "", "")
    assert json.loads(rig.ok("diff", "--json").out) == {"changes": [], "left_out": 0}
    assert agent.exists("gone")
    for path in ("x.log", ".env", "sub/.git/config"):
        agent.write(path, "left out")
    found = rig.run("diff")
    assert (found.code, found.out) == (0, "")
    assert found.told == "2 excluded paths in the sandbox: not shown\n"


def test_a_sync_beside_the_look(rig: Rig, agent: Agent) -> None:
    """What it puts there and removes there, right before the comparison, is not shown; the agent's change is."""
    rig.write("a", "changed here")
    rig.write("new", "new here")
    (rig.workspace / "gone").unlink()
    agent.write("d/b", "theirs\n")
    rig.once("execute", When.BEFORE, lambda: rig.ok("push"))
    found = rig.run("diff", "--name-only")
    assert (found.code, found.out, found.told) == (1, "d/b\n", "")
    assert agent.read("new") == b"new here"
    assert rig.status()["agent"]["changed"] == 1


def test_names(rig: Rig, agent: Agent) -> None:
    """One a line, without any further request; a table for people; of those that are asked for alone."""
    agent.write("a", "theirs\n")
    agent.write("d/b", "theirs\n")
    agent.write("d/e/c", "theirs\n")
    assert rig.run("diff", "--name-only").out.splitlines() == ["a", "d/b", "d/e/c"]
    assert "d/e/c" in rig.run("diff", "--stat").out
    folder = rig.workspace / "d"
    assert rig.run("diff", "--name-only", "e", place=folder).out.splitlines() == ["d/e/c"]
    assert rig.run("diff", "--name-only", ".", place=folder).out.splitlines() == ["d/b", "d/e/c"]
    assert rig.run("diff", "--name-only", "../a", "b", place=folder).out.splitlines() == ["a", "d/b"]
    assert rig.run("diff", "--name-only", "../binary", place=folder).code == 0
    # Names are those below the workspace, wherever the command runs.
    assert rig.run("diff", place=folder).out == rig.run("diff").out


def test_a_path_outside(rig: Rig, agent: Agent) -> None:
    """2, and no request; an empty one is none either, as git's."""
    asked = len(rig.emulator.request_log.ops())
    for command, path in (
        ("diff", ".."),
        ("apply", "/etc/passwd"),
        ("diff", "../other"),
        ("explain", ".."),
        ("apply", ""),
    ):
        refused = rig.run(command, path, place=rig.workspace)
        assert (refused.code, refused.out) == (2, "")
        assert ("is not in the workspace" if path else "a PATH is empty") in refused.err
    assert len(rig.emulator.request_log.ops()) == asked
    assert agent.exists("a")


def test_json(rig: Rig, agent: Agent) -> None:
    """Each change with what it is, and what is here; how much the rules leave out."""
    agent.write("a", "theirs\n")
    agent.write("d/b", "theirs\n")
    agent.write("d/e/c", "theirs\n")
    agent.write("binary", b"\0\1")
    agent.chmod("mode", 0o755)
    agent.delete("gone")
    agent.symlink(ODD, "a")
    agent.write("new", "theirs\n")
    agent.mkdir("folder")
    agent.write("x.log", "left out")
    agent.write("build/deep/er", "left out")
    agent.write(".env", "KEY=1\n")
    rig.write("d/b", "ours\n")
    (rig.workspace / "d/e/c").unlink()
    found = rig.run("diff", "--json")
    assert found.code == 1
    document = json.loads(found.out)
    rows = {row["path"]: tuple(row.values())[1:5] for row in document["changes"]}
    assert list(document["changes"][0]) == ["path", "change", "bytes", "binary", "here", "sandbox"]
    assert rows == {
        "a": ("modified", 7, False, "same"),
        "binary": ("modified", 2, True, "same"),
        "d/b": ("modified", 7, False, "changed"),
        "d/e/c": ("modified", 7, False, "missing"),
        "folder": ("added", 0, False, "same"),
        "gone": ("deleted", 0, False, "same"),
        "mode": ("mode", len(TEXT + "mode"), False, "same"),
        "new": ("added", 7, False, "same"),
        ODD: ("type", 1, False, "same"),
    }
    assert {row["sandbox"] for row in document["changes"]} == {"main"}
    assert document["left_out"] >= 3


def test_before_the_first_sync(rig: Rig) -> None:
    """78, and the command that helps."""
    rig.write("a")
    for command in ("diff", "apply"):
        failed = rig.run(command)
        assert (failed.code, failed.out) == (78, "")
        assert failed.err == "syncd: nothing is known to have been sent to this sandbox yet: run `syncd push` first\n"


def test_without_git(rig: Rig, agent: Agent) -> None:
    """A patch needs it, and that is said; names do not, and `apply` makes conflicts of what both changed."""
    rig.environ["PATH"] = str(rig.home / "nothing")
    agent.write("a", (TEXT + "a").replace("line 1\n", "theirs\n"))
    agent.write("d/b", "theirs\n")
    rig.write("a", (TEXT + "a").replace("line 25\n", "ours\n"))
    failed = rig.run("diff")
    assert (failed.code, failed.out) == (78, "")
    assert failed.told.count("\n") == 1
    assert "git" in failed.err
    assert rig.run("diff", "--name-only").out.splitlines() == ["a", "d/b"]
    applied = rig.run("apply", "--json")
    document = json.loads(applied.out)
    assert (applied.code, document["taken"], document["conflicts"]) == (1, ["d/b"], ["a"])
    assert "ours\n" in (rig.workspace / "a").read_text()
    failed = rig.run("apply", "--branch", "theirs")
    assert failed.code == 78
