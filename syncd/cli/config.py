"""`syncd config` and `syncd reload`: show and change the configuration; what is not valid is neither written nor read.

`change_config(path, lambda text: with_value(text, "sandboxes.review.id", "box-2"))` sets a key and makes its table;
`without(text, "sandboxes.review")` removes a key, or a table with all that is below it. Comments and order stay.
"""

from __future__ import annotations

import copy
import fcntl
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from enum import StrEnum
from functools import partial
from typing import Any

import click
import msgspec
from msgspec import Struct

from syncd.cli.options import (
    answered,
    asking,
    config_of_daemon,
    config_option,
    config_path,
    configured,
    json_option,
    option_for,
)
from syncd.cli.output import home_relative
from syncd.core.config_file import flat, layered, load_config, parse_toml, read_managed
from syncd.core.durable_file import rewrite
from syncd.core.errors import ConfigError, NeedsPerson, Stop, SyncdError
from syncd.core.settings import MAIN, Config, known_keys, unknown_key
from syncd.core.text import shown_path


def toml(value: Any, name: str) -> str:
    """A value in TOML 1.0. Raises `ConfigError`, which names the key, for a text that is not valid Unicode."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml(item, name) for item in value)}]"
    if not isinstance(value, str):
        return json.dumps(value)
    if not value.isascii() and any(0xD800 <= ord(c) <= 0xDFFF for c in value):
        shown = value.encode("ascii", "backslashreplace").decode()
        raise ConfigError(f'{name} = "{shown}"', "must be valid UTF-8")
    # JSON's escapes are TOML's; only DEL needs an escape in TOML and none in JSON.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


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
            config = checked(_parsed(after), path)
            if after != before:
                os.close(os.open(real, os.O_WRONLY | os.O_CLOEXEC))  # what is read-only is not to be changed
                rewrite(real, after.encode())
        finally:
            os.close(folder)
    except OSError as failure:
        raise ConfigError(f"{path} cannot be written ({failure.strerror})", "let your user write it") from None
    return config


def checked(raw: dict[str, Any], path: str) -> Config:
    """The configuration that these tables make, its patterns checked too. Raises `ConfigError`."""
    from syncd.daemon.build import selection_of  # noqa: PLC0415 - for what is about to be written alone

    config = layered(raw, path, read_managed())
    selection_of(config, os.environ)
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
        return parse_toml(text)
    except ValueError as failure:
        raise ConfigError("the configuration is not valid TOML", f"{failure}; `syncd config edit` opens it") from None


def _named(key: str) -> tuple[str, ...]:
    names = _names(_read(f"{key} = 0"))
    if not names:
        raise ConfigError(f"{key!r} is no key", "name one as sync.debounce_seconds")
    return names


def _read(text: str) -> dict[str, Any] | None:
    try:
        return parse_toml(text)
    except ValueError:
        return None


def _names(found: Any) -> tuple[str, ...]:
    """The names in what was read of one heading, or of one key whose value is no table."""
    names: tuple[str, ...] = ()
    while isinstance(found, dict) and len(found) == 1:
        ((name, found),) = found.items()
        names += (name,)
    return names


def _statements(text: str) -> Iterator[_Statement]:
    """The statements of valid TOML whose last line is complete: each ends, as its parts do, where it can be read."""
    table: tuple[str, ...] = ()
    start = end = 0
    for line in text.split("\n")[:-1]:
        end += len(line) + 1
        statement = text[start:end]
        found = _read(statement)
        if found is None:
            continue
        if found and statement.lstrip().startswith("["):
            table = _names(found)
            yield _Statement(table, table, start, end, None)
        elif found:
            equals = next(each.end() for each in re.finditer("=", statement) if _read(f"{statement[: each.end()]} 0"))
            comments = (each.start() for each in re.finditer("#", statement) if _read(statement[: each.start()]))
            code = statement[: next(comments, None)].rstrip()
            begins = start + len(code) - len(code[equals:].lstrip())
            name = (*table, *_names(_read(f"{statement[:equals]} 0")))
            yield _Statement(name, table, start, end, slice(begins, start + len(code)))
        start = end


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
        if _without_empty(parse_toml(text)) == _without_empty(expected):
            return text
    except ValueError:
        pass
    raise ConfigError(f"{key} is written there in a form that only a person can change", "use `syncd config edit`")


def _without_empty(tables: dict[str, Any]) -> dict[str, Any]:
    """The tables without those that are empty: with its last key a heading may go, or stay."""
    inner = {name: _without_empty(each) if isinstance(each, dict) else each for name, each in tables.items()}
    return {name: each for name, each in inner.items() if each != {}}


_EDITOR = "vi"
_KEY_FILE = ".api_key_file"
PATHS = (".path", _KEY_FILE, ".mcp_file")
_HIDDEN = "…"  # where no such file is: some write the key in the place of its file


def complete_value(annotation: Any, incomplete: str) -> list[str]:
    """The values of this type that begin so, where it has only a few."""
    kind = typing.get_args(annotation)[0] if typing.get_args(annotation) else annotation
    values: Iterable[str] = ()
    if kind is bool:
        values = "true", "false"
    elif isinstance(kind, type) and issubclass(kind, StrEnum):
        values = kind
    return [str(value) for value in values if value.startswith(incomplete)]


def _complete_key(context: click.Context, argument: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's signature
    return [key for key in known_keys() if key.startswith(incomplete)]


def _complete_value(context: click.Context, argument: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's signature
    _, annotation = known_keys().get(context.params.get("key") or "", (None, None))
    return complete_value(annotation, incomplete)


@click.group("config")
def command() -> None:
    """Show and change the configuration.

    A running daemon reads it anew at `syncd reload`.
    """


@command.command("get")
@click.argument("key", required=False, shell_complete=_complete_key)
@config_option
@json_option
def get(key: str | None, config_file: str | None, as_json: bool) -> None:
    """Print the value of KEY, such as sync.debounce_seconds; without KEY all keys with their values.

    The value is the one that counts: that of the file, else the default. A text is printed as it is, anything else as
    the file would have it.

    --json: the value; without KEY an object of all.
    """
    values = dict(_values(load_config(config_path(config_file))))
    if key is not None and key not in values:
        if key in known_keys():
            raise ConfigError(f"{key} has no value", "[sandbox] has an id or an acquire table, not both")
        raise unknown_key(key, [*values, *known_keys()])
    if as_json:
        click.echo(json.dumps(values if key is None else values[key]))
    elif key is None:
        for name, value in values.items():
            click.echo(shown_path(f"{name} = {_written(value, name)}"))
    else:
        value = values[key]
        text = value if isinstance(value, str) else _written(value, key)
        click.echo(shown_path(text) if sys.stdout.isatty() else text)


@command.command("set", context_settings={"ignore_unknown_options": True})  # a number may be negative
@click.argument("key", shell_complete=_complete_key)
@click.argument("values", metavar="VALUE...", nargs=-1, required=True, shell_complete=_complete_value)
@config_option
def set_(key: str, values: tuple[str, ...], config_file: str | None) -> None:
    """Set KEY in the configuration file; of a list, give each VALUE.

    The file is checked as a whole before it is written. Its comments, mode and owner stay.
    """
    path = config_path(config_file)
    written: list[Any] = []

    def change(text: str) -> str:
        refused = None
        for value in _readings(key, values):
            try:
                changed = with_value(text, key, value)
                layered(parse_toml(changed), path, read_managed())
            except ConfigError as failure:
                if not failure.message.startswith(key):  # another one is wrong
                    raise
                refused = refused or failure
            else:
                written.append(value)
                return changed
        assert refused is not None  # noqa: S101 - there is a reading at least
        raise refused

    managed = change_config(path, change).managed
    value = shown_path(_written(_shown(key, written[0]), key))
    click.echo(f"{key} = {value}, in {home_relative(path)}")
    if managed is not None and key in managed.narrowed:
        click.echo(f"{managed.file} does not allow that much: `syncd config get {key}` has what counts", err=True)
    _tell_daemon(path)


@command.command("edit")
@config_option
def edit(config_file: str | None) -> None:
    """Open the configuration file in $VISUAL or $EDITOR; it is replaced once what was written is valid."""
    path = config_path(config_file)
    before = read_text(path)
    folder, name = os.path.split(os.path.realpath(path))
    try:
        descriptor, draft = tempfile.mkstemp(".toml", f".{name.removesuffix('.toml')}-", folder)
    except OSError as failure:
        raise ConfigError(f"{folder} cannot be written ({failure.strerror})", "let your user write there") from None
    is_done = False
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(before.encode())
        while not is_done:
            _open_editor(draft, before)
            text = read_text(draft)
            if text == before:
                click.echo(f"{home_relative(path)} is unchanged", err=True)
                return
            try:
                change_config(path, partial(_replaced, before=before, after=text))
                is_done = True
            except ConfigError as failure:
                if not (sys.stdin.isatty() and sys.stderr.isatty()):
                    raise ConfigError(failure.message, f"{failure.hint}; what you wrote is in {draft}") from None
                click.echo(f"syncd: {failure}", err=True)
                if not _edits_again():
                    raise ConfigError(f"{path} is as before", f"what you wrote is in {draft}") from None
    finally:
        if is_done or read_text(draft) == before:
            os.unlink(draft)
    click.echo(f"wrote {home_relative(path)}")
    _tell_daemon(path)


def _edits_again() -> bool:
    """True if a person wants to correct what was refused; no answer is none."""
    try:
        with asking() as waiter:
            return answered("Edit it again? [Y/n]:", ("y", "yes", "n", "no", ""), waiter, err=True) not in ("n", "no")
    except (Stop, click.Abort):
        click.echo(err=True)
        return False


def _replaced(now: str, before: str, after: str) -> str:
    if now != before:
        raise ConfigError("the configuration was changed by another program meanwhile", "begin anew")
    return after


def _open_editor(path: str, before: str) -> None:
    """Let the person edit the file, which holds the text `before`. Raises `NeedsPerson`."""
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR") or _EDITOR
    try:
        code = subprocess.run([*shlex.split(named), path], check=False).returncode
    except (OSError, ValueError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else failure
        raise NeedsPerson(f"the editor {named!r} cannot be started ({reason})", "name one in $EDITOR") from None
    if code:
        written = "" if read_text(path) == before else f"; what you wrote is in {path}"
        raise NeedsPerson(f"the editor {named!r} ended with {code}", f"nothing was changed{written}")


def _readings(key: str, values: tuple[str, ...]) -> Iterator[Any]:
    """The values that the words of a command line may mean: a text, a value of TOML, a list."""
    texts = [os.path.abspath(value) if key.endswith(PATHS) and value and value[0] != "~" else value for value in values]
    if len(texts) == 1:
        yield texts[0]
        with suppress(ValueError):
            yield parse_toml(f"value = {values[0]}")["value"]
    yield texts


def _values(config: Config) -> Iterator[tuple[str, Any]]:
    tables: dict[str, Any] = msgspec.to_builtins(config)
    del tables["sandboxes"][MAIN]  # it is `sandbox`
    given = {name: table for name, table in tables.items() if isinstance(table, dict) and name != "managed"}
    for name, value in flat(given):
        if value is not None:
            yield name, _shown(name, value)


def _shown(key: str, value: Any) -> Any:
    is_no_file = key.endswith(_KEY_FILE) and not os.path.lexists(os.path.expanduser(value))
    return _HIDDEN if is_no_file else value


def _written(value: Any, key: str) -> str:
    with suppress(SyncdError):
        return toml(value, key)
    return json.dumps(value)


def _tell_daemon(path: str) -> None:
    if config_of_daemon(path) is not None:
        click.echo(
            f"the daemon goes on with what it read before: `syncd reload{option_for(path)}` has it read this", err=True
        )


@click.command("reload")
@config_option
def reload(config_file: str | None) -> None:
    """Have the running daemon read its configuration anew, as a SIGHUP does.

    It is checked first: a bad one is refused with its reason, and the daemon goes on with the old one.
    """
    from syncd.cli.daemon_client import order_daemon  # noqa: PLC0415 - for this command alone
    from syncd.daemon.build import selection_of  # noqa: PLC0415

    config = configured(config_file)
    selection_of(config, os.environ)
    # The daemon that has this file may have another workspace until it reads it; its status escapes odd paths.
    known = config_of_daemon(config_path(config_file)), config
    if any(order_daemon(each, {"do": "reload"}) for each in known if each is not None):
        click.echo("the daemon reads its configuration anew")
    else:
        click.echo("no daemon is running; the next one reads it")
