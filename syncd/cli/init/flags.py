"""The options of `syncd init`: one for each key of the configuration, named like the key."""

from __future__ import annotations

import contextlib
import math
import typing
from collections.abc import Callable
from typing import Any

import click
import msgspec

from syncd.core.settings import SECTIONS, AcquireKeys, Text

_TABLES: dict[str, type[msgspec.Struct]] = {**SECTIONS, "sandbox.acquire": AcquireKeys}
_KEYS: dict[str, tuple[msgspec.structs.FieldInfo, Any]] = {
    f"{table}.{field.name}": (field, typing.get_type_hints(keys, include_extras=True)[field.name])
    for table, keys in _TABLES.items()
    for field in msgspec.structs.fields(keys)
    if f"{table}.{field.name}" not in _TABLES
}
# The two that are always needed have a short name, too.
ALIASES = {"workspace.path": "--path", "sandbox.id": "--id"}


def flag_per_key(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add one option for each key of the configuration, in the file's order, named like the key."""
    for name, (field, annotation) in reversed(_KEYS.items()):
        command = _option(name, field, annotation)(command)
    return command


def _option(name: str, field: msgspec.structs.FieldInfo, annotation: Any) -> Callable[..., Any]:
    flag = "--" + name.replace(".", "-").replace("_", "-")
    variable = name.replace(".", "__")
    if isinstance(field.default, bool):
        switch = f"{flag}/--no-{flag[2:]}"
        return click.option(switch, variable, default=None, help=f"{name}; default: {str(field.default).lower()}.")
    names = [flag, *([ALIASES[name]] if name in ALIASES else []), variable]
    if isinstance(field.default, tuple):
        return click.option(*names, multiple=True, metavar="TEXT", help=f"{name}: one of the list. Repeatable.")
    allowed = _description(annotation).replace('"', "")
    text = f"{name}: {allowed}" if allowed and allowed != _description(Text) else name
    default = "" if field.default in (msgspec.NODEFAULT, None, "") else f"; default: {field.default}"
    return click.option(*names, metavar="VALUE", help=f"{text}{default}.")


def _description(annotation: Any) -> str:
    """The allowed values, from the key's description."""
    for meta in getattr(annotation, "__metadata__", ()):
        if isinstance(meta, msgspec.Meta) and meta.description:
            return meta.description
    return ""


def typed(name: str, value: Any) -> Any:
    """A number if the key is a number and the text is one too; the check of the whole reports what is wrong."""
    if typing.get_args(_KEYS[name][1])[0] not in (int, float):
        return value
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            number = kind(value)
            return number if math.isfinite(number) else value
    return value
