"""`syncd config` and `syncd reload`: show the configuration, and have a person edit it.

What is not valid is neither written nor read. `change_config(path, partial(with_sandbox, name="review", keys={"id":
"box-2"}))` appends the table of one more sandbox, `without_sandbox` cuts it out again. Comments and order stay.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from tempfile import NamedTemporaryFile
from typing import Any

import click
import msgspec

from syncd.cli.options import answered, config_of_daemon, config_option, config_path, configured, interruptible
from syncd.cli.output import CommandGroup, home_relative, print_error, print_path
from syncd.core.config_file import load_config, parse_config, parse_toml, read_text
from syncd.core.directories import default_key_file
from syncd.core.durable_file import rewrite
from syncd.core.errors import ConfigError, NeedsPerson, Stop, SyncdError
from syncd.core.settings import MAIN, SECTIONS, Config, check_config, table_of


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


def with_sandbox(text: str, name: str, keys: Mapping[str, Any]) -> str:
    """The text of a configuration with the table of one more sandbox at its end. Raises `ConfigError`."""
    table = table_of(name)
    lines = "".join(f"{key} = {toml(value, f'{table}.{key}')}\n" for key, value in _flat(keys))
    changed = f"{_whole_lines(text)}\n[{table}]\n{lines}"
    if _differ_by(changed, text, name):
        return changed
    raise ConfigError(f"[{table}] cannot be added to the file as it is written", "add it with `syncd config edit`")


def without_sandbox(text: str, name: str) -> str:
    """The text of a configuration without the table of this sandbox, and those below it. Raises `ConfigError`.

    A table ends with its last line that is not empty and no comment; lines such as `sandboxes.NAME.id = "x"` go too.
    """
    table, blank, line = re.escape(table_of(name)), r"[ \t\r]*(?:#.*)?\n", r"[ \t]*[^\s#\[].*\n"
    in_brackets, dotted = rf"\n?[ \t]*\[{table}[.\]].*\n(?:(?:{blank})*{line})*", rf"[ \t]*{table}\..*\n"
    cut = re.compile(rf"^(?:{in_brackets}|{dotted})", re.MULTILINE)
    changed = cut.sub("", _whole_lines(text))
    if _differ_by(text, changed, name):
        return changed
    what = f"[{table_of(name)}] cannot be cut out of the file as it is written"
    raise ConfigError(what, "remove it with `syncd config edit`")


def _whole_lines(text: str) -> str:
    return text if text.endswith("\n") else f"{text}\n"


def _differ_by(more: str, less: str, name: str) -> bool:
    """True if all that the one text has more than the other is the table of this sandbox."""
    with suppress(ValueError):
        has, had = parse_toml(more), parse_toml(less)
        sandboxes = has.get("sandboxes")
        table = sandboxes.pop(name, None) if isinstance(sandboxes, dict) else None
        return table is not None and has == {"sandboxes": {}, **had}
    return False


def change_config(path: str, change: Callable[[str], str]) -> None:
    """Replace the file's text by what `change` makes of it, once that is checked.

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
            checked(parse_config(after, path), path)
            if after != before:
                os.close(os.open(real, os.O_WRONLY | os.O_CLOEXEC))  # what is read-only is not to be changed
                rewrite(real, after.encode())
        finally:
            os.close(folder)
    except OSError as failure:
        raise ConfigError(f"{path} cannot be written ({failure.strerror})", "let your user write it") from None


def checked(raw: dict[str, Any], path: str) -> Config:
    """The configuration that these tables make, if its patterns can match and no other one has its sandboxes.

    Raises `ConfigError`.
    """
    from syncd.daemon.build import selection_of  # noqa: PLC0415 - for what is about to be written alone
    from syncd.daemon.shared_sandbox import conflict, others_naming  # noqa: PLC0415

    config = check_config(raw, path)
    selection_of(config, os.environ)
    for each in map(config.for_sandbox, config.sandboxes):
        if others := others_naming(each, os.environ):
            raise conflict(each, others)
    return config


_KEY_FILE = ".api_key_file"
_HIDDEN = "…"  # where no such file is: some write the key in the place of its file


@click.group("config", invoke_without_command=True, cls=CommandGroup)
@config_option
@click.pass_context
def command(context: click.Context, config_file: str | None) -> None:
    """Show the configuration, or edit it.

    \b
    syncd config    each value that counts, and its source
    syncd config edit
    """
    # `syncd config --config FILE edit`: given before the subcommand, the option is that one's default.
    context.default_map = {name: {"config_file": config_file} for name in command.commands}
    if context.invoked_subcommand is None:
        context.invoke(show, config_file=config_file)


@command.command("show")
@config_option
def show(config_file: str | None) -> None:
    """Print each key with the value that counts, as TOML.

    A comment says where it is from, if not from the file. What a further sandbox does not set counts as in [sandbox].
    """
    from syncd.daemon.build import selection_of  # noqa: PLC0415

    path = config_path(config_file)
    config = load_config(path)
    selection_of(config, os.environ)
    tables: dict[str, Any] = msgspec.to_builtins(config)
    del tables["sandboxes"][MAIN]  # it is `sandbox`
    given = dict(_flat(parse_config(read_text(path), path)))
    click.echo(f"# {home_relative(path)}")
    for key, value in _flat({name: table for name, table in tables.items() if name in ("sandboxes", *SECTIONS)}):
        if value is not None:
            is_shared = key.startswith("sandboxes.") and ".acquire." not in key
            origin = f"  # {'as in [sandbox]' if is_shared else 'default'}"
            print_path(f"{key} = {_shown(key, value)}{'' if key in given else origin}")


def _flat(tables: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Each key with the tables that it is in, and its value."""
    for name, value in tables.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield before + name, value


def _shown(key: str, value: Any) -> str:
    if key.endswith(_KEY_FILE) and value != default_key_file(os.environ) and not os.path.lexists(value):
        value = _HIDDEN
    with suppress(SyncdError):
        return toml(value, key)
    return json.dumps(value)


@command.command("path")
@config_option
def path_(config_file: str | None) -> None:
    """Print the path of the configuration file."""
    print_path(os.path.abspath(config_path(config_file)))


@command.command("edit")
@config_option
def edit(config_file: str | None) -> None:
    """Edit the configuration file, which counts once it is valid.

    \b
    syncd config edit --config site

    $VISUAL counts before $EDITOR. A running daemon reads it anew then.
    """
    path = config_path(config_file)
    before = read_text(path)
    text = _edited(before)
    while text != before:
        try:
            change_config(path, partial(_replaced, before=before, after=text))
        except ConfigError as failure:
            if sys.stdin.isatty() and sys.stderr.isatty():
                print_error(str(failure))
                if _edits_again():
                    text = _edited(text)
                    continue
            # Not beside the file: its folder may be read-only.
            with NamedTemporaryFile("wb", prefix="syncd-refused-", suffix=".toml", delete=False) as refused:
                refused.write(text.encode())
            raise ConfigError(failure.message, f"{failure.hint}; what you wrote is in {refused.name}") from None
        click.echo(f"wrote {home_relative(path)}")
        if _reload(config_of_daemon(path)):
            click.echo("the daemon reads it anew")
        return
    click.echo(f"{home_relative(path)} is unchanged", err=True)


def _edited(text: str) -> str:
    """The text as the person's editor leaves it. Raises `NeedsPerson`."""
    try:
        edited: bytes = click.edit(text.encode(), extension=".toml", require_save=False) or b""
        return edited.decode()
    except UnicodeDecodeError:
        raise NeedsPerson("nothing was changed, as what you wrote is not UTF-8", "write it once more") from None
    except (click.ClickException, ValueError, OSError) as failure:
        raise NeedsPerson(f"nothing was changed, as the editor failed ({failure})", "name another in $EDITOR") from None


def _edits_again() -> bool:
    """True if a person wants to correct what was refused; no answer is none."""
    try:
        with interruptible() as waiter:
            return answered("Edit it again? [Y/n]:", ("y", "yes", "n", "no", ""), waiter, err=True) not in ("n", "no")
    except (Stop, click.Abort):
        return False


def _replaced(now: str, before: str, after: str) -> str:
    if now != before:
        raise ConfigError("the configuration was changed by another program meanwhile", "run the command again")
    return after


def _reload(*known: Config | None) -> bool:
    """Have the daemon of one of these configurations read its file anew; False if none runs."""
    from syncd.cli.daemon_client import order_daemon  # noqa: PLC0415 - for what was changed alone

    return any(order_daemon(each, {"do": "reload"}) for each in known if each is not None)


@click.command("reload")
@config_option
def reload(config_file: str | None) -> None:
    """Have the running daemon read its configuration anew, as a SIGHUP does.

    \b
    syncd reload    after a change without `syncd config edit`

    It is checked first: a bad one is refused with its reason, and the daemon goes on with the old one.
    """
    from syncd.daemon.build import selection_of  # noqa: PLC0415

    config = configured(config_file)
    selection_of(config, os.environ)
    # The daemon that has this file may have another workspace until it reads it; its status escapes odd paths.
    if _reload(config_of_daemon(config.file), config):
        click.echo("the daemon reads its configuration anew")
    else:
        click.echo("no daemon is running; the next one reads it")
