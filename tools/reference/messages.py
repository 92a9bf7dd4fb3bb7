"""Every error and warning of the program, read from its source: the message, the remedy, and how the command ends."""

from __future__ import annotations

import ast
import inspect
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

import click

from syncd.core import errors
from syncd.core.errors import NeedsPerson, SyncdError, TryLater
from tests.repo.sources import Source, sources

WARNING = "warning"
_ERRORS = {
    name: str(kind.exit_code)
    for name, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, SyncdError)
}
# How what is made by a call of this name ends a command, and the place of the message among the arguments; the remedy
# follows it. What ends a command after a failed step depends on its action.
_KINDS = {
    **{name: (code, 0) for name, code in _ERRORS.items()},
    "UsageError": (str(click.UsageError.exit_code), 0),
    "BadParameter": (str(click.UsageError.exit_code), 0),
    "SyncWarning": (WARNING, 1),
    "StepFailed": ("", 2),
    "ErrorMeaning": ("", 0),
}
_ANY_CODE = f"{TryLater.exit_code} or {NeedsPerson.exit_code}"
_MOST_VARIANTS = 8
# Names of the code that say less to a reader.
_PLAIN = {
    **dict.fromkeys(("strerror", "failure", "error", "why", "complaint", "code", "said"), "reason"),
    **dict.fromkeys(("aside", "destination", "first", "new", "place"), "path"),
    **dict.fromkeys(("shown", "types", "sections"), "name"),
    "big": "paths",
    "co filename": "file",
    "data dir": "folder",
    "more": "number",
    "tb lineno": "line",
}


@dataclass(frozen=True)
class Message:
    """One error or warning: `what` happened, `remedy` is what to do (may be empty), `<…>` stands for what varies.

    `ends` is the exit code, or `warning`; `kind` is the class, and `path` and `line` are where it is made.
    """

    what: str
    remedy: str
    ends: str
    kind: str
    path: str
    line: int


@cache
def messages() -> tuple[Message, ...]:
    """Return all of them, in the order of the source."""
    return tuple(message for source in sources("syncd") for message in _Module.of(source).messages())


class _Module:
    """One source file, with what its names may stand for."""

    @classmethod
    @cache
    def of(cls, source: Source) -> _Module:
        """Return the module of a source, which is read once."""
        return cls(source)

    def __init__(self, source: Source) -> None:
        self._path = source.path
        self._tree = source.tree
        self._nodes = list(ast.walk(source.tree))
        self._calls = [node for node in self._nodes if isinstance(node, ast.Call)]
        self._parents = {child: node for node in self._nodes for child in ast.iter_child_nodes(node)}
        self._functions = {node.name: node for node in self._nodes if isinstance(node, ast.FunctionDef)}

    def messages(self) -> Iterator[Message]:
        """Yield what the module makes, a message for each variant of its words."""
        calls = (node for node in self._calls if _called(node) in _KINDS)
        for call in sorted(calls, key=lambda node: node.lineno):
            kind = _called(call)
            ends, place = _KINDS[kind]
            for what, remedy in dict.fromkeys(self._variants(call.args[place : place + 2])):
                # Without words of its own it is made elsewhere, and only passed on here.
                if _has_words(what + remedy) and remedy != "<hint>":
                    yield Message(what, remedy, ends or _ends(call), kind, self._path, call.lineno)

    def _variants(self, arguments: list[ast.expr]) -> Iterable[tuple[str, str]]:
        """Return each message with its remedy."""
        whats, *remedies = [self.texts(argument) for argument in arguments]
        return _paired(whats, remedies[0] if remedies else [""])

    def texts(self, node: ast.expr) -> list[str]:
        """Return what an expression may be as text, with `<name>` for what only a run knows."""
        return list(dict.fromkeys(self._texts(node, frozenset())))[:_MOST_VARIANTS]

    def _texts(self, node: ast.expr, seen: frozenset[ast.AST]) -> list[str]:
        if node in seen:
            return [_placeholder(node)]
        seen |= {node}
        match node:
            case ast.Constant(value=str() | int() | float() as value):
                return [f"{value}"]
            case ast.JoinedStr():
                return self._joined(node.values, seen)
            case ast.BinOp(op=ast.Add()):
                return self._joined([node.left, node.right], seen)
            case ast.FormattedValue(value=value, conversion=conversion):
                quote = "'" if conversion == ord("r") else ""
                return [f"{quote}{text}{quote}" for text in self._texts(value, seen)]
            case ast.IfExp(test=ast.Compare(left=ast.Call(), comparators=[ast.Constant(value=1)])):
                return self._texts(node.orelse, seen)  # the plural
            case ast.IfExp():
                return [*self._texts(node.body, seen), *self._texts(node.orelse, seen)]
            case ast.BoolOp(values=[first, *_]):
                return self._texts(first, seen)
            case ast.Name():
                texts = self._named(node, seen)
            case ast.Call():
                texts = self._returned(node, seen)
            case _:
                texts = []
        is_known = all(_has_words(text) or "<" not in text for text in texts)
        return texts if texts and is_known else [_placeholder(node)]

    def _joined(self, parts: Iterable[ast.expr], seen: frozenset[ast.AST]) -> list[str]:
        """Return the parts one after the other in each combination; one that may be empty is in brackets."""
        variants = []
        for part in parts:
            texts = self._texts(part, seen)
            filled = [text for text in texts if text]
            variants.append([f"[{text}]" for text in filled] if filled and len(filled) < len(texts) else texts)
        return ["".join(words) for words in itertools.islice(itertools.product(*variants), _MOST_VARIANTS)]

    def _named(self, name: ast.Name, seen: frozenset[ast.AST]) -> list[str]:
        """Return what a name may stand for, in the order of the source: what was assigned to it before."""
        found: list[str] = []
        node: ast.AST = name
        while (parent := self._parents.get(node)) is not None:
            for value, is_last in self._assigned_before(parent, node, name.id):
                found[:0] = self._texts(value, seen)
                if is_last:
                    return found
            if isinstance(parent, ast.FunctionDef) and name.id in _parameters(parent):
                passed = [text for value in self._passed(parent, name.id) for text in self._texts(value, seen)]
                return [*passed, *found]
            node = parent
        return found or [text for module in self._imported(name.id) for text in module.constant(name.id)]

    def _assigned_before(self, parent: ast.AST, child: ast.AST, name: str) -> Iterator[tuple[ast.expr, bool]]:
        """Yield what a block assigns to a name before a statement, the last first; True: nothing earlier stays."""
        for field in ("body", "orelse", "finalbody"):
            block = getattr(parent, field, [])
            if isinstance(block, list) and child in block:
                at_end = isinstance(parent, ast.Module)  # a constant may be below the function that uses it
                for statement in reversed(block if at_end else block[: block.index(child)]):
                    values = [value for node in ast.walk(statement) for value in self._assigned(node, name)]
                    is_last = not isinstance(statement, ast.If | ast.For | ast.While) or bool(statement.orelse)
                    if at_end and isinstance(statement, ast.FunctionDef | ast.ClassDef):
                        continue
                    yield from ((value, is_last and value is values[0]) for value in reversed(values))

    def _assigned(self, node: ast.AST, name: str) -> Iterator[ast.expr]:
        """Yield the expressions that a statement assigns to a name."""
        match node:
            case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                yield value
            case ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value) if target == name:
                yield value
            case ast.NamedExpr(target=ast.Name(id=target), value=value) if target == name:
                yield value
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple() | ast.Call() as value):
                for values in [value.elts] if isinstance(value, ast.Tuple) else self._returned_tuples(_called(value)):
                    yield from (
                        each for target, each in zip(targets, values, strict=True) if ast.unparse(target) == name
                    )

    def _returned_tuples(self, name: str) -> Iterator[list[ast.expr]]:
        for node in ast.walk(self._functions[name]) if name in self._functions else ():
            if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
                yield node.value.elts

    def _passed(self, function: ast.FunctionDef, name: str) -> Iterator[ast.expr]:
        """Yield what the module's calls of a function pass for a parameter."""
        names = [argument.arg for argument in function.args.args if argument.arg != "self"]
        for call in (call for call in self._calls if _called(call) == function.name):
            given = dict(zip(names, call.args, strict=False)) | {word.arg: word.value for word in call.keywords}
            yield from (value for parameter, value in given.items() if parameter == name)

    def _imported(self, name: str) -> Iterator[_Module]:
        """Yield the module of ours that a name is imported from."""
        for node in self._nodes:
            if isinstance(node, ast.ImportFrom) and name in {alias.name for alias in node.names}:
                path = f"{(node.module or '').replace('.', '/')}.py"
                yield from (_Module.of(source) for source in sources("syncd") if source.path == path)

    def constant(self, name: str) -> list[str]:
        """Return what a constant of the module is."""
        values = [value for node in self._tree.body for value in self._assigned(node, name)]
        return [text for value in values for text in self.texts(value)]

    def _returned(self, call: ast.Call, seen: frozenset[ast.AST]) -> list[str]:
        """Return what a function of the program may return as text."""
        name = _called(call)
        if name == "counted":
            return [f"<number> {thing}s" for thing in self._texts(call.args[1], seen)]
        if not isinstance(call.func, ast.Name):
            return []
        return [text for module in (self, *self._imported(name)) for text in module.returns(name, seen)]

    def returns(self, name: str, seen: frozenset[ast.AST]) -> list[str]:
        """Return the texts that a function of this module returns."""
        returned = ast.walk(self._functions[name]) if name in self._functions else ()
        values = [node.value for node in returned if isinstance(node, ast.Return) and not _is_none(node.value)]
        return [text for value in values for text in self._texts(value, seen)]


def _is_none(value: ast.expr | None) -> bool:
    return value is None or (isinstance(value, ast.Constant) and value.value is None)


def _has_words(text: str) -> bool:
    """Return True if there is more in a text than what only a run knows."""
    return re.search("[a-z]{2}", re.sub(r"<[^<>]*>", "", text)) is not None


def _called(call: ast.Call) -> str:
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _paired(whats: list[str], remedies: list[str]) -> Iterable[tuple[str, str]]:
    """Return each message with its remedy: as many of both are made in the same branches."""
    return zip(whats, remedies, strict=True) if len(whats) == len(remedies) else itertools.product(whats, remedies)


def _ends(call: ast.Call) -> str:
    """Return the exit code after a failed step, by its action; after an API's refusal, by the class that is named."""
    words = {node.id for node in ast.walk(call) if isinstance(node, ast.Name)} | {
        node.attr for node in ast.walk(call) if isinstance(node, ast.Attribute)
    }
    refused = {name for name in words & set(_ERRORS) if _ERRORS[name] == str(NeedsPerson.exit_code)}
    if "REFUSED" in words or refused:
        return str(NeedsPerson.exit_code)
    named = _called(call) == "StepFailed" and "FailureAction" in words
    return str(TryLater.exit_code) if named else _ANY_CODE


def _parameters(scope: ast.AST) -> set[str]:
    if isinstance(scope, ast.FunctionDef):
        return {argument.arg for argument in ast.walk(scope.args) if isinstance(argument, ast.arg)}
    return set()


def _placeholder(node: ast.AST) -> str:
    """Return `<name>` for what only a run knows, by the words of the expression."""
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            words = "seconds" if name.endswith("_s") else name.strip("_").replace("_", " ").lower()
            return f"<{_PLAIN.get(words, words)}>"
        case ast.Call(func=ast.Name(id="len")):
            return "<number>"
        case ast.Call(args=[ast.GeneratorExp(elt=first), *_]) | ast.Call(args=[first, *_]):
            return _placeholder(first)
        case ast.Call(func=ast.Attribute(value=value)) | ast.Call(func=value) | ast.Subscript(value=value):
            return _placeholder(value)
        case ast.BoolOp(values=[first, *_]) | ast.BinOp(left=first):
            return _placeholder(first)
        case ast.Starred(value=value) | ast.FormattedValue(value=value):
            return _placeholder(value)
    return "<…>"
