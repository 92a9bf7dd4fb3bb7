"""`syncd demo`: the tour shows what it claims, a directory is only read, and nothing is left behind."""

from __future__ import annotations

import os
import random
import re
import signal
from pathlib import Path

import pytest

from tests.system.rig import Rig
from tests.system.trees import tree

EQUAL = "  equal: the sandbox holds the workspace's "


@pytest.fixture
def bare(rig: Rig, tmp_path: Path) -> Rig:
    """A home without any configuration, and a folder for temporary files that shows what was left in it."""
    rig.config_file.unlink()
    rig.key_file.unlink()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    rig.environ["TMPDIR"] = str(scratch)
    return rig


def test_the_tour(bare: Rig) -> None:
    """Each step ends as it says, the lines fit a terminal, and nothing is left at the end."""
    done = bare.ok("demo")
    steps = _steps(done.out)
    assert len(steps) == 10
    assert _uploads(steps["A burst"]) == 1
    assert _uploads(steps["The network fails"]) == 4
    assert steps["The network fails"].count("the network fails") == 3
    assert "requests for it: none" in steps.pop("Nothing to send")
    assert steps["The daemon starts"].count(EQUAL) == 2
    assert _uploads(steps["The daemon starts"]) == 2
    two = steps.pop("Two agents")
    assert EQUAL in two
    assert re.search(r"diff --all --stat .*\n +main +blue\n +! src/tea/brew.py +modified +modified\n", two)
    assert '  -MINUTES = {"green": 2, "black": 5}\n             +MINUTES = {"green": 2, "black": 3}\n' in two
    assert "syncd apply --undo\n             undone    src/tea/brew.py\n" in two
    assert two.endswith('src/tea/brew.py, here:\n             MINUTES = {"green": 2, "black": 3}\n')
    for title, text in list(steps.items())[1:]:
        assert text.count(EQUAL) == 1, title
    assert "deleted path" not in done.out
    merged = steps["The agent writes too"]
    assert "  -Two minutes, not boiling.\n             +Three minutes, not boiling.\n" in merged
    assert "  1 merged, 1 in conflict\n" in merged
    assert "conflict  src/tea/brew.py: both sides changed the same lines" in merged
    assert "syncd resolve src/tea/brew.py --mine\n             mine      src/tea/brew.py\n" in merged
    assert "Three minutes, not boiling.\n             Pour slowly.\n             Two pinches of patience.\n" in merged
    committed = steps["The agent commits"]
    assert "git status, in the sandbox\n             ## main\n" in committed
    assert re.search(r"syncd log\n +[0-9a-f]{10} .* Add sugar \(1 path\)\n", committed)
    assert re.search(r"git log --oneline tea, here\n +[0-9a-f]+ Add sugar\n", committed)
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
    bare.until(lambda: "equal: the sandbox holds the workspace's 1 file" in demo.out, "the first sync")
    bare.write("two.txt")
    before = tree(bare.workspace)
    bare.until(lambda: "equal: the sandbox holds the workspace's 2 files" in demo.out, "the second sync")
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
    assert len(_steps(done.out)) == 7
    assert "git is not on this machine" in done.out
    _assert_nothing_left(bare)


def test_the_tour_can_be_stopped(bare: Rig) -> None:
    """Interrupted in the middle, it ends with 0 and leaves no process and no file."""
    demo = bare.background("demo")
    bare.until(lambda: "3. A burst" in demo.out, "the third step")
    assert demo.stop(signal.SIGINT) == 0, demo.err
    assert "8. " not in demo.out
    _assert_nothing_left(bare)


@pytest.mark.parametrize(
    ("directory", "code", "words"),
    [
        ("~", 78, "is the home directory itself"),
        ("holds-scratch", 78, "set TMPDIR"),
        ("missing", 2, "does not exist"),
    ],
)
def test_a_directory_that_cannot_be_watched(bare: Rig, directory: str, code: int, words: str) -> None:
    """The home directory, one that holds the demo's own folder, and a missing one are refused in a line."""
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
    scratch = rig.environ["TMPDIR"]
    assert os.listdir(scratch) == []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes()
        except OSError:  # it ended meanwhile
            continue
        assert os.fsencode(scratch) not in arguments, arguments
