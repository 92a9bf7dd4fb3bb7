"""The tests' agent edits a sandbox's workspace as it is told, so that syncd's tests can rely on it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.agent import Agent

STRANGE = b"caf\xe9\n"


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    """An agent of an empty workspace."""
    return Agent(tmp_path)


@pytest.mark.parametrize("path", ["a", "d/e/a", os.fsdecode(STRANGE), STRANGE, b"d/" + STRANGE])
def test_names(agent: Agent, tmp_path: Path, path: str | bytes) -> None:
    """Every name works, in bytes and as text, and directories are made."""
    agent.write(path, "text")
    assert (tmp_path / os.fsdecode(path)).read_text() == "text"
    assert agent.read(path) == b"text"
    agent.rename(path, b"x/" + STRANGE)
    assert not agent.exists(path)
    agent.delete(b"x/" + STRANGE)
    assert list((tmp_path / "x").iterdir()) == []


def test_a_write_is_seen_by_its_mtime(agent: Agent, tmp_path: Path) -> None:
    """Each write's mtime is later by a second at least, however fast one follows the other."""
    times = []
    for _ in range(3):
        agent.write("a", b"1")
        times.append(int((tmp_path / "a").stat().st_mtime))
    assert times[0] < times[1] < times[2]


def test_a_write_with_the_old_mtime(agent: Agent, tmp_path: Path) -> None:
    """A file is changed while size, mtime and inode stay."""
    agent.write("a", b"one", mode=0o640)
    before = (tmp_path / "a").stat()
    agent.write_with_old_mtime("a", b"two")
    after = (tmp_path / "a").stat()
    assert agent.read("a") == b"two"
    same = ("st_mtime_ns", "st_size", "st_ino", "st_mode")
    assert [getattr(after, name) for name in same] == [getattr(before, name) for name in same]
    assert after.st_mode & 0o777 == 0o640


def test_kinds(agent: Agent, tmp_path: Path) -> None:
    """Modes, directories, links and FIFOs; each replaces what is there, and no write goes through a link or a FIFO."""
    agent.mkdir("d/e")
    agent.write("d/e/f", b"1")
    agent.write("d/f", b"1")
    agent.chmod("d/f", 0o755)
    assert (tmp_path / "d/f").stat().st_mode & 0o777 == 0o755
    agent.symlink("l", "d/f")
    agent.write("l", b"2")
    assert (agent.read("l"), agent.read("d/f"), (tmp_path / "l").is_symlink()) == (b"2", b"1", False)
    agent.symlink("d", b"/nowhere")
    assert os.readlink(tmp_path / "d") == "/nowhere"
    assert agent.exists("d")
    agent.fifo("d")
    assert stat.S_ISFIFO((tmp_path / "d").lstat().st_mode)
    agent.write("d", b"3")
    assert agent.read("d") == b"3"
    agent.rename("d", "l")
    assert agent.read("l") == b"3"
    agent.delete("l")
    agent.mkdir("d/e")
    agent.delete("d")
    assert list(tmp_path.iterdir()) == []
