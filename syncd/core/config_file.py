"""Reads and finds configuration files: a person's, and the managed file of this machine's administrator.

The managed file is a layer of each configuration. Its tables are below a person's: a default is used where theirs have
no value. `[ceiling]` is above: where a person chose an address or a mode that it does not allow, the configuration is
refused, as another one would not be what was asked for. Where it only has more stay home, it is applied, and named in
`Config.managed`.

A file is found by its name, or by the current directory. For that only `workspace.path` is read of each: each command
does this. Paths are absolute, and may not exist.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from syncd.core.choices import MANAGED_FILE, Managed
from syncd.core.directories import default_config_path, directories_for, expand_home
from syncd.core.errors import ConfigError
from syncd.core.settings import (
    CeilingKeys,
    Config,
    SandboxKeys,
    check_base_url,
    check_config,
    checked_table,
    checked_workspace,
    is_loopback,
    sandbox_key,
    sandbox_tables,
    shown_value,
    table_of,
)

_WRITABLE_BY_OTHERS = 0o022
_USER_NAMESPACE, _UNMAPPED = "/proc/self/uid_map", "/proc/sys/kernel/overflowuid"
_EXTENSION = ".toml"
# Of a file that is no valid configuration at this moment; a line that is commented out names a key file as well.
_NAMED = re.compile(r"""api_key_file["']?\s*=\s*["']+([^"'\n]+)""")
_LARGEST_CHARACTERS = 1 << 20
# Of tables and lists in one another; a value of a sandbox is the fourth.
_DEEPEST = 16


# Each person's own: one value for all would send all workspaces into one sandbox.
_OWN = {
    "workspace.path": "each person's own file names the workspace",
    "sandbox.id": "each person's own file names the sandbox; a [sandbox.acquire] table is for all",
}
_PATHS = ("sandbox.api_key_file",)
# The keys of a person's file that a key of the ceiling holds.
_HELD = {
    "base_urls": ("sandbox.base_url",),
    "agent_changes": ("sandbox.agent_changes",),
    "upload_secrets": ("workspace.upload_secrets", "workspace.allow_secrets"),
    "ignore": ("workspace.ignore",),
    "max_snapshot_mib": ("sync.max_snapshot_mib",),
}


class ManagedLayer(Struct, frozen=True):
    """A checked managed file: its `tables` of defaults, and the ceiling. An empty one stands for no file."""

    tables: Mapping[str, Mapping[str, Any]]
    ceiling: CeilingKeys

    @property
    def held(self) -> tuple[str, ...]:
        """The keys of a person's file that the ceiling holds."""
        limits = (name for name in _HELD if getattr(self.ceiling, name) != getattr(NO_LAYER.ceiling, name))
        return tuple(key for name in limits for key in _HELD[name])

    @property
    def acquires(self) -> bool:
        """True if it has a sandbox acquired where a person's file names none."""
        return "acquire" in self.tables.get("sandbox", {})

    def values(self) -> dict[str, Any]:
        """The values for a file that does not have these keys: `table.key` to the default, as the ceiling allows it."""
        found, most = dict(flat(self.tables)), self.ceiling.max_snapshot_mib
        if most is not None:
            found["sync.max_snapshot_mib"] = min(found.get("sync.max_snapshot_mib", most), most)
        return found

    def allows_base_url(self, url: str) -> bool:
        """True if the ceiling allows this address. This machine's loopback leads nowhere else, so it is allowed."""
        allowed = self.ceiling.base_urls
        if allowed is None or is_loopback(urlsplit(url).hostname or ""):
            return True
        return url.rstrip("/") in {each.rstrip("/") for each in allowed}


NO_LAYER = ManagedLayer({}, CeilingKeys())


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


def read_sandboxes(path: str, layer: ManagedLayer) -> set[tuple[object, ...]]:
    """Return the keys of the sandboxes that the file names, as `sandbox_key`; one that is acquired has none.

    Nothing else is checked. Raises `ConfigError`.
    """
    default = layer.values().get("sandbox.base_url", SandboxKeys().base_url)
    found = set()
    for _, _, table in sandbox_tables(_read_toml(path)):
        values = table if isinstance(table, dict) else {}
        sandbox_id, base_url = values.get("id"), values.get("base_url", default)
        if isinstance(sandbox_id, str) and isinstance(base_url, str):
            found.add(sandbox_key(base_url, sandbox_id))
    return found


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
            return status, parse_toml(file.read().decode())
    except FileNotFoundError:
        raise
    except OSError as failure:
        raise ConfigError(
            f"the configuration file {path} cannot be read ({failure.strerror})", "let your user read it"
        ) from None
    except ValueError as failure:
        raise ConfigError(f"{path} is not valid TOML", f"{failure}; correct it there") from None


def parse_toml(text: str) -> dict[str, Any]:
    """Return the content of TOML. Raises `ValueError` for what is none, and for what no configuration can hold.

    Python refuses thousands of brackets by a `RecursionError`, and tables so deep wherever they are looked through.
    """
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:
        raise ValueError("a number has thousands of digits") from None
    except RecursionError:
        raise ValueError("brackets are nested too deeply") from None
    values: list[Any] = [found]
    for _ in range(_DEEPEST):
        below = [each.values() if isinstance(each, dict) else each for each in values if isinstance(each, dict | list)]
        values = [value for each in below for value in each]
    if values:
        raise ValueError("tables are nested too deeply")
    return found


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


def check_managed(raw: Mapping[str, Any]) -> ManagedLayer:
    """Check the managed file's content. Its own defaults have to keep to its ceiling. Raises `ConfigError`."""
    ceiling: CeilingKeys = checked_table("ceiling", CeilingKeys, raw.get("ceiling", {}))
    for url in ceiling.base_urls or ():
        check_base_url("ceiling.base_urls", url)
    for pattern in ceiling.ignore:
        if pattern.startswith("!"):
            raise ConfigError(f"ceiling.ignore = [{shown_value(pattern)}]", "name what is excluded only, without a !")
    tables = {name: _defaults(name, table) for name, table in raw.items() if name != "ceiling"}
    layer = ManagedLayer(tables, ceiling)
    layered({"workspace": {"path": "/any/where"}, "sandbox": {} if layer.acquires else {"id": "any"}}, "", layer)
    return layer


def layered(raw: Mapping[str, Any], path: str, layer: ManagedLayer) -> Config:
    """Check the content of a person's file, with the managed file's defaults and ceiling. Raises `ConfigError`."""
    merged = _merged(raw, layer.tables)
    config = check_config(merged, path)
    if layer == NO_LAYER:
        return config
    _refuse_beyond(config, layer)
    own, bounded = dict(flat(raw)), _bounded(config, layer.ceiling)
    managed = Managed(
        MANAGED_FILE,
        defaults=tuple(key for key, _ in flat(merged) if key not in own),
        ceiling=layer.held,
        narrowed=tuple(key for key in layer.held if key in own and _value(bounded, key) != _value(config, key)),
    )
    return replace(bounded, managed=managed, always_ignored=layer.ceiling.ignore)


def _defaults(name: str, table: Any) -> dict[str, Any]:
    """A table of defaults, its relative paths made absolute. Raises `ConfigError` for keys that are a person's own."""
    if not isinstance(table, dict):
        raise ConfigError(f"{shown_value(name)} must be a table", "write it in brackets, as [sync]")
    found = dict(table)
    for key, value in table.items():
        remedy = _OWN.get(f"{name}.{key}")
        if remedy is not None:
            raise ConfigError(f"{name}.{key} = {shown_value(value)}: is no default for all", remedy)
        if f"{name}.{key}" in _PATHS and isinstance(value, str) and value and not value.startswith("~"):
            found[key] = os.path.join(os.path.dirname(MANAGED_FILE), value)
    return found


def _merged(own: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The tables, with the default of each key that is not there. A sandbox that is named is not acquired."""
    merged = {**defaults, **own}
    for key in own.keys() & defaults.keys():
        if isinstance(own[key], dict) and isinstance(defaults[key], dict):
            merged[key] = _merged(own[key], defaults[key])
    if "id" in own and "acquire" not in own:
        merged.pop("acquire", None)
    return merged


def _refuse_beyond(config: Config, layer: ManagedLayer) -> None:
    """Raise `ConfigError` for a choice that the ceiling does not allow."""
    ceiling = layer.ceiling
    for name, sandbox in config.sandboxes.items():
        table = table_of(name)
        if not layer.allows_base_url(sandbox.base_url):
            _refuse(f"{table}.base_url", sandbox.base_url, "base_urls", ceiling.base_urls or ())
        if ceiling.agent_changes is not None and sandbox.agent_changes not in ceiling.agent_changes:
            _refuse(f"{table}.agent_changes", sandbox.agent_changes, "agent_changes", ceiling.agent_changes)


def _refuse(key: str, value: str, limit: str, allowed: Iterable[str]) -> None:
    raise ConfigError(
        f"{key} = {shown_value(value)}: the ceiling of {MANAGED_FILE} does not allow it",
        f"ceiling.{limit} allows {', '.join(map(shown_value, allowed)) or 'none'}",
    )


def _bounded(config: Config, ceiling: CeilingKeys) -> Config:
    """The configuration with what the ceiling has stay home, and its limit."""
    workspace, sync = config.workspace, config.sync
    if not ceiling.upload_secrets:
        workspace = replace(workspace, upload_secrets=False, allow_secrets=())
    if ceiling.max_snapshot_mib is not None:
        sync = replace(sync, max_snapshot_mib=min(sync.max_snapshot_mib, ceiling.max_snapshot_mib))
    return replace(config, workspace=workspace, sync=sync)


def flat(tables: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each key with the tables that it is in, and its value."""
    for name, value in tables.items():
        if isinstance(value, dict):
            yield from flat(value, f"{before}{name}.")
        else:
            yield before + name, value


def _value(config: Config, key: str) -> Any:
    table, _, name = key.partition(".")
    return getattr(getattr(config, table), name)


class ConfiguredWorkspace(Struct, frozen=True):
    """A configuration `file` and the `path` of its workspace, absolute and free of links."""

    file: str
    path: str


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
    workspaces, unread = read_workspaces(config_files(environ))
    found = holding(directory, workspaces)
    if len(found) > 1:
        names = " and ".join(each.file for each in found)
        raise ConfigError(f"{names} have one workspace, {found[0].path}", "keep one of them, or name one with --config")
    if found:
        return FoundConfig(found[0].file, holds_it=True)
    return FoundConfig(default, False, tuple(failure for file, failure in unread.items() if file != default))


def is_within(path: str, folder: str) -> bool:
    """True if an absolute path is the folder, or is below it."""
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def holding(directory: str, workspaces: Iterable[ConfiguredWorkspace]) -> list[ConfiguredWorkspace]:
    """Return the configurations of the deepest workspace that holds the directory: none, one, or several."""
    around = [each for each in workspaces if is_within(directory, each.path)]
    deepest = max((len(each.path) for each in around), default=0)
    return [each for each in around if len(each.path) == deepest]


def own_folders(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the folders in which all is syncd's own, for this environment and for one that names no places."""
    folders = [config_folder(environ), config_folder({}), environ.get("CREDENTIALS_DIRECTORY", "")]
    for variables in (environ, {}):
        places = directories_for("", variables)
        folders += map(os.path.dirname, (places.state, places.spool))
    return _usable(folders)


def own_files(config: Config, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the files that this configuration, and those in the configuration folder now, name, and themselves."""
    files = [MANAGED_FILE, config.file, *_files_of(config)]
    for file in dict.fromkeys([*config_files(environ), *config_files({})]):
        with suppress(OSError):
            status = os.stat(file)
            files += [file, *_named_by(file, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)]
    return _usable(files)


@lru_cache(maxsize=64)
def _named_by(file: str, *_: int) -> list[str]:
    """Return the files that a configuration names, read once as long as its status is the same: each scan asks."""
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
