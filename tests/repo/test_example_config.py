"""The example configuration shows every key with the default that syncd really has."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from syncd.core.settings import SECTIONS, AcquireKeys, check_config

TABLES: dict[str, type[msgspec.Struct]] = {**SECTIONS, "sandbox.acquire": AcquireKeys}
_NO_DEFAULT = (msgspec.NODEFAULT, None)
# A key or a table that is only an example: only the user knows its value.
_EXAMPLE = re.compile(r"^# (\w+ = .*|\[[\w.]+\])$", re.MULTILINE)


@pytest.fixture
def text(repo: Path) -> str:
    """The example as it is shipped."""
    return (repo / "config.example.toml").read_text("utf-8")


@pytest.mark.parametrize("table", TABLES)
def test_every_key_is_shown_with_its_default(text: str, table: str) -> None:
    """A key is in the example with its default, or commented where it has none."""
    shown = _table(_uncommented(text), table)
    for field in msgspec.structs.fields(TABLES[table]):
        if f"{table}.{field.name}" in TABLES:
            continue
        remedy = f"config.example.toml: show {table}.{field.name} with the default of syncd/core/settings.py"
        assert field.name in shown, remedy
        if field.default not in _NO_DEFAULT:
            plain = list(field.default) if isinstance(field.default, tuple) else field.default
            assert shown[field.name] == plain, remedy


def test_only_what_has_no_default_is_commented(text: str) -> None:
    """The file as shipped changes no default, and names every key that can be left as it is."""
    active = tomllib.loads(text)
    for table in SECTIONS:
        optional = {field.name for field in msgspec.structs.fields(TABLES[table]) if field.default not in _NO_DEFAULT}
        assert set(_table(active, table)) == optional, (
            f"config.example.toml, {table}: make a comment of what has no default, and of nothing else"
        )


def test_nothing_is_shown_that_does_not_exist(text: str) -> None:
    """Filled in, the example is a configuration that syncd takes, with an id or with a sandbox to acquire."""
    raw = _uncommented(text)
    for left_out in ("id", "acquire"):
        sandbox = {key: value for key, value in raw["sandbox"].items() if key != left_out}
        config = check_config({**raw, "sandbox": sandbox}, "/nowhere/config.toml")
        assert (config.sandbox.id is None) == (left_out == "id")


def _uncommented(text: str) -> dict[str, Any]:
    return tomllib.loads(_EXAMPLE.sub(r"\1", text))


def _table(raw: dict[str, Any], name: str) -> dict[str, Any]:
    for part in name.split("."):
        raw = raw.get(part, {})
    return raw
