"""Finds configuration files: by a name, by the current directory, or all that there are.

Only `workspace.path` is read of each, and nothing at all where there is nothing to choose: each command does this.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from msgspec import Struct

from syncd.core.config_file import read_workspace_path
from syncd.core.config_match import ConfiguredWorkspace, holding
from syncd.core.directories import default_config_path
from syncd.core.errors import ConfigError

_EXTENSION = ".toml"


class FoundConfig(Struct, frozen=True):
    """The configuration for a directory. `unread` are the files that could not be read, where none holds it."""

    file: str
    unread: tuple[ConfigError, ...] = ()


def config_folder(environ: Mapping[str, str]) -> str:
    """Return `$XDG_CONFIG_HOME/syncd`."""
    return os.path.dirname(os.path.abspath(default_config_path(environ)))


def config_files(environ: Mapping[str, str]) -> list[str]:
    """Return the configuration files in the configuration folder, sorted; `config.toml` is the first."""
    folder = config_folder(environ)
    try:
        names = [name for name in os.listdir(folder) if name.endswith(_EXTENSION) and not name.startswith(".")]
    except OSError:
        return []
    default = os.path.basename(default_config_path(environ))
    return [os.path.join(folder, name) for name in sorted(names, key=lambda name: (name != default, name))]


def config_name(file: str) -> str:
    """Return the name of a configuration: `site` for `site.toml`."""
    return os.path.basename(file).removesuffix(_EXTENSION)


def named_config(name: str, environ: Mapping[str, str]) -> str:
    """Return the absolute path of the file that `--config` names, by its path or by its name alone."""
    if "/" in name or (name.endswith(_EXTENSION) and os.path.lexists(name)):
        return os.path.abspath(name)
    return os.path.join(config_folder(environ), f"{name.removesuffix(_EXTENSION)}{_EXTENSION}")


def read_workspaces(files: Iterable[str]) -> tuple[list[ConfiguredWorkspace], dict[str, ConfigError]]:
    """Return the workspaces of these files, and the failures of those that cannot be read, by file."""
    workspaces, failures = [], {}
    for file in files:
        try:
            workspaces.append(ConfiguredWorkspace(file, read_workspace_path(file)))
        except ConfigError as failure:
            failures[file] = failure
    return workspaces, failures


def find_config(directory: str, environ: Mapping[str, str]) -> FoundConfig:
    """Return the configuration whose workspace holds this directory, a path without links; else `config.toml`.

    Raises `ConfigError` if two have that workspace.
    """
    default = os.path.abspath(default_config_path(environ))
    files = config_files(environ)
    if files in ([], [default]):
        return FoundConfig(default)
    workspaces, unread = read_workspaces(files)
    found = holding(directory, workspaces)
    if len(found) > 1:
        names = " and ".join(each.file for each in found)
        raise ConfigError(f"{names} have one workspace, {found[0].path}", "keep one of them, or name one with --config")
    if found:
        return FoundConfig(found[0].file)
    return FoundConfig(default, tuple(failure for file, failure in unread.items() if file != default))
