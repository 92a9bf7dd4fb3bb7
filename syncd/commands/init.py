"""`syncd init`: a first configuration, commented like the example, checked before it is written, never over another."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shlex
import sys
import tomllib
import typing
from collections.abc import Callable, Iterator
from typing import Any

import click
import msgspec

import syncd
from syncd.base.apikey import ApiKey, checked_key
from syncd.base.config import SECTIONS, AcquireKeys, Config, Text, check_config
from syncd.base.errors import ConfigError, NeedsPerson, TryLater
from syncd.base.text import shown_path
from syncd.commands.options import config_path
from syncd.policy.config_text import filled

_TABLES: dict[str, type[msgspec.Struct]] = {**SECTIONS, "sandbox.acquire": AcquireKeys}
_KEYS: dict[str, tuple[msgspec.structs.FieldInfo, Any]] = {
    f"{table}.{field.name}": (field, typing.get_type_hints(keys, include_extras=True)[field.name])
    for table, keys in _TABLES.items()
    for field in msgspec.structs.fields(keys)
    if f"{table}.{field.name}" not in _TABLES
}
_ALIASES = {"workspace.path": "--path", "sandbox.id": "--id"}
_PATHS = ("workspace.path", "sandbox.api_key_file")
_EXAMPLE = "config.example.toml"


def _flag_per_key(verb: Callable[..., Any]) -> Callable[..., Any]:
    """One option for each key of the configuration, in the file's order, each named like its key."""
    for name, (field, annotation) in reversed(_KEYS.items()):
        verb = _option(name, field, annotation)(verb)
    return verb


def _option(name: str, field: msgspec.structs.FieldInfo, annotation: Any) -> Callable[..., Any]:
    flag = "--" + name.replace(".", "-").replace("_", "-")
    variable = name.replace(".", "__")
    if isinstance(field.default, bool):
        switch = f"{flag}/--no-{flag[2:]}"
        return click.option(switch, variable, default=None, help=f"{name}; default: {str(field.default).lower()}.")
    names = [flag, *([_ALIASES[name]] if name in _ALIASES else []), variable]
    if isinstance(field.default, tuple):
        return click.option(*names, multiple=True, metavar="TEXT", help=f"{name}: one of the list. Repeatable.")
    allowed = _description(annotation).replace('"', "")
    text = f"{name}: {allowed}" if allowed and allowed != _description(Text) else name
    default = "" if field.default in (msgspec.NODEFAULT, None) else f"; default: {field.default}"
    return click.option(*names, metavar="VALUE", help=f"{text}{default}.")


def _description(annotation: Any) -> str:
    """What the key's own description says is allowed."""
    for meta in getattr(annotation, "__metadata__", ()):
        if isinstance(meta, msgspec.Meta) and meta.description:
            return meta.description
    return ""


@click.command("init")
@click.option(
    "--config", "config_file", metavar="FILE", type=click.Path(), help="Where to write; default: ~/.config/syncd/…"
)
@_flag_per_key
def command(config_file: str | None, **flags: Any) -> None:
    """Write a configuration file with a comment for every key.

    On a terminal it asks for what is missing. What is already there, a configuration or a key, is never overwritten.
    """
    path = config_path(config_file)
    if os.path.lexists(path):
        raise _there_already(path)
    given = {name.replace("__", "."): value for name, value in flags.items() if value not in (None, ())}
    values = {name: _typed(name, value) for name, value in given.items()}
    for name in _PATHS:
        if name in values:
            values[name] = _from_here(values[name])
    terminal = sys.stdin.isatty() and sys.stderr.isatty()
    try:
        _complete(values, terminal)
        text = filled(_example(), values)
        config = check_config(tomllib.loads(text), path)
        key = _asked_key(config) if terminal else None
    except click.Abort:
        raise TryLater("stopped; nothing was written") from None
    if key is not None:
        _write_new(config.sandbox.api_key_file, key.reveal() + "\n")
        click.echo(f"wrote {shown_path(config.sandbox.api_key_file)}")
    _write_new(path, text)
    click.echo(f"wrote {shown_path(path)}")
    for line in _next_steps(config, "" if config_file is None else f" --config {shlex.quote(path)}"):
        click.echo(shown_path(line))


def _typed(name: str, value: Any) -> Any:
    """A number where the key is one and the text too; what is wrong with it, the check of the whole will say."""
    if typing.get_args(_KEYS[name][1])[0] not in (int, float):
        return value
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            number = kind(value)
            return number if math.isfinite(number) else value
    return value


def _complete(values: dict[str, Any], terminal: bool) -> None:
    """Ask for what is required and missing; where nobody can answer, that is wrong usage."""
    acquires = any(name.startswith("sandbox.acquire.") for name in values)
    missing = ["workspace.path"] if "workspace.path" not in values else []
    missing += ["sandbox.id"] if "sandbox.id" not in values and not acquires else []
    if missing and not terminal:
        flags = " and ".join(_ALIASES[name] for name in missing)
        raise click.UsageError(f"{flags} must be given: there is no terminal to ask on")
    if "workspace.path" in missing:
        ask, offered = "Directory to keep in the sandbox", _offered_path()
        if offered is not None:
            ask += f" [{shown_path(offered)}]"  # click would show it as it is
        values["workspace.path"] = click.prompt(
            ask, default=offered, show_default=False, value_proc=_workspace, err=True
        )
    if "sandbox.id" in missing:
        values["sandbox.id"] = click.prompt("Sandbox id", err=True)
    if missing and "sandbox.region" not in values:
        choice = click.Choice(("us", "asia"))
        values["sandbox.region"] = click.prompt("Region", type=choice, default="us", err=True)


def _workspace(answer: str) -> str:
    """The answer as the file will hold it; what is refused is asked for again."""
    path: str = _from_here(answer)
    try:
        check_config({"workspace": {"path": path}, "sandbox": {"id": "any"}})
    except ConfigError as failure:
        raise click.UsageError(str(failure)) from None
    return path


def _offered_path() -> str | None:
    """Here, unless that is the home directory or above it, which are refused."""
    with contextlib.suppress(click.UsageError):
        return _workspace(os.getcwd())
    return None


def _from_here(path: Any) -> Any:
    """As the shell means it, relative to the current directory; in the file it would be relative to the file."""
    return path if not isinstance(path, str) or path.startswith("~") else os.path.abspath(path)


def _asked_key(config: Config) -> ApiKey | None:
    """The key that a person typed, or None where one is at hand or none was typed."""
    if os.environ.get("KLAVIS_API_KEY") or os.path.lexists(config.sandbox.api_key_file):
        return None
    typed = click.prompt(
        f"API key, for {config.sandbox.api_key_file} (not shown; Enter to do it later)",
        hide_input=True,
        default="",
        show_default=False,
        err=True,
    )
    return checked_key(typed, "the prompt") if typed else None


def _example() -> str:
    """The example as it was installed, or as it lies in a checkout."""
    package = os.path.dirname(os.path.abspath(syncd.__file__))
    for folder in (package, os.path.dirname(package)):
        with contextlib.suppress(FileNotFoundError), open(os.path.join(folder, _EXAMPLE), encoding="utf-8") as file:
            return file.read()
    raise NeedsPerson(f"{_EXAMPLE} is missing from this installation", "install syncd again")


def _write_new(path: str, text: str) -> None:
    """A private file where none was. Raises `ConfigError`."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as failure:
        if failure.errno == errno.EEXIST and os.path.lexists(path):
            raise _there_already(path) from None
        raise ConfigError(f"{path} cannot be written: {failure.strerror}", "name another file with --config") from None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as failure:
        os.unlink(path)  # half a file is worse than none
        raise ConfigError(f"{path} cannot be written: {failure.strerror}", "make room and try again") from None


def _there_already(path: str) -> ConfigError:
    return ConfigError(f"{path} is there already and is left as it is", "edit it, or name another with --config")


def _next_steps(config: Config, option: str) -> Iterator[str]:
    key_file = config.sandbox.api_key_file
    yield ""
    if os.environ.get("KLAVIS_API_KEY"):
        yield "The API key comes from $KLAVIS_API_KEY. A service does not see that; for one,"
        yield f"put it into {key_file}, mode 0600."
    elif not os.path.lexists(key_file):
        yield "The API key is still missing. Make its file, and paste the key into it:"
        yield f"  install -m 600 /dev/null {shlex.quote(key_file)}"
    if not os.path.isdir(config.workspace.path):
        yield f"The directory {config.workspace.path} does not exist yet."
    yield "Next:"
    yield f"  syncd check{option}    tries all that a sync needs"
    yield f"  syncd ls{option}       shows what would be sent"
    yield f"  syncd push{option}     sends it once; syncd run keeps it in step"
