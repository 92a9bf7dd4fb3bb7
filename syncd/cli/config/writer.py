"""Changes a configuration file: comments and order stay, and what is no valid configuration is not written.

`change_config(path, lambda text: with_value(text, "sandboxes.review.id", "box-2"))` sets a key and makes its table;
`without(text, "sandboxes.review")` removes a key, or a table with all that is below it.
"""

from __future__ import annotations

import copy
import fcntl
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from msgspec import Struct

from syncd.cli.init.config_template import toml
from syncd.core.config_file import layered, read_managed
from syncd.core.durable_file import rewrite
from syncd.core.errors import ConfigError
from syncd.core.settings import Config

# What matters for where a statement of TOML ends: texts of all four kinds, comments, brackets, line ends.
_PIECE = re.compile(
    r"""
    (?P<text>   \"{3}(?:\\.|[^\\])*?\"{3,5} | '{3}.*?'{3,5} | "(?:\\.|[^"\\\n])*" | '[^'\n]*' )
    | (?P<comment>\#[^\n]*) | (?P<open>[\[{]) | (?P<close>[\]}]) | (?P<equals>=) | (?P<end>\n)
    """,
    re.DOTALL | re.VERBOSE,
)
_BARE = re.compile(r"[A-Za-z0-9_-]+")


class _Statement(Struct, frozen=True):
    """A heading, or a key with its value: its full name, and the places of its lines and of the value."""

    name: tuple[str, ...]
    table: tuple[str, ...]
    start: int
    end: int
    value: slice | None


def with_value(text: str, key: str, value: Any) -> str:
    """The text of a configuration with this key, such as `sync.debounce_seconds`, set; a table is made if needed.

    Raises `ConfigError`.
    """
    names, expected = _named(key), copy.deepcopy(_parsed(text))
    *table, last = names
    inner: Any = expected
    for name in table:
        inner = inner.setdefault(name, {}) if isinstance(inner, dict) else None
    if isinstance(inner, dict):
        inner[last] = list(value) if isinstance(value, tuple) else value
    text = text if text.endswith("\n") or not text else f"{text}\n"
    statements, written = list(_statements(text)), toml(value, key)
    end_of_line = "\r\n" if "\r\n" in text else "\n"

    def line(names: Sequence[str]) -> str:
        return f"{'.'.join(map(_quoted, names))} = {written}{end_of_line}"

    same = [each.value for each in statements if each.name == names and each.value]
    section = [each for each in statements if each.table == tuple(table)]
    dotted = [each for each in statements if each.value and each.name[: len(table)] == tuple(table)]
    if same:
        changed = text[: same[0].start] + written + text[same[0].stop :]
    elif section:
        at = _after_example(text, section, last) or section[-1].end
        changed = text[:at] + line([last]) + text[at:]
    elif dotted:
        beside = dotted[-1]
        changed = text[: beside.end] + line(names[len(beside.table) :]) + text[beside.end :]
    else:
        heading = f"[{'.'.join(map(_quoted, table))}]{end_of_line}"
        changed = text + (end_of_line if text else "") + heading + line([last])
    return _as_expected(changed, expected, key)


def without(text: str, key: str) -> str:
    """The text of a configuration without this key, or without this table and all that is below it.

    Raises `ConfigError`, also if there is no such key.
    """
    names, expected = _named(key), copy.deepcopy(_parsed(text))
    inner: Any = expected
    for name in names[:-1]:
        inner = inner.get(name) if isinstance(inner, dict) else None
    if not isinstance(inner, dict) or names[-1] not in inner:
        raise ConfigError(f"{key} is not in the configuration", "nothing to remove")
    del inner[names[-1]]
    kept, start, is_removed = "", 0, False
    for each in _statements(text if text.endswith("\n") else f"{text}\n"):
        was_removed, is_removed = is_removed, each.name[: len(names)] == names
        if is_removed and not was_removed:
            kept += text[start : each.start]
        if is_removed:  # a comment between two that are removed goes with them
            start = each.end
    rest = text[start:]
    if kept.endswith("\n\n") and (not rest or rest.startswith("\n")):
        kept = kept[:-1]
    return _as_expected(kept + rest, expected, key)


def change_config(path: str, change: Callable[[str], str]) -> Config:
    """Replace the file's text by what `change` makes of it, checked before, and return the new configuration.

    The file's mode and owner stay, and so does a link to it. Of two changes at once, the second one is made to what the
    first one wrote. Raises `ConfigError`; then the file is as before.
    """
    real = os.path.realpath(path)
    try:
        folder = os.open(os.path.dirname(real), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            before = read_text(path)
            after = change(before)
            config = layered(_parsed(after), path, read_managed())
            if after != before:
                os.close(os.open(real, os.O_WRONLY | os.O_CLOEXEC))  # what is read-only is not to be changed
                rewrite(real, after.encode())
        finally:
            os.close(folder)
    except OSError as failure:
        raise ConfigError(f"{path} cannot be written ({failure.strerror})", "let your user write it") from None
    return config


def read_text(path: str) -> str:
    """The file's text, with its line ends. Raises `ConfigError`."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            return file.read().decode()
    except FileNotFoundError:
        raise ConfigError(f"no configuration file at {path}", "run `syncd init`, or name one with --config") from None
    except OSError as failure:
        raise ConfigError(f"{path} cannot be read ({failure.strerror})", "let your user read it") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not valid TOML", "it is not UTF-8; correct it there") from None


def _parsed(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as failure:
        raise ConfigError("the configuration is not valid TOML", f"{failure}; `syncd config edit` opens it") from None


def _named(key: str) -> tuple[str, ...]:
    try:
        return _names(f"{key} = 0")
    except (tomllib.TOMLDecodeError, ValueError):
        raise ConfigError(f"{key!r} is no key", "name one as sync.debounce_seconds") from None


def _names(statement: str) -> tuple[str, ...]:
    """The names in a heading, or in a key whose value is no table."""
    found: Any = tomllib.loads(statement)
    names: tuple[str, ...] = ()
    while isinstance(found, dict) and found:
        ((name, found),) = found.items()
        names += (name,)
    return names


def _statements(text: str) -> Iterator[_Statement]:
    """The statements of valid TOML whose last line is complete."""
    table: tuple[str, ...] = ()
    start, depth, equals, code_end = 0, 0, 0, 0
    for piece in _PIECE.finditer(text):
        match piece.lastgroup:
            case "open":
                depth += 1
            case "close":
                depth -= 1
            case "equals" if not depth and not equals:
                equals = piece.end()
            case "comment" if not depth:
                code_end = piece.start()
            case "end" if not depth:
                code = text[start : code_end or piece.start()].rstrip()
                if equals:
                    name, ends = (*table, *_names(f"{text[start:equals]} 0")), start + len(code)
                    begins = ends - len(code[equals - start :].lstrip())
                    yield _Statement(name, table, start, piece.end(), slice(begins, ends))
                elif code.strip():
                    table = _names(code)
                    yield _Statement(table, table, start, piece.end(), None)
                start, equals, code_end = piece.end(), 0, 0


def _after_example(text: str, section: list[_Statement], name: str) -> int:
    """The end of the line in this section that has the key as a comment; 0: there is none.

    The section goes on to the next heading.
    """
    end = text.find("\n[", section[-1].end - 1)
    part = slice(section[0].end, len(text) if end < 0 else end + 1)
    example = re.search(rf"^# {re.escape(name)} = .*\n", text[part], re.MULTILINE)
    return part.start + example.end() if example else 0


def _quoted(name: str) -> str:
    return name if _BARE.fullmatch(name) else toml(name, name)


def _as_expected(text: str, expected: dict[str, Any], key: str) -> str:
    """The changed text, if it means what it should: in whatever form a key was written, no other one is changed."""
    try:
        if _without_empty(tomllib.loads(text)) == _without_empty(expected):
            return text
    except tomllib.TOMLDecodeError:
        pass
    raise ConfigError(f"{key} is written there in a form that only a person can change", "use `syncd config edit`")


def _without_empty(tables: dict[str, Any]) -> dict[str, Any]:
    """The tables without those that are empty: with its last key a heading may go, or stay."""
    inner = {name: _without_empty(each) if isinstance(each, dict) else each for name, each in tables.items()}
    return {name: each for name, each in inner.items() if each != {}}
