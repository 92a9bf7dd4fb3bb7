"""The parts of `syncd check` that the command cannot show on this machine: its exit code, and the kernel's limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.cli.check import CHECKS, Checkup, Finding, Grade, exit_code, run, summary
from syncd.core.settings import check_config

PASS, NOTE, WARN, LATER, FAIL = Grade.PASS, Grade.NOTE, Grade.WARN, Grade.FAIL_FOR_NOW, Grade.FAIL


@pytest.mark.parametrize(
    ("grades", "code", "line"),
    [
        ([], 0, "all checks passed (0)"),
        ([PASS, PASS, NOTE], 0, "all checks passed (2)"),
        ([PASS, WARN, WARN], 0, "2 warnings, 1 passed"),
        ([PASS, LATER], 75, "1 failed, 1 passed"),
        ([FAIL, LATER, WARN], 78, "2 failed, 1 warning, 0 passed"),
    ],
)
def test_exit_code_and_summary(grades: list[Grade], code: int, line: str) -> None:
    """The worst finding decides: a failure that needs a person outweighs one that may end by itself."""
    findings = [Finding(grade, "is so") for grade in grades]
    assert (exit_code(findings), summary(findings)) == (code, line)


@pytest.mark.parametrize(
    ("watches", "grade", "words"),
    [(4, PASS, "3 watches needed, of 4"), (3, WARN, "need some too"), (None, PASS, "3 watches needed")],
)
def test_watches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watches: int | None, grade: Grade, words: str
) -> None:
    """Use of over three quarters of the user's watches is a warning with the way to raise the limit."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("syncd.cli.check.watch_limit", lambda: (watches, "raise it"))
    (tmp_path / "work/a/b").mkdir(parents=True)
    config = check_config({"workspace": {"path": str(tmp_path / "work")}, "sandbox": {"id": "box"}})
    checks = [check for check in CHECKS if check[0] in ("directory", "inotify")]
    finding = dict(run(Checkup(None, config), checks))["inotify"]
    assert (finding.grade, finding.remedy) == (grade, "raise it" if grade is WARN else "")
    assert words in finding.what
