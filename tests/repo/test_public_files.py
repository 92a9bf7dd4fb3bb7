"""The first pages that a reader opens name what exists."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import msgspec

import syncd
from syncd.core.settings import SECTIONS, AcquireKeys
from tests.repo.sources import REPO
from tests.repo.test_layers import PACKAGES


def test_the_changelog_has_this_version(repo: Path) -> None:
    """Its newest version is the one that the code says it is; what comes after it is unreleased."""
    versions = re.findall(r"^## (\S+)", (repo / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert versions[versions[0] == "Unreleased"] == syncd.__version__


def test_the_readme_has_every_key_with_its_default(repo: Path) -> None:
    """The table of keys is the one that syncd reads, each with the default that it really has."""
    rows = dict(re.findall(r"^\| `(\w+\.[\w.]+)` \| (.*?) \|", _readme(repo), re.MULTILINE))
    assert set(rows) == set(_defaults())
    for key, default in _defaults().items():
        assert default is None or tomllib.loads(f"v = {rows[key].strip('`')}")["v"] == default, key


def test_the_readme_has_every_dependency(repo: Path) -> None:
    """Each library that an installation brings is named with its use, and none that it does not bring."""
    project = tomllib.loads((repo / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = {re.split(r"[^\w-]", line)[0] for line in project["dependencies"]}
    section = _readme(repo).split("## Dependencies")[1]
    assert set(re.findall(r"^\| ([\w-]+) \| \w{2,}", section, re.MULTILINE)) - {"library"} == wanted


def test_the_readme_has_every_command() -> None:
    """The table of commands holds what `syncd --help` lists, no less and no more."""
    code = "import sys; sys.argv[0] = 'syncd'; from syncd.cli import main; main()"
    run = subprocess.run(
        [sys.executable, "-c", code, "--help"], cwd=REPO, capture_output=True, text=True, check=True, timeout=60
    )
    offered = set(re.findall(r"^  ([a-z][a-z-]*)(?:  |$)", run.stdout.split("Commands:")[1], re.MULTILINE))
    rows = re.findall(r"^\| (`syncd .*?) \| ", _readme(REPO).split("## Commands")[1].split("\n## ")[0], re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`syncd ([a-z-]+)", row)} == offered


def test_the_readme_maps_every_package(repo: Path) -> None:
    """Each package and each folder of tests has exactly one line in the map, and each line has its folder."""
    source_map = re.findall(r"^```\n(.*?)^```$", _readme(repo).split("## Source map")[1], re.MULTILINE | re.DOTALL)[0]
    found: dict[str, list[str]] = {}
    for line in source_map.splitlines():
        top = re.match(r"(\S+/)", line)
        below = re.match(r"  (\S+)/ +\S.{9,}$", line)
        if top:
            folder = top[1].rstrip("/")
        elif below:
            found.setdefault(folder, []).append(below[1])
    assert found["syncd"] == list(reversed(PACKAGES))
    for top_folder in ("syncd", "tests"):
        with_modules = {path.name for path in (repo / top_folder).iterdir() if any(path.glob("*.py"))}
        assert sorted(found[top_folder]) == sorted(with_modules)


def test_the_readme_has_the_two_commands(repo: Path) -> None:
    """A newcomer needs one command for the demo and one for the tests, each in a block of its own."""
    blocks = re.findall(r"^```sh\n(.*)\n```$", _readme(repo), re.MULTILINE)
    assert blocks[1] == ".ci/run"
    assert blocks[0].endswith("/syncd demo")


def _readme(repo: Path) -> str:
    return (repo / "README.md").read_text("utf-8")


def _defaults() -> dict[str, Any]:
    """Every key with its default as TOML has it; None where a key has none."""
    found: dict[str, Any] = {}
    tables: dict[str, type[msgspec.Struct]] = {**SECTIONS, "sandbox.acquire": AcquireKeys}
    for table, keys in tables.items():
        for field in msgspec.structs.fields(keys):
            if field.name != "acquire":
                default = None if field.default is msgspec.NODEFAULT else field.default
                found[f"{table}.{field.name}"] = list(default) if isinstance(default, tuple) else default
    return found


def test_the_documents_name_only_what_is_there(repo: Path) -> None:
    """A page that points at a test or a module points at one that exists."""
    pages = [*sorted((repo / "docs").rglob("*.md")), *(repo / name for name in ("CONTRIBUTING.md", "SECURITY.md"))]
    for page in pages:
        for path in set(
            re.findall(r"`((?:tests|syncd|systemd|packaging|docs|\.ci)/[\w./@-]+)`", page.read_text("utf-8"))
        ):
            assert "NAME" in path or (repo / path).exists(), f"{page.name}: {path}"
