"""What the agent makes is at home by itself: `sandbox.follow_seconds`, with a real daemon and a real repository."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tarfile
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from syncd.core.clock import stamp
from tests.agent import Agent, NamedPath
from tests.repositories import committed, git
from tests.system.command import AS_ANYONE, CLOCK, as_anyone
from tests.system.rig import DEFAULTS, TIMEOUT_S, Rig, emptied
from tests.system.trees import Tree, tree

REFERENCE = "refs/syncd/main"
FOLLOWS: dict[str, object] = {**DEFAULTS, "sandbox.follow_seconds": 5}
HOOKS = ("pre-commit", "post-commit", "reference-transaction", "post-checkout", "post-index-change", "update")


def _content(rig: Rig, name: str) -> str | None:
    """Return what git has by that name; None if it has nothing."""
    try:
        return git(rig.workspace, "cat-file", "blob", name)
    except AssertionError:
        return None


class Followed:
    """A daemon that follows the agent in a sandbox, in a repository with hooks, a stash and staged changes."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.ran = rig.home / "a hook ran"
        rig.configure(FOLLOWS)
        for path in ("notes", "d/gone", "run", "tracked/.env"):
            rig.write(path, f"{path} as sent\n")
        rig.write(".gitignore", "ignored/\n")
        committed(rig.workspace)
        rig.write("notes", "stashed\n")
        self.git("stash", "-q")
        rig.write("staged", "staged\n")
        self.git("add", "staged")
        rig.write("untracked", "mine\n")
        for hook in HOOKS:
            path = rig.workspace / ".git/hooks" / hook
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"#!/bin/sh\n: >'{self.ran}'\n")
            path.chmod(0o755)
        rig.up()
        rig.ok("flush")
        self.agent = rig.agent

    def git(self, *words: str) -> str:
        return git(self.rig.workspace, *words)

    def at_home(self, path: str) -> str | None:
        """Return a file's content on the reference; None if it is not there."""
        return _content(self.rig, f"{REFERENCE}:{path}")

    def holds(self, path: str, content: str | None) -> bool:
        return self.at_home(path) == content

    def head(self) -> str:
        return self.git("for-each-ref", "--format=%(objectname)", REFERENCE).strip()

    def until(self, path: str, content: str | None) -> None:
        """Have a look made, and wait until that content is at home."""
        self.rig.ok("flush")  # a person who asks for something is why to look at once
        self.rig.until(partial(self.holds, path, content), f"{path} at home")

    def visible(self) -> tuple[Tree, list[str]]:
        """What a person sees of the workspace and its repository, but for the reference."""
        files = {
            path: what
            for path, what in tree(self.rig.workspace).items()
            if not path.startswith((".git/objects", ".git/refs/syncd"))
        }
        references = self.git("for-each-ref", "--format=%(refname) %(objectname)").splitlines()
        return files, [each for each in references if REFERENCE not in each]


@pytest.fixture
def followed(rig: Rig) -> Followed:
    return Followed(rig)


class _WholeWriter(Agent):
    """An agent of which no look sees a file that is written by half."""

    def write(self, path: NamedPath, content: bytes | str, mode: int | None = None) -> None:
        super().write("../draft", content, mode)
        self.rename("../draft", path)


@pytest.fixture
def plain(rig: Rig) -> Agent:
    """The agent in a sandbox that a daemon follows, without a repository."""
    rig.configure(FOLLOWS)
    for path in ("a", "b", "d/c"):
        rig.write(path, f"{path} as sent\n")
    rig.up()
    rig.ok("flush")
    return _WholeWriter(rig.sandbox.workspace)


def _end(rig: Rig) -> None:
    """The sandbox ends without a warning."""
    rig.sandbox.record.expires_at_s = 0.0


def changed(rig: Rig, number: int) -> None:
    """Have a look made, and wait until it found so many changes."""
    rig.ok("flush")
    rig.until(lambda: rig.shown()["agent"]["changed"] == number, f"{number} changes")


def test_it_comes_by_itself(followed: Followed) -> None:
    """Without a command or an edit, again and again; the commit is a whole tree, and says what it follows. Work tree,
    index, branches, stash and configuration stay to the byte; no hook runs, and nothing is sent.
    """
    first, before, sent = followed.head(), followed.visible(), followed.rig.count("initialize")
    for content in ("one\n", "two\n"):
        followed.agent.write("notes", content)
        followed.rig.until(partial(followed.holds, "notes", content), "the agent's version")
    assert (first, followed.at_home("untracked"), followed.at_home("staged")) == ("", "mine\n", "staged\n")
    parents = followed.git("rev-list", "--parents", "-1", f"{REFERENCE}^").split()
    assert followed.git("rev-parse", "main").strip() in parents
    assert followed.git("log", "-1", "--format=%an|%cn|%s", REFERENCE).strip() == (
        "syncd|syncd|What the agent changed in main"
    )
    followed.agent.chmod("run", 0o755)
    followed.agent.delete("d")
    followed.agent.symlink("link", "notes")
    followed.until("link", "notes")
    assert followed.at_home("d/gone") is None
    assert followed.git("ls-tree", REFERENCE, "run").startswith("100755 ")
    assert followed.visible() == before
    assert not followed.ran.exists()
    assert followed.rig.count("initialize") == sent
    followed.git("fsck", "--strict")
    # A branch is of now: the agent's commits are read from the sandbox, so nothing else is of a time before them.
    followed.agent.write("notes", "newer\n")
    followed.rig.ok("apply", "--branch", "agent")
    assert followed.git("show", "agent:notes") == "newer\n"


def test_what_never_comes(followed: Followed) -> None:
    """What rules exclude, what is in a `.git`, and links that lead out: no commit, no store, no `diff` has them.

    No commit has submodules that git refuses, either.
    """
    secret = "the agent wrote this"
    never = {".env", "tracked/.env", "ignored/x", "sub/.git/config", "sub/.GIT/hooks/pre-commit", "out", "d/up"}
    for path in never - {"out", "d/up"}:
        followed.agent.write(path, secret)
    followed.agent.symlink("out", "/etc/passwd")
    followed.agent.symlink("d/up", "../../x")
    followed.agent.write(".gitmodules", '[submodule "a"]\n\tpath = a\n\turl = -x\n')
    followed.agent.write("notes", "this comes\n")
    followed.until("notes", "this comes\n")
    names = followed.git("ls-tree", "-r", "-z", "--name-only", REFERENCE).split("\0")
    assert not (never | {".gitmodules"}) & {*names}
    assert secret not in followed.git("cat-file", "--batch-all-objects", "--batch")
    for path in followed.rig.state_folder.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path
    assert secret not in followed.rig.run("diff").out


@pytest.mark.parametrize(("end", "running"), [("gone", True), ("unreachable", False)])
def test_it_is_at_home_when_the_sandbox_is_gone(rig: Rig, plain: Agent, end: str, running: bool) -> None:
    """`diff` and `apply` say as of when, and an undo takes nothing from what is at home."""
    plain.write("a", "the agent's\n")
    plain.write("new/n", bytes(range(256)))
    plain.delete("b")
    changed(rig, 4)  # the folder too
    if end == "gone":
        _end(rig)
    else:
        rig.faults("any: reset always")
    if not running:
        rig.kill()
    rig.configure({**FOLLOWS, "retry.give_up_after_seconds": 1})
    shown = rig.run("diff")
    assert (shown.code, "+the agent's" in shown.out, "-b as sent" in shown.out) == (1, True, True)
    assert re.search(r"as of \w{3} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d, .*ago|just now", shown.err)
    for _ in range(2):
        rig.ok("apply")
        assert (rig.workspace / "a").read_text() == "the agent's\n"
        assert (rig.workspace / "new/n").read_bytes() == bytes(range(256))
        assert (rig.workspace / "b").exists()
        rig.ok("apply", "--undo")
        assert (rig.workspace / "a").read_text() == "a as sent\n"
    rig.ok("apply", "--deletions")
    assert not (rig.workspace / "b").exists()


@pytest.mark.parametrize(
    "how", ["reset", "emptied", "emptied before an edit", "emptied before a whole archive", "gone", "released"]
)
def test_the_end_of_a_sandbox_saves_what_was_followed(rig: Rig, plain: Agent, how: str) -> None:
    """Whatever ends it, and whoever notices: the agent's versions become saved ones."""
    plain.write("a", "the agent's\n")
    plain.write("new", "the agent's, too\n")
    changed(rig, 2)
    if how == "gone":
        _end(rig)
        rig.write("b", "an edit")
        released = rig.run("sandbox", "release", "--yes")
        assert released.code == 0, released
    elif how == "released":
        rig.ok("sandbox", "release", "--yes")
    else:
        if how == "emptied before a whole archive":
            rig.configure({**FOLLOWS, "sync.archive": "full"})
            rig.ok("reload")
            rig.ok("flush")
            rig.in_state("watching")
        rig.sandbox.reset() if how == "reset" else emptied(rig.sandbox.workspace, last=("a", "new"))
        if how.startswith("emptied before"):
            rig.write("b", "an edit")  # a sync notices before a look does
        else:
            rig.run("flush")
        rig.converged()
    rig.until(rig.saved, "a saved version")
    assert rig.restored("a") == "the agent's\n"
    assert rig.restored("new") == "the agent's, too\n"


def test_a_push_during_a_look(rig: Rig, plain: Agent) -> None:
    """What `push --force` goes over is saved, and not there any more, also if a look has seen it right before."""
    looked_at = rig.status()["agent"]["followed_at"]
    plain.write("a", "the agent's\n")

    def push() -> None:
        rig.ok("push", "--force")
        rig.faults("execute: 503 always", "dump: 503 always")

    assert rig.once("export-artifacts", "before", push).wait(TIMEOUT_S), rig.report()
    rig.until(lambda: rig.shown()["agent"]["followed_at"] != looked_at, "the end of the look")
    assert json.loads(rig.ok("apply", "--json").out)["taken"] == []
    assert rig.restored("a") == "the agent's\n"
    assert plain.read("a") == (rig.workspace / "a").read_bytes()


def test_looks_that_hang_or_fail(rig: Rig, plain: Agent) -> None:
    """They delay no sync, nor a command's answer. A failure is told, and as of when is what is at home, until a look
    succeeds.
    """
    begun, go_on = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        go_on.wait(TIMEOUT_S)

    rig.once("execute", "before", hang)
    assert begun.wait(TIMEOUT_S), rig.report()
    rig.write("b", "an edit\n")
    rig.converged()
    rig.ok("flush")
    assert not go_on.is_set()
    go_on.set()
    plain.write("a", "the agent's\n")
    changed(rig, 1)
    rig.faults("execute: 503 always", "dump: 503 always")
    rig.until(lambda: any("could not be looked at" in each for each in rig.shown()["warnings"]), "a warning")
    assert f"what is at home is as of {time.strftime('%a %Y-')}" in " ".join(rig.shown()["warnings"])
    rig.emulator.faults.clear()
    rig.until(lambda: not rig.shown()["warnings"], "no warning")


def test_a_busy_agent_and_a_huge_file(rig: Rig, plain: Agent) -> None:
    """Fifty edits a second, and more than a look fetches: all else is at home, and the file is named.

    It makes later looks no dearer.
    """
    with open(plain.path("huge"), "wb") as file:
        file.truncate(3 << 30)
    for number in range(250):
        plain.write("ab"[number % 2], f"edit {number}\n")
        CLOCK.sleep(0.02)
    changed(rig, 3)
    last, written_at = {"+edit 248", "+edit 249"}, stamp(CLOCK.wall_s())
    rig.until(lambda: rig.shown()["agent"]["followed_at"] > written_at, "a look at the last edits")
    (warning,) = rig.status()["warnings"]
    assert "'huge' cannot be kept at home (it is too large): `syncd pull DEST`" in warning
    _until_a_look_is_cheap(rig)
    _end(rig)
    shown = rig.run("diff")
    assert last <= {*shown.out.splitlines()}
    assert "not shown: huge (it is too large)\n" in shown.err


def _until_a_look_is_cheap(rig: Rig) -> None:
    """Have looks made until one asks only for what has changed since the one before."""
    bucket = rig.emulator.data_dir / "bucket"
    before = {*bucket.rglob("executions/*.tar.gz")}

    def asks_for_changes(archive: Path) -> bool:
        with tarfile.open(archive) as members:
            request = members.extractfile("request.json")
            assert request is not None
            return json.load(request).get("look", {}).get("since") is not None

    def is_cheap() -> bool:
        rig.ok("flush")
        return any(asks_for_changes(archive) for archive in {*bucket.rglob("executions/*.tar.gz")} - before)

    rig.until(is_cheap, "a look that asks for changes alone")


@as_anyone
def test_a_repository_that_is_read_only(rig: Rig) -> None:
    """One warning, until it can be written; looks cost as little as without one."""
    rig.write("a", "as sent\n")
    subprocess.run(["git", "init", "-q"], cwd=rig.workspace, check=True)
    objects, reference = rig.workspace / ".git/objects", rig.workspace / ".git" / REFERENCE
    rig.configure(FOLLOWS)
    daemon = rig.up(prefix=AS_ANYONE)
    rig.ok("flush")
    for folder in (objects, objects / "pack"):
        folder.chmod(0o555)
    rig.agent.write("a", "the agent's\n")
    rig.until(lambda: f"not on {REFERENCE}" in " ".join(rig.shown()["warnings"]), "a warning")
    _until_a_look_is_cheap(rig)
    assert daemon.err.count(f"not on {REFERENCE}") == 1
    assert "+the agent's" in rig.run("diff").out
    for folder in (objects, objects / "pack"):
        folder.chmod(0o755)
    rig.until(lambda: reference.exists() and not rig.shown()["warnings"], "the commit")


def test_several_are_followed(rig: Rig) -> None:
    """Each on a reference of its own, so that git compares them; one that is dead delays no other."""
    blue = rig.emulator.create_sandbox("box-blue")
    rig.write("a", "as sent\n")
    subprocess.run(["git", "init", "-q"], cwd=rig.workspace, check=True)
    rig.configure({**FOLLOWS, "sandboxes.blue.id": "box-blue"})
    rig.up()
    rig.ok("flush")
    rig.agent.write("a", "main's\n")
    rig.until(lambda: _content(rig, "refs/syncd/main:a") == "main's\n", "what main's agent made")
    _end(rig)
    Agent(blue.workspace).write("a", "blue's\n")
    rig.until(lambda: _content(rig, "refs/syncd/blue:a") == "blue's\n", "what blue's agent made")
    assert "+blue's" in rig.run("diff", "--sandbox", "blue").out
    assert "-main's\n+blue's\n" in git(rig.workspace, "diff", "refs/syncd/main", "refs/syncd/blue")
    rig.ok("sandbox", "remove", "blue", "--yes")
    assert _content(rig, "refs/syncd/blue:a") == "blue's\n"


def _damage(rig: Rig, content: bytes) -> None:
    """Have the disk damage what is kept of that content: its first byte, nothing else."""
    blob = rig.state_folder / "blobs" / hashlib.sha256(content).hexdigest()
    damaged = bytearray(blob.read_bytes())
    damaged[0] ^= 0xFF
    blob.write_bytes(damaged)


def test_a_damaged_content_of_a_sandbox_that_is_gone(rig: Rig, plain: Agent) -> None:
    """It is named, and not taken; the rest comes."""
    plain.write("a", "the agent's\n")
    plain.write("b", "the agent's too\n")
    changed(rig, 2)
    _end(rig)
    _damage(rig, b"the agent's\n")
    for _ in range(2):
        applied = rig.run("apply")
        assert (applied.code, "stays     a: its content could not be fetched" in applied.out) == (75, True), applied
    assert [(rig.workspace / path).read_text() for path in ("a", "b")] == ["a as sent\n", "the agent's too\n"]
