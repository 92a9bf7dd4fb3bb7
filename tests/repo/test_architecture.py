"""docs/architecture.md names every package, and what the loss of each file costs.

The system tests check that each file and record has its row.
"""

from __future__ import annotations

import ast
import re

import pytest

from tests.repo.sources import REPO
from tests.repo.test_layers import PACKAGES

PAGE = REPO / "docs/architecture.md"
PACKAGE_FOLDERS = sorted(path.parent for path in REPO.glob("syncd/*/**/__init__.py"))
_BEGINS = re.compile(r"[Bb]egins? (?:in|at) `(\w+)`")


@pytest.fixture(scope="module")
def page() -> str:
    """The map's text."""
    return PAGE.read_text("utf-8")


def test_every_package_has_its_row(page: str) -> None:
    """The table has the packages in the order of their imports, each with a module at which to begin."""
    rows = re.findall(
        r"^\| `(\w+)` \| (\w[^|]{9,}) \| `(syncd/[\w/]+\.py)` \|$", _section(page, "Packages"), re.MULTILINE
    )
    assert [name for name, _, _ in rows] == list(PACKAGES), "give each package its row in docs/architecture.md"
    for name, _, begins in rows:
        assert begins.startswith(f"syncd/{name}/"), f"docs/architecture.md: name a module of {name}, not {begins}"
        assert (REPO / begins).is_file(), f"docs/architecture.md: {begins} is not there: name another module"


def test_each_package_says_where_it_begins() -> None:
    """The docstring of a package names the module, or its own function, at which a reader begins."""
    for package in PACKAGE_FOLDERS:
        tree = ast.parse((package / "__init__.py").read_text("utf-8"))
        named = _BEGINS.search(ast.get_docstring(tree) or "")
        begins = named[1] if named else "command"  # `syncd/cli/__init__.py` says so for all of its own
        places = [package / f"{begins}.py", package / begins / "__init__.py"]
        own = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        assert begins in own or any(place.is_file() for place in places), (
            f"{package}/__init__.py: write in its docstring which module it begins at, not `{begins}`"
        )


def test_each_row_has_the_cost(page: str) -> None:
    """Each row says what the loss of its file costs."""
    for line in _section(page, "State").splitlines():
        if line.startswith("| ") and not line.startswith(("| file", "| record", "| ---")):
            assert re.fullmatch(r"[^|]{7,}", line.rstrip(" |").rpartition(" | ")[2]), (
                f"docs/architecture.md: write into the last column what the loss costs: {line}"
            )


def _section(page: str, heading: str) -> str:
    """The text below a heading, up to the next one that is as high."""
    found = re.search(rf"^(#+) {re.escape(heading)}$", page, re.MULTILINE)
    assert found, f"docs/architecture.md: bring back the heading {heading!r}, or name the new one here"
    rest = page[found.end() :]
    return re.split(rf"^#{{1,{len(found[1])}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]
