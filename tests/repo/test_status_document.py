"""The page about `status --json` and `--metrics` names all that they have, and nothing else."""

from __future__ import annotations

import json
import re
import types
import typing
from pathlib import Path

import pytest
from msgspec import Struct
from msgspec import json as msgspec_json
from msgspec.structs import fields
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from syncd.report.metrics import exposition
from syncd.sync.status_document import SandboxStatus, State, Status

WORDS = {int: "integer", float: "number", str: "string", bool: "boolean", State: "string"}
LISTS = {tuple: "list of strings", dict: "object of {}s"}


def test_every_field_has_its_row(page: str) -> None:
    """The table is the document: each field in its order, with its type."""
    rows = re.findall(r"^\| `([\w.\[\]]+)` \| ([a-z ]+) \| \S", page.split("### States", maxsplit=1)[0], re.MULTILINE)
    assert rows == list(described(Status))


def test_the_example_is_such_a_document(page: str) -> None:
    """It is valid, and has every field."""
    example = re.search(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert example
    status = msgspec_json.decode(example[1], type=Status)
    assert names(json.loads(example[1])) == names(json.loads(msgspec_json.encode(status)))
    documented = {name for name, _ in described(Status)}
    assert names(json.loads(example[1])) >= documented - {"mcp_servers", "left_out"}


def test_every_state_has_its_row(page: str) -> None:
    """The states are listed in the program's own order."""
    section = page.split("### States")[1].split("\n## ", maxsplit=1)[0]
    assert re.findall(r"^\| `(\w+)` \| (?!the daemon)", section, re.MULTILINE) == [state.value for state in State]


def test_every_metric_has_its_row(page: str) -> None:
    """The second table names the metrics of the example's text, each with its type."""
    example = re.search(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert example
    status = msgspec_json.decode(
        example[1].replace('"retry_at": null', '"retry_at": "2026-11-24T13:20:21Z"'), type=Status
    )
    families = text_string_to_metric_families(exposition(status, 0, "1"))
    printed = {(sample.name, family.type) for family in families for sample in family.samples}
    assert set(re.findall(r"^\| `(syncd_\w+)` \| (\w+) \| \S", page, re.MULTILINE)) == printed


@pytest.fixture
def page(repo: Path) -> str:
    """The page's text."""
    return (repo / "docs/status.md").read_text("utf-8")


def described(struct: type[Struct], before: str = "") -> typing.Iterator[tuple[str, str]]:
    """Each field by its path in the document, with its type in words; what is in an object after the object."""
    changes = typing.get_type_hints(struct)
    for field in fields(struct):
        kinds = [kind for kind in typing.get_args(changes[field.name]) if kind is not types.NoneType]
        optional = isinstance(changes[field.name], types.UnionType)
        kind = kinds[0] if optional else changes[field.name]
        yield before + field.name, render(kind) + " or null" * optional
        if isinstance(kind, type) and issubclass(kind, Struct):
            yield from described(kind, f"{before}{field.name}.")
        if kind == tuple[SandboxStatus, ...]:
            of_each = described(SandboxStatus, f"{before}{field.name}[].")
            yield from (row for row in of_each if row[0].count(".") == 1)  # the rest has rows of its own above


def render(kind: typing.Any) -> str:
    """A type in the words of the table."""
    if kind == tuple[SandboxStatus, ...]:
        return "list of objects"
    if typing.get_origin(kind) is not None:
        return LISTS[typing.get_origin(kind)].format(WORDS.get(typing.get_args(kind)[-1]))
    return WORDS.get(kind, "object")


def names(document: dict[str, typing.Any], before: str = "") -> set[str]:
    """The paths of all fields of a document."""
    found = set()
    for name, value in document.items():
        found.add(before + name)
        if isinstance(value, dict):
            found |= names(value, f"{before}{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            found |= {each for each in names(value[0], f"{before}{name}[].") if each.count(".") == 1}
    return found
