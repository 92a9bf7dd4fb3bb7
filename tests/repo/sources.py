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

    @property
    def lines(self) -> int:
        return self.text.count("\n")

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


def _imports(body: list[ast.stmt], *, at_top: bool) -> Iterator[Import]:
    for node in body:
        match node:
            case ast.Import():
                yield from (Import(name.name, node.lineno, at_top) for name in node.names)
            case ast.ImportFrom():
                # `from a import b` may name a module or a name in one; the caller checks both.
                yield from (
                    Import(f"{node.module or ''}{'.' * bool(node.module)}{name.name}", node.lineno, at_top)
                    for name in node.names
                )
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from _imports(node.body, at_top=False)
            case ast.If() if "TYPE_CHECKING" in ast.unparse(node.test):
                yield from _imports(node.body, at_top=False)
                yield from _imports(node.orelse, at_top=at_top)
            case _:
                for field in ("body", "orelse", "finalbody"):
                    yield from _imports(getattr(node, field, []), at_top=at_top)
                for handler in (*getattr(node, "handlers", []), *getattr(node, "cases", [])):
                    yield from _imports(handler.body, at_top=at_top)
