"""What a newcomer reads names what there is."""

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


def test_the_readme_maps_every_folder(repo: Path) -> None:
    """Each folder of the source has its line in the map."""
    source_map = _readme(repo).split("## Source map")[1]
    for top in ("syncd", "tests"):
        for folder in (repo / top).iterdir():
            if any(folder.glob("*.py")):
                assert f"\n  {folder.name}/" in source_map


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
    pages = sorted((repo / "docs").rglob("*.md"))
    assert pages
    for page in pages:
        for path in set(re.findall(r"`((?:tests|syncd|systemd)/[\w./@-]+)`", page.read_text("utf-8"))):
            assert (repo / path).exists(), f"{page.name}: {path}"
