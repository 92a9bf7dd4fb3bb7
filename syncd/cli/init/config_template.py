"""Fills the example configuration with values: comments and order stay the same."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from syncd.core.errors import ConfigError

_TABLE = re.compile(r"(?:# )?\[([\w.]+)\]$")
_KEY = re.compile(r"(?:# )?(\w+) = ")


def filled(example: str, values: Mapping[str, Any], managed: Mapping[str, Any]) -> str:
    """`example` with each `table.key` of `values` set on its own line, and its table's heading not commented out.

    A key that is only in `managed` is commented out with its value there, which may change. Raises `ConfigError` for a
    value that TOML cannot hold, and `KeyError` for a key that the example does not have.
    """
    left = dict(values)
    table = ""
    lines = []
    for line in example.splitlines():
        heading, key = _TABLE.match(line), _KEY.match(line)
        if heading:
            table = heading[1]
            wanted = any(name.rpartition(".")[0] == table for name in values)
            lines.append(f"[{table}]" if wanted else line)
        elif key and f"{table}.{key[1]}" in left:
            name = f"{table}.{key[1]}"
            lines.append(f"{key[1]} = {toml(left.pop(name), name)}")
        elif key and f"{table}.{key[1]}" in managed:
            name = f"{table}.{key[1]}"
            lines.append(f"# {key[1]} = {toml(managed[name], name)}")
        else:
            lines.append(line)
    for name in left:
        raise KeyError(name)
    return "\n".join(lines) + "\n"


def toml(value: Any, name: str) -> str:
    """A value in TOML 1.0. Raises `ConfigError`, which names the key, for a text that is not valid Unicode."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml(item, name) for item in value)}]"
    if not isinstance(value, str):
        return json.dumps(value)
    if not value.isascii() and any(0xD800 <= ord(c) <= 0xDFFF for c in value):
        shown = value.encode("ascii", "backslashreplace").decode()
        raise ConfigError(f'{name} = "{shown}"', "must be valid UTF-8")
    # JSON's escapes are TOML's; only DEL needs an escape in TOML and none in JSON.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
