"""The program that looks at the sandbox's workspace, run on real folders."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import stat
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from syncd.model.entry import ABSENT, Entry, Kind, SeenEntry
from syncd.sandbox import program
from syncd.sandbox.look_request import LookAction, LookItem, LookRequest, LookResult, Mark, Obstacle
from syncd.sandbox.protocol import Bounds, look_result, look_values
from tests.component.program_rig import ProgramRig, told
from tests.component.test_state_files import bound_socket
from tests.looks import COMMITS, COMPARE, EXISTS, FETCH, FOLDER, PLACE, REMOVE, a_file, item
from tests.system.command import AS_ANYONE, as_anyone

ODD = os.fsdecode(b"caf\xe9 \n'-rf\x01")


def a_link(target: str) -> Entry:
    return Entry(Kind.SYMLINK, 0o777, 1, target=target)


@dataclass
class Ran:
    """The outcome of one run of the program: its report, its log, and its folder."""

    report: LookResult  # with copies by their names in the folder
    log: str
    folder: Path

    def copies(self) -> dict[str, bytes]:
        """Return the content of each copy, by path."""
        return {path: (self.folder / entry.copy).read_bytes() for path, entry in self.found().items() if entry.copy}

    def kinds(self) -> dict[str, str]:
        """Return the kind of each path that is reported."""
        return {path: entry.kind.value for path, entry in self.found().items()}

    def found(self) -> Mapping[str, SeenEntry]:
        return {**self.report.differing, **self.report.new}


class Sandbox(ProgramRig):
    """A workspace there, which the program looks at."""

    def place(self, path: str, content: bytes = b"ours", mode: int = 0o644) -> Path:
        file = self.workspace / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(mode)
        return file

    def left(self) -> list[str]:
        return sorted(str(path.relative_to(self.workspace)) for path in self.workspace.rglob("*"))

    def asked(self, request: LookRequest, **changed: Any) -> tuple[str, Path]:
        return self.prepared({"look": {**look_values(request, changed.pop("within_s", 60.0), 4e9), **changed}})

    def run(self, request: LookRequest, prefix: Iterable[str] = (), **changed: Any) -> Ran:
        name, folder = self.asked(request, **changed)
        log = self.output(folder, prefix)
        return self.ran(name, log, request, folder)

    def ran(self, name: str, log: str, request: LookRequest, folder: Path) -> Ran:
        report = told(name, log, Bounds.of_look(request), folder, lambda report: look_result(report, request))
        return Ran(report, log, folder)

    def look(self, items: Mapping[str, LookItem], **more: Any) -> Ran:
        return self.run(LookRequest(items, **more))


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    yield Sandbox(tmp_path)
    # Pytest cannot remove what nobody may enter.
    for base, names, _ in os.walk(tmp_path):
        for name in names:
            if not os.path.islink(os.path.join(base, name)):
                os.chmod(os.path.join(base, name), 0o700)


# What has the place of a version, that version, and the kind that is told.
DIFFERING: dict[str, tuple[Callable[[Path], object], Entry | None, str]] = {
    "content": (lambda at: at.write_bytes(b"OURS"), a_file(), "f"),
    "longer": (lambda at: at.write_bytes(b"ours and more"), a_file(), "f"),
    "bit": (lambda at: (at.write_bytes(b"ours"), at.chmod(0o744)), a_file(), "f"),
    "no bit": (lambda at: (at.write_bytes(b"ours"), at.chmod(0o655)), a_file(mode=0o755), "f"),
    "kind": (Path.mkdir, a_file(), "d"),
    "ln": (lambda at: at.symlink_to("elsewhere"), a_link("here"), "l"),
    "file": (lambda at: at.symlink_to("ours"), a_file(), "l"),
    "folder": (lambda at: at.write_bytes(b"ours"), FOLDER, "f"),
    "fifo": (os.mkfifo, a_file(), "o"),
    "socket": (bound_socket, a_file(), "o"),
    "gone": (lambda _: None, a_file(), ""),
    "unknown": (lambda at: at.write_bytes(b"ours"), Entry(Kind.FILE, 0o644, 1, 4), "f"),
    "unasked": (lambda at: at.write_bytes(b"ours"), None, "f"),
}


@pytest.mark.parametrize("name", DIFFERING)
@pytest.mark.parametrize("action", [COMPARE, FETCH, REMOVE])
def test_what_differs_is_reported(sandbox: Sandbox, name: str, action: LookAction) -> None:
    """Content of the same length, the executable bit, kinds and targets count; only FETCH copies, and only files."""
    (make, version, kind), place = DIFFERING[name], sandbox.workspace / name
    make(place)
    ran = sandbox.look({name: item(action, *filter(None, [version]))})
    if name == "gone" and action is REMOVE:
        assert ran.report == LookResult(removed=("gone",))
        return
    assert ran.kinds() == {name: kind}
    found = ran.report.differing[name]
    assert found == ABSENT if name == "gone" else found.mode == stat.S_IMODE(place.lstat().st_mode)
    content = place.read_bytes() if kind == "f" else None
    assert ran.copies().get(name) == (content if action is FETCH else None)
    if kind == "f" and (action is FETCH or name in ("content", "bit", "no bit")):
        assert found.digest == hashlib.sha256(content or b"").digest()
    if kind == "l":
        assert found.target == os.readlink(place)
    assert (name in sandbox.left()) is (name != "gone")


def test_removals(sandbox: Sandbox) -> None:
    """Only what is as a version goes; folders only if they are empty then; what is gone counts as removed."""
    for path in ("a", "d/e/f", "full/ours", "full/theirs", "stay", ODD, "bit"):
        sandbox.place(path)
    sandbox.place("changed", b"theirs")
    sandbox.place("second", b"2nd")
    (sandbox.workspace / "ln").symlink_to("stay")
    ran = sandbox.look(
        {
            "a": item(REMOVE, a_file()),
            "d/e/f": item(REMOVE, a_file()),
            "d/e": item(REMOVE, FOLDER),
            "d": item(REMOVE, FOLDER),
            "full/ours": item(REMOVE, a_file()),
            "full": item(REMOVE, FOLDER),
            "changed": item(REMOVE, a_file()),
            "second": item(REMOVE, a_file(b"first"), a_file(b"2nd")),
            "ln": item(REMOVE, a_link("stay")),
            ODD: item(REMOVE, a_file()),
            "gone": item(REMOVE, a_file()),
            "bit": item(REMOVE, a_file(mode=0o755)),
            "a/below/a/file": item(REMOVE, a_file()),
        }
    )
    assert sandbox.left() == ["bit", "changed", "full", "full/theirs", "stay"]
    assert list(ran.report.holding_more) == ["full"]
    assert set(ran.report.differing) == {"changed", "bit"}
    gone = ["a", "d/e/f", "d/e", "d", "full/ours", "second", "ln", ODD, "gone", "a/below/a/file"]
    assert list(ran.report.removed) == gone


@pytest.mark.parametrize("late", [{"within_s": -1.0}, {"not_after_s": 1.0}], ids=str)
def test_a_late_program_removes_nothing(sandbox: Sandbox, late: dict[str, float]) -> None:
    """Once its time is over, or that second of the sandbox's own clock, after which no one waits for it any more."""
    sandbox.place("a")
    ran = sandbox.run(LookRequest({"a": item(REMOVE, a_file())}), **late)
    assert (ran.report.removed, sandbox.left()) == ((), ["a"])


@pytest.mark.parametrize("action", [COMPARE, FETCH, REMOVE, EXISTS])
def test_no_link_is_followed(sandbox: Sandbox, action: LookAction) -> None:
    """Behind a link, or a file, that took a folder's place, nothing of ours can be."""
    outside = sandbox.folder / "outside"
    (outside / "e").mkdir(parents=True)
    (outside / "e/f").write_bytes(b"ours")
    (sandbox.workspace / "d").symlink_to(outside)
    (sandbox.workspace / "x").mkdir()
    (sandbox.workspace / "x/e").symlink_to(outside / "e")
    sandbox.place("file")
    paths = ("d/e/f", "x/e/f", "file/f")
    ran = sandbox.look({path: item(action, a_file(b"theirs"), a_file()) for path in paths})
    assert (outside / "e/f").exists()
    assert (ran.report.missing == 3) is (action is EXISTS)
    assert ran.report.differing == (dict.fromkeys(paths, ABSENT) if action in (COMPARE, FETCH) else {})
    assert list(ran.report.removed) == (list(paths) if action is REMOVE else [])


def test_what_is_new(sandbox: Sandbox) -> None:
    """Files, links, folders with and without content, odd names; other things are named; no repository is entered."""
    for path in ("known", "d/new", "d/e/deeper", ODD, ".git/config", "d/.GIT/x", "node_modules/x", "d/node_modules/y"):
        sandbox.place(path, b"theirs")
    for path in ("empty", "other/.Git"):
        (sandbox.workspace / path).mkdir(parents=True)
    sandbox.place("sub/.git", b"gitdir: elsewhere")
    sandbox.place("also/node_modules", b"a file of that name")
    (sandbox.workspace / "ln").symlink_to("../../outside")
    os.mkfifo(sandbox.workspace / "fifo")
    ran = sandbox.look(
        {"known": item(COMPARE, a_file()), "d": item(COMPARE, FOLDER)}, find_new=True, pruned_names={"node_modules"}
    )
    assert ran.kinds() == {
        "known": "f",
        "d/new": "f",
        "d/e": "d",
        "d/e/deeper": "f",
        ODD: "f",
        "empty": "d",
        "other": "d",
        "sub": "d",
        "also": "d",
        "also/node_modules": "f",
        "ln": "l",
        "fifo": "o",
    }
    assert sorted(ran.report.pruned) == [
        ".git",
        "d/.GIT",
        "d/node_modules",
        "node_modules",
        "other/.Git",
        "sub/.git",
    ]
    assert set(ran.copies()) == {"d/new", "d/e/deeper", ODD, "also/node_modules"}
    assert ran.report.new["ln"].target == "../../outside"


def test_the_smallest_are_copied_first(sandbox: Sandbox) -> None:
    """What is beyond the limit is reported without a copy, changed ones and new ones alike."""
    for name, size in (("big", 500), ("mid", 60), ("small", 30), ("new big", 70), ("new small", 20)):
        sandbox.place(name, b"x" * size)
    asked = {name: item(FETCH, a_file()) for name in ("big", "mid", "small")}
    ran = sandbox.look(asked, find_new=True, most_copied_bytes=100)
    assert set(ran.copies()) == {"small", "new small"}
    assert set(ran.kinds()) == {"big", "mid", "small", "new big", "new small"}
    assert not ran.report.differing["big"].unstable


def limited(limit: str) -> list[str]:
    """Return a command before another one, which gets that limit of the shell's `ulimit`."""
    return ["sh", "-c", f'ulimit {limit} && exec "$@"', "sh"]


def _deep(folder: Path, names: Iterable[str]) -> int:
    """Make folders in each other, and return the descriptor of the last."""
    opened = os.open(folder, os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=opened)
        below = os.open(name, os.O_RDONLY, dir_fd=opened)
        os.close(opened)
        opened = below
    return opened


def test_a_deep_tree(sandbox: Sandbox) -> None:
    """Deeper than the longest path, the open files and the stack of functions allow; what home cannot take is named."""
    depth = 1500
    folder = _deep(sandbox.workspace, ["deep"] * depth)
    for name in ("ours", "theirs", "gone"):
        with open(os.open(name, os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=folder), "wb") as file:
            file.write(name.encode())
    os.close(folder)
    deep = "/".join(["deep"] * depth)
    try:
        asked = {f"{deep}/ours": item(FETCH, a_file(b"OURS")), f"{deep}/gone": item(REMOVE, a_file(b"gone"))}
        ran = sandbox.run(LookRequest(asked, find_new=True), prefix=limited("-n 100"))
        assert list(ran.report.removed) == [f"{deep}/gone"]
        assert ran.copies() == {f"{deep}/ours": b"ours"}
        longest = max(ran.report.new, key=len)
        assert len(longest) <= 4096
        assert (ran.report.pruned, ran.report.unseen) == ((longest,), 1)
    finally:
        subprocess.run(["rm", "-rf", sandbox.workspace / "deep"], check=True)


@pytest.mark.parametrize("find_new", [False, True])
def test_a_look_that_is_too_long_reports_what_it_has(sandbox: Sandbox, find_new: bool) -> None:
    """What changed at home comes first, a large file last; what was not looked at in time is no version of ours."""
    for name in ("as sent", "changed", "in/changed"):
        sandbox.place(name, b"theirs")
    with open(sandbox.workspace / "large", "wb") as file:
        file.truncate(1 << 40)
    large = Entry(Kind.FILE, 0o644, 1, 1 << 40, digest=bytes(32))
    asked = {
        "as sent": item(COMPARE, a_file(b"theirs")),
        "large": item(FETCH, large),
        "changed": item(FETCH, a_file()),
        "gone": item(REMOVE, a_file()),
        "large again": item(REMOVE, large),
    }
    os.link(sandbox.workspace / "large", sandbox.workspace / "large again")
    ran = sandbox.run(LookRequest(asked, find_new=find_new), within_s=5.0)  # two are short on a busy machine
    new = {"in/changed": b"theirs"} if find_new else {}
    assert ran.copies() == {"changed": b"theirs", **new}
    assert set(ran.report.new) == ({"in", "in/changed"} if find_new else set())
    assert {path for path, kind in ran.kinds().items() if kind == "?"} == {"as sent", "large"}
    assert ran.report.unseen == 2
    assert list(ran.report.removed) == ["gone"]
    assert ran.report.failed == {"large again": "it would have come too late"}


@as_anyone
def test_what_cannot_be_read_is_named(sandbox: Sandbox) -> None:
    """Files and folders; a folder that can be entered and not listed hides nothing that is on the list."""
    sandbox.place("file", b"OURS", 0o000)
    sandbox.place("new", b"theirs", 0o000)
    sandbox.place("closed/a")
    sandbox.place("unlisted/a", b"theirs")
    (sandbox.workspace / "closed").chmod(0o000)
    (sandbox.workspace / "unlisted").chmod(0o300)
    sandbox.place("fixed/a")
    (sandbox.workspace / "fixed").chmod(0o500)
    asked = {
        "file": item(FETCH, a_file()),
        "closed/a": item(COMPARE, a_file()),
        "unlisted/a": item(FETCH, a_file()),
        "closed/b": item(EXISTS),
        "fixed/a": item(REMOVE, a_file()),
        "closed/c": item(REMOVE, a_file()),
    }
    ran = sandbox.run(LookRequest(asked, find_new=True), prefix=AS_ANYONE)
    assert ran.kinds() == {
        "file": "?",
        "closed/a": "?",
        "unlisted/a": "f",
        "new": "?",
        "closed": "d",
        "unlisted": "d",
        "fixed": "d",
    }
    assert ran.copies() == {"unlisted/a": b"theirs"}
    assert sorted(ran.report.pruned) == ["closed", "unlisted"]
    assert ran.report.failed == {"fixed/a": "Permission denied", "closed/c": "Permission denied"}
    assert ran.report.missing == 0


def test_a_workspace_that_is_gone_is_empty(sandbox: Sandbox) -> None:
    """All that was sent is missing, and nothing is new, if it stays away; what has its place is no empty workspace."""
    asked = {"a": item(EXISTS), "d/b": item(FETCH, a_file()), "c": item(PLACE, a_file()), "e": item(REMOVE, a_file())}
    sandbox.workspace.rmdir()
    ran = sandbox.run(LookRequest(asked, find_new=True))
    assert (ran.report.missing, ran.kinds(), ran.report.blocked) == (1, {"d/b": ""}, {})
    away = sandbox.workspace.with_name("away")
    away.mkdir()
    (away / "a").write_bytes(b"")
    back = subprocess.Popen(["sh", "-c", 'sleep 0.3; exec mv "$0" "$1"', away, sandbox.workspace])
    assert sandbox.look({"a": item(EXISTS)}).report.missing == 0
    assert back.wait() == 0
    (sandbox.workspace / "a").unlink()
    sandbox.workspace.rmdir()
    sandbox.workspace.write_bytes(b"")
    with pytest.raises(subprocess.CalledProcessError):
        sandbox.look({"a": item(EXISTS)})


LookWhile = Callable[..., Ran]


@pytest.fixture
def look_while(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> LookWhile:
    """Looks by the program's module in this process; an agent acts after each file that was read, by how many were."""

    def look(items: Mapping[str, LookItem], act: Callable[[int], object] = lambda _: None, **more: Any) -> Ran:
        hashed, count = program._hash, itertools.count(1)

        def read(*of: Any) -> Any:
            result = hashed(*of)
            act(next(count))
            return result

        monkeypatch.setattr(program, "_hash", read)
        monkeypatch.setattr(program, "_within", lambda _, act: act())  # a test has its own alarm
        monkeypatch.setenv("AGENT_WORKSPACE", str(sandbox.workspace))
        request = LookRequest(items, **more)
        name, folder = sandbox.asked(request)
        report = program.answer(json.loads((folder / "request.json").read_bytes()), str(folder))
        return sandbox.ran(name, program.printed(name, report, str(folder)), request, folder)

    return look


@pytest.mark.parametrize("change", ["compared", "append", "same size", "unseen", "replace", "vanish", "cut"])
def test_a_file_that_changes_while_it_is_read(
    sandbox: Sandbox, look_while: LookWhile, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """It is "still being written": no copy; also if neither its size nor its times tell."""
    file = sandbox.place("a", b"theirs")
    before = file.stat()

    def write(count: int) -> None:
        if count != 1:
            return
        if change in ("append", "compared"):
            file.write_bytes(b"theirs and more")
        elif change == "replace":
            (sandbox.folder / "draft").write_bytes(b"THEIRS")
            os.replace(sandbox.folder / "draft", file)
        elif change == "vanish":
            file.unlink()
        elif change == "cut":
            file.write_bytes(b"")
        else:
            file.write_bytes(b"THEIRS")
            if change == "unseen":
                monkeypatch.setattr(program, "_stamp", lambda status: status.st_ino)
            else:
                os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    asked = item(COMPARE, a_file(b"THEIRS")) if change == "compared" else item(FETCH, a_file())
    ran = look_while({"a": asked}, write)
    found = ran.report.differing["a"]
    assert (found.unstable, found.digest, found.copy) == (True, b"", "")
    assert list(ran.folder.glob("copies/*")) == []


def test_a_file_that_was_put_back_does_not_differ(sandbox: Sandbox, look_while: LookWhile) -> None:
    """Between the comparison and the copy."""
    file = sandbox.place("a", b"OURS")
    ran = look_while({"a": item(FETCH, a_file())}, lambda count: file.write_bytes(b"ours") if count == 1 else None)
    assert ran.report.differing == {}


def test_a_file_that_is_written_right_before_its_removal_stays(
    sandbox: Sandbox, look_while: LookWhile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its stamp is looked at once more after its content was compared."""
    file = sandbox.place("a")
    compared = program._SeenEntry.same_as_any

    def write(*of: Any) -> bool:
        same = compared(*of)
        file.write_bytes(b"just written")
        return same

    monkeypatch.setattr(program._SeenEntry, "same_as_any", write)
    ran = look_while({"a": item(REMOVE, a_file())})
    assert file.read_bytes() == b"just written"
    assert ran.report.differing["a"].unstable


def test_a_folder_that_was_moved_out_of_the_workspace(sandbox: Sandbox, look_while: LookWhile) -> None:
    """It is not entered for the next removal."""
    sandbox.place("d/a", b"changed")
    sandbox.place("d/b")
    moved = sandbox.folder / "moved"

    def move(count: int) -> None:
        if count == 1:
            os.rename(sandbox.workspace / "d", moved)

    ran = look_while({"d/a": item(REMOVE, a_file(b"CHANGED")), "d/b": item(REMOVE, a_file())}, move)
    assert list(ran.report.removed) == ["d/b"]
    assert (moved / "b").exists()


def test_a_full_disk(sandbox: Sandbox, look_while: LookWhile, monkeypatch: pytest.MonkeyPatch) -> None:
    """What finds no room is reported without a copy; 64 MiB stay free."""
    sandbox.place("a", b"theirs")
    free = os.statvfs(sandbox.folder)
    blocks = ((64 << 20) + 5) // free.f_frsize
    assert free.f_frsize > 6

    def little(_: object) -> os.statvfs_result:
        return os.statvfs_result([free.f_bsize, free.f_frsize, *free[2:4], blocks, *free[5:]])

    monkeypatch.setattr(program.os, "statvfs", little)
    ran = look_while({"a": item(FETCH, a_file())})
    assert ran.copies() == {}
    assert ran.kinds() == {"a": "f"}
    monkeypatch.undo()
    sandbox.place("a", b"theirs" * 1000)
    ran = sandbox.run(LookRequest({"a": item(FETCH, a_file())}), prefix=limited("-f 1"))  # a block
    assert (ran.kinds(), ran.copies()) == ({"a": "f"}, {})
    assert list((ran.folder / "copies").iterdir()) == []


def test_a_fifo_that_takes_a_files_place_does_not_block(sandbox: Sandbox) -> None:
    """It is opened after the status said that it is a file, and then it is none."""
    os.mkfifo(sandbox.workspace / "a")
    top = os.open(sandbox.workspace, os.O_RDONLY)
    try:
        look = program._Look({"items": "", "digests": "", "since": None}, top, str(sandbox.folder))
        with pytest.raises(OSError, match=r"Stale"):
            look._read(program._SeenEntry("f"), b"a")
    finally:
        os.close(top)


def test_a_link_that_goes_while_its_place_is_looked_at(
    sandbox: Sandbox, look_while: LookWhile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in nobody's way any more, and ends no look."""
    kind_at = program._Look._kind_at
    (sandbox.workspace / "a").symlink_to("/")

    def told(looking: Any, path: bytes) -> str:
        kind = kind_at(looking, path)
        (sandbox.workspace / "a").unlink(missing_ok=True)
        return kind

    monkeypatch.setattr(program._Look, "_kind_at", told)
    assert look_while({"a": item(PLACE, a_file())}).report == LookResult()


OURS, OLDER, THEIRS = (letter * 40 for letter in "abc")
MADE = {
    "HEAD": "ref: refs/heads/topic\n",
    "refs/syncd/home": OURS,
    "refs/tags/home": OURS,
    "refs/heads/topic": OLDER,
    "syncd/state": json.dumps({"branch": "topic", "left": OLDER, "moving": OLDER}),
}


@pytest.mark.parametrize(
    ("files", "has_commits"),
    [
        ({}, False),
        ({"refs/heads/main": THEIRS}, False),  # without a HEAD it is no repository
        ({"HEAD": "ref: refs/heads/main\n", "config": ""}, False),
        ({"HEAD": "ref: refs/heads/main\n", "refs/heads/main": THEIRS + "\n"}, True),
        ({"HEAD": "ref: refs/heads/.invalid\n", "reftable/tables.list": ""}, True),
        (MADE, False),
        ({**MADE, "packed-refs": f"# pack-refs with: peeled\n{OURS} refs/heads/x\n"}, False),
        ({**MADE, "HEAD": OURS}, False),
        ({**MADE, "refs/heads/topic": THEIRS}, True),
        ({**MADE, "refs/heads/deep/er": THEIRS}, True),
        ({**MADE, "refs/stash": THEIRS}, True),
        ({**MADE, "refs/tags/v1": THEIRS}, True),
        ({**MADE, "HEAD": THEIRS}, True),
        ({**MADE, "worktrees/w/HEAD": THEIRS}, True),
        ({**MADE, "packed-refs": f"# pack-refs with: peeled\n{THEIRS} refs/heads/x\n"}, True),
    ],
)
def test_commits_there(sandbox: Sandbox, files: dict[str, str], has_commits: bool) -> None:
    """A repository with a reference to anything but syncd's own commits is in the way of another one."""
    for name, content in files.items():
        sandbox.place(f".git/{name}", content.encode())
    found = {".git": Obstacle.COMMITS} if has_commits else {}
    assert sandbox.look({".git": item(COMMITS, FOLDER)}).report == LookResult(blocked=found)
    assert sandbox.look({".git": item(PLACE, FOLDER)}).report == LookResult()


@pytest.mark.parametrize(
    ("name", "kind", "is_in_the_way"),
    [
        ("HEAD", "folder", True),
        ("HEAD", "FIFO", True),
        ("packed-refs", "folder", True),
        ("packed-refs", "FIFO", False),
        ("refs/syncd/home", "folder", False),
        ("refs/syncd/home", "FIFO", True),
        ("refs/heads/x", "FIFO", True),
    ],
)
def test_a_reference_that_is_no_file(sandbox: Sandbox, name: str, kind: str, is_in_the_way: bool) -> None:
    """It ends no look. Where nobody knows what it leads to, it keeps another repository away."""
    sandbox.place(".git/HEAD", b"ref: refs/heads/main\n")
    path = sandbox.workspace / ".git" / name
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkdir(path) if kind == "folder" else os.mkfifo(path)
    writer = os.open(path, os.O_RDONLY if kind == "folder" else os.O_RDWR)  # someone who says nothing
    try:
        found = sandbox.look({".git": item(COMMITS, FOLDER)}).report
    finally:
        os.close(writer)
    assert found == LookResult(blocked={".git": Obstacle.COMMITS} if is_in_the_way else {})


def _old(sandbox: Sandbox) -> Mark:
    """Return the mark of a look that is so late that nothing of before may change once more in the same moment."""
    while True:
        found = sandbox.run(LookRequest({}, find_new=True, pruned_names=["pruned"])).report
        if found.mark[1] == max(
            path.lstat().st_ctime_ns for path in [sandbox.workspace, *sandbox.workspace.rglob("*")]
        ):
            return found.mark


@pytest.fixture
def marked(sandbox: Sandbox) -> tuple[Sandbox, Mark]:
    """A workspace that was looked at, and its mark."""
    for path in ("a", "d/b", "d/c", "d/e/f", "log"):
        sandbox.place(path)
    (sandbox.workspace / "ln").symlink_to("a")
    return sandbox, _old(sandbox)


def test_nothing_has_changed_since(marked: tuple[Sandbox, Mark]) -> None:
    """Then the report is as long as its mark, which is the same, and no file is read."""
    sandbox, mark = marked
    asked = LookRequest({"log": item(COMPARE, a_file(b"other"))}, find_new=True, pruned_names=["pruned"], since=mark)
    assert sandbox.run(asked).report == LookResult(mark=mark)
    ahead = mark[0], mark[1] + 10**18  # its clock was set back since: a look at everything has to tell
    assert sandbox.run(LookRequest({}, find_new=True, since=ahead)).report.mark is None


def test_a_change_during_a_search_is_found_by_the_next_one(
    marked: tuple[Sandbox, Mark], look_while: LookWhile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one in a folder that it has listed already, while another one is newer."""
    sandbox, mark = marked
    names = program._Look._names

    def listed(looking: Any, folder: bytes) -> list[bytes]:
        found = names(looking, folder)
        if folder == b"":
            sandbox.place("late", b"theirs")
            sandbox.place("d/e/later", b"theirs")
        return found

    monkeypatch.setattr(program._Look, "_names", listed)
    first = look_while({}, find_new=True, since=mark).report
    monkeypatch.undo()
    assert "late" not in first.new
    assert first.mark is not None
    assert {"late", "d/e/later"} <= set(sandbox.run(LookRequest({}, find_new=True, since=first.mark)).report.new)
