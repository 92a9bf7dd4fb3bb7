"""Reads and finds configuration files.

A file is found by its name, or by the current directory. For that only `workspace.path` is read of each: each command
does this. Paths are absolute, and may not exist.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from msgspec import Struct

from syncd.core.directories import default_config_path, directories_for, expand_home
from syncd.core.durable_file import file_stamp
from syncd.core.errors import ConfigError
from syncd.core.settings import Config, check_config, checked_workspace

_EXTENSION = ".toml"
# Of a file that is no valid configuration at this moment; a line that is commented out names a key file as well.
_NAMED = re.compile(r"""api_key_file["']?\s*=\s*["']+([^"'\n]+)""")
_LARGEST_CHARACTERS = 1 << 20


def load_config(path: str) -> Config:
    """Read and check the file. Raises `ConfigError`."""
    raw = parse_config(read_text(path), path)
    with _naming(path):
        return check_config(raw, path)


def read_workspace_path(path: str) -> str:
    """Return the workspace of the configuration file, of which nothing else is checked. Raises `ConfigError`."""
    section = parse_config(read_text(path), path).get("workspace")
    with _naming(path):
        workspace = section.get("path") if isinstance(section, dict) else None
        if not isinstance(workspace, str) or not workspace:
            raise ConfigError("workspace.path is missing", "add path = … under [workspace]")
        return checked_workspace(workspace, os.path.dirname(os.path.abspath(path)))


def read_text(path: str) -> str:
    """Return the text of a configuration file, with its line ends. Raises `ConfigError`."""
    try:
        # Opening a FIFO in the file's place must not block: at a reload the daemon would handle no signal meanwhile.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError(f"the configuration file {path} is no regular file", "put one in its place")
            return file.read().decode("utf-8-sig")  # some editors begin it with a byte order mark
    except FileNotFoundError:
        hint = f"run `syncd init{_option(path)}`, or name one with --config"
        raise ConfigError(f"no configuration file at {path}", hint) from None
    except OSError as failure:
        remedy = "put a file in its place" if isinstance(failure, IsADirectoryError) else "let your user read it"
        raise ConfigError(f"the configuration file {path} cannot be read ({failure.strerror})", remedy) from None
    except UnicodeDecodeError as failure:
        line = failure.object.count(b"\n", 0, failure.start) + 1
        raise ConfigError(f"{path} is not valid TOML", f"line {line} is not UTF-8; {edits(path)}") from None


def parse_config(text: str, path: str) -> dict[str, Any]:
    """Return the content of a configuration file. Raises `ConfigError` for what is no TOML."""
    try:
        return parse_toml(text)
    except ValueError as failure:
        raise ConfigError(f"{path} is not valid TOML", f"{failure}; {edits(path)}") from None


def parse_toml(text: str) -> dict[str, Any]:
    """Return the content of TOML. Raises `ValueError` for what is none, and for what cannot be shown in an error."""
    try:
        found = tomllib.loads(text)
        repr(found)  # an error about a key shows its value, which fails for such numbers and depths
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:
        raise ValueError("a number has thousands of digits") from None
    except RecursionError:
        raise ValueError("brackets or tables are nested too deeply") from None
    return found


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """An error about a key names the file of this path."""
    try:
        yield
    except ConfigError as failure:
        raise ConfigError(f"{path}: {failure.message}", f"{failure.hint}; {edits(path)}") from None


def edits(path: str) -> str:
    """The end of a hint: the command that opens this configuration file."""
    return f"`syncd config edit{_option(path)}` opens it"


def _option(path: str) -> str:
    return "" if os.path.basename(path) == "config.toml" else f" --config {shlex.quote(path)}"


class FoundConfig(Struct, frozen=True):
    """The configuration for a directory; `holds_it`: its workspace does, else it is the one for all other places.

    `unread` are the other files that could not be read, where none holds the directory.
    """

    file: str
    holds_it: bool
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


def read_workspaces(files: Iterable[str]) -> tuple[dict[str, str], dict[str, ConfigError]]:
    """Return the workspaces of these files, and the failures of those that cannot be read, by file."""
    workspaces, failures = {}, {}
    for file in files:
        try:
            workspaces[file] = read_workspace_path(file)
        except ConfigError as failure:
            failures[file] = failure
    return workspaces, failures


def find_config(directory: str, environ: Mapping[str, str]) -> FoundConfig:
    """Return the configuration whose workspace holds this directory, a path without links; else `config.toml`.

    Raises `ConfigError` if two have that workspace.
    """
    default = os.path.abspath(default_config_path(environ))
    workspaces, unread = read_workspaces(config_files(environ))
    found = holding(directory, workspaces)
    if len(found) > 1:
        what = f"{' and '.join(found)} have one workspace, {workspaces[found[0]]}"
        raise ConfigError(what, "keep one of them, or name one with --config")
    if found:
        return FoundConfig(found[0], holds_it=True)
    return FoundConfig(default, False, tuple(failure for file, failure in unread.items() if file != default))


def holding(directory: str, workspaces: Mapping[str, str]) -> list[str]:
    """Return the files of the deepest workspace that holds the directory: none, one, or several."""
    around = {
        file: len(path)
        for file, path in workspaces.items()
        if directory == path or directory.startswith(f"{path.rstrip('/')}/")
    }
    deepest = max(around.values(), default=0)
    return [file for file, length in around.items() if length == deepest]


def own_folders(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the folders in which all is syncd's own, for this environment and for one that names no places."""
    folders = [config_folder(environ), config_folder({}), environ.get("CREDENTIALS_DIRECTORY", "")]
    for variables in (environ, {}):
        places = directories_for("", variables)
        folders += map(os.path.dirname, (places.state, places.spool))
    return _usable(folders)


def own_files(config: Config, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the files that this configuration, and those in the configuration folder now, name, and themselves."""
    files = [config.file, *_files_of(config)]
    for file in dict.fromkeys([*config_files(environ), *config_files({})]):
        stamp = file_stamp(file)
        if stamp is not None:
            files += [file, *_named_by(file, stamp)]
    return _usable(files)


@lru_cache(maxsize=64)
def _named_by(file: str, _stamp: tuple[int, ...]) -> list[str]:
    """Return the files that a configuration names, read once as long as its stamp is the same: each scan asks."""
    try:
        return _files_of(load_config(file))
    except ConfigError:
        try:
            with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), errors="surrogateescape") as text:
                found = _NAMED.findall(text.read(_LARGEST_CHARACTERS))
        except OSError:
            return []
        return [os.path.join(os.path.dirname(file), expand_home(name)) for name in found]


def _files_of(config: Config) -> list[str]:
    return [each.api_key_file for each in config.sandboxes.values()]


def _usable(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(os.path.abspath(path) for path in paths if path and "\0" not in path))
