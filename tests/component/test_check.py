"""The part of `syncd check` that the command cannot show on this machine: the kernel's limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.cli.check import CHECKS, Checkup, Grade, run
from syncd.core.settings import check_config

PASS, WARN = Grade.PASS, Grade.WARN


@pytest.mark.parametrize(
    ("watches", "grade", "words"),
    [(4, PASS, "3 folders to watch, of 4"), (3, WARN, "need some too"), (None, PASS, "3 folders to watch")],
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
    *_, finding = run(Checkup(config), checks)
    assert (finding.grade, finding.remedy) == (grade, "raise it" if grade is WARN else "")
    assert words in finding.what
