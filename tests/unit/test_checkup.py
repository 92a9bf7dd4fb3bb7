"""From which numbers on `syncd check` warns or fails, and what it ends with."""

from __future__ import annotations

import pytest

from syncd.policy.checkup import judge_clock, judge_size, judge_space, judge_watches, size
from syncd.policy.finding import Finding, Grade, exit_code

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
    assert judge_size(files, 1, content_bytes, 100).grade is grade


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
    """A disk with less room than the files themselves need is a warning; a full one is a failure."""
    assert judge_space("/spool", free_bytes, content_bytes).grade is grade


@pytest.mark.parametrize(
    ("directories", "watches", "grade"),
    [(75, 100, Grade.PASS), (76, 100, Grade.WARN), (10**6, None, Grade.PASS)],
)
def test_watches(directories: int, watches: int | None, grade: Grade) -> None:
    """More than three quarters of the user's watches is a warning, with the way to raise them."""
    finding = judge_watches(directories, watches, "raise it", 128)
    assert finding.grade is grade
    assert finding.remedy == ("raise it" if grade is Grade.WARN else "")


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
    """The gravest finding decides: what needs a person outweighs what may pass."""
    assert exit_code(Finding("it", grade, "is so") for grade in grades) == code


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [(1, "1 byte"), (9_999, "9,999 bytes"), (10_486, "10 KiB"), (3 << 30, "3,072.0 MiB"), (20 << 30, "20 GiB")],
)
def test_sizes(size_bytes: int, shown: str) -> None:
    """A size is shown in the unit that a person would use."""
    assert size(size_bytes) == shown
