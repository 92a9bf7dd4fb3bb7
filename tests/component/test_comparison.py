"""Two folders are equal only if every path of the workspace is in both, byte for byte."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from syncd.archive.comparison import compare
from syncd.scan.scanner import Scanner
from syncd.selection.selection import Selection, SelectionSettings


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace with one path of each kind."""
    workspace = tmp_path / "workspace"
    (workspace / "folder/empty").mkdir(parents=True)
    (workspace / "folder/file").write_bytes(b"x" * 300_000)
    (workspace / "run.sh").write_text("#!/bin/sh\n")
    (workspace / "run.sh").chmod(0o755)
    (workspace / "link").symlink_to("folder/file")
    (workspace / os.fsdecode(b"caf\xe9")).write_text("latin-1")
    return workspace


@pytest.fixture
def copy(workspace: Path, tmp_path: Path) -> Path:
    """A copy of the workspace."""
    return Path(shutil.copytree(workspace, tmp_path / "copy", symlinks=True))


def _compare(workspace: Path, copy: Path) -> tuple[list[str], list[str], list[str]]:
    manifest = Scanner(str(workspace), Selection(SelectionSettings())).scan().manifest
    found = compare(str(workspace), manifest, str(copy))
    assert found.equal == (not found.missing and not found.different)
    return found.missing, found.different, found.only_there


def test_a_copy_is_equal(workspace: Path, copy: Path) -> None:
    """Nothing is missing, different or only in the copy."""
    assert _compare(workspace, copy) == ([], [], [])


def test_times_do_not_count(workspace: Path, copy: Path) -> None:
    """A touched file is equal."""
    os.utime(copy / "run.sh", (0, 0))
    assert _compare(workspace, copy) == ([], [], [])


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda copy: (copy / "folder/file").write_bytes(b"x" * 299_999 + b"y"), "folder/file"),
        (lambda copy: (copy / "folder/file").write_bytes(b"x" * 299_999), "folder/file"),
        (lambda copy: (copy / "run.sh").chmod(0o644), "run.sh"),
        (lambda copy: ((copy / "link").unlink(), (copy / "link").symlink_to("run.sh")), "link"),
        (lambda copy: ((copy / "link").unlink(), shutil.copy(copy / "folder/file", copy / "link")), "link"),
        (lambda copy: ((copy / "folder/empty").rmdir(), (copy / "folder/empty").touch()), "folder/empty"),
    ],
    ids=["one byte", "shorter", "not executable", "another target", "a file for a link", "a file for a folder"],
)
def test_each_difference_is_found(workspace: Path, copy: Path, change: Callable[[Path], object], path: str) -> None:
    """Content, kind, target and the execute permission count."""
    change(copy)
    assert _compare(workspace, copy) == ([], [path], [])


def test_paths_on_one_side_only(workspace: Path, copy: Path) -> None:
    """A missing path makes the folders unequal; a path only in the copy does not, and is reported."""
    shutil.rmtree(copy / "folder")
    (copy / "more").mkdir()
    (copy / "more/file").touch()
    missing, different, only_there = _compare(workspace, copy)
    assert (missing, different) == (["folder", "folder/empty", "folder/file"], [])
    assert only_there == ["more", "more/file"]


def test_a_link_in_the_path_is_not_followed(workspace: Path, copy: Path, tmp_path: Path) -> None:
    """Files behind it count as missing, and a FIFO or a missing folder is not waited for."""
    shutil.move(copy / "folder", tmp_path / "elsewhere")
    (copy / "folder").symlink_to(tmp_path / "elsewhere")
    (copy / "run.sh").unlink()
    os.mkfifo(copy / "run.sh")
    missing, different, _ = _compare(workspace, copy)
    assert missing == ["folder/empty", "folder/file"]
    assert different == ["folder", "run.sh"]
    shutil.rmtree(copy)
    assert len(_compare(workspace, copy)[0]) == 6
