"""`syncd demo`: the tour shows what it claims, a directory is only read, and nothing is left behind."""

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

EQUAL = " s  syncd verify: equal: "


@pytest.fixture
def bare(rig: Rig, tmp_path: Path) -> Rig:
    """A home without any configuration, and a folder for temporary files that shows what was left in it."""
    rig.config_file.unlink()
    rig.key_file.unlink()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    rig.environ["TMPDIR"] = str(scratch)
    return rig


@pytest.mark.timeout(300)  # of 20 s on an idle machine
def test_the_tour(bare: Rig) -> None:
    """Each step ends as it says, the lines fit a terminal, and nothing is left at the end."""
    done = bare.ok("demo")
    steps = _steps(done.out)
    assert len(steps) == 7
    assert re.search(r"but for:\n.*\n +\.env +secrets: \.env\n +build/ +\.gitignore:1", done.out)
    # On a busy machine a pause between two edits may be long enough for a sync of its own.
    sent = [(_uploads(text), text.count(EQUAL)) for text in list(steps.values())[:6]]
    assert [(uploads > 0, equal > 0) for uploads, equal in sent] == [(number != 2, number != 2) for number in range(6)]
    failing = steps["The network fails, and the daemon is killed"]
    assert _uploads(failing) >= 4
    assert failing.count("the network fails") == 2
    two = steps["Two agents"]
    assert EQUAL in two.partition("diff --all")[0]
    assert re.search(r"diff --all --stat .*\n +main +blue\n +! src/tea/brew.py +modified +modified\n", two)
    assert '  -MINUTES = {"green": 2, "black": 5}\n             +MINUTES = {"green": 2, "black": 3}\n' in two
    assert "syncd apply --undo\n             undone    src/tea/brew.py\n" in two
    assert two.endswith(
        "syncd apply --sandbox blue src/tea/brew.py\n             take      src/tea/brew.py\n             1 taken\n"
    )
    merged = steps["The agent writes too"]
    assert "  -Two minutes, not boiling.\n             +Three minutes, not boiling.\n" in merged
    assert "  1 merged, 1 in conflict\n" in merged
    assert "conflict  src/tea/brew.py: both sides changed the same lines" in merged
    assert "syncd resolve src/tea/brew.py --mine\n             mine      src/tea/brew.py\n" in merged
    committed = steps["The agent commits"]
    assert re.search(r"syncd log\n +[0-9a-f]{10} .* Add sugar \(1 path\)\n", committed)
    assert re.search(r"\n +commit    [0-9a-f]{10} Add sugar\n +branch tea: ", committed)
    assert re.search(r"\nDone: \d+ uploads over 2 signed URLs\n", done.out)
    # The temporary folder's name may be longer than a terminal is wide.
    assert max(map(len, done.out.replace(bare.environ["TMPDIR"], "/tmp").splitlines())) <= 80
    assert "\x1b" not in done.out
    _assert_nothing_left(bare)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_directory_until_interrupted(bare: Rig, number: signal.Signals) -> None:
    """Each change in the directory is seen to arrive; secrets are left out; the directory is not touched."""
    bare.write("one.txt")
    bare.write(".env", "SECRET=1\n")
    bare.write("key.txt", f"x = 'sk_live_{''.join(random.Random(3).choices('ABCDEFGHJKabcdefghjk23456789', k=24))}'\n")
    demo = bare.background("demo", str(bare.workspace))
    bare.until(lambda: "verify: equal: 1 path " in demo.out, "the first sync")
    bare.write("two.txt")
    before = tree(bare.workspace)
    bare.until(lambda: "verify: equal: 2 paths " in demo.out, "the second sync")
    assert demo.stop(number) == 0, demo.err
    assert re.search(r"^ +\.env +secrets.*\n +key\.txt ", demo.out, re.MULTILINE)
    assert tree(bare.workspace) == before
    assert "`syncd diff`" in demo.out
    assert demo.out.endswith("stopped; nothing is left behind\n")
    assert demo.err == ""
    _assert_nothing_left(bare)


def test_the_tour_without_git(bare: Rig) -> None:
    """The step that needs it is left out, which is said; the others are as ever."""
    programs = bare.home / "bin"
    programs.mkdir()
    bare.environ["PATH"] = str(programs)
    done = bare.ok("demo")
    assert len(_steps(done.out)) == 4
    assert "git is not on this machine" in done.out
    _assert_nothing_left(bare)


def test_the_tour_can_be_stopped(bare: Rig) -> None:
    """Interrupted in the middle, it ends with 0 and leaves no process and no file."""
    demo = bare.background("demo")
    bare.until(lambda: "3. Nothing" in demo.out, "the third step")
    assert demo.stop(signal.SIGINT) == 0, demo.err
    assert "6. " not in demo.out
    _assert_nothing_left(bare)


def test_a_demo_that_is_killed(bare: Rig) -> None:
    """Its daemon ends, too. The sandbox's path was shown in one piece."""
    demo = bare.background("demo", str(bare.workspace))
    bare.until(lambda: " info " in demo.out, "the daemon's first line")
    assert re.search(rf"{bare.environ['TMPDIR']}/syncd-demo-\w+/cloud/sandboxes/demo/workspace\.", demo.out)
    demo.kill()
    bare.until(lambda: not _processes(bare), "the daemon's end")


def test_a_demo_that_nobody_reads(bare: Rig) -> None:
    """It ends, and leaves nothing behind."""
    prefix = ("sh", "-c", 'exec "$@" >/dev/full', "sh")
    assert bare.run("demo", str(bare.workspace), prefix=prefix).code == 75
    _assert_nothing_left(bare)


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
    _assert_nothing_left(bare)


def _steps(out: str) -> dict[str, str]:
    """Return each step's title and output."""
    pieces = re.split(r"^\d+\. (.*)\n", out.partition("\nDone: ")[0], flags=re.MULTILINE)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


def _uploads(text: str) -> int:
    return len(re.findall(r" s  upload ", text))


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
