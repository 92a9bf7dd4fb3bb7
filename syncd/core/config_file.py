"""Reads configuration files: a person's, and the managed file of this machine's administrator."""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from syncd.core.choices import MANAGED_FILE
from syncd.core.errors import ConfigError
from syncd.core.managed import NO_LAYER, ManagedLayer, check_managed, layered
from syncd.core.settings import Config, SandboxKeys, checked_workspace

_WRITABLE_BY_OTHERS = 0o022
_USER_NAMESPACE, _UNMAPPED = "/proc/self/uid_map", "/proc/sys/kernel/overflowuid"


def load_config(path: str) -> Config:
    """Read and check the file, with the managed file's defaults and ceiling. Raises `ConfigError`."""
    layer = read_managed()
    raw = _read_toml(path)
    with _naming(path):
        return layered(raw, path, layer)


def read_managed() -> ManagedLayer:
    """Read and check the managed file, `NO_LAYER` if there is none. Raises `ConfigError` if others may write it."""
    folder = os.path.dirname(MANAGED_FILE)
    try:
        status, raw = _read(MANAGED_FILE)
        _check_owner(MANAGED_FILE, status)
        _check_owner(folder, os.stat(folder))
    except FileNotFoundError:
        return NO_LAYER
    with _naming(MANAGED_FILE):
        return check_managed(raw)


def read_workspace_path(path: str) -> str:
    """Return the workspace of the configuration file, of which nothing else is checked. Raises `ConfigError`."""
    section = _read_toml(path).get("workspace")
    with _naming(path):
        workspace = section.get("path") if isinstance(section, dict) else None
        if not isinstance(workspace, str) or not workspace:
            raise ConfigError("workspace.path is missing", "add path = … under [workspace]")
        return checked_workspace(workspace, os.path.dirname(os.path.abspath(path)))


def read_sandbox(path: str, layer: ManagedLayer) -> tuple[object, ...] | None:
    """Return the key of the sandbox that the file names, as `sandbox_key`; None if it acquires one.

    Nothing else is checked. Raises `ConfigError`.
    """
    section = _read_toml(path).get("sandbox")
    values = section if isinstance(section, dict) else {}
    default = layer.values().get("sandbox.base_url", SandboxKeys().base_url)
    sandbox_id, base_url = values.get("id"), values.get("base_url", default)
    return sandbox_key(base_url, sandbox_id) if isinstance(sandbox_id, str) and isinstance(base_url, str) else None


def sandbox_key(base_url: str, sandbox_id: str) -> tuple[object, ...]:
    """Return what tells one sandbox from another, however its API's address is written."""
    try:
        url = urlsplit(base_url)
        port = url.port or {"https": 443, "http": 80}.get(url.scheme)
    except ValueError:
        return base_url, sandbox_id
    return url.scheme, url.hostname, port, url.path.rstrip("/"), sandbox_id


def _read_toml(path: str) -> dict[str, Any]:
    try:
        return _read(path)[1]
    except FileNotFoundError:
        raise ConfigError(f"no configuration file at {path}", "run `syncd init`, or name one with --config") from None


def _read(path: str) -> tuple[os.stat_result, dict[str, Any]]:
    """Return the file's status and content. Raises `FileNotFoundError`, and `ConfigError` where it cannot be used."""
    try:
        # Opening a FIFO in the file's place must not block: at a reload the daemon would handle no signal meanwhile.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(f"the configuration file {path} is no regular file", "put one in its place")
            return status, tomllib.load(file)
    except FileNotFoundError:
        raise
    except OSError as failure:
        raise ConfigError(
            f"the configuration file {path} cannot be read ({failure.strerror})", "let your user read it"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as failure:
        raise ConfigError(f"{path} is not valid TOML", f"{failure}; correct it there") from None


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """An error about a key names the file of this path."""
    try:
        yield
    except ConfigError as failure:
        raise ConfigError(f"{path}: {failure.message}", failure.hint) from None


def _check_owner(path: str, status: os.stat_result) -> None:
    """Raise `ConfigError` for a file or folder of someone else's, or one that others may write to."""
    if status.st_uid not in _uids_of_root():
        what, remedy = f"belongs to user {status.st_uid}, not to root", f"sudo chown root {path}"
    elif status.st_mode & _WRITABLE_BY_OTHERS:
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        what, remedy = f"can be written by others than root (mode {mode})", f"sudo chmod go-w {path}"
    else:
        return
    raise ConfigError(f"the managed configuration {path} {what}", f"as this machine's administrator, {remedy}")


def _uids_of_root() -> set[int]:
    """The numbers that root's files show here.

    In a user namespace that does not have this user, as in a service with `PrivateUsers=`, they show the kernel's
    number for all users that it does not have. A third user's file looks the same there; commands outside refuse it.
    """
    with suppress(OSError, ValueError):
        with open(_USER_NAMESPACE, encoding="ascii") as ranges:
            has_root = any(line.split()[0] == "0" for line in ranges)
        if not has_root:
            with open(_UNMAPPED, encoding="ascii") as number:
                return {0, int(number.read())}
    return {0}
