"""`explain` gives the scan's decision for each path; ignore files are read as git reads them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from syncd.core.errors import WorkspaceError
from syncd.scan.exclusions import Explanation, explain
from syncd.scan.scanner import Scanner
from syncd.selection.selection import Selection
from tests.component.git_folder import make_repository

SELECTION = Selection(ignore=("*.tmp",))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A tree with every reason to exclude a path."""
    top = tmp_path / "work"
    for path in (
        "a.txt",
        "b.tmp",
        ".env",
        "node_modules/m/index.js",
        "d/keep.log",
        "d/drop.log",
        "d/e/drop.log",
        "d/build/out/x",
        "x\n\udcff",
    ):
        file = top / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    make_repository(top, "excluded\n")
    (top / "excluded").write_text("")
    (top / "d/.gitignore").write_text("*.log\n!keep.log\n/build/\n")
    (top / "d/.syncdignore").write_text("a.txt\n")
    (top / "in").symlink_to("a.txt")
    (top / "out").symlink_to("/etc/passwd")
    os.mkfifo(top / "fifo")
    return top


def test_it_agrees_with_the_scan(work: Path) -> None:
    """For every path that exists, the result is that of the scan."""
    manifest = Scanner(str(work), SELECTION).scan().manifest
    every = [str(path.relative_to(work)) for path in work.rglob("*")]
    answers = {path: explain(str(work), SELECTION, path) for path in every}
    assert {path for path, answer in answers.items() if answer.included} == set(manifest)
    assert {"a.txt", "d", "d/keep.log", "in", "x\n\udcff"} <= set(manifest)


@pytest.mark.parametrize(
    ("path", "at", "source"),
    [
        ("d/drop.log", "d/drop.log", "d/.gitignore"),
        ("d/e/drop.log", "d/e/drop.log", "d/.gitignore"),
        ("d/build/out/x", "d/build", "d/.gitignore"),
        ("d/a.txt", "d/a.txt", ""),
        ("node_modules/m/index.js", "node_modules", "built-in"),
        ("b.tmp", "b.tmp", "workspace.ignore"),
        ("excluded", "excluded", ".git/info/exclude"),
        (".env", ".env", "secrets"),
        ("out", "out", "built-in"),
        ("fifo", "fifo", "built-in"),
    ],
)
def test_the_rule_is_named(work: Path, path: str, at: str, source: str) -> None:
    """For an excluded path, the rule's source and the folder that it is about are given."""
    answer = explain(str(work), SELECTION, path)
    assert not answer.included
    if source:
        assert answer.at == at
        assert answer.rule.source == source


def test_missing_paths(work: Path) -> None:
    """A missing path is decided by the rules, as deep as it would be; a missing workspace is an error."""
    for path in ("later.txt", "later/deeper/new.txt", "a.txt/below"):
        assert explain(str(work), SELECTION, path) == Explanation(included=True, at=path, note="it does not exist")
    for path in ("later.tmp", "later/deeper/new.tmp"):
        answer = explain(str(work), SELECTION, path)
        assert (answer.included, answer.at, str(answer.rule)) == (False, path, "workspace.ignore: *.tmp")
    assert explain(str(work), SELECTION, "node_modules/later/new.txt").at == "node_modules"
    for path, included in (("later/__pycache__", True), ("later/__pycache__/", False), ("d/a.txt/", False)):
        answer = explain(str(work), SELECTION, path)
        assert (answer.included, answer.at) == (included, path.rstrip("/"))
    assert explain(str(work), SELECTION, "").included
    with pytest.raises(WorkspaceError):
        explain(str(work / "gone"), SELECTION, "a.txt")


def test_what_is_below_a_link(work: Path) -> None:
    """No snapshot has a path through a link, wherever that leads to."""
    (work / "deep").symlink_to("d/e")
    for path in ("deep/keep.log", "deep/later", "out/passwd"):
        link = path.split("/")[0]
        answer = Explanation(included=False, at=path, note=f"as {link} above it is a link")
        assert explain(str(work), SELECTION, path) == answer
