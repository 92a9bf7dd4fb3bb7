"""The first pages that a reader opens name what exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import syncd
from syncd.core.errors import ExitCode


def test_the_changelog_has_this_version(repo: Path) -> None:
    """Its newest version is the one that the code says it is; what comes after it is unreleased."""
    versions = re.findall(r"^## (\S+)", (repo / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert versions[versions[0] == "Unreleased"] == syncd.__version__, (
        "write the same version into CHANGELOG.md and syncd/__init__.py"
    )


def test_every_dependency_is_documented(repo: Path) -> None:
    """Each library that an installation brings is named with its use, and none that it does not bring."""
    project = tomllib.loads((repo / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = {re.split(r"[^\w-]", line)[0] for line in project["dependencies"]}
    section = (repo / "CONTRIBUTING.md").read_text("utf-8").split("## Dependencies")[1].split("\n## ")[0]
    named = set(re.findall(r"^\| ([\w-]+) \| \w{2,}", section, re.MULTILINE)) - {"library"}
    assert named == wanted, "CONTRIBUTING.md, Dependencies: give each library of pyproject.toml its row"


def test_the_map_has_every_folder_of_tests_and_tools(repo: Path) -> None:
    """Each folder of tests or a tool has one line in the map, and each line has its folder."""
    text = (repo / "docs/architecture.md").read_text("utf-8")
    listed = re.findall(r"^\| `((?:tests|tools)/\w+)` \| \w", text, re.MULTILINE)
    folders = [
        f"{each}/{path.name}"
        for each in ("tests", "tools")
        for path in (repo / each).iterdir()
        if any(path.glob("*.py"))
    ]
    assert sorted(listed) == sorted(folders), "docs/architecture.md: give each folder of tests and each tool its row"


def test_the_documents_name_only_what_is_there(repo: Path) -> None:
    """A page that points at a test or a module points at one that exists."""
    pages = [
        *sorted((repo / "docs").rglob("*.md")),
        *(repo / name for name in ("CONTRIBUTING.md", "SECURITY.md", "SKILL.md")),
    ]
    for page in pages:
        for path in set(
            re.findall(r"`((?:tests|tools|syncd|systemd|packaging|docs|\.ci)/[\w./@-]+)`", page.read_text("utf-8"))
        ):
            assert "NAME" in path or (repo / path).exists(), f"{page.name}: {path} is not there: name what is"


def test_each_promise_has_its_tests(repo: Path) -> None:
    """The list of tests has each promise, by its number and name, and each test that it names is there."""
    listed = (repo / "tests/README.md").read_text("utf-8")
    promises = re.findall(r"^(\d+\. \*\*.+?)\.?\*\*", (repo / "docs/reliability.md").read_text("utf-8"), re.MULTILINE)
    rows = re.split(r"^(?=\d+\. )", listed, flags=re.MULTILINE)[1:]
    titles = [row.split("**:")[0] for row in rows]
    assert titles == promises, "tests/README.md: list the promises as docs/reliability.md has them"
    for row in rows:
        named = re.findall(r"`(\w+/test_\w+)`", row)
        assert named, f"tests/README.md: name a test, `folder/test_name`: {row}"
        gone = [name for name in named if not (repo / f"tests/{name}.py").is_file()]
        assert gone == [], "tests/README.md: name tests that are there"


def test_the_skill_is_complete(repo: Path) -> None:
    """It has a name and a description, each exit code, and each list of `apply --json`."""
    text = (repo / "SKILL.md").read_text("utf-8")
    assert re.match(r"---\nname: [a-z-]+\ndescription: \S.{20,1000}\n---\n", text), "SKILL.md: begin as skills do"
    codes = set(re.findall(r"^\| (\d+) \| ", text, re.MULTILINE))
    assert codes == {str(int(code)) for code in ExitCode}, "SKILL.md: give each exit code its row"
    row = re.search(
        r"^\| `apply`.*? \| (.*) \|$", (repo / "tools/reference/formats.md").read_text("utf-8"), re.MULTILINE
    )
    assert row is not None
    lists = set(re.findall(r"`([a-z_]+)`", row[1].partition("; of `resolve`")[0]))
    assert set(re.findall(r"^\| `(\w+)` \| ", text, re.MULTILINE)) == lists, (
        "SKILL.md: give each list of `syncd apply --json` its row"
    )
