"""Reads configuration files: a person's, and the managed file of this machine's administrator."""

from __future__ import annotations

import os
import stat
import tomllib
from contextlib import suppress
from typing import Any, NoReturn

from syncd.core.ceiling import MANAGED_FILE
from syncd.core.config_match import sandbox_key
from syncd.core.errors import ConfigError
from syncd.core.managed import ManagedFile, check_managed, managed_config
from syncd.core.settings import Config, SandboxKeys, checked_workspace

_WRITABLE_BY_OTHERS = 0o022
_USER_NAMESPACE, _UNMAPPED = "/proc/self/uid_map", "/proc/sys/kernel/overflowuid"


def load_config(path: str, managed_file: str = MANAGED_FILE) -> Config:
    """Read and check the file, with the managed file's defaults and ceiling. Raises `ConfigError`."""
    managed = read_managed(managed_file)
    raw = _read_toml(path)
    try:
        return managed_config(raw, path, managed)
    except ConfigError as failure:
        raise ConfigError(f"{path}: {failure.message}", failure.hint) from None


def read_managed(path: str = MANAGED_FILE, owner: int = 0) -> ManagedFile | None:
    """Read and check the managed file; None if there is none. Raises `ConfigError` if someone else may write it."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                _refuse_managed(path, "is no regular file", "make it one")
            _check_owner(path, status, owner)
            _check_owner(os.path.dirname(path), os.stat(os.path.dirname(path)), owner)
            return check_managed(file.read().decode(), path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as failure:
        _refuse_managed(path, f"cannot be read ({failure.strerror})", "let everyone read it")
    except UnicodeDecodeError as failure:
        _refuse_managed(path, f"is not valid TOML ({failure})", "correct it")


def read_workspace_path(path: str) -> str:
    """Return the workspace of the configuration file, of which nothing else is checked. Raises `ConfigError`."""
    section = _read_toml(path).get("workspace")
    workspace = section.get("path") if isinstance(section, dict) else None
    if not isinstance(workspace, str) or not workspace:
        raise ConfigError(f"{path}: workspace.path is missing", "add path = … under [workspace]")
    try:
        return checked_workspace(workspace, os.path.dirname(os.path.abspath(path)))
    except ConfigError as failure:
        raise ConfigError(f"{path}: {failure.message}", failure.hint) from None


def read_sandbox(path: str, managed: ManagedFile | None) -> tuple[object, ...] | None:
    """Return the key of the sandbox that the file names, by `config_match.sandbox_key`; None if it acquires one.

    Nothing else is checked. Raises `ConfigError`.
    """
    section = _read_toml(path).get("sandbox")
    values = {"base_url": SandboxKeys().base_url}
    if managed is not None and "sandbox.base_url" in managed.values():
        values["base_url"] = managed.values()["sandbox.base_url"]
    values |= section if isinstance(section, dict) else {}
    sandbox_id, base_url = values.get("id"), values["base_url"]
    return sandbox_key(base_url, sandbox_id) if isinstance(sandbox_id, str) and isinstance(base_url, str) else None


def _read_toml(path: str) -> dict[str, Any]:
    try:
        # Opening a FIFO in the file's place must not block: at a reload the daemon would handle no signal meanwhile.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError(f"the configuration file {path} is no regular file", "name one with --config")
            return tomllib.load(file)
    except FileNotFoundError:
        raise ConfigError(f"no configuration file at {path}", "run `syncd init`, or name one with --config") from None
    except OSError as failure:
        raise ConfigError(
            f"the configuration file {path} cannot be read ({failure.strerror})", "let your user read it"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as failure:
        raise ConfigError(f"{path} is not valid TOML", f"{failure}; correct it there") from None


def _check_owner(path: str, status: os.stat_result, owner: int) -> None:
    """Raise `ConfigError` for a file or folder of someone else's, or one that others may write to."""
    if status.st_uid not in _uids_of(owner):
        _refuse_managed(path, f"belongs to user {status.st_uid}, not to root", f"sudo chown root {path}")
    if status.st_mode & _WRITABLE_BY_OTHERS:
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        _refuse_managed(path, f"can be written by others than root (mode {mode})", f"sudo chmod go-w {path}")


def _uids_of(owner: int) -> set[int]:
    """The numbers that the owner's files show here.

    In a user namespace that does not have this user, as in a service with `PrivateUsers=`, they show the kernel's
    number for all users that it does not have. A third user's file looks the same there; commands outside refuse it.
    """
    with suppress(OSError, ValueError):
        with open(_USER_NAMESPACE, encoding="ascii") as ranges:
            known = [(int(first), int(count)) for first, _, count in map(str.split, ranges)]
        if not any(first <= owner < first + count for first, count in known):
            with open(_UNMAPPED, encoding="ascii") as number:
                return {owner, int(number.read())}
    return {owner}


def _refuse_managed(path: str, what: str, remedy: str) -> NoReturn:
    raise ConfigError(f"the managed configuration {path} {what}", f"as this machine's administrator, {remedy}")
