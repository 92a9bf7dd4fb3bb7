"""The real daemon finds hidden changes: directories with a reused inode number, mappings, unlinked open files."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import BinaryIO

import pytest

from tests.inodes import recreate
from tests.system.rig import Rig

# A file's stamp is trusted from two seconds after its last write on.
BELIEVED_S = 2.5
_TRIES = 5


def _is_object(path: str) -> bool:
    return path.endswith(".o")


def test_a_clean_build(rig: Rig) -> None:
    """`rm -rf build; mkdir build; touch build/x` within the quiet period, and later changes in it."""
    build = rig.workspace / "build"

    def prepare() -> None:
        # What goes with it brings no event that names it, being ignored.
        rig.write("build/old.o")
        rig.converged(_is_object)
        rig.in_state("watching")

    build.mkdir()
    rig.write(".gitignore", "*.o\n")
    rig.up()
    recreate(build, prepare)
    rig.write("build/x")
    rig.converged(_is_object)
    for path in ("build/y", "build/sub/z"):
        rig.write(path)
        rig.ok("flush")
        rig.converged(_is_object, timeout_s=0.5)


def test_a_mapping_that_is_closed(rig: Rig) -> None:
    """The last write to it changed no time; the close event reports it."""
    rig.configure({"sync.debounce_seconds": BELIEVED_S})
    path = rig.workspace / "f"
    path.write_bytes(b"0" * 100)
    rig.up()
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        os.fsync(file.fileno())
        for number in range(_TRIES):
            # Every write in one quiet time: the sync reads the file when its times are old enough to be trusted.
            memory[0:4] = b"%04d" % (2 * number)
            rig.write("other", str(number))
            rig.converged()
            before = path.stat()
            memory[0:4] = b"%04d" % (2 * number + 1)
            if path.stat().st_ctime_ns == before.st_ctime_ns:
                break  # else someone had the disk's caches written, and the times moved
        else:
            pytest.fail("a mapping's second write always moved the times")
    rig.converged()


def rotated(log: Path) -> BinaryIO:
    """A log renamed by `ln` and `rm`, and still written."""
    file = open(log, "wb", buffering=0)  # noqa: SIM115 - for the test to close
    os.link(log, log.with_name("log.1"))
    log.unlink()
    return file


def test_writes_to_an_unlinked_file(rig: Rig) -> None:
    """`flush` sends them."""
    rig.write("other")
    rig.up()
    with rotated(rig.workspace / "log") as file:
        rig.converged()
        rig.in_state("watching")
        file.write(b"more")
        rig.ok("flush")
        rig.converged(timeout_s=0.5)
