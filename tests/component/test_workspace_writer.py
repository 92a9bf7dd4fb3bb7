"""Writes to the workspace are all or nothing, lose nothing that changed meanwhile, and can be undone exactly.

A process is killed at steps of a write and of an undo, and steps fail once: a few in each run, all with `-m long`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import cycle
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncd.archive.base_store import digest_at
from syncd.core.errors import Locked, TryLater
from syncd.merge.path_changes import PathChange, PathChanges, Place, draft_name
from syncd.merge.workspace_writer import Written
from syncd.model.entry import ABSENT, Entry, Kind, with_copy
from syncd.sandbox.sandbox_content import TakenPath
from tests.component.crash_machine import ProcessResult
from tests.component.forks import Forks, forks_of
from tests.component.limits import in_own_mounts
from tests.component.test_state_files import held_by_another
from tests.component.writer_machine import (
    OLD_NS,
    Change,
    Snapshot,
    WriterMachine,
    snapshot,
    timeless,
)
from tests.instants import FEW_OR_ALL, Choice, all_of, few
from tests.recorded import damage

FAILURES = [errno.ENOSPC, errno.EIO, errno.EACCES]


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    """The process of which each killed one is a fork."""
    with forks_of("tests.component.writer_crash_worker") as forks:
        yield forks


@pytest.fixture
def on(memory_folder: Path, forks: Forks) -> Iterator[WriterMachine]:
    with closing(WriterMachine(memory_folder, forks)) as on:
        yield on


def _expected(on: WriterMachine) -> dict[str, object]:
    """What `changes` makes of `fill`, by hand."""
    found = timeless(snapshot(on.workspace))
    for path, new in on.changes():
        found.pop(path, None)
        if new is not None:
            kind, mode, target, content = new
            found[path] = {
                "f": lambda mode=mode, content=content: ("file", Path(content).read_bytes(), mode, 0),
                "d": lambda mode=mode: ("directory", None, mode, 0),
                "l": lambda target=target: ("link", target, 0, 0),
            }[kind]()
    for folder in ("implied", "implied/by", "named", "named/" + "n" * 255):
        found[folder] = ("directory", None, on.workspace.stat().st_mode & 0o777, 0)
    return found


def test_every_kind_of_change(on: WriterMachine) -> None:
    """All that is planned is there afterwards, with exact modes; undo gives back all that was, with its times."""
    on.fill()
    before, expected = snapshot(on.workspace), _expected(on)
    changes = on.changes()
    written = on.writer.write(on.plan(*changes))
    assert written.left == ()
    needed = {"implied", "implied/by", "named", "named/" + "n" * 255}
    assert written.done == tuple(sorted({*needed, *(path for path, _ in changes)}))
    assert timeless(snapshot(on.workspace)) == expected
    assert on.state_files() == {"journal", "kept", "lock"}
    assert on.writer.finish_interrupted() == Written()
    undone = on.writer.undo()
    assert snapshot(on.workspace) == before
    assert (undone.done, undone.left) == (written.done, ())
    assert on.state_files() == {"lock"}
    again = on.writer.undo()
    assert (again.done, again.left) == ((), ())
    assert snapshot(on.workspace) == before


WRITE_OR_UNDO = pytest.mark.parametrize("undo", [False, True], ids=["write", "undo"])
DEATHS = pytest.mark.parametrize("torn", [False, True], ids=["before", "half-way"])


def _run(on: WriterMachine, at: int = 0, *, undo: bool = False, **how: Any) -> ProcessResult:
    """Write all changes, or undo them, in a process that ends, or fails, at this step."""
    return on.run([] if undo else on.changes(), at, undo=undo, **how)


def _begun(on: WriterMachine, *, undo: bool) -> Snapshot:
    """Fill the workspace, and write all changes if they are to be undone; return what was there before them."""
    on.fresh()
    on.fill()
    before = snapshot(on.workspace)
    if undo:
        _run(on)
    return before


def _steps(on: WriterMachine, *, undo: bool, torn: bool = False) -> int:
    """Return how many steps there are at which that process can die."""
    _begun(on, undo=undo)
    steps = _run(on, undo=undo).steps
    count = steps.count("write") if torn else len(steps)
    assert count > (10 if torn else 150)
    return count


@pytest.mark.timeout(600)
@FEW_OR_ALL
@DEATHS
@WRITE_OR_UNDO
def test_killed_at_a_step(on: WriterMachine, choice: Choice, undo: bool, torn: bool) -> None:
    """Whenever a write or an undo is killed, the next process gives the workspace back, and nothing is left over."""
    for step in choice(_steps(on, undo=undo, torn=torn)):
        before = _begun(on, undo=undo)
        ended = _run(on, step, undo=undo, torn=torn)
        has_ended = undo and not on.state_files() & {"journal", "pending"}  # and what nothing holds waits for a write
        left = (*on.writer.finish_interrupted().left, *on.writer.undo().left)
        assert (snapshot(on.workspace), left) == (before, ()), ended.steps[-3:]
        assert on.state_files() <= {"lock", "sent", *(["kept"] if has_ended else [])}


@WRITE_OR_UNDO
def test_killed_around_a_commit(on: WriterMachine, undo: bool) -> None:
    """What counts as sent changes with the journal, in one commit, whenever the process dies before or after one."""
    _begun(on, undo=undo)
    commits = [number for number, step in enumerate(_run(on, undo=undo).steps, 1) if step.startswith("commit")]
    assert len(commits) > 1
    found = []
    for at in (each for commit in commits for each in (commit, commit + 1)):
        _begun(on, undo=undo)
        _run(on, at, undo=undo)
        state = on.state_files() & {"journal", "pending", "sent"}
        assert state in ({"journal", "sent"}, {"pending"}, set())
        found.append(state)
        on.writer.undo()
        assert on.state_files() <= {"lock", "sent", "kept"}  # which nothing holds: the next write removes it
    assert {"pending"} in found


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("undo", "numbers", "choice"),
    [
        (False, FAILURES, lambda count: few(count, 12)),
        (True, FAILURES, few),
        *(pytest.param(False, [number], all_of, marks=pytest.mark.long) for number in FAILURES),
        pytest.param(True, FAILURES, all_of, marks=pytest.mark.long),
    ],
)
def test_a_step_fails_once(on: WriterMachine, undo: bool, numbers: list[int], choice: Choice) -> None:
    """It is told in one line, or of no consequence: a write takes back everything, an undo is completed by the next."""
    failed = 0
    chosen = choice(_steps(on, undo=undo))
    for step, number in zip(chosen, cycle(numbers), strict=False):
        before = _begun(on, undo=undo)
        ended = _run(on, step, undo=undo, errno=number)
        assert "\n" not in ended.said
        if ended.word == "done":
            assert undo or "left=()" in ended.said
        else:
            failed += 1
            assert ended.word == "TryLater"
            assert os.strerror(number) in ended.said
            assert undo or snapshot(on.workspace) == before, ended.steps[-3:]
        assert [path for path in on.workspace.rglob(".syncd-*") if not path.is_dir()] == [], ended.steps[-3:]
        on.writer.undo()
        assert snapshot(on.workspace) == before, ended.steps[-3:]
    assert failed > len(chosen) // 2


def _changed(path: Path) -> None:
    path.write_bytes(b"person")


def _same_size(path: Path) -> None:
    path.write_bytes(b"OLD")
    os.utime(path, ns=(OLD_NS, OLD_NS))


def _replaced(kind: str) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.unlink()
        {"directory": path.mkdir, "link": lambda: path.symlink_to("x"), "fifo": lambda: os.mkfifo(path)}[kind]()

    return replace


CHANGES = {
    "content": _changed,
    "same size and time": _same_size,
    "mode": lambda path: path.chmod(0o600),
    "deleted": lambda path: path.unlink(),
    "directory": _replaced("directory"),
    "link": _replaced("link"),
    "fifo": _replaced("fifo"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("new", [["f", 0o644], ["l", 0], ["d", 0o755], None], ids=["file", "link", "dir", "delete"])
def test_changed_since_the_plan(on: WriterMachine, change: str, new: list[Any] | None) -> None:
    """A path that changed after the plan was made is a conflict, unless it is what was planned; it stays as it is."""
    path = on.file("dir/a")
    on.file("other")
    full = new and [*new, "x" if new[0] == "l" else "", on.content(b"new") if new[0] == "f" else ""]
    plan = on.plan(("dir/a", full), ("other", on.new()))
    CHANGES[change](path)
    before = snapshot(on.workspace)
    written = on.writer.write(plan)
    is_as_planned = (change, new and new[0]) in {("deleted", None), ("directory", "d"), ("link", "l")}
    assert (written.left, written.done) == (() if is_as_planned else ("dir/a",), ("other",))
    after = snapshot(on.workspace)
    assert after.pop("other")[:3] == ("file", b"new", 0o644)
    assert after == {path: entry for path, entry in before.items() if path != "other"}
    assert on.writer.undo().done == ("other",)
    assert snapshot(on.workspace) == before


@pytest.mark.parametrize("change", CHANGES)
def test_changed_right_before_the_rename(on: WriterMachine, change: str) -> None:
    """The last look finds a change that came after the bytes were kept and the temporary files written."""
    replaced, deleted, kept = on.file("a"), on.file("d"), on.file("b")
    seen = on.writer.look(["a", "b", "d", "new"])
    content = on.content(b"agent")
    new = Entry(Kind.FILE, 0o600, digest=digest_at(content))
    planned = [PathChange(path, seen[path], ABSENT if path == "d" else new, content) for path in seen]
    changes = PathChanges(str(on.workspace), "token", planned, Place())
    changes.prepare()
    assert len(list(on.workspace.glob(".syncd-token-*"))) == 3
    CHANGES[change](replaced)
    CHANGES[change](deleted)
    on.file("new", b"person")
    before = snapshot(on.workspace)
    changes.make()
    assert changes.left == {"a", "d", "new"}
    assert kept.read_bytes() == b"agent"
    after = snapshot(on.workspace)
    assert after.pop("b")[1:3] == (b"agent", 0o600)
    assert after == {path: entry for path, entry in before.items() if path in ("a", "d", "new")}


@pytest.mark.parametrize("way", ["link", "file", "link inside"])
def test_no_link_is_followed(on: WriterMachine, way: str) -> None:
    """A path through a link or a file is a conflict, and nothing is written where the link leads."""
    outside = on.folder / "outside"
    outside.mkdir()
    (outside / "b").write_bytes(b"old")
    on.file("inside/b")
    plan = on.plan(("d/b", on.new()), ("d/c/d", on.new()), ("else", on.new()))
    if way == "file":
        on.file("d")
    else:
        on.link("d", "../outside" if way == "link" else "inside")
    written = on.writer.write(plan)
    assert (written.left, written.done) == (("d/b", "d/c/d"), ("else",))
    assert timeless(snapshot(outside)) == {"b": ("file", b"old", 0o644, 0)}
    assert (on.workspace / "inside/b").read_bytes() == b"old"


def test_a_directory_that_became_a_link_is_not_followed_by_an_undo(on: WriterMachine) -> None:
    """An undo leaves what is behind a link that someone put there since."""
    on.file("d/a")
    on.file("d/gone")
    on.writer.write(on.plan(("d/a", on.new()), ("d/gone", None)))
    os.rename(on.workspace / "d", on.folder / "outside")
    on.link("d", "../outside")
    before = snapshot(on.folder / "outside")
    undone = on.writer.undo()
    assert (undone.done, undone.left) == ((), ("d/a", "d/gone"))
    assert snapshot(on.folder / "outside") == before


def test_only_the_last_write_can_be_undone(on: WriterMachine) -> None:
    """A successful write replaces the journal; one that fails, or finds only conflicts, does not."""
    on.file("a", b"1")
    on.writer.write(on.plan(("a", on.new(b"2"))))
    on.writer.write(on.plan(("a", on.new(b"3"))))
    stale = on.plan(("a", on.new(b"4")))
    on.file("a", b"3")
    (on.workspace / "a").chmod(0o600)
    assert on.writer.write(stale).left == ("a",)
    with pytest.raises(TryLater, match=r"'new' cannot be written .*; free the way or some disk space"):
        on.writer.write([PathChange("new", ABSENT, Entry(Kind.FILE, 0o644, digest=b"x"), str(on.folder / "missing"))])
    assert len(on.kept()) == 1
    (on.workspace / "a").chmod(0o644)
    assert on.writer.undo().done == ("a",)
    assert (on.workspace / "a").read_bytes() == b"2"
    assert on.writer.undo() == Written()


def test_a_decision_is_undone_like_a_write(on: WriterMachine) -> None:
    """The agent's version is saved then, as no sandbox is known to have it; one that is killed takes back nothing."""
    on.file("a", b"1")
    content = on.content(b"theirs")
    theirs = Entry(Kind.FILE, 0o644, size_bytes=6, digest=hashlib.sha256(b"theirs").digest())
    rows = [TakenPath("a", None, theirs)]
    writer, saved = on.writer, on.saved
    writer.write(on.plan(("a", on.new(b"2"))))
    before = snapshot(on.workspace)
    assert writer.write([], rows, decided=["a"], theirs=[with_copy(theirs, content)]) == Written()
    assert writer.undo() == Written(done=("a",))
    assert snapshot(on.workspace) == before
    (version,) = saved.all()
    assert (version.paths["a"].digest, saved.damaged(version)) == (theirs.digest, [])
    assert writer.undo() == Written()

    def fails(_: Written) -> None:
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(TryLater, match="full"):
        writer.write([], rows, fails, decided=["a"])
    assert writer.undo() == writer.finish_interrupted() == Written()


@FEW_OR_ALL
def test_a_killed_undo_leaves_what_was_changed_before_it(on: WriterMachine, choice: Choice) -> None:
    """A path that someone changed between a write and its undo is left, also if the undo is killed and run again."""

    def written() -> None:
        on.fresh()
        on.file("kind/a")
        on.file("b")
        on.writer.write(on.plan(("kind/a", None), ("kind", on.new()), ("b", on.new())))
        (on.workspace / "kind").unlink()  # as it may look in the middle of an undo

    written()
    count = len(on.run([], undo=True).steps)
    assert count > 10
    for step in choice(count):
        written()
        ended = on.run([], step, undo=True)
        again = on.writer.undo()
        assert again.left == ("kind", "kind/a") or (again == Written() and "commit pending" in ended.steps)
        assert set(snapshot(on.workspace)) == {"b"}
        assert (on.workspace / "b").read_bytes() == b"old"


def test_large_files(on: WriterMachine, tmp_path: Path) -> None:
    """They are copied in blocks, from any file system, also after small ones, and undone."""
    on.file("A")
    old, new = os.urandom(3_000_000), os.urandom(5_000_001)
    on.file("b", old)
    (tmp_path / "content").write_bytes(new)
    on.writer.write(on.plan(("A", on.new()), ("b", ["f", 0o640, "", str(tmp_path / "content")])))
    assert snapshot(on.workspace)["b"][:3] == ("file", new, 0o640)
    on.writer.undo()
    assert (on.workspace / "b").read_bytes() == old


def test_the_order_of_flushes(on: WriterMachine) -> None:
    """Nothing visible happens before old and new bytes and the journal are flushed; folders are, before it ends."""
    on.file("a")
    steps = on.run([("a", on.new()), ("b", on.new()), ("d/c", on.new())]).steps
    steps = [re.sub(r"-[0-9a-f]{12}\b", "-TOKEN", step) for step in steps]
    changing, done, _ = (at for at, step in enumerate(steps) if step.startswith("commit"))
    assert steps[changing] == "commit pending"
    assert steps[done] == "commit journal pending sent"
    kept = hashlib.sha256(b"old").hexdigest()
    files = [draft_name("TOKEN", path) for path in ("a", "b", "d/c")]
    visible = [at for at, step in enumerate(steps) if step in ("move a", "link", "make folder d")]
    assert len(visible) == 4
    first = min(visible)
    assert all(changing < steps.index(f"open {name}") < steps.index(f"flush {name}") < first for name in files)
    assert "flush folder blobs" in steps[steps.index(f"flush {kept}") : first]
    assert {"flush folder workspace", "flush folder d"} <= set(steps[max(visible) : done])


def test_one_write_at_a_time(on: WriterMachine) -> None:
    """While another process writes, a write is refused in one line."""
    on.writer.undo()
    with held_by_another(str(on.state / "apply")), pytest.raises(Locked, match="another syncd is writing"):
        on.writer.write([])
    on.writer.write([])


def test_a_damaged_journal_is_set_aside(on: WriterMachine) -> None:
    """Without its journal a write cannot be undone, and stays; the next one can."""
    on.file("a")
    on.writer.write(on.plan(("a", on.new())))
    damage(on.state, "journal")
    assert on.writer.undo() == Written()
    assert (on.workspace / "a").read_bytes() == b"new"
    on.writer.write(on.plan(("a", on.new(b"newer"))))
    on.writer.undo()
    assert (on.workspace / "a").read_bytes() == b"new"


@pytest.mark.parametrize("damage", ["gone", "short", "other"])
def test_damaged_kept_bytes_are_not_restored(on: WriterMachine, damage: str) -> None:
    """What cannot be restored as it was is left; the rest is restored."""
    on.file("a")
    on.file("b/c")
    on.writer.write(on.plan(("a", on.new()), ("b/c", None), ("b", None), ("d", on.new())))
    (kept,) = on.kept()
    if damage == "gone":
        kept.unlink()
    else:
        kept.write_bytes(b"ol" if damage == "short" else b"OLDOLD")
    undone = on.writer.undo()
    assert (undone.done, undone.left) == (("b", "d"), ("a", "b/c"))
    assert (on.workspace / "a").read_bytes() == b"new"
    assert on.state_files() == {"lock"}


def test_a_mount_inside_of_the_workspace(tmp_path: Path) -> None:
    """No rename crosses to another file system, and a mount point itself is left."""
    in_own_mounts(mount_scenario, tmp_path)


def mount_scenario(folder: str) -> None:
    """Write into a mount, and try to remove its mount point; run in a mount namespace."""
    with closing(WriterMachine(Path(folder))) as on:
        on.file("below/b")
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", on.workspace / "below"], check=True)
        on.file("below/b")
        before = snapshot(on.workspace)
        plan = on.plan(
            ("below", ["d", 0o711, "", ""]),
            ("below/b", on.new()),
            ("below/d/e", on.new()),
            ("below/d", ["d", 0o700, "", ""]),
        )
        assert on.writer.write(plan).left == ()
        on.writer.undo()
        assert snapshot(on.workspace) == before
        written = on.writer.write(on.plan(("below/b", None), ("below", on.new())))
        assert (written.left, written.done) == (("below",), ("below/b",))
        on.writer.undo()
        assert snapshot(on.workspace) == before


NAMES = st.sampled_from(["a", "b", "c"])
MODES = st.sampled_from([0o644, 0o755, 0o400])
LEAVES = st.one_of(
    st.tuples(st.just("f"), MODES, st.binary(max_size=3)),
    st.tuples(st.just("l"), st.just(0), st.sampled_from(["a", "x"])),
)
TREES = st.recursive(
    st.dictionaries(NAMES, LEAVES, max_size=3),
    lambda below: st.dictionaries(NAMES, st.one_of(LEAVES, below), max_size=3),
    max_leaves=12,
)


def _flat(tree: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Each path of a tree; None for a directory."""
    found: dict[str, Any] = {}
    for name, entry in tree.items():
        path = f"{above}{name}"
        found[path] = None if isinstance(entry, dict) else entry
        if isinstance(entry, dict):
            found |= _flat(entry, f"{path}/")
    return found


def _listed(found: dict[str, Any]) -> Snapshot:
    kinds = {"f": "file", "l": "link"}
    return {
        path: ("directory", None, 0o755, 0) if entry is None else (kinds[entry[0]], entry[2], entry[1], 0)
        for path, entry in found.items()
    }


@settings(max_examples=60)
@given(old=TREES, new=TREES, mine=TREES, undone=TREES)
def test_any_tree_becomes_any_other_and_back(old: Any, new: Any, mine: Any, undone: Any) -> None:
    """A plan from tree to tree gives the second, once or twice; undo gives the first, whatever is written meanwhile."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with TemporaryDirectory(dir=memory) as folder, closing(WriterMachine(Path(folder))) as on:
        was, will = _flat(old), _flat(new)
        _make(on, was)
        before = snapshot(on.workspace)
        assert timeless(before) == _listed(was)
        changes: list[Change] = []
        for path in sorted({*was, *will}, key=lambda path: Random(path).random()):
            if path not in will:
                changes.append((path, None))
            elif path not in was or was[path] != will[path]:
                entry = will[path]
                if entry is None:
                    changes.append((path, ["d", 0o755, "", ""]))
                else:
                    content, target = (on.content(entry[2]), "") if entry[0] == "f" else ("", entry[2])
                    changes.append((path, [entry[0], entry[1], target, content]))
        plan = on.plan(*changes)
        written = on.writer.write(plan)
        assert written.left == ()
        assert timeless(snapshot(on.workspace)) == _listed(will)
        again = on.writer.write(plan)
        assert again.done == ()
        assert timeless(snapshot(on.workspace)) == _listed(will)
        assert on.writer.undo().left == ()
        assert snapshot(on.workspace) == before

        _replace(on, _flat(mine))  # someone works here between plan and write, and before the undo
        found = snapshot(on.workspace)
        written = on.writer.write(plan)
        after = snapshot(on.workspace)
        for path in written.left:
            assert after.get(path) == found.get(path) or after[path][0] == found[path][0] == "directory"
        assert on.writer.undo().left == ()
        assert snapshot(on.workspace) == found

        written = on.writer.write(plan)
        _replace(on, _flat(undone))
        found = snapshot(on.workspace)
        left = on.writer.undo().left
        after = snapshot(on.workspace)
        assert all(after[path] == found[path] for path in left if path in found and found[path][0] != "directory")
        assert not [path for path in after if ".syncd-" in path]


def _make(on: WriterMachine, tree: dict[str, Any]) -> None:
    for path, entry in tree.items():
        if entry is None:
            (on.workspace / path).mkdir()
            (on.workspace / path).chmod(0o755)
        elif entry[0] == "f":
            on.file(path, entry[2], entry[1])
        else:
            on.link(path, entry[2])


def _replace(on: WriterMachine, tree: dict[str, Any]) -> None:
    shutil.rmtree(on.workspace)
    on.workspace.mkdir()
    _make(on, tree)
