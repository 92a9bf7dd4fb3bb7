"""Texts merge as git merges them, and the git that is run obeys neither configuration nor environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from syncd.core import process
from syncd.core.errors import NeedsPerson, TryLater
from syncd.merge import git as git_module
from syncd.merge.git import Git, MergedText, find_git, find_work_tree, is_binary, merge
from tests.component.test_agent_branch import repository
from tests.repositories import person_git, poisoned


def lines(count: int = 20, end: bytes = b"\n") -> bytes:
    return b"".join(b"line %d%s" % (number, end) for number in range(count))


def edited(content: bytes, number: int, new: bytes) -> bytes:
    return content.replace(b"line %d" % number, new, 1)


BASE = lines()
CRLF = lines(end=b"\r\n")
OPEN = lines()[:-1]


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "merged"),
    [
        (BASE, edited(BASE, 2, b"ours"), edited(BASE, 15, b"theirs"), edited(edited(BASE, 2, b"ours"), 15, b"theirs")),
        (BASE, edited(BASE, 2, b"same"), edited(BASE, 2, b"same"), edited(BASE, 2, b"same")),
        (BASE, BASE + b"added\n", edited(BASE, 2, b""), edited(BASE, 2, b"") + b"added\n"),
        (BASE, edited(BASE, 2, b"ours"), BASE, edited(BASE, 2, b"ours")),
        (CRLF, edited(CRLF, 2, b"ours"), edited(CRLF, 15, b"theirs"), edited(edited(CRLF, 2, b"ours"), 15, b"theirs")),
        (BASE, CRLF, BASE, CRLF),
        (OPEN, edited(OPEN, 2, b"ours"), edited(OPEN, 9, b"theirs"), edited(edited(OPEN, 2, b"ours"), 9, b"theirs")),
        (BASE, OPEN, edited(BASE, 2, b"theirs"), edited(OPEN, 2, b"theirs")),
        (BASE, b"", BASE, b""),
        (b"", b"", b"new\n", b"new\n"),
        (BASE, BASE + b"\xfe", edited(BASE, 2, b"\xfd"), edited(BASE, 2, b"\xfd") + b"\xfe"),
    ],
    ids=["both", "same", "added", "one-side", "crlf", "ends-of-one-side", "no-newline", "newline-lost", "emptied",
         "empty", "bytes"],
)  # fmt: skip
def test_what_merges(git: Git, tmp_path: Path, base: bytes, ours: bytes, theirs: bytes, merged: bytes) -> None:
    """Changes of different lines go together, byte for byte; it is the same from either side."""
    assert merge(git, base, ours, theirs, str(tmp_path)) == MergedText(merged)
    assert merge(git, base, theirs, ours, str(tmp_path)) == MergedText(merged)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("base", "ours", "theirs"),
    [
        (BASE, edited(BASE, 2, b"ours"), edited(BASE, 2, b"theirs")),
        (BASE, CRLF, edited(BASE, 2, b"theirs")),
        (BASE, b"", edited(BASE, 2, b"theirs")),
        (b"", b"ours\n", b"theirs\n"),
        (BASE, lines(400).replace(b"l", b"L"), lines(400).replace(b"i", b"I")),
        (b"\n".join(b"%d" % n for n in range(900)), b"\n".join(b"%dx" % n if n % 4 else b"%d" % n for n in range(900)),
         b"\n".join(b"%dy" % n if n % 4 else b"%d" % n for n in range(900))),
    ],
    ids=["same-line", "line-ends-of-one-side", "emptied", "both-new", "all", "more-than-an-exit-code-counts"],
)  # fmt: skip
def test_what_does_not_merge(git: Git, base: bytes, ours: bytes, theirs: bytes, tmp_path: Path) -> None:
    """Both sides changed the same lines, whatever the number of such places: both are there, between markers."""
    merged = merge(git, base, ours, theirs, str(tmp_path))
    assert isinstance(merged, MergedText)
    assert merged.has_conflicts
    assert merged.content.startswith((b"<<<<<<< mine\n", b"line 0\nline 1\n<<<<<<< mine\n", b"0"))
    assert b"\n>>>>>>> theirs\n" in merged.content


def test_binary_files_do_not_merge(git: Git, tmp_path: Path) -> None:
    """A NUL in the first 8000 bytes of any version, as for git itself; one further on makes no difference."""
    for versions in ((BASE + b"\0", BASE, BASE), (BASE, BASE + b"\0", BASE), (BASE, BASE, BASE + b"\0")):
        assert merge(git, *versions, str(tmp_path)) == "it is no text"
    late = b"x" * 7999 + b"\n" + BASE + b"\0"
    ours, theirs = edited(late, 2, b"ours"), edited(late, 9, b"theirs")
    assert merge(git, late, ours, theirs, str(tmp_path)) == MergedText(edited(ours, 9, b"theirs"))
    assert is_binary(b"x" * 7999 + b"\0")
    assert not is_binary(b"x" * 8000 + b"\0")


def test_a_git_that_fails_is_no_conflict(tmp_path: Path) -> None:
    """A program that fails, is killed or cannot be started gives no merge and no conflict."""
    for script in ("#!/bin/sh\nexit 255\n", "#!/bin/sh\nexit 128\n", "#!/bin/sh\nkill -9 $$\n", "#!/no/such/program\n"):
        assert merge(scripted(tmp_path, script), BASE, BASE, BASE, str(tmp_path)) == "git failed"


def test_a_merge_reads_no_configuration(git: Git, tmp_path: Path) -> None:
    """In a folder that lies in a repository, neither its configuration nor its attributes reach the merge."""
    top = repository(tmp_path / "top", {})
    mark, scratch = poisoned(top, tmp_path), top / "scratch"
    scratch.mkdir()
    merged = MergedText(edited(edited(BASE, 2, b"a"), 9, b"b"))
    for more in ("", "this is no configuration\n"):
        with (top / ".git/config").open("a") as file:
            file.write(more)
        assert merge(git, BASE, edited(BASE, 2, b"a"), edited(BASE, 9, b"b"), str(scratch)) == merged
    assert not mark.exists()


def test_git_is_looked_for_in_absolute_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program in a relative folder of the search path may be one of the workspace: it is not run."""
    (tmp_path / "git").write_text("#!/bin/sh\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    assert find_git({"PATH": ".::bin"}) is None
    found = find_git({"PATH": f".:{tmp_path}"})
    assert (found.program, found.path) == (f"{tmp_path}/git", str(tmp_path))


def test_what_git_writes_has_the_persons_permissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects in a repository of several people stay readable, though syncd's own files are private."""
    monkeypatch.setattr(process, "_original_umask", 0o027)
    git = scripted(tmp_path, "#!/bin/sh\numask >&2\numask\nexit $FAIL\n")
    assert git.run(["ask"], {"FAIL": "0"}).output == b"0027\n"
    with pytest.raises(NeedsPerson, match="0027"):
        git.run(["feed"], {"FAIL": "3"})


def test_a_git_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that hangs is ended, whether it is asked or fed."""
    monkeypatch.setattr(git_module, "_ANSWER_S", 0.05)
    os.mkfifo(tmp_path / "never")
    git = scripted(tmp_path, f"#!/bin/sh\nexec cat {tmp_path}/never\n")
    for given in (b"", b"x" * 100_000):
        with pytest.raises(TryLater, match="does not answer"):
            git.run(["ask"], {}, given=given)


def test_the_memory_of_git_is_limited(tmp_path: Path) -> None:
    """What an agent wrote may be made to need any amount: git fails before this machine does."""
    git = scripted(tmp_path, "#!/bin/sh\nwhile test $(ulimit -d) = unlimited; do :; done\nulimit -d >&2\nexit 3\n")
    with pytest.raises(NeedsPerson, match=str(1 << 20)):
        git.run(["ask"], {})


def test_a_reason_of_git_is_one_line(tmp_path: Path) -> None:
    """What git prints comes as one line without control characters, also where it did not read its input."""
    git = scripted(tmp_path, "#!/bin/sh\nprintf 'fatal: a\\033[31m\\nb' >&2\nexit 3\n")
    for given in (b"", b"x" * 100_000):
        with pytest.raises(NeedsPerson) as failure:
            git.run(["ask"], {}, given=given)
        assert failure.value.message == "git ask failed (fatal: a\\x1b[31m b)"


def test_a_repository_of_another_user(git: Git, tmp_path: Path) -> None:
    """It is refused with the remedy, and read once the person trusts it."""
    top = repository(tmp_path / "top", {})
    (tmp_path / "trusting").write_text(f"[safe]\ndirectory = {top}\n")
    (tmp_path / "plain").write_text("")
    other = {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}
    with pytest.raises(NeedsPerson, match=r"belongs to another user: .*safe\.directory"):
        find_work_tree(Git(git.program, git.path, {**other, "GIT_CONFIG_GLOBAL": f"{tmp_path}/plain"}), str(top))
    trusted = Git(git.program, git.path, {**other, "GIT_CONFIG_GLOBAL": f"{tmp_path}/trusting"})
    assert find_work_tree(trusted, str(top)).folder == f"{top}/.git"


def test_no_work_tree(git: Git, tmp_path: Path) -> None:
    """No repository, a bare one, a damaged one: each is a line that says so."""
    bare = tmp_path / "bare"
    person_git(tmp_path, "init", "-q", "--bare", "bare")
    broken = repository(tmp_path / "broken", {})
    (broken / ".git/config").write_text("[core\n")
    lost = repository(tmp_path / "lost", {})
    (lost / ".git/refs/heads/main").write_text("nonsense\n")
    outside = tmp_path / "outside"
    outside.mkdir()
    for folder, message in (
        (outside, "is in no git repository"),
        (bare, "is in no work tree"),
        (repository(tmp_path / "inside", {}) / ".git", "is in no work tree"),
        (broken, "git cannot read the repository"),
        (lost, "git cannot read HEAD"),
    ):
        with pytest.raises(NeedsPerson, match=message) as failure:
            find_work_tree(git, str(folder))
        assert "\n" not in str(failure.value)


def scripted(folder: Path, script: str) -> Git:
    """A program in the place of git."""
    program = folder / "program"
    program.write_text(script)
    program.chmod(0o755)
    return Git(str(program), os.environ["PATH"], {})
