"""Each error and warning says what happened and what to do, in the same form.

The words are read from the source; `<…>` stands for what only a run knows.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from syncd.core import errors
from syncd.core.errors import NeedsPerson, SyncdError
from tests.repo.sources import sources

_ERRORS = {name: kind for name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, SyncdError)}
_USAGE = {"UsageError", "BadParameter"}
_NEEDS_REMEDY = {name for name, kind in _ERRORS.items() if issubclass(kind, NeedsPerson)} | {"SyncWarning"}
# The calls that make one, with the place of the message among their arguments; the remedy follows it.
_PLACES = {**dict.fromkeys({*_ERRORS, *_USAGE, "ErrorMeaning"}, 0), "SyncWarning": 1, "StepFailed": 2}
_REASON = r"<[\w.]*(strerror|failure|error|complaint|code|said|reason|message)>"


class _Message(NamedTuple):
    """One text that a call may give; an error without a remedy has an empty one."""

    kind: str
    where: str
    what: str
    remedy: str


class _Module:
    """What the expressions of one source file may be as text."""

    def __init__(self, tree: ast.Module) -> None:
        self.calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        self._functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        # The innermost one comes last.
        self._around = {node: each for each in self._functions.values() for node in ast.walk(each)}
        self._tree = tree

    def texts(self, node: ast.expr) -> list[str]:
        """Return what an expression may be: that of a name or a call by what is in this file."""
        return list(dict.fromkeys(self._texts(node, frozenset())))

    def _texts(self, node: ast.expr, seen: frozenset[ast.AST]) -> Iterator[str]:
        match node:
            case ast.Constant(value=str(text)):
                yield text
            case ast.JoinedStr(values=parts):
                yield "".join(f"{each.value}" if isinstance(each, ast.Constant) else _unknown(each) for each in parts)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                yield from (one + other for one in self._texts(left, seen) for other in self._texts(right, seen))
            case ast.IfExp(body=first, orelse=second):
                yield from (text for each in (first, second) for text in self._texts(each, seen))
            case _:
                known = [] if node in seen else list(self._known(node))
                yield from (text for each in known for text in self._texts(each, seen | {node}))
                yield from () if known else [_unknown(node)]

    def _known(self, node: ast.expr) -> Iterator[ast.expr]:
        """Yield what is assigned to a name, passed for it or returned by a function."""
        function = self._around.get(node)
        match node:
            case ast.Name(id=name):
                for each in (*(ast.walk(function) if function else ()), *self._tree.body):
                    if isinstance(each, ast.Assign) and [ast.unparse(target) for target in each.targets] == [name]:
                        yield each.value
                if function:
                    yield from self._passed(function, name)
            case ast.Call(func=ast.Name(id=name)) if name in self._functions:
                returns = (each for each in ast.walk(self._functions[name]) if isinstance(each, ast.Return))
                yield from (each.value for each in returns if each.value)

    def _passed(self, function: ast.FunctionDef, name: str) -> Iterator[ast.expr]:
        names = [each.arg for each in function.args.args if each.arg != "self"]
        for call in (each for each in self.calls if _called(each) == function.name):
            given = dict(zip(names, call.args, strict=False)) | {each.arg: each.value for each in call.keywords}
            yield from (value for parameter, value in given.items() if parameter == name)


@cache
def _messages() -> tuple[_Message, ...]:
    found = []
    for source in sources("syncd"):
        module = _Module(source.tree)
        for call in (each for each in module.calls if _called(each) in _PLACES):
            kind, where = _called(call), f"{source.path}:{call.lineno}"
            given = call.args[_PLACES[kind] :][:2]
            whats, remedies, *_ = [*map(module.texts, given), [""], [""]]
            found += [_Message(kind, where, what, remedy) for what in whats for remedy in remedies]
    # Without words of its own it is made elsewhere, and only passed on.
    return tuple(each for each in found if re.search("[a-z]{2}", re.sub("<.*?>", "", each.what + each.remedy)))


def _called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def _unknown(node: ast.expr) -> str:
    shown = ast.unparse(node.value if isinstance(node, ast.FormattedValue) else node)
    return f"<{shown}>"


def _at(found: list[_Message]) -> list[str]:
    return [f"{each.where}: {each.what} | {each.remedy}" for each in found]


def test_they_are_found() -> None:
    """Those that a user meets first are there with their remedies, and what a helper function is told."""
    found = {each.what: each.remedy for each in _messages()}
    assert found["no configuration file at <path>"] == "run `syncd init<_option(path)>`, or name one with --config"
    assert found["the rules of git cannot be read (<failure.strerror>)"] == "let your user read them"
    assert len(found) > 150


def test_a_person_is_told_what_to_do() -> None:
    """What waits for a person, and each warning, has a remedy."""
    bare = [each for each in _messages() if each.kind in _NEEDS_REMEDY and not each.remedy]
    assert _at(bare) == [], "say there what to do: the command, the key or the file to change"


def test_a_remedy_is_no_sentence() -> None:
    """A message and its remedy begin in lower case and have no period: they are joined to one line by a colon."""
    for part in ("what", "remedy"):
        joined = [each for each in _messages() if each.kind not in _USAGE]
        wrong = [each for each in joined if re.search(r"^[A-Z](?!lavis\b)|(?<!…)\.$|\s$", getattr(each, part))]
        assert _at(wrong) == [], f"begin {part} in lower case there, and end it without a period"


def test_a_remedy_has_no_colon() -> None:
    """The last colon divides the message from the remedy, so that `status` can show them on lines of their own."""
    assert _at([each for each in _messages() if ": " in each.remedy]) == [], "write the remedy without a colon there"


def test_wrong_usage_is_a_sentence() -> None:
    """An error of usage begins with an option, a value or a capital letter and ends with a period, as click's own."""
    odd = [each for each in _messages() if each.kind in _USAGE and not re.fullmatch(r"(--|['<A-Z]).*[.>]", each.what)]
    assert _at(odd) == [], "write a sentence there: an option, a value or a capital letter first, a period last"


def test_a_reason_is_in_parentheses() -> None:
    """What the system or a server gave as the reason is in parentheses: after a colon it would look like a remedy."""
    after_colon = [each for each in _messages() if re.search(rf": '?{_REASON}", each.what)]
    assert _at(after_colon) == [], "put the reason into parentheses there"
    without = [each for each in _messages() if not each.remedy and re.search(r": (?![^<]*>)", each.what)]
    assert _at(without) == [], "put what stands after the colon into parentheses there, or make it the remedy"
