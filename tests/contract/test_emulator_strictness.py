"""`initialize` is as strict as GNU tar: the same start and archive give the same result and error."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from syncd.emulator.extract import ArchiveRefused, extract
from tests.archives import Member, archive, member

Start = list[tuple[str, str, str]]


def a_file(name: str, content: bytes = b"new") -> Member:
    return member(name, content, mode=0o644)


def a_folder(name: str, mode: int = 0o755) -> Member:
    return member(name, type=b"5", mode=mode)


def a_link(name: str, target: str) -> Member:
    return member(name, type=b"2", linkname=target, mode=0o777)


def a_hard_link(name: str, target: str) -> Member:
    return member(name, type=b"1", linkname=target, mode=0o644)


FILE: Start = [("a", "file", "old")]
EMPTY: Start = [("a", "folder", "755")]
FULL: Start = [("a", "folder", "755"), ("a/x", "file", "old")]
TO_FOLDER: Start = [("t", "folder", "755"), ("a", "link", "t")]
TO_FILE: Start = [("t", "file", "old"), ("a", "link", "t")]
NOWHERE: Start = [("a", "link", "nowhere")]
READ_ONLY: Start = [("a", "folder", "555"), ("a/x", "file", "old")]
LAST = a_file("z")  # to see if the rest is extracted

CASES: dict[str, tuple[Start, list[Member]]] = {
    "file over file": (FILE, [a_file("a")]),
    "file over empty folder": (EMPTY, [a_file("a")]),
    "file over full folder": (FULL, [a_file("a"), LAST]),
    "file over link to file": (TO_FILE, [a_file("a")]),
    "file over link to folder": (TO_FOLDER, [a_file("a")]),
    "file over FIFO": ([("a", "fifo", "")], [a_file("a")]),
    "folder over file": (FILE, [a_folder("a"), a_file("a/x")]),
    "folder over folder": (FULL, [a_folder("a", 0o700), a_file("a/y")]),
    "folder over link to folder": (TO_FOLDER, [a_folder("a"), a_file("a/x")]),
    "folder over link to nowhere": (NOWHERE, [a_folder("a"), a_file("a/x")]),
    "link over file": (FILE, [a_link("a", "t")]),
    "link over empty folder": (EMPTY, [a_link("a", "t")]),
    "link over full folder": (FULL, [a_link("a", "t"), LAST]),
    "below a link to folder": (TO_FOLDER, [a_file("a/x")]),
    "below a link to file": (TO_FILE, [a_file("a/x"), LAST]),
    "below a file": (FILE, [a_file("a/x"), LAST]),
    "parents that are missing": ([], [a_file("a/b/x"), a_link("c/d/x", "y"), a_folder("e/f")]),
    "hard link": ([], [a_file("a"), a_hard_link("b", "a")]),
    "hard link over file": ([("b", "file", "old")], [a_file("a"), a_hard_link("b", "a")]),
    "hard link to itself": ([], [a_file("a"), a_hard_link("a", "a")]),
    "hard link to nothing": (FILE, [a_hard_link("a", "nowhere"), LAST]),
    "hard link to what lay there": (FILE, [a_hard_link("b", "a")]),
    "file twice": ([], [a_file("a", b"1"), a_file("a", b"2")]),
    "folder twice": ([], [a_folder("a"), a_file("a/x"), a_folder("a", 0o700)]),
    "folder, then file": ([], [a_folder("a"), a_file("a/x"), a_file("a"), LAST]),
    "empty folder, then file": ([], [a_folder("a"), a_file("a")]),
    "link, then below it": ([], [a_folder("t"), a_link("a", "t"), a_file("a/x")]),
    "link, then folder": ([], [a_folder("t"), a_link("a", "t"), a_folder("a"), a_file("a/x")]),
    "read-only folders that are new": (
        [],
        [a_folder("a", 0o555), a_file("a/x"), a_folder("a/b", 0o555), a_file("a/b/y")],
    ),
    "read-only folder, another file": (READ_ONLY, [a_folder("a", 0o555), a_file("a/y"), LAST]),
    "read-only folder, the same file": (READ_ONLY, [a_folder("a", 0o555), a_file("a/x"), LAST]),
    "read-only folder without an entry": (READ_ONLY, [a_file("a/y"), LAST]),
    "the folder itself": ([], [a_folder("."), a_file("./a")]),
    "a parent's name": ([], [a_file("../x")]),
}


def made(top: Path, start: Start) -> None:
    modes = []
    for name, kind, value in start:
        path = top / name
        if kind == "file":
            path.write_text(value)
        elif kind == "folder":
            path.mkdir()
            modes.append((path, int(value, 8)))
        elif kind == "link":
            path.symlink_to(value)
        elif kind == "fifo":
            os.mkfifo(path)
    for path, mode in modes:
        path.chmod(mode)


def found(top: Path) -> dict[str, str]:
    paths = {}
    for path in top.rglob("*"):
        status = path.lstat()
        mode = oct(stat.S_IMODE(status.st_mode))
        if stat.S_ISLNK(status.st_mode):
            text = f"-> {path.readlink()}"
        elif stat.S_ISDIR(status.st_mode):
            text = f"folder {mode}"
        else:
            text = f"{path.read_text()} {status.st_nlink}" if stat.S_ISREG(status.st_mode) else "other"
        paths[str(path.relative_to(top))] = text
    return paths


@pytest.mark.skipif(shutil.which("tar") is None, reason="no tar here")
@pytest.mark.parametrize("case", CASES)
def test_as_gnu_tar(tmp_path: Path, case: str) -> None:
    """Members that cannot be extracted are skipped, the rest is extracted, and the extraction has failed."""
    start, members = CASES[case]
    packed = archive(*members)
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    for top in (theirs, ours):
        top.mkdir()
        made(top, start)
    ran = subprocess.run(["tar", "-xzf", "-", "-C", theirs], input=packed, capture_output=True, check=False)
    if b"GNU" not in subprocess.run(["tar", "--version"], capture_output=True, check=True).stdout:
        pytest.skip("this tar is not GNU's")
    try:
        extract(io.BytesIO(packed), str(ours))
        failed = False
    except (ArchiveRefused, OSError):
        failed = True
    assert failed == (ran.returncode != 0), ran.stderr
    assert found(ours) == found(theirs)
