"""People read one word for one thing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from tests.repo.sources import REPO, sources
from tests.repo.test_documents import PAGES

# What is excluded, held, kept, in sync or not running has these names; these are other ones for the same.
_NOT = (
    r"\b(left|leaves?|leaving)( \w+){0,2} out\b",
    r"\bstays? (at )?home\b",
    r"\bh[eo]ld back\b|\bwithheld\b",
    r"\bin step\b|\bkeeps? [^.]{0,60}\bequal to\b",
    r"\bor ignore (it|them)\b",
    r"\bnever started\b",
    r"\b(the|an?) (API|bucket)\b(?! key)|\bthe live API\b",
    r"\bpackaging (the|\d)|\binitializing the\b",
    r"\bnothing to take\b",
)


@pytest.mark.parametrize("words", _NOT)
def test_people_read_one_word_for_one_thing(words: str) -> None:
    """No message, help, page or picture has these words, since the glossary has another one for the thing."""
    found = [where for where, text in _read_by_people() if re.search(words, text, re.IGNORECASE)]
    assert found == [], "write the word of docs/architecture.md, Glossary"


def _read_by_people() -> Iterator[tuple[str, str]]:
    """Yield each text that people read, with its place: the program's strings, the help of commands, the pages."""
    for source in sources("syncd"):
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield f"{source.path}:{node.lineno}", node.value if id(node) not in _comments(source.tree) else ""
    for page in (
        *PAGES,
        *REPO.glob("docs/screens/*.svg"),
        REPO / "config.example.toml",
        *REPO.glob("syncd/share/man/*/*"),
    ):
        if page.name != "CHANGELOG.md":  # it says what there was
            yield from ((f"{page.name}:{at}", line) for at, line in enumerate(page.read_text("utf-8").splitlines(), 1))


@cache
def _comments(tree: ast.Module) -> set[int]:
    """Return the docstrings that no help shows: all but those of commands."""
    return {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and isinstance(node.body[0], ast.Expr)
        and not any(".command" in ast.unparse(each) or ".group" in ast.unparse(each) for each in _decorators(node))
    }


def _decorators(node: ast.AST) -> list[ast.expr]:
    return node.decorator_list if isinstance(node, ast.FunctionDef) else []
