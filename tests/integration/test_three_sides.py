"""A sync by three sides: what only the agent changed stays; what both changed is saved and overwritten, or held."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from syncd.archive.base_store import BaseStore
from syncd.archive.chunk_store import ChunkStore
from syncd.archive.snapshotter import SyncMode
from syncd.core.directories import directories_for
from syncd.core.errors import KeyRefused
from syncd.model.entry import Entry, Kind, SeenEntry
from syncd.model.manifest import Manifest
from syncd.sandbox.executions import Executions
from syncd.sandbox.look_request import LookResult
from syncd.sandbox.saved_versions import SavedVersions, Why
from syncd.store.state_db import StateDb
from syncd.sync.agent_work import FoundWork
from syncd.sync.following import FollowedStore
from tests.agent import Agent
from tests.integration.sync_rig import Killed, RecordingObserver, Rig, rigged
from tools.conformance.profile import Profile

EXECUTION_OPS = ("execution-upload-url", "execution-upload", "execute", "execution-logs")


class AgentRig:
    """A rig with an agent in its sandbox."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.agent = Agent(rig.sandbox.workspace)

    @property
    def state(self) -> str:
        return directories_for(str(self.rig.workspace), self.rig.environ).state

    @property
    def saved(self) -> dict[str, list[str]]:
        """The saved contents of each path, the oldest first; a link's is its target."""
        versions = SavedVersions(StateDb(self.state), self.rig.clock)
        found: dict[str, list[str]] = {}
        for version in reversed(versions.all()):
            for path, saved in version.paths.items():
                content = Path(versions.seen(version, path).copy)
                text = content.read_text() if saved.kind is Kind.FILE else saved.target
                found.setdefault(path, []).append(text)
        return found

    @property
    def reasons(self) -> list[Why]:
        """Why each version was saved, the oldest first."""
        return [version.why for version in reversed(SavedVersions(StateDb(self.state), self.rig.clock).all())]

    def set(self, table: str = "sandbox", **values: str) -> None:
        """Set keys for the next process, which begins now."""
        self.rig.keys[table] |= values
        self.rig.restart()

    def edit(self, **contents: str) -> None:
        """Write files here."""
        for path, content in contents.items():
            self.rig.write(path, content)

    def settle(self) -> None:
        """Sync until nothing follows."""
        for _ in range(4):
            if not self.rig.sync()[0].follow_up:
                return
        raise AssertionError("there is always one more sync")

    def there(self, path: str) -> str | None:
        """The content in the sandbox."""
        return self.agent.read(path).decode() if self.agent.exists(path) else None

    @property
    def warnings(self) -> dict[str, str]:
        return {warning.key: str(warning) for warning in self.rig.cycle.warnings}

    def quiet(self) -> bool:
        """True if nothing is asked for while nothing changes; the next process asks once if all is still there."""
        before = len(self.rig.asked())
        if self.rig.sync()[0].word != "unchanged" or len(self.rig.asked()) != before:
            return False
        self.rig.restart()
        return self.rig.is_quiet()


@pytest.fixture
def made(tmp_path: Path) -> Iterator[AgentRig]:
    """The defaults: `a`, `b`, `d/c`, `more`, and a link to `a`, are in the sandbox."""
    with rigged(tmp_path) as rig:
        rig.use_defaults()
        for path in ("a", "b", "d/c", "more"):
            rig.write(path, f"ours: {path}")
        (rig.workspace / "link").symlink_to("a")
        rig.sync()
        yield AgentRig(rig)


ARCHIVES = pytest.mark.parametrize("archive", ["auto", "full"])


@ARCHIVES
@pytest.mark.parametrize("policy", ["save", "overwrite"])
def test_a_link_that_leads_out_stops_nothing(tmp_path: Path, archive: str, policy: str) -> None:
    """An extractor may refuse what is at it: it is saved and removed; where nobody looks it is left, and named."""
    with rigged(tmp_path, profile=Profile(extraction="python")) as rig:
        rig.use_defaults()
        made = AgentRig(rig)
        made.set(agent_changes=policy)
        made.set("sync", archive=archive)
        made.edit(a="1", b="1")
        (rig.workspace / "link").symlink_to("a")
        made.settle()
        made.agent.symlink("link", "/etc/hostname")
        (rig.workspace / "link").unlink()
        (rig.workspace / "link").symlink_to("b")
        made.edit(b="2")
        made.settle()
        assert made.there("b") == "2"
        arrives = policy == "save"
        assert os.readlink(made.agent.path("link")) == (b"b" if arrives else b"/etc/hostname")
        assert made.saved == ({"link": ["/etc/hostname"]} if arrives else {})
        assert ("obstacle:link" in made.warnings) is not arrives


POLICIES = pytest.mark.parametrize("policy", ["save", "hold"])


# -- changed on both sides


@pytest.mark.parametrize("ends", ["save", "taken back"])
@ARCHIVES
def test_hold(made: AgentRig, archive: str, ends: str) -> None:
    """All else is sent; the path is named until the agent takes its change back, or a process with `save` comes."""
    made.set(agent_changes="hold")
    made.set("sync", archive=archive)
    made.agent.write("a", "theirs")
    made.edit(a="newer", b="newer")
    assert made.rig.sync()[0].held == made.rig.status.agent.held == ("a",)
    assert made.quiet()
    assert (made.there("a"), made.there("b"), [*made.warnings]) == ("theirs", "newer", ["held:a"])
    if ends == "save":
        made.set(agent_changes="save")
    else:
        made.agent.write("a", "ours: a")
        made.edit(b="at last")
    made.settle()
    assert (made.there("a"), made.warnings, made.rig.status.agent.held) == ("newer", {}, ())
    assert made.saved == ({"a": ["theirs"]} if ends == "save" else {})
    assert made.quiet()


def without_copies(monkeypatch: pytest.MonkeyPatch, **lacking: Any) -> None:
    """Let each look report changed files without a copy, and with these values."""
    finish = Executions.finish_look

    def finished(*args: Any) -> LookResult:
        found = finish(*args)
        differing = {path: replace(entry, copy="", **lacking) for path, entry in found.differing.items()}
        return replace(found, differing=differing)

    monkeypatch.setattr(Executions, "finish_look", finished)


@pytest.mark.parametrize("there", ["a directory", "a FIFO", "too large", "still being written"])
def test_what_cannot_be_saved_is_held(made: AgentRig, monkeypatch: pytest.MonkeyPatch, there: str) -> None:
    """With `save` too, and by force: nothing is overwritten that is not saved, and all else is sent."""
    if there == "a directory":
        made.agent.delete("a")
        made.agent.write("a/in", "theirs")
    elif there == "a FIFO":
        made.agent.fifo("a")
    else:
        made.agent.write("a", "theirs")
        without_copies(monkeypatch, **({"unstable": True, "digest": b""} if there == "still being written" else {}))
    for mode in (SyncMode.CHANGED, SyncMode.FORCED):
        made.edit(a=f"newer: {mode}", b=f"newer: {mode}")
        made.rig.sync(mode)
        assert made.there("b") == f"newer: {mode}"
        assert not os.path.isfile(made.agent.path("a")) or made.there("a") == "theirs"
        assert made.rig.status.agent.held == ("a",)
        assert list(made.warnings) == ["held:a"]
        assert made.saved == {}
    if there == "a directory":
        assert made.there("a/in") == "theirs"
    assert made.quiet()


@pytest.mark.parametrize("fault", ["export-artifacts: 404 always", "download: 503 always"])
def test_what_cannot_be_fetched_is_held(made: AgentRig, fault: str) -> None:
    """The program found it, and neither its copy nor the sandbox's archive comes."""
    for script in (fault, "dump: 501 always"):
        made.rig.emulator.faults.script(script)
    made.agent.write("a", "theirs")
    made.edit(a="newer", b="newer")
    made.rig.sync()
    assert (made.there("a"), made.there("b")) == ("theirs", "newer")
    assert list(made.warnings) == ["held:a"]
    made.rig.emulator.faults.clear()
    made.rig.clock.go_on(60)
    made.settle()
    assert (made.there("a"), made.saved, made.warnings) == ("newer", {"a": ["theirs"]}, {})


def test_saved_anew_after_a_day(made: AgentRig) -> None:
    """What would expire soon does not count as saved; what a sync counts on does not expire with it."""

    def overwrite(content: str) -> list[str]:
        made.agent.write("a", "theirs")
        made.edit(a=content)
        made.rig.sync()
        return made.saved["a"]

    assert overwrite("newer") == ["theirs"]
    assert overwrite("newest") == ["theirs"]
    made.rig.clock.go_on(40 * 86_400)
    assert overwrite("40 days later") == ["theirs"]
    made.rig.restart()
    assert overwrite("after a day was counted") == ["theirs", "theirs"]
    for content in Path(made.state, "blobs").iterdir():
        if content.read_bytes() == b"theirs":
            content.write_text("damage")
    assert overwrite("though it is damaged here")[-1] == "theirs"


@pytest.mark.parametrize("policy", ["save", "hold", "overwrite"])
def test_what_following_kept_after_the_look_is_saved(made: AgentRig, policy: str, tmp_path: Path) -> None:
    """A version that came after the sync's own look, and that the archive went over; not what it brought as well."""
    made.set(agent_changes=policy)

    def follow(_: object) -> None:
        assert made.rig.cycle.sandbox is not None
        state, there = made.rig.cycle.sandbox.state, {}
        assert state.content.base is not None
        for path, content in (("a", "theirs"), ("b", "newer here"), ("more", "not sent")):
            made.agent.write(path, content)
            (copy := tmp_path / f"copy of {path}").write_text(content)
            digest = hashlib.sha256(content.encode()).digest()
            there[path] = SeenEntry(Kind.FILE, 0o644, 1, len(content), digest=digest, copy=str(copy))
        store = FollowedStore(StateDb(made.state), state.target)
        store.save(FoundWork(0.0, there), 0.0)

    made.edit(a="newer here", b="newer here")
    made.rig.emulator.faults.on("initialize", "before", follow)
    made.rig.sync()
    assert made.saved == ({} if policy == "overwrite" else {"a": ["theirs"]})
    assert (made.there("a"), made.there("more")) == ("newer here", "not sent")


def test_an_agent_that_writes_all_the_time_keeps_nothing_from_arriving(made: AgentRig) -> None:
    """Each look finds one more file that it changed: at last what is in the way is saved, and the sync is made."""
    made.set("sync", archive="full")
    names = [f"f{number}" for number in range(12)]
    made.edit(**{name: f"ours: {name}" for name in names})
    made.rig.sync()
    left = iter(names)
    made.rig.emulator.faults.on("execute", "before", lambda _: made.agent.write(next(left, "more"), "theirs"))
    made.edit(b="newer")
    made.rig.sync()
    assert made.there("b") == "newer"
    changed = names[: names.index(next(left))]
    assert len(changed) >= 4
    for name in changed:
        assert made.there(name) == "theirs" or made.saved[name] == ["theirs"]


# -- a base that is not known


@POLICIES
@pytest.mark.parametrize("how", ["someone filled it", "the state was lost"])
def test_where_the_base_is_not_known(made: AgentRig, policy: str, how: str) -> None:
    """What differs there is saved, or held; what is equal is not."""
    made.set(agent_changes=policy)
    if how == "the state was lost":
        made.agent.write("a", "theirs")
        os.unlink(os.path.join(made.state, "state.db"))
        made.rig.restart()
    else:
        made.rig.emulator.create_sandbox("filled")
        made.set(id="filled")
        filled = made.rig.emulator.sandbox("filled")
        assert filled is not None
        made.rig.sandbox, made.agent = filled, Agent(filled.workspace)
        made.agent.write("a", "theirs")
        made.agent.write("b", "ours: b")
    made.settle()
    assert made.there("more") == "ours: more"
    assert made.there("a") == ("ours: a" if policy == "save" else "theirs")
    # What is held is saved as well as long as it is not known that the sandbox keeps it.
    assert made.saved == {"a": ["theirs"]}
    assert made.rig.status.agent.held == (("a",) if policy == "hold" else ())
    assert made.quiet()


# -- away and back


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("deletions", ["mirror", "keep"])
@pytest.mark.parametrize("how", ["gone", "excluded"])
@POLICIES
def test_what_comes_back_as_it_was_sent(
    made: AgentRig, policy: str, how: str, deletions: str, *, restarted: bool
) -> None:
    """Only the agent changed it, before or while it was away here: it stays, and changed here it is both sides'."""
    made.set(agent_changes=policy, deletions=deletions)
    here, rule = made.rig.workspace / "d/c", made.rig.workspace / "d/.syncdignore"
    if deletions == "mirror":  # else it would not be there any more
        made.agent.write("d/c", "theirs")
    if how == "gone":
        here.unlink()
    else:
        rule.write_text("c\n")
    made.settle()
    made.agent.write("d/c", "theirs")
    if restarted:
        made.rig.restart()
    if how == "gone":
        here.write_text("ours: d/c")
    else:
        rule.unlink()
    made.settle()
    assert made.there("d/c") == "theirs"
    left = [".syncdignore"] if (how, deletions) == ("excluded", "keep") else []
    assert (made.saved, made.warnings, made.rig.status.lingering) == ({}, {}, len(left))
    made.edit(b="changed")
    made.settle()
    assert (made.there("d/c"), made.rig.status.agent.changed) == ("theirs", 1)
    assert made.quiet()
    here.write_text("ours, again")
    made.settle()
    if policy == "save":
        assert (made.there("d/c"), made.saved) == ("ours, again", {"d/c": ["theirs"]})
    else:
        assert (made.there("d/c"), [*made.warnings]) == ("theirs", ["held:d/c"])


# -- our own versions are not the agent's


@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.long), 3])
@pytest.mark.parametrize(
    ("restarted", "fault"),
    [
        (False, "initialize: lost"),
        (True, "initialize: 503 after"),
        pytest.param(False, "initialize: 503 after", marks=pytest.mark.long),
        pytest.param(True, "initialize: lost", marks=pytest.mark.long),
    ],
)
@POLICIES
def test_what_came_unanswered_is_ours(made: AgentRig, policy: str, times: int, fault: str, *, restarted: bool) -> None:
    """However many versions of a path arrived without an answer, and in any process: none is saved, none is held."""
    made.set(agent_changes=policy)
    made.rig.emulator.faults.script(f"{fault} x{times}")
    for number in range(times):
        made.edit(a=f"unanswered {number}", new=f"unanswered {number}", **{f"new{number}": "once"})
        with pytest.raises(Killed):
            made.rig.sync(observer=RecordingObserver(made.rig.clock, ends=Killed()))
        assert made.there("a") == f"unanswered {number}"
        if restarted:
            made.rig.restart()
    made.edit(a="answered", new="answered")
    (made.rig.workspace / "new0").unlink()
    made.settle()
    assert (made.there("a"), made.there("new"), made.there("new0")) == ("answered", "answered", None)
    assert (made.saved, made.warnings) == ({}, {})
    assert made.rig.status.agent.held == ()


def test_what_the_agent_makes_of_an_unanswered_version_is_its_own(made: AgentRig) -> None:
    """It is saved before it is overwritten."""
    made.rig.emulator.faults.script("initialize: lost")
    made.edit(a="unanswered")
    with pytest.raises(Killed):
        made.rig.sync(observer=RecordingObserver(made.rig.clock, ends=Killed()))
    made.agent.write("a", "unanswered, and theirs")
    made.rig.restart()
    made.edit(a="answered")
    made.rig.sync()
    assert (made.there("a"), made.saved) == ("answered", {"a": ["unanswered, and theirs"]})


# -- looks that fail


@pytest.mark.parametrize(
    ("op", "fault"),
    [
        pytest.param(op, fault, marks=() if (number - place) % 3 == 0 else pytest.mark.long)
        for number, op in enumerate(EXECUTION_OPS)
        for place, fault in enumerate(["404", "500", "html"])
    ],
)
def test_by_the_sandboxs_archive_where_no_program_looks(made: AgentRig, op: str, fault: str) -> None:
    """What the agent changed is found, saved and left alone all the same."""
    made.rig.emulator.faults.script(f"{op}: {fault} always")
    made.agent.write("a", "theirs: a")
    made.agent.write("b", "theirs: b")
    made.edit(a="newer")
    made.rig.sync()
    assert made.rig.asked().count("dump") == 1
    assert (made.there("a"), made.there("b")) == ("newer", "theirs: b")
    assert made.saved == {"a": ["theirs: a"]}
    assert made.warnings == {}


@pytest.mark.parametrize("status", [404, 500])
def test_save_looks_again_as_soon_as_somebody_can(made: AgentRig, status: int) -> None:
    """A service that fails is asked at each sync: what the agent wrote is saved by the first one after the failure."""
    made.rig.emulator.faults.script(f"execute: {status} always", f"dump: {status} always")
    for text in ("newer", "newest"):
        made.edit(a=text)
        made.rig.sync()
    assert list(made.warnings) == ["remote-changes"]
    made.rig.emulator.faults.clear()
    made.rig.wait_for_programs()
    made.agent.write("a", "theirs")
    made.edit(a="again")
    made.rig.sync()
    assert (made.there("a"), made.saved, made.warnings) == ("again", {"a": ["theirs"]}, {})


def test_a_server_that_is_busy_for_a_moment_is_asked_again(made: AgentRig) -> None:
    """Nothing is overwritten unsaved because two requests met it: one beside the upload, one after it."""
    made.rig.emulator.faults.script("execute: 503 x2", "dump: 503 always")
    made.agent.write("a", "theirs")
    made.edit(a="newer")
    made.rig.sync()
    assert (made.there("a"), made.saved, made.warnings) == ("newer", {"a": ["theirs"]}, {})


def test_a_refused_key_is_no_sandbox_without_programs(made: AgentRig) -> None:
    """A person must act before anything is overwritten."""
    made.rig.emulator.faults.script("execution-upload-url: 401 always")
    made.agent.write("a", "theirs")
    made.edit(a="newer")
    failure, _ = made.rig.fail()
    assert failure.refusal is KeyRefused
    assert made.there("a") == "theirs"


@pytest.mark.parametrize("said", ["[]", '["x","done",0]', "null", "{", '[1,["seen"]]'])
def test_foreign_output_is_not_believed(made: AgentRig, said: str) -> None:
    """Other programs' output in the sandbox, and a program that the agent put in the place of syncd's."""
    answer = json.dumps({"status": "completed", "logs": said, "cursor": 0})
    made.rig.emulator.faults.script(f"execution-logs: json {answer} always")
    made.agent.write("a", "theirs")
    made.edit(a="newer")
    made.rig.sync()
    assert made.saved == {"a": ["theirs"]}  # by the sandbox's archive


# -- the bytes of the base


@ARCHIVES
def test_the_bytes_of_the_base_are_kept(made: AgentRig, archive: str) -> None:
    """While a file differs here from what was sent, what was sent can be had; so can what a small archive sent."""
    made.set("sync", archive=archive)
    made.agent.write("a", "theirs")
    made.edit(b="newer")
    made.rig.sync()
    made.edit(b="newest", a="changed here")
    made.set(agent_changes="hold")
    made.rig.sync()
    store = made.rig.cycle.base_store
    base = made.rig.cycle.baseline
    assert base is not None
    for path, content in (("a", b"ours: a"), ("b", b"newest")):
        digest = hashlib.sha256(content).digest()
        assert base[path].digest == digest
        assert store.get(path, digest) == content
    (made.rig.workspace / "more").unlink()
    made.rig.restart()
    made.rig.sync()
    assert made.rig.cycle.base_store.get("a", hashlib.sha256(b"ours: a").digest()) == b"ours: a"
    assert made.rig.cycle.base_store.get("a", hashlib.sha256(b"never sent").digest()) is None


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


def test_versions_that_nobody_was_sent_last_go(made: AgentRig) -> None:
    """However often files are rewritten, no more is kept of what was sent than what is there, and half as much."""
    numbers, sizes = random.Random(2), list[int]()
    for _ in range(6):
        for path in "pqr":
            (made.rig.workspace / path).write_bytes(numbers.randbytes(1 << 20))
        made.rig.sync()
        copies = made.rig.folder.glob("cache/syncd/*/base/*")
        sizes.append(sum(each.stat().st_size for each in copies))
    assert max(sizes) < 5 << 20
    assert made.rig.cycle.base_store.get("p", hashlib.sha256((made.rig.workspace / "p").read_bytes()).digest())
