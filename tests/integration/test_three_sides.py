"""A sync by three sides: what only the agent changed stays; what both changed is saved and overwritten, or held."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from syncd.archive.base_store import BaseStore
from syncd.archive.chunk_store import ChunkStore
from syncd.archive.snapshotter import SyncMode
from syncd.core.errors import KeyRefused
from syncd.model.entry import Entry, Kind, SeenEntry
from syncd.model.manifest import Manifest
from syncd.sandbox.executions import Executions
from syncd.sandbox.look_request import LookResult
from syncd.store.state_db import StateDb
from syncd.sync.agent_work import FoundWork
from syncd.sync.following import FollowedStore
from tests.integration.sync_rig import Rig, rigged
from tools.conformance.profile import Profile


@pytest.fixture
def rig(bare: Rig) -> Rig:
    """The defaults: `a`, `b`, `d/c`, `more`, and a link to `a`, are in the sandbox."""
    bare.use_defaults()
    for path in ("a", "b", "d/c", "more"):
        bare.write(path, f"ours: {path}")
    (bare.workspace / "link").symlink_to("a")
    bare.sync()
    return bare


ARCHIVES = pytest.mark.parametrize("archive", ["auto", "full"])


@ARCHIVES
@pytest.mark.parametrize("policy", ["save", "overwrite"])
def test_a_link_that_leads_out_stops_nothing(tmp_path: Path, archive: str, policy: str) -> None:
    """An extractor may refuse what is at it: it is saved and removed; where nobody looks it is left, and named."""
    with rigged(tmp_path, profile=Profile(extraction="python")) as rig:
        rig.use_defaults()
        rig.set(agent_changes=policy)
        rig.set("sync", archive=archive)
        rig.edit(a="1", b="1")
        (rig.workspace / "link").symlink_to("a")
        rig.settle()
        rig.agent.symlink("link", "/etc/hostname")
        rig.delete("link")
        (rig.workspace / "link").symlink_to("b")
        rig.edit(b="2")
        rig.settle()
        assert rig.there("b") == "2"
        arrives = policy == "save"
        assert os.readlink(rig.agent.path("link")) == (b"b" if arrives else b"/etc/hostname")
        assert rig.saved == ({"link": ["/etc/hostname"]} if arrives else {})
        assert ("obstacle:link" in rig.warnings) is not arrives


POLICIES = pytest.mark.parametrize("policy", ["save", "hold"])


# -- changed on both sides


@pytest.mark.parametrize("ends", ["save", "taken back"])
@ARCHIVES
def test_hold(rig: Rig, archive: str, ends: str) -> None:
    """All else is sent; the path is named until the agent takes its change back, or a process with `save` comes."""
    rig.set(agent_changes="hold")
    rig.set("sync", archive=archive)
    rig.agent.write("a", "theirs")
    assert rig.send({"a": "newer", "b": "newer"}).held == rig.status.agent.held == ("a",)
    assert rig.stays_quiet()
    assert (rig.there("a"), rig.there("b"), [*rig.warnings]) == ("theirs", "newer", ["held:a"])
    if ends == "save":
        rig.set(agent_changes="save")
    else:
        rig.agent.write("a", "ours: a")
        rig.edit(b="at last")
    rig.settle()
    assert (rig.there("a"), rig.warnings, rig.status.agent.held) == ("newer", {}, ())
    assert rig.saved == ({"a": ["theirs"]} if ends == "save" else {})
    assert rig.stays_quiet()


def test_what_only_the_agent_changed_is_forced(rig: Rig) -> None:
    """It stays as it is there until a person has all be as here; then it is saved first."""
    rig.set("sync", archive="full")
    rig.agent.write("a", "theirs")
    rig.send({"b": "newer"})
    assert (rig.there("a"), rig.there("b"), rig.saved) == ("theirs", "newer", {})
    rig.sync(SyncMode.FORCED)
    assert (rig.there("a"), rig.saved) == ("ours: a", {"a": ["theirs"]})
    assert rig.stays_quiet()


def without_copies(monkeypatch: pytest.MonkeyPatch, **lacking: Any) -> None:
    """Let each look report changed files without a copy, and with these values."""
    finish = Executions.finish_look

    def finished(*args: Any) -> LookResult:
        found = finish(*args)
        differing = {path: replace(entry, copy="", **lacking) for path, entry in found.differing.items()}
        return replace(found, differing=differing)

    monkeypatch.setattr(Executions, "finish_look", finished)


@pytest.mark.parametrize("there", ["a directory", "a FIFO", "too large", "still being written"])
def test_what_cannot_be_saved_is_held(rig: Rig, monkeypatch: pytest.MonkeyPatch, there: str) -> None:
    """With `save` too, and by force: nothing is overwritten that is not saved, and all else is sent."""
    if there == "a directory":
        rig.agent.delete("a")
        rig.agent.write("a/in", "theirs")
    elif there == "a FIFO":
        rig.agent.fifo("a")
    else:
        rig.agent.write("a", "theirs")
        without_copies(monkeypatch, **({"unstable": True, "digest": b""} if there == "still being written" else {}))
    for mode in (SyncMode.CHANGED, SyncMode.FORCED):
        rig.edit(a=f"newer: {mode}", b=f"newer: {mode}")
        rig.sync(mode)
        assert rig.there("b") == f"newer: {mode}"
        assert not os.path.isfile(rig.agent.path("a")) or rig.there("a") == "theirs"
        assert rig.status.agent.held == ("a",)
        assert list(rig.warnings) == ["held:a"]
        assert rig.saved == {}
    if there == "a directory":
        assert rig.there("a/in") == "theirs"
    assert rig.stays_quiet()


@pytest.mark.parametrize("fault", ["export-artifacts: 404 always", "download: 503 always"])
def test_what_cannot_be_fetched_is_held(rig: Rig, fault: str) -> None:
    """The program found it, and neither its copy nor the sandbox's archive comes."""
    rig.emulator.faults.script(fault, "dump: 501 always")
    rig.agent.write("a", "theirs")
    rig.send({"a": "newer", "b": "newer"})
    assert (rig.there("a"), rig.there("b")) == ("theirs", "newer")
    assert list(rig.warnings) == ["held:a"]
    rig.emulator.faults.clear()
    rig.clock.go_on(60)
    rig.settle()
    assert (rig.there("a"), rig.saved, rig.warnings) == ("newer", {"a": ["theirs"]}, {})


def test_saved_anew_after_a_day(rig: Rig) -> None:
    """What would expire soon does not count as saved; what a sync counts on does not expire with it."""

    def overwrite(content: str) -> list[str]:
        rig.agent.write("a", "theirs")
        rig.send({"a": content})
        return rig.saved["a"]

    assert overwrite("newer") == ["theirs"]
    assert overwrite("newest") == ["theirs"]
    rig.clock.go_on(40 * 86_400)
    assert overwrite("40 days later") == ["theirs"]
    rig.restart()
    assert overwrite("after a day was counted") == ["theirs", "theirs"]
    for content in Path(rig.state_folder, "blobs").iterdir():
        if content.read_bytes() == b"theirs":
            content.write_text("damage")
    assert overwrite("though it is damaged here")[-1] == "theirs"


@pytest.mark.parametrize("policy", ["save", "hold", "overwrite"])
def test_what_following_kept_after_the_look_is_saved(rig: Rig, policy: str, tmp_path: Path) -> None:
    """A version that came after the sync's own look, and that the archive went over; not what it brought as well."""
    rig.set(agent_changes=policy)

    def follow(_: object) -> None:
        state, there = rig.cycle.sandbox.state, {}
        assert state.content.is_known
        for path, content in (("a", "theirs"), ("b", "newer here"), ("more", "not sent")):
            rig.agent.write(path, content)
            (copy := tmp_path / f"copy of {path}").write_text(content)
            digest = hashlib.sha256(content.encode()).digest()
            there[path] = SeenEntry(Kind.FILE, 0o644, 1, len(content), digest=digest, copy=str(copy))
        store = FollowedStore(StateDb(rig.state_folder), state.target)
        store.save(FoundWork(0.0, there), 0.0)

    rig.edit(a="newer here", b="newer here")
    rig.emulator.faults.on("initialize", "before", follow)
    rig.sync()
    assert rig.saved == ({} if policy == "overwrite" else {"a": ["theirs"]})
    assert (rig.there("a"), rig.there("more")) == ("newer here", "not sent")


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("deletions", ["mirror", "keep"])
@POLICIES
def test_what_is_excluded_and_comes_back(rig: Rig, policy: str, deletions: str, *, restarted: bool) -> None:
    """Only the agent changed it, before or while a rule excluded it: it stays, and changed here it is both sides'."""
    rig.set(agent_changes=policy, deletions=deletions)
    rule = rig.workspace / "d/.syncdignore"
    if deletions == "mirror":  # else it would not be there any more
        rig.agent.write("d/c", "theirs")
    rule.write_text("c\n")
    rig.settle()
    rig.agent.write("d/c", "theirs")
    if restarted:
        rig.restart()
    rule.unlink()
    rig.settle()
    assert rig.there("d/c") == "theirs"
    assert (rig.saved, rig.warnings, rig.status.lingering) == ({}, {}, deletions == "keep")  # that is the rule's file
    rig.edit(b="changed")
    rig.settle()
    assert (rig.there("d/c"), rig.status.agent.changed) == ("theirs", 1)
    assert rig.stays_quiet()
    rig.write("d/c", "ours, again")
    rig.settle()
    if policy == "save":
        assert (rig.there("d/c"), rig.saved) == ("ours, again", {"d/c": ["theirs"]})
    else:
        assert (rig.there("d/c"), [*rig.warnings]) == ("theirs", ["held:d/c"])


# -- looks that fail


def test_a_server_that_is_busy_for_a_moment_is_asked_again(rig: Rig) -> None:
    """Nothing is overwritten unsaved because two requests met it: one beside the upload, one after it."""
    rig.emulator.faults.script("execute: 503 x2", "dump: 503 always")
    rig.agent.write("a", "theirs")
    rig.send({"a": "newer"})
    assert (rig.there("a"), rig.saved, rig.warnings) == ("newer", {"a": ["theirs"]}, {})


def test_a_refused_key_is_no_sandbox_without_programs(rig: Rig) -> None:
    """A person must act before anything is overwritten."""
    rig.emulator.faults.script("execution-upload-url: 401 always")
    rig.agent.write("a", "theirs")
    rig.edit(a="newer")
    failure, _ = rig.fail()
    assert failure.refusal is KeyRefused
    assert rig.there("a") == "theirs"


# -- the bytes of the base


@ARCHIVES
def test_the_bytes_of_the_base_are_kept(rig: Rig, archive: str) -> None:
    """While a file differs here from what was sent, what was sent can be had; so can what a small archive sent."""
    rig.set("sync", archive=archive)
    rig.agent.write("a", "theirs")
    rig.send({"b": "newer"})
    rig.edit(b="newest", a="changed here")
    rig.set(agent_changes="hold")
    rig.sync()
    store = rig.cycle.work_saver.workspace.base_store
    base = rig.cycle.content.base
    for path, content in (("a", b"ours: a"), ("b", b"newest")):
        digest = hashlib.sha256(content).digest()
        assert base[path].digest == digest
        assert store.get(path, digest) == content
    rig.delete("more")
    rig.restart()
    rig.sync()
    assert rig.cycle.work_saver.workspace.base_store.get("a", hashlib.sha256(b"ours: a").digest()) == b"ours: a"
    assert rig.cycle.work_saver.workspace.base_store.get("a", hashlib.sha256(b"never sent").digest()) is None


def test_what_still_differs_is_kept_longest(tmp_path: Path) -> None:
    """Where there is no room for all, those bytes go first that nothing asked for since."""
    store, numbers = BaseStore(str(tmp_path), ChunkStore(str(tmp_path))), random.Random(1)
    contents = [numbers.randbytes(4 << 20) for _ in range(4)]
    digests = [hashlib.sha256(content).digest() for content in contents]
    for number, content in enumerate(contents[:2]):
        store.add([content], 0)
        os.utime(tmp_path / "base" / digests[number].hex(), (number, number))
    held = Entry(Kind.FILE, 0o644, size_bytes=4 << 20, digest=digests[0])
    store.keep_replaced(Manifest({"held": held}), ["held"], set)
    store.add(contents[2:], 0)
    assert [store.get("any", digest) is not None for digest in digests] == [True, False, True, True]


def test_a_copy_more_costs_no_look_at_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is kept is looked through when it has grown, not at each edit."""
    store, looks, scandir = BaseStore(str(tmp_path), ChunkStore(str(tmp_path))), list[str](), os.scandir
    monkeypatch.setattr(os, "scandir", lambda place: (looks.append(place), scandir(place))[1])
    for number in range(100):
        store.add([b"%d" % number], 0)
    assert len(os.listdir(tmp_path / "base")) == 100
    assert len(looks) == 1


def test_copies_give_way_to_a_smaller_snapshot(tmp_path: Path) -> None:
    """They take no more than it, also where they have hardly grown since they were looked through."""
    store, numbers = BaseStore(str(tmp_path), ChunkStore(str(tmp_path))), random.Random(1)
    store.add([numbers.randbytes(2 << 20) for _ in range(10)], 64 << 20)
    store.add([b"one more"], 1 << 20)
    assert sum(file.stat().st_size for file in (tmp_path / "base").iterdir()) <= 16 << 20


def test_versions_that_nobody_was_sent_last_go(rig: Rig) -> None:
    """However often files are rewritten, no more is kept of what was sent than what is there, and half as much."""
    numbers, sizes = random.Random(2), list[int]()
    for _ in range(6):
        for path in "pqr":
            (rig.workspace / path).write_bytes(numbers.randbytes(1 << 20))
        rig.sync()
        copies = rig.folder.glob("cache/syncd/*/base/*")
        sizes.append(sum(each.stat().st_size for each in copies))
    assert max(sizes) < 5 << 20
    assert rig.cycle.work_saver.workspace.base_store.get(
        "p", hashlib.sha256((rig.workspace / "p").read_bytes()).digest()
    )
