"""The part of `syncd check` that the command cannot show on this machine: the kernel's limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.cli.check import CHECKS, Checkup, Grade, findings, run
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


def test_a_long_failure_is_cut_and_says_so(tmp_path: Path) -> None:
    """What a configuration says has any length and any characters; a finding is one line."""
    file = tmp_path / "config.toml"
    file.write_text(f'[workspace]\npath = "{tmp_path}"\n[sandbox]\n"\\u001b{"k" * 5000}" = 1\n')
    (finding,) = findings(str(file))
    assert (finding.subject, finding.grade) == ("configuration", Grade.FAIL)
    assert finding.what.isprintable()
    assert (len(finding.what), finding.what[-1]) == (1000, "…")
