"""`syncd config`: shows and changes the configuration; what is not valid is not written."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import tomllib
import typing
from collections.abc import Iterable, Iterator
from contextlib import suppress
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any

import click
import msgspec

from syncd.cli.config.writer import change_config, read_text, with_value
from syncd.cli.init.config_template import toml
from syncd.cli.options import config_of_daemon, config_option, config_path, json_option, option_for
from syncd.core.config_file import layered, load_config, read_managed
from syncd.core.errors import ConfigError, NeedsPerson, SyncdError
from syncd.core.settings import MAIN, SECTIONS, AcquireKeys, Config, unknown_key
from syncd.core.text import shown_path

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_EDITOR = "vi"
_KEY_FILE = ".api_key_file"
_PATHS = (".path", _KEY_FILE, ".mcp_file")
_HIDDEN = "…"  # where no such file is: some write the key in the place of its file


def known_keys() -> dict[str, Any]:
    """Each key as `table.key`, with its type."""
    found = {}
    for table, keys in {**SECTIONS, "sandbox.acquire": AcquireKeys}.items():
        types = typing.get_type_hints(keys, include_extras=True)
        found.update({f"{table}.{key}": types[key] for key in types if f"{table}.{key}" != "sandbox.acquire"})
    return found


def complete_value(annotation: Any, incomplete: str) -> list[str]:
    """The values of this type that begin so, where it has only a few."""
    kind = typing.get_args(annotation)[0] if typing.get_args(annotation) else annotation
    values: Iterable[str] = ()
    if kind is bool:
        values = "true", "false"
    elif isinstance(kind, type) and issubclass(kind, StrEnum):
        values = kind
    return [str(value) for value in values if value.startswith(incomplete)]


def _complete_key(context: click.Context, argument: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001 - click's signature
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - only at a TAB

    return [CompletionItem(key) for key in known_keys() if key.startswith(incomplete)]


def _complete_value(context: click.Context, argument: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001 - click's signature
    from click.shell_completion import CompletionItem  # noqa: PLC0415 - only at a TAB

    annotation = known_keys().get(context.params.get("key") or "")
    return [CompletionItem(value) for value in complete_value(annotation, incomplete)]


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


@command.command("set")
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
            changed = with_value(text, key, value)
            try:
                layered(tomllib.loads(changed), path, read_managed())
            except ConfigError as failure:
                if not failure.message.startswith(key):  # another one is wrong
                    raise
                refused = refused or failure
            else:
                written.append(value)
                return changed
        assert refused is not None  # noqa: S101 - there is a reading at least
        raise refused

    change_config(path, change)
    click.echo(shown_path(f"{key} = {_written(_shown(key, written[0]), key)}, in {path}"))
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
            _open_editor(draft)
            text = read_text(draft)
            if text == before:
                click.echo(f"{shown_path(path)} is unchanged", err=True)
                return
            try:
                change_config(path, partial(_replaced, before=before, after=text))
                is_done = True
            except ConfigError as failure:
                if not (sys.stdin.isatty() and sys.stderr.isatty()):
                    raise ConfigError(failure.message, f"{failure.hint}; what you wrote is in {draft}") from None
                click.echo(f"syncd: {failure}", err=True)
                if not click.confirm("Edit it again?", default=True, err=True):
                    raise ConfigError(f"{path} is as before", f"what you wrote is in {draft}") from None
    finally:
        if is_done or read_text(draft) == before:
            os.unlink(draft)
    click.echo(f"wrote {shown_path(path)}")
    _tell_daemon(path)


def _replaced(now: str, before: str, after: str) -> str:
    if now != before:
        raise ConfigError("the configuration was changed by another program meanwhile", "begin anew")
    return after


def _open_editor(path: str) -> None:
    """Let the person edit the file. Raises `NeedsPerson`."""
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR") or _EDITOR
    try:
        code = subprocess.run([*shlex.split(named), path], check=False).returncode
    except (OSError, ValueError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else failure
        raise NeedsPerson(f"the editor {named!r} cannot be started ({reason})", "name one in $EDITOR") from None
    if code:
        raise NeedsPerson(
            f"the editor {named!r} ended with {code}", f"nothing was changed; what you wrote is in {path}"
        )


def _readings(key: str, values: tuple[str, ...]) -> Iterator[Any]:
    """The values that the words of a command line may mean: a text, a value of TOML, a list."""
    texts = [
        os.path.abspath(value) if key.endswith(_PATHS) and value and value[0] != "~" else value for value in values
    ]
    if len(texts) == 1:
        yield texts[0]
        with suppress(tomllib.TOMLDecodeError):
            yield tomllib.loads(f"value = {values[0]}")["value"]
    yield texts


def _values(config: Config) -> Iterator[tuple[str, Any]]:
    """Each key with the value that counts."""

    def flat(tables: dict[str, Any], before: str) -> Iterator[tuple[str, Any]]:
        for name, value in tables.items():
            if isinstance(value, dict):
                yield from flat(value, f"{before}{name}.")
            elif value is not None:
                yield before + name, value

    tables: dict[str, Any] = msgspec.to_builtins(config)
    del tables["sandboxes"][MAIN]  # it is `sandbox`
    given = {name: table for name, table in tables.items() if isinstance(table, dict) and name != "managed"}
    for name, value in flat(given, ""):
        yield name, _shown(name, value)


def _shown(key: str, value: Any) -> Any:
    is_no_file = key.endswith(_KEY_FILE) and not os.path.lexists(os.path.expanduser(value))
    return _HIDDEN if is_no_file else value


def _written(value: Any, key: str) -> str:
    """The value as the file would have it."""
    with suppress(SyncdError):
        return toml(value, key)
    return json.dumps(value)


def _tell_daemon(path: str) -> None:
    if config_of_daemon(path) is not None:
        click.echo(
            f"the daemon goes on with what it read before: `syncd reload{option_for(path)}` has it read this", err=True
        )
