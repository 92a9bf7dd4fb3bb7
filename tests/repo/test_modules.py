"""Each file says why it exists, and is named after a thing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.repo.sources import REPO, sources

EVERYTHING = (*sources("syncd"), *sources("tests"), *sources("tools"))
# Written apart, so that this file does not hold what it looks for.
LEFT_OPEN = re.compile("|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X")))
# The service manager is a thing of its own: it is what systemd calls itself.
NAMELESS = re.compile(r"(^|_)(utils?|helpers?|(?<!service_)managers?|misc|common)\.py$")
WRITTEN = (
    "*.md",
    "*.toml",
    "*.txt",
    ".ci/*",
    "docs/**/*",
    "systemd/*",
    "syncd/**/*.py",
    "tests/**/*.py",
    "tools/**/*.py",
)


def test_it_says_why_it_exists() -> None:
    """Every module's docstring begins with one whole sentence on one line."""
    firsts = {source.path: (ast.get_docstring(source.tree) or "").split("\n")[0] for source in EVERYTHING}
    wrong = {path: first for path, first in firsts.items() if not re.fullmatch(r".{12,}[.:!?]", first)}
    assert wrong == {}, "begin its docstring with a sentence that ends on the first line"


def test_it_is_named_after_a_thing() -> None:
    """A module's name is a noun, not the drawer where things are put."""
    nameless = [source.path for source in EVERYTHING if NAMELESS.search(source.path.rsplit("/", 1)[-1])]
    assert nameless == [], "name it after what it is about"


def test_each_test_says_what_it_shows() -> None:
    """A test's docstring is the behaviour, in a line."""
    tests = [(source.path, test) for source in sources("tests") for test in _tests(source.tree)]
    silent = [f"{path}: {test.name}" for path, test in tests if not ast.get_docstring(test)]
    assert silent == [], "give it a docstring: the behaviour, in a line"


def test_nothing_is_left_open() -> None:
    """No comment promises work that is not done."""
    found = []
    for pattern in WRITTEN:
        for file in filter(lambda file: file.is_file() and file.suffix != ".pyc", REPO.glob(pattern)):
            for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
                if LEFT_OPEN.search(line):
                    found.append(f"{file.relative_to(REPO)}:{number}")
    assert found == [], "do it, or take the comment out"


def _tests(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node
