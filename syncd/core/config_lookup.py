"""Finds configuration files: by a name, by the current directory, or all that there are; and syncd's own files.

To find one, only `workspace.path` is read of each, and nothing at all where there is nothing to choose: each command
does this. Paths are absolute, and may not exist.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from msgspec import Struct

from syncd.core.choices import MANAGED_FILE
from syncd.core.config_file import load_config, read_workspace_path
from syncd.core.directories import default_config_path, directories_for
from syncd.core.errors import ConfigError
from syncd.core.settings import Config

_EXTENSION = ".toml"
# Of a file that is no valid configuration at this moment; a line that is commented out names a key file as well.
_NAMED = re.compile(r"""(?:api_key_file|mcp_file)["']?\s*=\s*["']+([^"'\n]+)""")
_LARGEST_CHARACTERS = 1 << 20


class ConfiguredWorkspace(Struct, frozen=True):
    """A configuration `file` and the `path` of its workspace, absolute and free of links."""

    file: str
    path: str


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


def is_within(path: str, folder: str) -> bool:
    """True if an absolute path is the folder, or is below it."""
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def holding(directory: str, workspaces: Iterable[ConfiguredWorkspace]) -> list[ConfiguredWorkspace]:
    """Return the configurations of the deepest workspace that holds the directory: none, one, or several."""
    around = [each for each in workspaces if is_within(directory, each.path)]
    deepest = max((len(each.path) for each in around), default=0)
    return [each for each in around if len(each.path) == deepest]


def overlapping(path: str, workspaces: Iterable[ConfiguredWorkspace]) -> list[ConfiguredWorkspace]:
    """Return the configurations whose workspace is this one, is inside it, or is around it."""
    return [each for each in workspaces if is_within(path, each.path) or is_within(each.path, path)]


def own_folders(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the folders in which all is syncd's own, for this environment and for one that names no places."""
    folders = [config_folder(environ), config_folder({}), environ.get("CREDENTIALS_DIRECTORY", "")]
    for variables in (environ, {}):
        places = directories_for("", variables)
        folders += map(os.path.dirname, (places.state, places.spool))
    return _usable(folders)


def own_files(config: Config, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the files that this configuration, and those in the configuration folder now, name, and themselves."""
    files = [MANAGED_FILE, config.file, config.sandbox.api_key_file, config.sandbox.mcp_file]
    for file in dict.fromkeys([*config_files(environ), *config_files({})]):
        with contextlib.suppress(OSError):
            status = os.stat(file)
            files += [file, *_named_by(file, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)]
    return _usable(files)


@lru_cache(maxsize=64)
def _named_by(file: str, *_: int) -> list[str]:
    """Return the files that a configuration names, read once as long as its status is the same: each scan asks."""
    try:
        sandbox = load_config(file).sandbox
    except ConfigError:
        try:
            with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), errors="surrogateescape") as text:
                found = _NAMED.findall(text.read(_LARGEST_CHARACTERS))
        except OSError:
            return []
        return [os.path.join(os.path.dirname(file), os.path.expanduser(name)) for name in found]
    return [sandbox.api_key_file, sandbox.mcp_file]


def _usable(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(os.path.abspath(path) for path in paths if path and "\0" not in path))
