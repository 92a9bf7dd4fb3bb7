"""The folders in which syncd keeps its files: for each workspace one private folder for state, one for the spool."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping

from msgspec import Struct

from syncd.core.errors import ConfigError


class Directories(Struct, frozen=True):
    """The two folders of one workspace, both with mode 0700."""

    state: str
    spool: str

    def make(self) -> None:
        """Create missing folders with mode 0700, and remove other users' rights from existing ones."""
        for folder in (self.state, self.spool):
            try:
                os.makedirs(os.path.dirname(folder), mode=0o700, exist_ok=True)
                os.makedirs(folder, mode=0o700, exist_ok=True)
                for own in (os.path.dirname(folder), folder):
                    if os.stat(own).st_mode & 0o077:
                        os.chmod(own, 0o700)
            except OSError as failure:
                raise ConfigError(
                    f"the folder {folder!r} cannot be used ({failure.strerror})",
                    "make it writable, or set XDG_STATE_HOME and XDG_CACHE_HOME to folders that are",
                ) from None


def directories_for(workspace: str, environ: Mapping[str, str]) -> Directories:
    """Return the folders of the workspace at this absolute path, by the environment of a user or a service."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", os.path.basename(workspace)).strip("-.")[:40] or "workspace"
    key = hashlib.sha256(os.fsencode(workspace)).hexdigest()[:12]
    folder = f"{name}-{key}"
    return Directories(
        state=os.path.join(_base(environ, "STATE_DIRECTORY", "XDG_STATE_HOME", "~/.local/state"), folder),
        spool=os.path.join(_base(environ, "CACHE_DIRECTORY", "XDG_CACHE_HOME", "~/.cache"), folder),
    )


def _base(environ: Mapping[str, str], service: str, xdg: str, fallback: str) -> str:
    given = environ.get(service, "").split(":")[0]  # a service with several directories gets a list
    if given.startswith("/"):
        return given
    home = environ.get(xdg, "")
    return os.path.join(home if home.startswith("/") else os.path.expanduser(fallback), "syncd")


def default_config_path(environ: Mapping[str, str]) -> str:
    """Return `$XDG_CONFIG_HOME/syncd/config.toml`."""
    home = environ.get("XDG_CONFIG_HOME", "")
    return os.path.join(home if home.startswith("/") else os.path.expanduser("~/.config"), "syncd", "config.toml")


def default_key_file(environ: Mapping[str, str]) -> str:
    """Return `$XDG_CONFIG_HOME/syncd/api-key`, from which the service manager loads the key too."""
    return os.path.join(os.path.dirname(default_config_path(environ)), "api-key")
