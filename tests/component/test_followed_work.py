"""What an agent made is kept as of the last look, with its contents, and goes with its sandbox."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from syncd.archive.base_store import BaseStore
from syncd.archive.chunk_store import ChunkStore
from syncd.core.errors import Stop
from syncd.core.settings import check_config
from syncd.core.signals import Interrupt
from syncd.core.waiter import Waiter
from syncd.merge import commits as commits_module
from syncd.merge.commits import FollowedCommits
from syncd.merge.git import blob_id
from syncd.model.entry import ABSENT, Entry, Kind, SeenEntry
from syncd.model.manifest import Manifest
from syncd.remote.target import Target
from syncd.sandbox.sandbox_content import SandboxContent
from syncd.store.blobs import Blobs
from syncd.store.state_db import StateDb
from syncd.sync.agent_work import FoundWork, agent_work
from syncd.sync.following import FollowedStore
from tests.clock import ScriptedClock
from tests.looks import file_of
from tests.repositories import committed, git, tree_of

TARGET = Target("https://api.example", "box", "us")


def _kept(*contents: bytes) -> dict[str, SeenEntry]:
    """Files of an agent, as a look has fetched them."""
    return {f"f{number}": file_of(content) for number, content in enumerate(contents)}


def _contents(folder: Path) -> set[bytes]:
    return {path.read_bytes() for path in (folder / "blobs").iterdir()}


def test_the_last_state_is_kept(tmp_path: Path) -> None:
    """Another process reads it, with its contents; those that the agent wrote over are gone."""
    store = FollowedStore(StateDb(str(tmp_path)), TARGET)
    store.save(FoundWork(7.0, _kept(b"first", b"second")), 7.0)
    there = {**_kept(b"first", b"other"), "gone": ABSENT, b"\xff".decode("utf-8", "surrogateescape"): ABSENT}
    store.save(FoundWork(8.0, there, ("node_modules",), 3, "the disk is full"), 8.0)
    read = FollowedStore(StateDb(str(tmp_path)), TARGET).load()
    assert (read.at_s, read.pruned, read.unlisted, read.not_kept) == (8.0, ("node_modules",), 3, "the disk is full")
    assert read.there.keys() == there.keys()
    assert Path(read.there["f1"].copy).read_bytes() == b"other"
    assert _contents(tmp_path) == {b"first", b"other"}
    assert FollowedStore(StateDb(str(tmp_path)), Target("https://api.example", "other", "us")).load() is None


def test_what_cannot_be_kept_changes_nothing(tmp_path: Path) -> None:
    """A content that is missing fails the whole, and what was kept before still is."""
    store = FollowedStore(StateDb(str(tmp_path)), TARGET)
    store.save(FoundWork(7.0, _kept(b"first")), 7.0)
    wanted = _kept(b"newer", b"missing")
    os.unlink(wanted["f1"].copy)
    with pytest.raises(FileNotFoundError):
        store.save(FoundWork(8.0, wanted), 8.0)
    read = store.load()
    assert Path(read.there["f0"].copy).read_bytes() == b"first"
    assert _contents(tmp_path) == {b"first"}


def test_it_goes_with_its_sandbox(tmp_path: Path) -> None:
    """The contents of a sandbox that is forgotten go at the next clean-up."""
    db = StateDb(str(tmp_path))
    FollowedStore(db, TARGET).save(FoundWork(7.0, _kept(b"first")), 7.0)
    with db.transaction():
        db.forget_owners_but([])
    Blobs(db).clean_up(8.0)
    assert _contents(tmp_path) == set()


def _commits_of(workspace: Path, interrupt: Interrupt) -> FollowedCommits:
    """What commits an agent's work to the repository of this workspace; its state is beside that."""
    config = check_config({"workspace": {"path": str(workspace)}, "sandbox": {"id": "box"}})
    db, clock = StateDb(str(workspace.parent)), ScriptedClock()
    access = SimpleNamespace(config=config, db=db, clock=clock, waiter=Waiter(interrupt, clock))
    spool = str(workspace.parent / "spool")
    own = SimpleNamespace(
        base_store=BaseStore(spool, ChunkStore(spool)), environ=os.environ, search=lambda _file: False
    )
    return FollowedCommits(access, own)  # type: ignore[arg-type]


def test_a_repository_without_a_commit(tmp_path: Path) -> None:
    """Each tree on the reference holds what the sandbox does, and nothing that is gone there or here since."""
    workspace, scratch = tmp_path / "work", str(tmp_path / "scratch")
    workspace.mkdir()
    git(workspace, "init", "-q")
    (workspace / "sent").write_text("sent")
    sent = {"sent": Entry(Kind.FILE, 0o644, 1, 4, digest=hashlib.sha256(b"sent").digest())}
    commits = _commits_of(workspace, Interrupt())
    seen = []
    for base, there in ((sent, {"old": file_of(b"1")}), ({}, {"new": file_of(b"2")})):
        work = agent_work(FoundWork(0.0, there), SandboxContent(Manifest(base)), lambda _path, _is_dir: False)
        commits.follow("owner", work, lambda _path, _is_dir: False, scratch)
        seen.append(git(workspace, "ls-tree", "-r", "--name-only", "refs/syncd/main").split())
    assert seen == [["old", "sent"], ["new"]]
    assert len(git(workspace, "rev-list", "refs/syncd/main").split()) == 2


def test_what_a_later_base_changes(tmp_path: Path) -> None:
    """What is in a submodule or a `.git`, excluded, or in no sparse checkout, is as in HEAD after a later sync, too."""
    workspace, rules, sent = tmp_path / "work", list[str](), dict[str, Entry]()

    def is_excluded(path: str, _is_dir: bool) -> bool:
        return path in rules

    def send(*paths: str) -> None:
        for path in paths:
            (workspace / path).parent.mkdir(parents=True, exist_ok=True)
            (workspace / path).write_text("sent")
            sent[path] = Entry(Kind.FILE, 0o644, 1, 4, digest=hashlib.sha256(b"sent").digest())

    def follow(content: bytes) -> None:
        found = FoundWork(0.0, {"new": file_of(content)})
        work = agent_work(found, SandboxContent(Manifest(sent)), is_excluded)
        commits.follow("owner", work, is_excluded, str(tmp_path / "scratch"))
        assert not commits.warnings

    send("excluded", "hidden", "module/x", "gone")
    committed(workspace / "module")
    committed(workspace)
    expected = tree_of(workspace, "HEAD")
    commits = _commits_of(workspace, Interrupt())
    follow(b"1")
    assert tree_of(workspace, "refs/syncd/main") == {**expected, "new": ("100644", b"1")}
    send("module/y", ".git/y", "later")
    git(workspace, "update-index", "--skip-worktree", "hidden")
    rules.append("excluded")
    del sent["excluded"], sent["hidden"], sent["gone"], expected["gone"]
    follow(b"2")
    assert tree_of(workspace, "refs/syncd/main") == {**expected, "new": ("100644", b"2"), "later": ("100644", b"sent")}


def test_a_stop_ends_the_reading_of_a_large_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first commit after a start compares all that was sent with HEAD; between two files it can be stopped."""
    workspace, interrupt, read = tmp_path / "work", Interrupt(), list[str]()
    workspace.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=workspace, check=True)
    sent = {}
    for name in ("a", "b", "c"):
        (workspace / name).write_text(name)
        sent[name] = Entry(Kind.FILE, 0o644, 1, 1, digest=hashlib.sha256(name.encode()).digest())

    def reading(path: str, version: SeenEntry, object_format: str) -> bytes:
        read.append(path)
        interrupt.requested = True
        return blob_id(path, version, object_format)

    monkeypatch.setattr(commits_module, "blob_id", reading)
    commits = _commits_of(workspace, interrupt)
    found, content = FoundWork(0.0, _kept(b"the agent's")), SandboxContent(Manifest(sent))
    work = agent_work(found, content, lambda _path, _is_dir: False)
    with pytest.raises(Stop):
        commits.follow("owner", work, lambda _path, _is_dir: False, str(tmp_path / "scratch"))
    assert len(read) == 1
