"""The questions of `syncd init`: an invalid answer is refused with the reason, and asked for again."""

from __future__ import annotations

import contextlib
import os
import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import click

from syncd.cli.init.config_template import toml
from syncd.cli.init.other_workspaces import checked_name, name_for, overlaps, refuse_same, refuse_same_sandbox
from syncd.core.api_key import ApiKey, parse_key
from syncd.core.choices import Region
from syncd.core.config_lookup import config_files, config_name, named_config
from syncd.core.config_match import ConfiguredWorkspace, holding
from syncd.core.errors import ConfigError, SyncdError
from syncd.core.managed import ManagedLayer
from syncd.core.settings import AcquireKeys, check_config
from syncd.core.text import one_line, shown_path

_WIDTH = 79
# Accounts of the EU have an address of their own.
_EU_URL = "https://api.eu.klavis.ai"
_REGIONS = {region.value: {"sandbox.region": region.value} for region in Region}
_EU = {"eu": {"sandbox.region": Region.US.value, "sandbox.base_url": _EU_URL}}


def complete(
    values: dict[str, Any],
    path: str | None,
    environ: Mapping[str, str],
    others: Sequence[ConfiguredWorkspace],
    layer: ManagedLayer,
) -> str:
    """Ask for what is required and not in `values`, and for the file's name if `path` is None; returns the file.

    `others` are the workspaces that have a configuration. What the managed file gives is not asked for. Raises
    `click.Abort`.
    """
    given = layer.values()
    where = "a configuration for one more workspace" if path is None else home_relative(path)
    click.echo(f"This writes {where}.", err=True)
    click.echo("Enter takes what is in [brackets]. Ctrl-C leaves, and nothing is written.\n", err=True)
    if "workspace.path" not in values:
        offered = _offered_path(others)
        ask = "Directory to keep in the sandbox" + ("" if offered is None else f" [{home_relative(offered)}]")
        values["workspace.path"] = _answer(ask, lambda answer: _workspace(answer, others), offered)
        tell_overlaps(values["workspace.path"], others)
    if path is None:
        taken = [config_name(file) for file in config_files(environ)]
        offered = name_for(os.path.realpath(os.path.expanduser(values["workspace.path"])), taken)
        name = _answer(f"Name of its configuration [{offered}]", lambda answer: checked_name(answer, taken), offered)
        path = named_config(name, environ)
    if "sandbox.id" not in values and not any(name.startswith("sandbox.acquire.") for name in values):
        base_url = (values | given).get("sandbox.base_url")
        ask = "Sandbox id [Enter: acquire one when needed]"
        named = _answer(ask, lambda answer: _sandbox(answer, base_url, environ), "")
        if named:
            values["sandbox.id"] = named
        elif not layer.acquires:
            keys = AcquireKeys()
            values |= {"sandbox.acquire.servers": keys.servers, "sandbox.acquire.ttl_seconds": keys.ttl_seconds}
    if "sandbox.region" not in values | given:
        is_open = "sandbox.base_url" not in values | given and layer.allows_base_url(_EU_URL)
        regions = _REGIONS | (_EU if is_open else {})
        named = _answer(f"Region, {', '.join(regions)} [{Region.US}]", partial(_region, regions), Region.US)
        values |= regions[named]
    return path


def tell_overlaps(workspace: str, others: Sequence[ConfiguredWorkspace]) -> None:
    """Say on stderr what it means that this workspace is inside another, or around one."""
    for note in overlaps(os.path.realpath(os.path.expanduser(workspace)), others):
        _say(note)


def tell_shared_mounts(workspace: str) -> None:
    """Say on stderr what to expect of a workspace on a shared file system, or with one in it."""
    from syncd.watch.mounts import workspace_mounts_of  # noqa: PLC0415 - `init --help` needs none of it
    from syncd.watch.shared_mounts import shared_warning  # noqa: PLC0415 - as above

    for path, filesystem in workspace_mounts_of(workspace).shared.items():
        _say(str(shared_warning(path, filesystem)))


def asked_key(key_file: str) -> ApiKey | None:
    """The key that a person typed; None if there was none. Raises `click.Abort`."""
    click.echo(f"The API key goes into {home_relative(key_file)}, for only you to read.", err=True)
    while True:
        ask = "API key (not shown; Enter to do it later)"
        typed = click.prompt(ask, hide_input=True, default="", show_default=False, err=True)
        if not typed:
            return None
        try:
            return parse_key(typed, "the prompt")
        except SyncdError as failure:
            _say(str(failure))


def may_store(variable: str, key_file: str) -> bool:
    """True if the person wants the environment's key to be stored. Raises `click.Abort`."""
    click.echo(f"A service does not see ${variable}; it reads {home_relative(key_file)}.", err=True)
    return click.confirm("Store the key there, for only you to read?", default=True, err=True)


def absolute(path: Any) -> Any:
    """The path made absolute from the current directory, as the file would read it from its own folder."""
    return path if not isinstance(path, str) or path.startswith("~") or not path else os.path.abspath(path)


def _answer(question: str, check: Callable[[str], str], default: str | None) -> str:
    while True:
        try:
            return check(click.prompt(question, default=default, show_default=False, err=True))
        except SyncdError as failure:
            _say(str(failure))
        except UnicodeDecodeError:
            _say("that is not UTF-8, and a configuration file can hold nothing else")


def _say(why: str) -> None:
    width = min(shutil.get_terminal_size().columns - 1, _WIDTH)
    click.echo(textwrap.fill(one_line(why, 1000), width, initial_indent="  ", subsequent_indent="  "), err=True)


def _workspace(answer: str, others: Sequence[ConfiguredWorkspace]) -> str:
    """The answer as the file will hold it. Raises `SyncdError`."""
    from syncd.daemon.build import places_of  # noqa: PLC0415 - `init --help` needs none of it

    path: str = absolute(answer.strip())
    toml(path, "workspace.path")
    config = check_config({"workspace": {"path": path}, "sandbox": {"id": "any"}})
    places_of(config, os.environ)
    if not os.path.isdir(config.workspace.path):
        what = "is no directory" if os.path.lexists(config.workspace.path) else "does not exist"
        raise ConfigError(f"{home_relative(config.workspace.path)} {what}", "name one that is there")
    refuse_same(config.workspace.path, others)
    return path


def _sandbox(answer: str, base_url: str | None, environ: Mapping[str, str]) -> str:
    answer = answer.strip()
    toml(answer, "sandbox.id")
    if answer:
        sandbox = {"id": answer} if base_url is None else {"id": answer, "base_url": base_url}
        refuse_same_sandbox(check_config({"workspace": {"path": "/any/where"}, "sandbox": sandbox}), environ)
    return answer


def _region(regions: Mapping[str, Any], answer: str) -> str:
    if answer not in regions:
        raise ConfigError(f'"{answer}" is no region', f"name one of {', '.join(regions)}")
    return answer


def _offered_path(others: Sequence[ConfiguredWorkspace]) -> str | None:
    """The current directory, unless it is in a configured workspace, or is refused as the home directory is."""
    with contextlib.suppress(SyncdError, OSError):
        here = os.getcwd()
        return None if holding(here, others) else _workspace(here, others)
    return None


def home_relative(path: str) -> str:
    """The path as it is shown: with `~` below the home directory."""
    home = os.path.expanduser("~")
    return shown_path(f"~{path.removeprefix(home)}" if path.startswith(f"{home}/") else path)
