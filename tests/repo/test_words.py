"""The project's names say which thing is meant, and its docstrings begin with it."""

from __future__ import annotations

import ast
import re
from collections import defaultdict

from tests.repo.sources import sources

# How a docstring of the program may not begin.
_RIDDLES = ("What", "Whether", "How", "When", "Who", "Whoever", "Whose", "Where", "Why")


def test_no_two_classes_have_one_name() -> None:
    """A class's name says which one is meant, wherever it is read; private ones count too."""
    places: dict[str, list[str]] = defaultdict(list)
    for source in sources("syncd"):
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{source.path}:{node.lineno}")
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_a_docstring_begins_with_the_thing() -> None:
    """A docstring of the program begins with what the thing does or is, not with a question word."""
    riddles = []
    for source in sources("syncd"):
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                first = (ast.get_docstring(node) or "").lstrip("`*_ ")
                if first and re.split(r"\W", first, maxsplit=1)[0] in _RIDDLES:
                    riddles.append(f"{source.path}:{getattr(node, 'lineno', 1)}: {first.splitlines()[0]}")
    assert riddles == []
