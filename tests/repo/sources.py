"""Reads the project's own modules as syntax trees, once for all checks of their shape."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Import:
    """One module that a source file imports; `module` is absolute and dotted."""

    module: str
    line: int

    def within(self, package: str) -> bool:
        """True if the module is the package or below it."""
        return self.module == package or self.module.startswith(f"{package}.")


@dataclass(frozen=True)
class Source:
    """A Python file of the project; `path` is relative to the checkout."""

    path: str
    text: str
    tree: ast.Module

    @property
    def package(self) -> str:
        """The package below `syncd/`; "" for a module of `syncd/` itself."""
        components = self.path.split("/")
        return components[1] if len(components) > 2 else ""

    def imports(self) -> Iterator[Import]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (Import(name.name, node.lineno) for name in node.names)
            elif isinstance(node, ast.ImportFrom):
                # `from a import b` may name a module or a thing in one; both readings are the caller's business.
                module = f"{node.module}." if node.module else ""
                yield from (Import(f"{module}{name.name}", node.lineno) for name in node.names)


@cache
def sources(folder: str) -> tuple[Source, ...]:
    """Every Python file below a folder of the checkout, by path."""
    found = []
    for file in sorted((REPO / folder).rglob("*.py")):
        text = file.read_text("utf-8")
        found.append(Source(file.relative_to(REPO).as_posix(), text, ast.parse(text)))
    return tuple(found)
