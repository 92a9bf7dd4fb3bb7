"""Finds syncd's own files on this machine by place: configurations, keys and state, of all workspaces.

Paths are absolute, and may not exist.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from syncd.core.choices import MANAGED_FILE
from syncd.core.config_file import load_config
from syncd.core.config_lookup import config_files, config_folder
from syncd.core.directories import directories_for
from syncd.core.errors import ConfigError
from syncd.core.settings import Config

# Of a file that is no valid configuration at this moment; a line that is commented out names a key file as well.
_NAMED = re.compile(r"""(?:api_key_file|mcp_file)["']?\s*=\s*["']+([^"'\n]+)""")
_LARGEST_CHARACTERS = 1 << 20


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
