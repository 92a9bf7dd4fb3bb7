"""`syncd demo`: the tour shows what it says, a directory is only read, and nothing is left behind."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from tests.system.rig import Rig
from tests.system.trees import tree


@pytest.fixture
def bare(rig: Rig, tmp_path: Path) -> Rig:
    """A home without a configuration, and a folder for temporary files."""
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
    for title in ("What stays home", "Saved, but not changed"):
        assert "requests for it: none" in steps.pop(title)
    for title, text in steps.items():
        assert text.count("  equal: the sandbox holds all ") == 1, title
    assert "docs/plan.md" in steps["A rename"].partition("Left in the sandbox")[2]
    assert "src/tea/old.py" in steps["A deletion"].partition("Left in the sandbox")[2]
    assert "over 1 signed URL." in done.out.replace("\n   ", " ")
    # How long the name of the temporary folder is, the machine decides.
    assert max(map(len, done.out.replace(bare.environ["TMPDIR"], "/tmp").splitlines())) <= 80
    assert "\x1b" not in done.out
    assert done.seconds < 30
    _gone(bare)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_directory_until_interrupted(bare: Rig, number: signal.Signals) -> None:
    """Each change in the directory is shown to arrive; the directory is not changed; a signal ends it with 0."""
    bare.write("one.txt")
    bare.write(".env", "SECRET=1\n")
    demo = bare.background("demo", str(bare.workspace))
    bare.until(lambda: "equal: the sandbox holds the one file" in demo.out, "the first sync")
    bare.write("two.txt")
    before = tree(bare.workspace)
    bare.until(lambda: "equal: the sandbox holds all 2 files" in demo.out, "the second sync")
    assert demo.stop(number) == 0, demo.err
    assert ".env" in demo.out
    assert tree(bare.workspace) == before
    assert demo.out.endswith("stopped; nothing is left behind\n")
    assert demo.err == ""
    _gone(bare)


def test_the_tour_can_be_stopped(bare: Rig) -> None:
    """Interrupted in the middle, it ends with 0 and leaves no process and no file."""
    demo = bare.background("demo")
    bare.until(lambda: "4. A burst" in demo.out, "the fourth step")
    assert demo.stop(signal.SIGINT) == 0, demo.err
    assert "10. " not in demo.out
    _gone(bare)


@pytest.mark.parametrize(
    ("directory", "code", "words"),
    [
        ("~", 78, "is the home directory itself"),
        ("holds-scratch", 78, "set TMPDIR"),
        ("missing", 2, "does not exist"),
    ],
)
def test_a_directory_that_cannot_be_watched(bare: Rig, directory: str, code: int, words: str) -> None:
    """The home directory, one that holds the demo's own files, and a missing one are refused in one line."""
    holder = bare.home / "holds-scratch"
    (holder / "scratch").mkdir(parents=True)
    bare.environ["TMPDIR"] = str(holder / "scratch")
    done = bare.run("demo", str(bare.home) if directory == "~" else directory)
    assert done.code == code
    assert words in done.err
    _gone(bare)


def _steps(out: str) -> dict[str, str]:
    """Return each step's title and output."""
    pieces = re.split(r"^\d+\. (.*)\n", out.partition("\nDone in ")[0], flags=re.MULTILINE)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


def _uploads(text: str) -> int:
    return len(re.findall(r" s  upload ", text))


def _gone(rig: Rig) -> None:
    """Check that no temporary file is left, and no process that uses one."""
    scratch = rig.environ["TMPDIR"]
    assert os.listdir(scratch) == []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes()
        except OSError:  # it ended meanwhile
            continue
        assert os.fsencode(scratch) not in arguments, arguments
