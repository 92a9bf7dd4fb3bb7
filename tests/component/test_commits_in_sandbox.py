"""The program that reads the agent's commits, run on repositories of real git, and the reader of its file."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from syncd.merge import commits as commits_module
from syncd.merge.commits import SandboxCommit, UnreadableCommits, read_commits
from syncd.model.entry import Kind
from syncd.sandbox import protocol
from syncd.sandbox.protocol import REPOSITORY_BOUNDS, RepositoryState, SandboxCommits
from tests.component.program_rig import ProgramRig, told
from tests.repositories import RepositoryThere, poisoned

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


class Ran(Struct):
    """The outcome of one run of the program: its report, and the commits that are read here."""

    found: SandboxCommits
    commits: tuple[SandboxCommit, ...]


class There(ProgramRig):
    """A sandbox's workspace with a repository, and runs of the program."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        for path in ("a", "d/b", "gone"):
            (self.workspace / path).parent.mkdir(exist_ok=True)
            (self.workspace / path).write_text(f"{path}\n")
        self.repository = RepositoryThere(self.workspace)

    def run(self, **changed: Any) -> Ran:
        request = {
            "home": self.repository.home,
            "most_commits": 1000,
            "most_paths": 1000,
            "most_bytes": 1 << 30,
            "within_s": 60,
            **changed,
        }
        name, folder = self.prepared({"log": request})
        output = self.output(folder)
        assert not (folder / "git").exists()
        found = told(name, output, REPOSITORY_BOUNDS, folder, lambda report: protocol.told(report.log))
        commits: tuple[SandboxCommit, ...] = ()
        if found.commits:
            (into := folder / "read").mkdir()
            commits = read_commits(found, str(folder / "copies/0"), str(into))
        return Ran(found, commits)


@pytest.fixture
def there(tmp_path: Path) -> There:
    return There(tmp_path)


def test_limits(there: There) -> None:
    """The oldest commits, and of these the smallest contents, are read; what is beyond is counted."""
    repository = there.repository
    for number in range(4):
        repository.commit(str(number), {f"{number}{name}": b"x" * 100_000 * (4 - number) for name in "ab"})

    def read(**limit: int) -> tuple[list[bytes], int]:
        ran = there.run(**limit)
        return [commit.message for commit in ran.commits], ran.found.unlisted

    assert read(most_commits=3) == ([b"0\n", b"1\n", b"2\n"], 1)
    assert read(most_paths=4) == ([b"0\n", b"1\n"], 2)
    assert read(most_paths=1) == ([], 4)
    commits = there.run(most_bytes=310_000 + 10_000).commits  # commits and folders are small
    has_copy = [bool(commit.changes[f"{number}a"].copy) for number, commit in enumerate(commits)]
    assert has_copy == [False, False, True, True]
    assert "too large" in failure(there, most_bytes=100)


def test_foreign_authors_and_messages(there: There) -> None:
    """What no git would write is read as far as it goes."""
    repository = there.repository
    tree = repository.id_of("HEAD^{tree}")
    for author, message in (
        (b"A\xff <\xff@x> 5 +0130", b"NUL\0 here"),
        (b"no address", b""),
        (b"<> 99999999999999999999999 nonsense", b"\xff\xfe"),
        (b" many  <<a@b>> -5 +0000", b"x"),
    ):
        repository.raw_commit(tree, message, author)
    repository.git("-c", "i18n.commitEncoding=ISO-8859-1", "commit", "-q", "--allow-empty", "-m", b"caf\xe9")
    commits = there.run().commits
    assert [commit.author for commit in commits[1:4]] == [b"unknown <> 0 +0000"] * 3
    assert commits[0].author == b"A\xff <\xff@x> 5 +0130"
    assert commits[4].author == b"Ada <ada@example.org> 1795539000 +0130"
    assert [commit.message for commit in commits] == [b"NUL", b"", b"\xff\xfe", b"x", "café\n".encode()]


def test_hostile_names(there: There) -> None:
    """Trees whose names lead outside are told by name, and nothing else is lost."""
    repository = there.repository
    evil = repository.blob(b"evil")
    inner = repository.raw_tree((b"100644", b"config", evil))
    names = [b".", b"..", b"/etc/passwd", b"../out", b"x//y", b"fine"]
    tree = repository.raw_tree(*((b"100644", name, evil) for name in names), (b"40000", b".git", inner))
    repository.raw_commit(tree, b"evil")
    ran = there.run()
    commit = ran.commits[0]
    assert {path for path, entry in commit.changes.items() if entry.kind is Kind.FILE} == {"fine", ".git/config"}
    assert set(commit.refused) == {".", "..", "/etc/passwd", "../out", "x//y"}
    repository.raw_commit(repository.raw_tree((b"100644", b"", evil)), b"no name")
    assert "empty filename" in failure(there)


def test_a_tree_of_endless_folders(there: There, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders within folders that are countless paths are given up there, and here too."""
    repository = there.repository
    inner = repository.raw_tree((b"100644", b"file", repository.blob(b"x")))
    for _ in range(11):
        inner = repository.raw_tree((b"40000", b"a", inner), (b"40000", b"b", inner))
    repository.raw_commit(inner, b"bomb")
    ran = there.run()
    assert (ran.commits, ran.found.unlisted) == ((), 1)
    monkeypatch.setattr(commits_module, "_MOST_FIELDS", 1000)
    with pytest.raises(UnreadableCommits, match="they changed too many paths"):
        there.run(most_paths=100_000)


_ID = b"1" * 40
_HEAD = b"\n\0%s\0Ada <ada@x> 5 +0000\0m\n\0" % _ID
_ADDED = b"\n:000000 100644 %s %s A\0a\0" % (b"0" * 40, _ID)


@pytest.mark.parametrize(
    ("told", "contents"),
    [
        (b"", b""),
        (_HEAD.replace(b"1", b"2"), b""),
        (_HEAD * 2, b""),
        (_ADDED, b""),
        (_HEAD + _ADDED.replace(b"100644", b"1x0644"), b""),
        (_HEAD + _ADDED.replace(_ID, b"../../../etc/passwd"), b""),
        (b"\0" * 1_000_000, b""),
        (_HEAD + _ADDED, b"%s blob 5\nshort" % _ID),
        (_HEAD + _ADDED, b"%s blob 5\nlonger\n" % _ID),
        (_HEAD + _ADDED, b"%s blob -5\n\n" % _ID),
        (_HEAD + _ADDED, b"%s tree 1\nx\n" % _ID),
        (_HEAD + _ADDED, b"%s blob 1\nx\n" % _ID * 2),
        (_HEAD + _ADDED, b"%s blob 1\nx\n" % (b"2" * 40)),
        (_HEAD + _ADDED, b"../out blob 1\nx\n"),
        (_HEAD + _ADDED, b"x" * 1000),
    ],
)
def test_a_hostile_file(tmp_path: Path, told: bytes, contents: bytes) -> None:
    """What git does not print makes all of it unreadable; nothing is written beside the folder."""
    (folder := tmp_path / "folder").mkdir()

    def read(told: bytes, contents: bytes) -> tuple[SandboxCommit, ...]:
        (tmp_path / "file").write_bytes(told + contents)
        found = SandboxCommits(RepositoryState.DONE, commits=(_ID.decode(),), told_bytes=len(told))
        return read_commits(found, str(tmp_path / "file"), str(folder))

    with pytest.raises(UnreadableCommits):
        read(told, contents)
    assert os.listdir(tmp_path) == ["folder"]
    shutil.rmtree(folder)
    folder.mkdir()
    (commit,) = read(_HEAD + _ADDED, b"%s blob 1\nx\n" % _ID)
    assert Path(commit.changes["a"].copy).read_bytes() == b"x"


def failure(there: There, **more: Any) -> str:
    found = there.run(**more).found
    assert (found.commits, found.state) == ((), RepositoryState.FAILED)
    return found.why


def test_an_object_that_never_answers(there: There) -> None:
    """A FIFO in an object's place is given up."""
    head = there.repository.commit("one", {"a": b"one"})
    place = there.workspace / ".git/objects" / head[:2] / head[2:]
    place.unlink()
    os.mkfifo(place)
    assert "takes too long" in failure(there, within_s=1)


def test_nothing_of_the_agents_is_run(there: There) -> None:
    """Hooks, filters, drivers, monitors, pagers, aliases, signatures, missing objects: no program runs or counts."""
    repository = there.repository
    repository.write({".gitattributes": b"* filter=evil diff=evil text eol=crlf ident\n"})
    repository.git("add", ".gitattributes")
    repository.git("update-index", "--cacheinfo", f"100644,{repository.blob(b'one$Id$' + bytes((13, 10)))},a")
    repository.git("commit", "-q", "-m", "one")
    repository.git("replace", "HEAD", "home")
    home = there.folder / "agents-home"
    home.mkdir()
    more = {
        "remote.origin.url": f"ext::{there.folder}/program",
        "remote.origin.promisor": "true",
        "remote.origin.uploadpack": f"{there.folder}/program",
        "protocol.allow": "always",
        "extensions.partialClone": "origin",
        "core.repositoryFormatVersion": "1",
        "diff.renames": "copies",
        "diff.noprefix": "true",
        "core.quotePath": "false",
        "core.abbrev": "4",
        "log.showSignature": "true",
    }
    mark = poisoned(there.workspace, there.folder, **more)
    shutil.copy(there.workspace / ".git/config", home / ".gitconfig")
    (there.workspace / ".git/info/grafts").write_text(f"{repository.id_of('work')}\n")
    ran = there.run()
    assert [commit.message for commit in ran.commits] == [b"one\n"]
    assert Path(ran.commits[0].changes["a"].copy).read_bytes() == b"one$Id$\r\n"
    missing = hashlib.sha1(b"blob 9\0one$Id$\r\n", usedforsecurity=False).hexdigest()
    (there.workspace / ".git/objects" / missing[:2] / missing[2:]).unlink()
    there.run()
    assert not mark.exists(), mark.read_text()
