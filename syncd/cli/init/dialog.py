"""The questions of `syncd init`: an invalid answer is refused with the reason, and asked for again."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from syncd.cli.init.config_template import toml
from syncd.cli.layout import wrapped
from syncd.cli.output import home_relative
from syncd.core.api_key import KEY_VARIABLE, ApiKey, parse_key
from syncd.core.choices import Region
from syncd.core.config_file import (
    ConfiguredWorkspace,
    ManagedLayer,
    config_files,
    config_name,
    holding,
    is_within,
    named_config,
    overlapping,
)
from syncd.core.errors import ConfigError, SyncdError
from syncd.core.settings import AcquireKeys, Config, check_config
from syncd.core.text import one_line, shown_path
from syncd.daemon.shared_sandbox import others_naming, refuse_named
from syncd.watch.mounts import shared_warning, workspace_mounts_of

_WIDTH = 79
# Accounts of the EU have an address of their own.
_EU_URL = "https://api.eu.klavis.ai"
_US = {"us": {"sandbox.region": Region.US.value}}
_EU = {"eu": {"sandbox.region": Region.US.value, "sandbox.base_url": _EU_URL}}
_ASIA = {"asia": {"sandbox.region": Region.ASIA.value}}
# Where a typed key comes from.
PROMPT = "the prompt"
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]+")

Checked = TypeVar("Checked")


def complete(
    values: dict[str, Any], path: str | None, others: Sequence[ConfiguredWorkspace], layer: ManagedLayer
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
        taken = [config_name(file) for file in config_files(os.environ)]
        offered = _name_for(_real(values["workspace.path"]), taken)
        name = _answer(f"Name of its configuration [{offered}]", lambda answer: _checked_name(answer, taken), offered)
        path = named_config(name, os.environ)
    ask_sandbox(values, layer)
    if "sandbox.region" not in values | given:
        is_open = "sandbox.base_url" not in values | given and layer.allows_base_url(_EU_URL)
        regions = _US | (_EU if is_open else {}) | _ASIA

        def checked(answer: str) -> str:
            if answer not in regions:
                raise ConfigError(f'"{answer}" is no region', f"name one of {', '.join(regions)}")
            return answer

        values |= regions[_answer(f"Region ({', '.join(regions)}) [{Region.US}]", checked, Region.US)]
    return path


def ask_sandbox(values: dict[str, Any], layer: ManagedLayer) -> None:
    """Ask for the sandbox, or whether to acquire one, if `values` have neither. Raises `click.Abort`."""
    if "sandbox.id" not in values and not any(name.startswith("sandbox.acquire.") for name in values):
        base_url = (values | layer.values()).get("sandbox.base_url")
        named = _answer("Sandbox id [Enter: acquire one when needed]", lambda answer: _sandbox(answer, base_url), "")
        if named:
            values["sandbox.id"] = named
        elif not layer.acquires:
            keys = AcquireKeys()
            values |= {"sandbox.acquire.servers": keys.servers, "sandbox.acquire.ttl_seconds": keys.ttl_seconds}


def asked_key(key_file: str) -> ApiKey | None:
    """The key that a person typed; None if there was none. Raises `click.Abort`."""
    click.echo(f"The API key goes into {home_relative(key_file)}, for only you to read.", err=True)
    ask = "API key (not shown; Enter to do it later)"
    return _answer(ask, lambda typed: parse_key(typed, PROMPT) if typed else None, "", hide_input=True)


def may_store(key_file: str) -> bool:
    """True if the person wants the environment's key to be stored. Raises `click.Abort`."""
    click.echo(f"A service does not see ${KEY_VARIABLE}; it reads {home_relative(key_file)}.", err=True)
    return click.confirm("Store the key there, for only you to read?", default=True, err=True)


def refuse_taken(config: Config, others: Sequence[ConfiguredWorkspace]) -> None:
    """Raise `ConfigError` if another configuration has this workspace or sandbox, or another syncd syncs to it."""
    _refuse_same(config.workspace.path, others)
    for other in others_naming(config, os.environ):
        raise ConfigError(
            f"{shown_path(other.file)} has the sandbox {config.sandbox.id} already", "edit it, or name another sandbox"
        )
    refuse_named(config, os.environ)


def tell_overlaps(workspace: str, others: Sequence[ConfiguredWorkspace]) -> None:
    """Say on stderr what it means that this workspace is inside another, or around one."""
    workspace = _real(workspace)
    for other in overlapping(workspace, others):
        name, path = os.path.basename(other.file), shown_path(other.path)
        if other.path != workspace and is_within(workspace, other.path):
            pattern = shown_path(os.path.relpath(workspace, other.path))
            say(f'it is inside {path}, and {name} syncs it as well, unless workspace.ignore there has "/{pattern}/"')
        elif other.path != workspace:
            pattern = shown_path(os.path.relpath(other.path, workspace))
            say(f'{path} of {name} is inside it, and is synced twice, unless workspace.ignore here has "/{pattern}/"')


def tell_shared_mounts(workspace: str) -> None:
    """Say on stderr what to expect of a workspace on a shared file system, or with one in it."""
    for path, filesystem in workspace_mounts_of(workspace).shared.items():
        say(str(shared_warning(path, filesystem)))


def absolute(path: Any) -> Any:
    """The path made absolute from the current directory, as the file would read it from its own folder."""
    return path if not isinstance(path, str) or path.startswith("~") or not path else os.path.abspath(path)


def _real(path: str) -> str:
    return os.path.realpath(os.path.expanduser(path))


def _answer(question: str, check: Callable[[str], Checked], default: str | None, **options: Any) -> Checked:
    while True:
        try:
            return check(click.prompt(question, default=default, show_default=False, err=True, **options))
        except SyncdError as failure:
            say(str(failure))
        except UnicodeDecodeError:
            say("that is not UTF-8, and a configuration file can hold nothing else")


def say(why: str) -> None:
    """Print on stderr what was refused, or is to be known."""
    width = min(shutil.get_terminal_size().columns - 1, _WIDTH)
    click.echo("\n".join(wrapped(one_line(why, 1000), width, "  ", 2)), err=True)


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
    _refuse_same(config.workspace.path, others)
    return path


def _refuse_same(workspace: str, others: Sequence[ConfiguredWorkspace]) -> None:
    for other in others:
        if other.path == workspace:
            raise ConfigError(
                f"{shown_path(other.file)} syncs {shown_path(workspace)} already", "edit it, or name another directory"
            )


def _sandbox(answer: str, base_url: str | None) -> str:
    answer = answer.strip()
    toml(answer, "sandbox.id")
    if answer:
        sandbox = {"id": answer} if base_url is None else {"id": answer, "base_url": base_url}
        refuse_taken(check_config({"workspace": {"path": "/any/where"}, "sandbox": sandbox}), ())
    return answer


def _offered_path(others: Sequence[ConfiguredWorkspace]) -> str | None:
    """The current directory, unless it is in a configured workspace, or is refused as the home directory is."""
    with contextlib.suppress(SyncdError, OSError):
        here = os.getcwd()
        return None if holding(here, others) else _workspace(here, others)
    return None


def _name_for(workspace: str, taken: Sequence[str]) -> str:
    """A name for the configuration of this workspace that no other one has."""
    stem = _NOT_IN_NAMES.sub("-", os.path.basename(workspace)).strip("-.") or "workspace"
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}-{number}", number + 1
    return name


def _checked_name(name: str, taken: Sequence[str]) -> str:
    """The name of a new configuration. Raises `ConfigError`."""
    name = name.strip().removesuffix(".toml")
    if not name.strip(".") or _NOT_IN_NAMES.search(name):
        raise ConfigError(
            f"{name!r} cannot be its name", "use letters, digits, '.', '_' and '-', as it is the service's name too"
        )
    if name in taken:
        raise ConfigError(f"there is a configuration {name} already", "choose another name")
    return name
