"""Each file says why it exists, and is about one thing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.repo.sources import REPO, Source, sources

# A soft fence: a longer module may hold more than one subject.
LONGEST_MODULE = 600
# It runs in the sandbox alone, so that its git, its import and its repository are one file.
LONGER_PROGRAMS = {"syncd/sandbox/repository_in_sandbox.py": 700}
EVERYTHING = (*sources("syncd"), *sources("tests"))
# Written apart, so that this file does not hold what it looks for.
LEFT_OPEN = re.compile("|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X")))
# The service manager is a thing of its own: it is what systemd calls itself.
NAMELESS = re.compile(r"(^|_)(utils?|helpers?|(?<!service_)managers?|misc|common)\.py$")
WRITTEN = ("*.md", "*.toml", "*.txt", ".ci/*", "docs/**/*", "systemd/*", "syncd/**/*.py", "tests/**/*.py")


@pytest.mark.parametrize("source", EVERYTHING, ids=lambda source: source.path)
def test_it_says_why_it_exists(source: Source) -> None:
    """Every module's docstring begins with one whole sentence on one line."""
    first = (ast.get_docstring(source.tree) or "").split("\n")[0]
    assert re.fullmatch(r".{12,}[.:!?]", first), f"{source.path}: {first!r}"


@pytest.mark.parametrize("source", sources("syncd"), ids=lambda source: source.path)
def test_it_is_short(source: Source) -> None:
    """A module that is longer than this is looked at once more: is it still one subject?"""
    assert source.lines <= LONGER_PROGRAMS.get(source.path, LONGEST_MODULE)


@pytest.mark.parametrize("source", EVERYTHING, ids=lambda source: source.path)
def test_it_is_named_after_a_thing(source: Source) -> None:
    """A module's name is a noun, not the drawer where things are put."""
    assert not NAMELESS.search(source.path.rsplit("/", 1)[-1])


@pytest.mark.parametrize("source", sources("tests"), ids=lambda source: source.path)
def test_each_test_says_what_it_shows(source: Source) -> None:
    """A test's docstring is the behaviour, in a line."""
    silent = [node.name for node in _tests(source.tree) if not ast.get_docstring(node)]
    assert not silent, f"{source.path}: {', '.join(silent)}"


def test_nothing_is_left_open() -> None:
    """No comment promises work that is not done."""
    found = []
    for pattern in WRITTEN:
        for file in filter(lambda file: file.is_file() and file.suffix != ".pyc", REPO.glob(pattern)):
            for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
                if LEFT_OPEN.search(line):
                    found.append(f"{file.relative_to(REPO)}:{number}")
    assert not found


def _tests(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node
