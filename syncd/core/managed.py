"""The managed file, in which a machine's administrator decides for all who use it: defaults and a ceiling.

A default is used where a person's configuration has no value. The ceiling cannot be exceeded: where a person chose an
address or a mode that it does not allow, the configuration is refused, as another one would not be what was asked for.
Where it only has more stay home, it is applied, and named in `Config.managed`.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn
from urllib.parse import urlsplit

from msgspec import Struct, structs
from msgspec.structs import replace

from syncd.core.ceiling import CeilingPattern, Managed
from syncd.core.errors import ConfigError
from syncd.core.settings import (
    CeilingKeys,
    Config,
    check_base_url,
    check_config,
    checked_table,
    is_loopback,
    shown_value,
)

# Each person's own: one value for all would send all workspaces into one sandbox.
_OWN = {
    "workspace.path": "each person's own file names the workspace",
    "sandbox.id": "each person's own file names the sandbox; a [sandbox.acquire] table is for all",
}
_PATHS = ("sandbox.api_key_file", "sandbox.mcp_file")
# A person's key, and the default that it takes the place of.
_IN_PLACE_OF = {"id": "acquire", "include_git": "git"}
# The keys of a person's file that a key of the ceiling holds.
_HELD = {
    "base_urls": ("sandbox.base_url",),
    "agent_changes": ("sandbox.agent_changes",),
    "upload_secrets": ("workspace.upload_secrets", "workspace.allow_secrets"),
    "ignore": ("workspace.ignore",),
    "max_snapshot_mib": ("sync.max_snapshot_mib",),
}


class ManagedFile(Struct, frozen=True):
    """A checked managed file; `defaults` are its tables without the ceiling."""

    path: str
    defaults: Mapping[str, Mapping[str, Any]]
    ceiling: CeilingKeys
    always_ignored: tuple[CeilingPattern, ...] = ()

    @property
    def held(self) -> tuple[str, ...]:
        """The keys of a person's file that the ceiling holds."""
        defaults = CeilingKeys()
        limits = (name for name in _HELD if getattr(self.ceiling, name) != getattr(defaults, name))
        return tuple(key for name in limits for key in _HELD[name])

    @property
    def acquires(self) -> bool:
        """True if it has a sandbox acquired where a person's file names none."""
        return "acquire" in self.defaults.get("sandbox", {})

    def values(self) -> dict[str, Any]:
        """The values for a file that does not have these keys: `table.key` to the default, as the ceiling allows it."""
        found = dict(_flat(self.defaults))
        if self.ceiling.max_snapshot_mib is not None:
            default = found.get("sync.max_snapshot_mib", self.ceiling.max_snapshot_mib)
            found["sync.max_snapshot_mib"] = min(default, self.ceiling.max_snapshot_mib)
        return found

    def allows_base_url(self, url: str) -> bool:
        """True if the ceiling allows this address. This machine's loopback leads nowhere else, so it is allowed."""
        allowed = self.ceiling.base_urls
        if allowed is None or is_loopback(urlsplit(url).hostname or ""):
            return True
        return url.rstrip("/") in {each.rstrip("/") for each in allowed}


def check_managed(text: str, path: str) -> ManagedFile:
    """Check the managed file's text. Its own defaults have to keep to its ceiling. Raises `ConfigError`."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as failure:
        raise ConfigError(f"{path} is not valid TOML", f"{failure}; its administrator has to correct it") from None
    try:
        return _checked(raw, text.splitlines(), path)
    except ConfigError as failure:
        raise ConfigError(f"{path}: {failure.message}", failure.hint) from None


def managed_config(raw: Mapping[str, Any], path: str, managed: ManagedFile | None) -> Config:
    """Check the content of a person's file, with the managed file's defaults and ceiling. Raises `ConfigError`."""
    if managed is None:
        return check_config(raw, path)
    merged = _with_defaults(raw, managed.defaults)
    config = check_config(merged, path)
    _refuse_beyond(config, managed)
    own = dict(_flat(raw))
    within = _within(config, managed)
    return replace(
        within,
        managed=Managed(
            managed.path,
            defaults=tuple(key for key, _ in _flat(merged) if key not in own),
            ceiling=managed.held,
            narrowed=tuple(key for key in managed.held if key in own and _value(within, key) != _value(config, key)),
        ),
    )


def _checked(raw: Mapping[str, Any], lines: Sequence[str], path: str) -> ManagedFile:
    ceiling: CeilingKeys = checked_table("ceiling", CeilingKeys, raw.get("ceiling", {}))
    for url in ceiling.base_urls or ():
        check_base_url("ceiling.base_urls", url)
    for pattern in ceiling.ignore:
        if pattern.startswith("!"):
            raise ConfigError(f"ceiling.ignore = [{shown_value(pattern)}]", "name what stays home only, without a !")
    tables = {name: _own_table(name, table, path) for name, table in raw.items() if name != "ceiling"}
    sandbox = {} if "acquire" in tables.get("sandbox", {}) else {"id": "any"}
    config = check_config(_with_defaults({"workspace": {"path": "/any/where"}, "sandbox": sandbox}, tables), path)
    managed = ManagedFile(path, tables, ceiling, tuple(_patterns(ceiling, lines, path)))
    _refuse_beyond(config, managed)
    return managed


def _own_table(name: str, table: Any, path: str) -> dict[str, Any]:
    """A table of defaults, its relative paths made absolute. Raises `ConfigError` for keys that are a person's own."""
    if not isinstance(table, dict):
        raise ConfigError(f"{shown_value(name)} must be a table", "write it in brackets, as [sync]")
    for key, value in table.items():
        remedy = _OWN.get(f"{name}.{key}")
        if remedy is not None:
            raise ConfigError(f"{name}.{key} = {shown_value(value)}: is no default for all", remedy)
    return {key: _absolute(value, path) if f"{name}.{key}" in _PATHS else value for key, value in table.items()}


def _absolute(value: Any, path: str) -> Any:
    if not isinstance(value, str) or not value or value.startswith("~"):
        return value
    return os.path.join(os.path.dirname(path), value)


def _refuse_beyond(config: Config, managed: ManagedFile) -> None:
    """Raise `ConfigError` for a choice that the ceiling does not allow."""
    ceiling, sandbox = managed.ceiling, config.sandbox
    if not managed.allows_base_url(sandbox.base_url):
        _refuse("sandbox.base_url", sandbox.base_url, "base_urls", ceiling.base_urls or (), managed)
    if ceiling.agent_changes is not None and sandbox.agent_changes not in ceiling.agent_changes:
        _refuse("sandbox.agent_changes", sandbox.agent_changes, "agent_changes", ceiling.agent_changes, managed)


def _refuse(key: str, value: str, limit: str, allowed: Sequence[str], managed: ManagedFile) -> NoReturn:
    names = ", ".join(map(shown_value, allowed)) or "none"
    raise ConfigError(
        f"{key} = {shown_value(value)}: the ceiling of {managed.path} does not allow it",
        f"ceiling.{limit} allows {names}",
    )


def _within(config: Config, managed: ManagedFile) -> Config:
    """The configuration with what the ceiling has stay home, and its limit."""
    ceiling, workspace, sync = managed.ceiling, config.workspace, config.sync
    if not ceiling.upload_secrets:
        workspace = structs.replace(workspace, upload_secrets=False, allow_secrets=())
    if ceiling.max_snapshot_mib is not None:
        sync = structs.replace(sync, max_snapshot_mib=min(sync.max_snapshot_mib, ceiling.max_snapshot_mib))
    return replace(config, workspace=workspace, sync=sync, always_ignored=managed.always_ignored)


def _with_defaults(own: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The tables, with the default of each key that is not there."""
    merged = {**defaults, **own}
    for key in own.keys() & defaults.keys():
        if isinstance(own[key], dict) and isinstance(defaults[key], dict):
            merged[key] = _with_defaults(own[key], defaults[key])
    for key, other in _IN_PLACE_OF.items():
        if key in own and other not in own:
            merged.pop(other, None)
    return merged


def _patterns(ceiling: CeilingKeys, lines: Sequence[str], path: str) -> Iterator[CeilingPattern]:
    """Each pattern with the first line from the ceiling's heading on that has it in quotes."""
    first = next((at for at, line in enumerate(lines) if line.lstrip().startswith("[ceiling")), 0)
    for pattern in ceiling.ignore:
        written = (json.dumps(pattern, ensure_ascii=False), f"'{pattern}'")
        found = (at for at, line in enumerate(lines[first:], first + 1) if any(form in line for form in written))
        yield CeilingPattern(path, next(found, None), pattern)


def _flat(tables: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Each key with the tables that it is in, and its value."""
    for name, value in tables.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield before + name, value


def _value(config: Config, key: str) -> Any:
    table, _, name = key.partition(".")
    return getattr(getattr(config, table), name)
