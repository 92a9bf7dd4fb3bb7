"""The limits at which `syncd check` warns or fails, its exit code and its summary."""

from __future__ import annotations

import pytest

from syncd.cli.check.finding import Finding, Grade, exit_code, summary
from syncd.cli.check.largest_paths import PathSize
from syncd.cli.check.thresholds import (
    LookAttempt,
    judge_clock,
    judge_end,
    judge_heaviest,
    judge_key,
    judge_look,
    judge_private,
    judge_secrets,
    judge_size,
    judge_space,
    judge_state_space,
    judge_versions,
    judge_watches,
    size,
)
from syncd.core.choices import AgentChanges

_MIB = 1 << 20


@pytest.mark.parametrize(
    ("skew_s", "grade", "words"),
    [
        (None, Grade.NOTE, "not compared"),
        (0.9, Grade.PASS, "agrees"),
        (-1.9, Grade.PASS, "agrees"),
        (59.9, Grade.PASS, "60 s ahead of"),
        (-59.9, Grade.PASS, "60 s behind"),
        (60.0, Grade.WARN, "60 s ahead of"),
        (-86_400.0, Grade.WARN, "86,400 s behind"),
    ],
)
def test_clock(skew_s: float | None, grade: Grade, words: str) -> None:
    """A clock that is off by a minute or more is a warning, never a failure."""
    finding = judge_clock(skew_s)
    assert finding.grade is grade
    assert words in finding.what
    assert bool(finding.remedy) == (grade is Grade.WARN)


@pytest.mark.parametrize(
    ("files", "content_bytes", "grade"),
    [(0, 0, Grade.WARN), (1, 0, Grade.PASS), (9, 80 * _MIB, Grade.PASS), (9, 80 * _MIB + 1, Grade.WARN)],
)
def test_size(files: int, content_bytes: int, grade: Grade) -> None:
    """An empty workspace, and one that is near its limit, is a warning."""
    assert judge_size(files, 1, content_bytes, 100, "shrink it").grade is grade


@pytest.mark.parametrize(
    ("free_bytes", "content_bytes", "grade"),
    [
        (_MIB - 1, 0, Grade.FAIL),
        (_MIB, 0, Grade.PASS),
        (50 * _MIB, 50 * _MIB, Grade.PASS),
        (50 * _MIB, 50 * _MIB + 1, Grade.WARN),
    ],
)
def test_space(free_bytes: int, content_bytes: int, grade: Grade) -> None:
    """A disk with less space than the files need is a warning; a full one is a failure."""
    assert judge_space("/spool", free_bytes, content_bytes).grade is grade


@pytest.mark.parametrize(("free_bytes", "grade"), [((1 << 20) - 1, Grade.FAIL), (1 << 20, Grade.PASS)])
def test_space_for_the_state(free_bytes: int, grade: Grade) -> None:
    """On a full disk nothing that was synced can be recorded."""
    finding = judge_state_space("/state exists", free_bytes)
    assert (finding.grade, "XDG_STATE_HOME" in finding.remedy) == (grade, grade is Grade.FAIL)


@pytest.mark.parametrize(
    ("directories", "watches", "grade", "words"),
    [
        (75, 100, Grade.PASS, "75 of 100 watches"),
        (76, 100, Grade.WARN, "need some too"),
        (101, 100, Grade.WARN, "too many"),
        (10**6, None, Grade.PASS, "1,000,000 watches"),
    ],
)
def test_watches(directories: int, watches: int | None, grade: Grade, words: str) -> None:
    """Use of over three quarters of the user's watches is a warning with the way to raise the limit."""
    finding = judge_watches(directories, watches, "raise it", 128)
    assert finding.grade is grade
    assert words in finding.what
    assert finding.remedy == ("raise it" if grade is Grade.WARN else "")


def test_heaviest() -> None:
    """Each of the largest paths is one line with share, size, and the ignore pattern."""
    finding = judge_heaviest([PathSize("data/[raw]", True, 30 * _MIB, 0.75), PathSize("b.bin", False, 4 * _MIB, 0.1)])
    assert finding.grade is Grade.NOTE
    assert "85%" in finding.what
    assert [detail.split() for detail in finding.details] == [
        ["75%", "30.0", "MiB", r"/data/\[raw]/"],
        ["10%", "4,096", "KiB", "/b.bin"],
    ]
    assert ".syncdignore" in finding.remedy


def test_secrets() -> None:
    """None passes, those by name are a note, one by content is a warning and comes first; many are counted."""
    assert judge_secrets([], []).grade is Grade.PASS
    by_name = judge_secrets([".env: named like .env"], [])
    assert (by_name.grade, by_name.what, by_name.remedy) == (Grade.NOTE, "1 path held back: 1 by name", "")
    many = judge_secrets([f"{n}.pem" for n in range(7)], ["a.py holds a key in line 2"])
    assert (many.grade, many.what) == (Grade.WARN, "8 paths held back: 1 by content, 7 by name")
    assert many.details[0] == "a.py holds a key in line 2"
    assert (len(many.details), many.details[-1]) == (6, "and 3 more: syncd ls --ignored")


@pytest.mark.parametrize(
    ("ends_in_s", "words"), [(None, "no end"), (4320.0, "1 h 12 min more; the next one"), (-1.0, "it has ended;")]
)
def test_the_end_of_a_sandbox(ends_in_s: float | None, words: str) -> None:
    """An acquired sandbox is followed by the next one, so its end is never a warning."""
    finding = judge_end(ends_in_s)
    assert finding.grade is Grade.PASS
    assert words in finding.what


@pytest.mark.parametrize(
    ("key", "grade"),
    [("abc", Grade.PASS), ("ab=c", Grade.PASS), ('"abc"', Grade.WARN), ("KLAVIS_API_KEY=abc", Grade.WARN)],
)
def test_characters_around_a_key(key: str, grade: Grade) -> None:
    """Quotes and assignments around a key are a warning that does not show the key."""
    finding = judge_key(key, "found in a file")
    assert finding.grade is grade
    assert "abc" not in finding.what


@pytest.mark.parametrize(
    ("mode", "forbidden", "remedy"),
    [
        (0o700, 0o077, None),
        (0o755, 0o022, None),
        (0o775, 0o022, "chmod go-w '/a b'"),
        (0o750, 0o077, "chmod go-rwx '/a b'"),
    ],
)
def test_rights_of_others(mode: int, forbidden: int, remedy: str | None) -> None:
    """File permissions for others are a warning with the command that removes them."""
    finding = judge_private("state", "/a b", mode, forbidden=forbidden, harm="is bad")
    assert (finding.remedy if finding else None) == remedy


def test_versions() -> None:
    """A daemon of another version is a warning that says how to restart it; an unknown version is not."""
    assert judge_versions(None, "2.0") is None
    assert judge_versions("2.0", "2.0") is None
    finding = judge_versions("1.0", "2.0")
    assert finding is not None
    assert "restart" in finding.remedy


@pytest.mark.parametrize(
    ("grades", "line"),
    [
        ([Grade.PASS, Grade.PASS, Grade.NOTE], "all checks passed (2)"),
        ([Grade.PASS, Grade.WARN, Grade.WARN], "2 warnings, 1 passed"),
        ([Grade.FAIL, Grade.FAIL_FOR_NOW, Grade.WARN], "2 failed, 1 warning, 0 passed"),
    ],
)
def test_summary(grades: list[Grade], line: str) -> None:
    """The last line counts the findings, failures first."""
    assert summary(Finding("it", grade, "is so") for grade in grades) == line


@pytest.mark.parametrize(
    ("grades", "code"),
    [
        ([], 0),
        ([Grade.PASS, Grade.NOTE, Grade.WARN], 0),
        ([Grade.PASS, Grade.FAIL_FOR_NOW], 75),
        ([Grade.FAIL, Grade.FAIL_FOR_NOW, Grade.PASS], 78),
    ],
)
def test_exit_code(grades: list[Grade], code: int) -> None:
    """The worst finding decides: a failure that needs a person outweighs one that may end by itself."""
    assert exit_code(Finding("it", grade, "is so") for grade in grades) == code


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [(1, "1 byte"), (9_999, "9,999 bytes"), (10_486, "10 KiB"), (3 << 30, "3,072.0 MiB"), (20 << 30, "20 GiB")],
)
def test_sizes(size_bytes: int, shown: str) -> None:
    """A size is shown in a readable unit."""
    assert size(size_bytes) == shown


@pytest.mark.parametrize(
    ("program", "archive", "save", "hold", "words"),
    [
        ("", "", Grade.PASS, Grade.PASS, "in 1.25 s"),
        ("", "no archive", Grade.PASS, Grade.PASS, "in 1.25 s"),
        (
            "no program",
            "",
            Grade.NOTE,
            Grade.NOTE,
            "each look takes the whole archive, which took 2.50 s",
        ),
        ("no program", "no archive", Grade.WARN, Grade.FAIL_FOR_NOW, "a program (no program) nor"),
    ],
)
def test_look(program: str, archive: str, save: Grade, hold: Grade, words: str) -> None:
    """A slow way is a note; none at all is a warning where syncs go on, and a failure where they do not."""
    for agent_changes, grade in ((AgentChanges.SAVE, save), (AgentChanges.HOLD, hold)):
        finding = judge_look(agent_changes, LookAttempt(1.25, program), LookAttempt(2.5, archive))
        assert finding.grade is grade
        assert words in finding.what
        assert bool(finding.remedy) == bool(program and archive)
