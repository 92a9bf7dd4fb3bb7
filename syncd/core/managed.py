"""The managed file, a layer of each configuration in which a machine's administrator decides for all who use it.

Its tables are below a person's: a default is used where theirs have no value. `[ceiling]` is above: where a person
chose an address or a mode that it does not allow, the configuration is refused, as another one would not be what was
asked for. Where it only has more stay home, it is applied, and named in `Config.managed`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from syncd.core.choices import MANAGED_FILE, Managed
from syncd.core.errors import ConfigError
from syncd.core.settings import (
    CeilingKeys,
    Config,
    check_base_url,
    check_config,
    checked_table,
    is_loopback,
    shown_value,
    with_git,
)

# Each person's own: one value for all would send all workspaces into one sandbox.
_OWN = {
    "workspace.path": "each person's own file names the workspace",
    "sandbox.id": "each person's own file names the sandbox; a [sandbox.acquire] table is for all",
}
_PATHS = ("sandbox.api_key_file", "sandbox.mcp_file")
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
        found, most = dict(_flat(self.tables)), self.ceiling.max_snapshot_mib
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


def check_managed(raw: Mapping[str, Any]) -> ManagedLayer:
    """Check the managed file's content. Its own defaults have to keep to its ceiling. Raises `ConfigError`."""
    ceiling: CeilingKeys = checked_table("ceiling", CeilingKeys, raw.get("ceiling", {}))
    for url in ceiling.base_urls or ():
        check_base_url("ceiling.base_urls", url)
    for pattern in ceiling.ignore:
        if pattern.startswith("!"):
            raise ConfigError(f"ceiling.ignore = [{shown_value(pattern)}]", "name what stays home only, without a !")
    tables = {name: _defaults(name, table) for name, table in raw.items() if name != "ceiling"}
    layer = ManagedLayer(with_git(tables), ceiling)
    layered({"workspace": {"path": "/any/where"}, "sandbox": {} if layer.acquires else {"id": "any"}}, "", layer)
    return layer


def layered(raw: Mapping[str, Any], path: str, layer: ManagedLayer) -> Config:
    """Check the content of a person's file, with the managed file's defaults and ceiling. Raises `ConfigError`."""
    raw = with_git(raw)
    merged = _merged(raw, layer.tables)
    config = check_config(merged, path)
    if layer == NO_LAYER:
        return config
    _refuse_beyond(config, layer)
    own, bounded = dict(_flat(raw)), _bounded(config, layer.ceiling)
    managed = Managed(
        MANAGED_FILE,
        defaults=tuple(key for key, _ in _flat(merged) if key not in own),
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
    sandbox, ceiling = config.sandbox, layer.ceiling
    if not layer.allows_base_url(sandbox.base_url):
        key, value, limit, allowed = "base_url", sandbox.base_url, "base_urls", ceiling.base_urls or ()
    elif ceiling.agent_changes is not None and sandbox.agent_changes not in ceiling.agent_changes:
        key, value, limit, allowed = "agent_changes", sandbox.agent_changes, "agent_changes", ceiling.agent_changes
    else:
        return
    raise ConfigError(
        f"sandbox.{key} = {shown_value(value)}: the ceiling of {MANAGED_FILE} does not allow it",
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
