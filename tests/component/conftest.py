"""Fixtures of several files, and of the tests in which processes are killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from syncd.merge.git import Git, find_git
from syncd.store.state_db import StateDb
from tests.component.crash_machine import KEY, Machine
from tests.component.forks import Forks, forks_of
from tests.emulator import Emulator


@pytest.fixture
def db(tmp_path: Path) -> Iterator[StateDb]:
    with closing(StateDb(str(tmp_path))) as db:
        yield db


@pytest.fixture
def git() -> Git:
    """Git with no one's settings but the repository's."""
    found = find_git({**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"})
    if found is None:
        pytest.skip("git is not installed")
    return found


@pytest.fixture
def memory_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory if possible, where a flush costs nothing."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else str(tmp_path)
    with TemporaryDirectory(dir=memory, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def worker() -> Iterator[Forks]:
    """The process of which each killed one is a fork."""
    with forks_of("tests.component.crash_worker") as forks:
        yield forks


@pytest.fixture
def machine(memory_folder: Path, worker: Forks) -> Iterator[Machine]:
    """A machine with an empty workspace."""
    with Emulator(memory_folder / "emulator", api_key=KEY) as emulator:
        yield Machine(memory_folder, emulator, worker)
