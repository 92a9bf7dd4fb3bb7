"""The folders in which syncd keeps its files: for each workspace one private folder for state, one for the spool.

One instance at a time has the state folder of a workspace, by a lock that the kernel releases when its process ends.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import struct
from collections.abc import Mapping
from typing import Self

from msgspec import Struct

from syncd.core.errors import ConfigError, Locked, NeedsPerson

_NAME = "lock"
STATUS = "status.json"
# struct flock of 64-bit Linux: type, whence, start, length, pid (fcntl_locking(2)).
_FLOCK = "hhqqi"


class Directories(Struct, frozen=True):
    """The two folders of one workspace, both with mode 0700."""

    state: str
    spool: str

    def make(self) -> None:
        """Create missing folders with mode 0700, and remove other users' rights from existing ones.

        Raises `ConfigError` for one that cannot be made or used.
        """
        for folder in (self.state, self.spool):
            try:
                make_folders(folder, 0o700)
                for own in (os.path.dirname(folder), folder):
                    if os.stat(own).st_mode & 0o077:
                        os.chmod(own, 0o700)
                if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            except OSError as failure:
                raise _unusable(folder, failure) from None


def make_folders(path: str, mode: int = 0o777) -> None:
    """Create a folder and those above it, as far as they are missing, all of this mode. Raises `OSError`."""
    folder = "/"
    for name in os.path.abspath(path).split("/"):
        folder = os.path.join(folder, name)
        try:
            os.mkdir(folder, mode)
        except OSError:  # it is there, and perhaps in a place where nothing can be made
            if not os.path.isdir(folder):
                raise


def refuse_unreadable(state: str) -> None:
    """Raise `ConfigError` for a state folder that this user cannot read, such as root's after a `sudo`.

    A status would take it for that of a workspace on which no daemon has worked.
    """
    for name in ("", _NAME, STATUS):
        try:
            os.close(os.open(os.path.join(state, name), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except PermissionError as failure:
            raise _unusable(state, failure) from None
        except OSError:
            continue


def _unusable(folder: str, failure: OSError) -> ConfigError:
    return ConfigError(
        f"the folder {folder!r} cannot be used ({failure.strerror})",
        "make it writable, or set XDG_STATE_HOME and XDG_CACHE_HOME to folders that are",
    )


def directories_for(workspace: str, environ: Mapping[str, str]) -> Directories:
    """Return the folders of the workspace at this absolute path, by the environment of a user or a service.

    Raises `ConfigError` as `expand_home` does.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", os.path.basename(workspace)).strip("-.")[:40] or "workspace"
    key = hashlib.sha256(os.fsencode(workspace)).hexdigest()[:12]
    folder = f"{name}-{key}"
    return Directories(
        state=os.path.join(_base(environ, "STATE_DIRECTORY", "XDG_STATE_HOME", "~/.local/state"), folder),
        spool=os.path.join(_base(environ, "CACHE_DIRECTORY", "XDG_CACHE_HOME", "~/.cache"), folder),
    )


def expand_home(path: str) -> str:
    """Return the path with the home directory for a `~` at its begin.

    Raises `ConfigError` where neither HOME nor the password database has one: a folder named `~` would be made.
    """
    expanded = os.path.expanduser(path)
    if (path == "~" or path.startswith("~/")) and not expanded.startswith("/"):
        home = os.environ.get("HOME")
        why = "is not set, and no user has this id" if home is None else f"= {home!r} is no absolute path"
        raise ConfigError(f"your home directory is not known: HOME {why}", "set HOME")
    return expanded


def _base(environ: Mapping[str, str], service: str, xdg: str, fallback: str) -> str:
    given = environ.get(service, "").split(":")[0]  # a service with several directories gets a list
    if given.startswith("/"):
        return given
    home = environ.get(xdg, "")
    return os.path.join(home if home.startswith("/") else expand_home(fallback), "syncd")


def default_config_path(environ: Mapping[str, str]) -> str:
    """Return `$XDG_CONFIG_HOME/syncd/config.toml`. Raises `ConfigError` as `expand_home` does."""
    home = environ.get("XDG_CONFIG_HOME", "")
    return os.path.join(home if home.startswith("/") else expand_home("~/.config"), "syncd", "config.toml")


def default_key_file(environ: Mapping[str, str]) -> str:
    """Return `$XDG_CONFIG_HOME/syncd/api-key`, from which the service manager loads the key too."""
    return os.path.join(os.path.dirname(default_config_path(environ)), "api-key")


class Lock:
    """A lock that is held within `with`, or until the end of the process."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, _NAME)
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        """Take the lock. Raises `Locked` if another process holds it, `NeedsPerson` where nothing can be locked.

        The kernel releases a record lock when its process closes *any* descriptor of the file, so the process that
        holds the lock must not call `holder`.

        It is a record lock, not `flock`: `holder` can find its process without taking the lock for an instant.
        """
        descriptor = self._open_locked()
        while not _has_name(descriptor, self._path):
            # The file was removed since it was opened: the next process would lock another file of this name.
            os.close(descriptor)
            descriptor = self._open_locked()
        self._descriptor = descriptor
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open_locked(self) -> int:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as failure:
            is_held = failure.errno in (errno.EACCES, errno.EAGAIN)
            pid = _owner(descriptor) if is_held else None
            os.close(descriptor)
            if not is_held:  # as of a network file system without a lock service
                folder = os.path.dirname(self._path)
                raise NeedsPerson(
                    f"the state folder {folder} takes no lock ({failure.strerror})", "move it with XDG_STATE_HOME"
                ) from None
            by = f" (process {pid})" if pid else ""
            raise Locked(
                f"another syncd has this workspace{by}",
                "`syncd status` shows it; `syncd service stop`" + (f" or `kill {pid}`" if pid else "") + " ends it",
            ) from None
        return descriptor

    @property
    def is_lost(self) -> bool:
        """True if the file that is locked was removed: another process would lock another one of its name."""
        return self._descriptor is not None and not _has_name(self._descriptor, self._path)


def holder(folder: str) -> int | None:
    """Return the process that holds the lock of a state folder; 0: in another PID namespace; None: no process."""
    try:
        descriptor = os.open(os.path.join(folder, _NAME), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return _owner(descriptor)
    finally:
        os.close(descriptor)


def _has_name(descriptor: int, path: str) -> bool:
    """True if the open file still has that name. While it is open, no other file gets its inode number."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except (FileNotFoundError, NotADirectoryError):
        return False


def _owner(descriptor: int) -> int | None:
    request = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, request))
    return None if kind == fcntl.F_UNLCK else pid
