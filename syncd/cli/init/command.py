"""`syncd init`: writes a first configuration, with the example's comments, checked before; overwrites nothing."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import click

from syncd.cli.init.config_template import filled
from syncd.cli.init.files import example, refuse_existing, write_new
from syncd.cli.init.flags import ALIASES, flag_per_key, typed
from syncd.cli.init.next_steps import after_first_sync, next_steps
from syncd.cli.init.other_workspaces import refuse_same, refuse_same_sandbox
from syncd.cli.init.questions import absolute, asked_key, complete, may_store, tell_overlaps, tell_shared_mounts
from syncd.cli.options import option_for
from syncd.core.api_key import KEY_VARIABLE, ApiKey, find_key, parse_key
from syncd.core.choices import MANAGED_FILE
from syncd.core.config_file import read_managed
from syncd.core.config_lookup import config_files, named_config, read_workspaces
from syncd.core.config_match import ConfiguredWorkspace, holding
from syncd.core.directories import default_key_file
from syncd.core.errors import ConfigError, KeyRefused, SyncdError, TryLater
from syncd.core.managed import layered
from syncd.core.settings import Config, SandboxKeys
from syncd.core.text import one_line, shown_path

_PATHS = ("workspace.path", "sandbox.api_key_file", "sandbox.mcp_file")
_CONFIG_OPTION, _KEY_OPTION = "--config", "--sandbox-api-key-file"


@click.command("init")
@click.option(
    "--config",
    "config_file",
    metavar="FILE",
    type=click.Path(),
    help="Where to write: a file, or NAME for ~/.config/syncd/NAME.toml. Default: config.toml there; if that exists,"
    " a name is asked for.",
)
@click.option(
    "--store-key/--no-store-key",
    "store_key",
    default=None,
    help=f"Whether the key of ${KEY_VARIABLE} is put into the key file, where a service finds it; default: it is.",
)
@flag_per_key
def command(config_file: str | None, store_key: bool | None, **flags: Any) -> None:
    """Write a configuration file with a comment for every key.

    On a terminal it asks for what is missing, shows what would be sent, and sends it if you say so. What is already
    there, a configuration or a key, is never overwritten.
    """
    given = {name.replace("__", "."): value for name, value in flags.items() if value not in (None, ())}
    values = {name: typed(name, value) for name, value in given.items()}
    for name in _PATHS:
        if name in values:
            values[name] = absolute(values[name])
    layer = read_managed()
    managed = layer.values()
    key_file = default_key_file(os.environ)
    if key_file != os.path.expanduser(SandboxKeys().api_key_file) and "sandbox.api_key_file" not in values | managed:
        values["sandbox.api_key_file"] = key_file  # a service reads the file, and may have another environment
    missing = _missing(values, acquires=layer.acquires)
    terminal = sys.stdin.isatty() and sys.stderr.isatty()
    path = named_config(config_file or "config", os.environ)
    asks_name = not config_file and bool(missing) and terminal and os.path.lexists(path)
    if not asks_name:
        refuse_existing(path, _CONFIG_OPTION)
    if missing and not terminal:
        raise click.UsageError(f"{' and '.join(missing)} must be given, as there is no terminal to ask on.")
    others, _ = read_workspaces(config_files(os.environ))
    if "workspace.path" in values:
        tell_overlaps(values["workspace.path"], others)
    elif not config_file:
        _refuse_here(others)
    try:
        if missing:
            path = complete(values, None if asks_name else path, os.environ, others, layer)
        text = _text(values, managed)
        config = layered(tomllib.loads(text), path, layer)
        refuse_same(config.workspace.path, others)
        refuse_same_sandbox(config, os.environ)
        tell_shared_mounts(config.workspace.path)
        key = _key_to_store(config, store_key, terminal, asks=bool(missing))
    except (click.Abort, KeyboardInterrupt):
        raise TryLater("stopped; nothing was written", "the same command begins anew") from None
    if key is not None:
        write_new(config.sandbox.api_key_file, key.reveal() + "\n", _KEY_OPTION)
        click.echo(f"wrote {shown_path(config.sandbox.api_key_file)}")
    write_new(path, text, _CONFIG_OPTION)
    click.echo(f"wrote {shown_path(path)}")
    option = option_for(path)
    if missing and _sent(config, option):
        click.echo(after_first_sync(option))
        return
    for line in next_steps(config, option, os.environ):
        click.echo(line)


def _refuse_here(others: Sequence[ConfiguredWorkspace]) -> None:
    """Raise `ConfigError` if a configuration holds the current directory: that one is to be edited."""
    with suppress(OSError):  # the directory was removed
        for other in holding(os.getcwd(), others):
            raise ConfigError(
                f"{other.file} syncs {other.path} already, where this is", "edit it, or name another with --path"
            )


def _text(values: dict[str, Any], managed: dict[str, Any]) -> str:
    """The file's text. Raises `ConfigError` for a value that it cannot hold."""
    given = f"# A key that is commented out here and stands in {MANAGED_FILE} has its value from there.\n"
    return (given if managed else "") + filled(example(), values, managed)


def _missing(values: dict[str, Any], *, acquires: bool) -> list[str]:
    """The options without which no configuration is complete."""
    acquires = any(name.startswith("sandbox.acquire.") for name in values) or acquires
    needed = ("workspace.path",) if acquires else ("workspace.path", "sandbox.id")
    return [ALIASES[name] for name in needed if name not in values]


def _key_to_store(config: Config, store_key: bool | None, terminal: bool, *, asks: bool) -> ApiKey | None:
    """The key for the key file; None if the file exists, if no key is known, or if it is not to be stored.

    A service does not see the person's environment: the key is stored by default, so that the next step works.
    """
    key_file = config.sandbox.api_key_file
    if os.path.lexists(key_file):
        return None
    value = os.environ.get(KEY_VARIABLE)
    if not value:
        return asked_key(key_file) if terminal else None
    key = parse_key(value, f"${KEY_VARIABLE}")
    if store_key is None and asks:
        store_key = may_store(KEY_VARIABLE, key_file)
    return None if store_key is False else key


def _sent(config: Config, option: str) -> bool:
    """Show what would be sent, ask, and send it if the answer is yes. No request is made before the answer."""
    from syncd.cli.init.preview import make_preview, show  # noqa: PLC0415 - `init --help` needs none of it

    try:
        preview = make_preview(config)
        show(preview, option)
        find_key(os.environ, config.sandbox.api_key_file)
        if preview.refusal or not preview.manifest:
            return False
        click.echo()
        if not click.confirm("Send it now?", default=False, err=True):
            return False
    except KeyRefused:
        return False
    except SyncdError as failure:
        click.echo(f"\n{one_line(str(failure), 1000)}", err=True)
        return False
    except (click.Abort, KeyboardInterrupt):
        click.echo("\nNothing was sent.", err=True)
        return False
    from syncd.cli.push import push, summary  # noqa: PLC0415

    click.echo(summary(push(config, force=False)))
    return True
