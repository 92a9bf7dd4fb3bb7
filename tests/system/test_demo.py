"""`syncd demo`: the sample shows what it claims, a directory is only read, and nothing is left behind."""

from __future__ import annotations

import os
import random
import re
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from tests.system.rig import Rig
from tests.system.trees import tree


@pytest.fixture
def bare(rig: Rig, tmp_path: Path) -> Rig:
    """A home without any configuration, and a folder for temporary files that shows what was left in it."""
    rig.bare()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    rig.environ["TMPDIR"] = str(scratch)
    return rig


def test_the_sample(bare: Rig) -> None:
    """Each step ends as it says; nothing is left at the end."""
    done = bare.ok("demo")
    start, setup, edit, agent = re.split(r"^\d\. .*\n", done.out, flags=re.MULTILINE)[1:]
    assert "\n$ syncd ls --excluded\n.env\tsecrets: .env\nbuild/\t.gitignore:1: build/\n" in start
    assert " synced 4 files, " in start
    assert "\nbuild/brew is made\n" in setup
    assert " 1 changed path (brew.py)\n" in edit
    assert "\n$ syncd diff --stat\n README.md | 1 +\n sugar.py  | 1 +\n" in agent
    assert "\n$ syncd apply --yes\napply     README.md\napply     sugar.py (new)\n" in agent
    assert "\n2 applied\n" in agent
    assert "\n0 missing, 0 different, 2 only there\n" in agent
    assert "\nDone\n" in agent
    assert "\x1b" not in done.out
    _assert_nothing_left(bare)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_directory_until_interrupted(bare: Rig, number: signal.Signals) -> None:
    """Each change in the directory is seen to arrive; secrets are left out; the directory is not touched."""
    bare.write("one.txt")
    bare.write(".env", "SECRET=1\n")
    bare.write("key.txt", f"x = 'sk_live_{''.join(random.Random(3).choices('ABCDEFGHJKabcdefghjk23456789', k=24))}'\n")
    demo = bare.background("demo", str(bare.workspace))
    bare.until(lambda: " synced 1 file, " in demo.out, "the first sync")
    bare.write("two.txt")
    before = tree(bare.workspace)
    bare.until(lambda: " synced 2 files, " in demo.out, "the second sync")
    assert demo.stop(number) == 0, demo.err
    assert re.search(r"^\.env\tsecrets.*\nkey\.txt\t", demo.out, re.MULTILINE)
    assert tree(bare.workspace) == before
    assert demo.out.endswith("stopped; nothing is left behind\n")
    _assert_nothing_left(bare)


def test_the_sample_can_be_stopped(bare: Rig) -> None:
    """Interrupted in the middle, it ends with 0 and leaves no process and no file; without git it is the same."""
    programs = bare.home / "bin"
    programs.mkdir()
    bare.environ["PATH"] = str(programs)
    demo = bare.background("demo")
    bare.until(lambda: "diff --stat" in demo.out, "the third step")
    assert demo.stop(signal.SIGINT) == 0, demo.err
    assert "Done" not in demo.out
    _assert_nothing_left(bare)


def test_a_demo_that_is_killed(bare: Rig) -> None:
    """Its daemon ends, too. The sandbox's path was shown in one piece. One that nobody reads leaves nothing behind."""
    prefix = ("sh", "-c", 'exec "$@" >/dev/full', "sh")
    assert bare.run("demo", str(bare.workspace), prefix=prefix).code == 75
    _assert_nothing_left(bare)
    demo = bare.background("demo", str(bare.workspace))
    bare.until(lambda: " info " in demo.out, "the daemon's first line")
    assert re.search(rf"{bare.environ['TMPDIR']}/syncd-demo-\w+/cloud/sandboxes/demo/workspace\n", demo.out)
    demo.kill()
    bare.until(lambda: not _processes(bare), "the daemon's end")


@pytest.mark.parametrize(
    ("directory", "code", "words"),
    [
        ("~", 78, "is the home directory itself"),
        ("holds-scratch", 78, "set TMPDIR"),
        ("missing", 2, "does not exist"),
        (os.fsdecode(b"\xff"), 78, "must be valid UTF-8"),
    ],
)
def test_a_directory_that_cannot_be_watched(bare: Rig, directory: str, code: int, words: str) -> None:
    """The home directory, one that holds the demo's own folder, a missing one, and one whose name no file can hold."""
    (bare.home / os.fsdecode(b"\xff")).mkdir()
    holder = bare.home / "holds-scratch"
    (holder / "scratch").mkdir(parents=True)
    bare.environ["TMPDIR"] = str(holder / "scratch")
    done = bare.run("demo", str(bare.home) if directory == "~" else directory)
    assert done.code == code
    assert words in done.err
    assert "syncd config edit" not in done.err  # there is no configuration of the person's
    _assert_nothing_left(bare)


def _assert_nothing_left(rig: Rig) -> None:
    """Check that no temporary file is left, and no process that uses one."""
    assert os.listdir(rig.environ["TMPDIR"]) == []
    assert _processes(rig) == []


def _processes(rig: Rig) -> list[bytes]:
    """Return the arguments of each process that names the folder for temporary files."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            found.append((process / "cmdline").read_bytes())
    return [each for each in found if os.fsencode(rig.environ["TMPDIR"]) in each]
