"""Two folders compare as equal only if every path of the workspace is in the other, byte for byte."""

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
def here(tmp_path: Path) -> Path:
    """Return a workspace with one entry of each kind."""
    here = tmp_path / "here"
    (here / "folder/empty").mkdir(parents=True)
    (here / "folder/file").write_bytes(b"x" * 300_000)
    (here / "run.sh").write_text("#!/bin/sh\n")
    (here / "run.sh").chmod(0o755)
    (here / "link").symlink_to("folder/file")
    (here / os.fsdecode(b"caf\xe9")).write_text("latin-1")
    return here


@pytest.fixture
def there(here: Path, tmp_path: Path) -> Path:
    """Return a copy of it."""
    return Path(shutil.copytree(here, tmp_path / "there", symlinks=True))


def _compare(here: Path, there: Path) -> tuple[list[str], list[str], list[str]]:
    manifest = Scanner(str(here), Selection(SelectionSettings())).scan().manifest
    found = compare(str(here), manifest, str(there))
    assert found.equal == (not found.missing and not found.different)
    return found.missing, found.different, found.only_there


def test_a_copy_is_equal(here: Path, there: Path) -> None:
    """Nothing is missing, different or extra."""
    assert _compare(here, there) == ([], [], [])


def test_times_do_not_count(here: Path, there: Path) -> None:
    """A touched file is equal."""
    os.utime(there / "run.sh", (0, 0))
    assert _compare(here, there) == ([], [], [])


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda there: (there / "folder/file").write_bytes(b"x" * 299_999 + b"y"), "folder/file"),
        (lambda there: (there / "folder/file").write_bytes(b"x" * 299_999), "folder/file"),
        (lambda there: (there / "run.sh").chmod(0o644), "run.sh"),
        (lambda there: ((there / "link").unlink(), (there / "link").symlink_to("run.sh")), "link"),
        (lambda there: ((there / "link").unlink(), shutil.copy(there / "folder/file", there / "link")), "link"),
        (lambda there: ((there / "folder/empty").rmdir(), (there / "folder/empty").touch()), "folder/empty"),
    ],
    ids=["one byte", "shorter", "not executable", "another target", "a file for a link", "a file for a folder"],
)
def test_each_difference_is_seen(here: Path, there: Path, change: Callable[[Path], object], path: str) -> None:
    """Content, kind, target and the executable bit count."""
    change(there)
    assert _compare(here, there) == ([], [path], [])


def test_what_is_on_one_side_only(here: Path, there: Path) -> None:
    """A missing path is a difference; an extra one is not, and is listed."""
    shutil.rmtree(there / "folder")
    (there / "more").mkdir()
    (there / "more/file").touch()
    missing, different, only_there = _compare(here, there)
    assert (missing, different) == (["folder", "folder/empty", "folder/file"], [])
    assert only_there == ["more", "more/file"]


def test_a_link_on_the_way_leads_nowhere(here: Path, there: Path, tmp_path: Path) -> None:
    """Links on the way are not followed, and a FIFO or a missing folder is not waited for."""
    shutil.move(there / "folder", tmp_path / "elsewhere")
    (there / "folder").symlink_to(tmp_path / "elsewhere")
    (there / "run.sh").unlink()
    os.mkfifo(there / "run.sh")
    missing, different, _ = _compare(here, there)
    assert missing == ["folder/empty", "folder/file"]
    assert different == ["folder", "run.sh"]
    shutil.rmtree(there)
    assert len(_compare(here, there)[0]) == 6
