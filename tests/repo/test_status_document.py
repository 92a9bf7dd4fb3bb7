"""The section about `status --json` names all that it has, and nothing else."""

from __future__ import annotations

import re
import types
import typing
from pathlib import Path

import pytest
from msgspec import Struct
from msgspec.structs import fields

from syncd.sandbox.setup_rules import SetupState
from syncd.sync.status_document import SandboxStatus, State, Status

WORDS = {int: "integer", float: "number", str: "string", bool: "boolean", State: "string", SetupState: "string"}
LISTS = {tuple: "list of strings", dict: "object of {}s"}
STATUS = Status(running=False, pid=None, workspace="/w", sandboxes=(SandboxStatus(name="main", id="", base_url=""),))


def test_every_field_has_its_row(page: str) -> None:
    """The table is the document: each field with its type."""
    rows = re.findall(r"^\| `([\w.]+)` \| ([a-z ]+) \| \S", page.split("### States", maxsplit=1)[0], re.MULTILINE)
    types = {**dict(described(SandboxStatus)), **dict(described(Status)), "sandbox": "object", "state": "string"}
    types |= {"pending": "boolean", **{f"sandbox.{name}": "string" for name in ("id", "base_url", "region")}}
    document = STATUS.document()
    wanted = {name: kind for name, kind in types.items() if name.split(".")[0] in document}
    assert dict(rows) == wanted, "tools/reference/formats.md: give each field its row, with its type"


def test_every_state_has_its_row(page: str) -> None:
    """The states are listed in the program's own order."""
    section = page.split("### States")[1].split("\n## ", maxsplit=1)[0]
    listed = re.findall(r"^\| `(\w+)` \| (?!the daemon)", section, re.MULTILINE)
    assert listed == [state.value for state in State], (
        "tools/reference/formats.md, States: list them in the order of State"
    )


@pytest.fixture
def page(repo: Path) -> str:
    """The section's text."""
    return (repo / "tools/reference/formats.md").read_text("utf-8").partition("\n## The history\n")[0]


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


def render(kind: typing.Any) -> str:
    """A type in the words of the table."""
    if kind == tuple[SandboxStatus, ...]:
        return "list of objects"
    if typing.get_origin(kind) is not None:
        return LISTS[typing.get_origin(kind)].format(WORDS.get(typing.get_args(kind)[-1]))
    return WORDS.get(kind, "object")
