"""The help of each command fits a terminal, and begins with what can be typed."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click
import pytest

from syncd.cli.commands import COMMANDS, cli
from tests.repo.test_documents import refusal

WIDTH = 80


def _below(group: click.Group, context: click.Context) -> Iterator[click.Context]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        below = click.Context(command, info_name=name, parent=context, terminal_width=WIDTH)
        yield below
        if isinstance(command, click.Group):
            yield from _below(command, below)


CONTEXTS = list(_below(cli, click.Context(cli, info_name="syncd")))


@pytest.mark.parametrize("context", CONTEXTS, ids=lambda context: context.command_path)
def test_it_fits_a_terminal(context: click.Context) -> None:
    """It has no more than 25 lines, none wider than a terminal, and cuts no sentence."""
    lines = context.get_help().splitlines()
    assert len(lines) <= 25, "say less: docs/ has room for the rest"
    assert [line for line in lines if len(line) > WIDTH or (line.endswith("...") and "Usage: " not in line)] == []


# What is typed is what stands after "Usage:".
_NOTHING_TO_CHOOSE = {"check", "completion", "emulator", "explain", "pause", "pull", "reload", "resume", "verify"}


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - _NOTHING_TO_CHOOSE))
def test_it_begins_with_examples(name: str) -> None:
    """Right after the line that says what it does, and each of them can be typed."""
    (context,) = (context for context in CONTEXTS if context.command_path == f"syncd {name}")
    _, examples, *_ = inspect.cleandoc(context.command.help or "").split("\n\n")
    assert examples.startswith("\b\n"), "put examples below the first line of the docstring, after a line with \\b"
    for line in examples.splitlines()[1:]:
        for typed in line.split("  ")[0].replace(";", "&&").split("&&"):
            words = typed.split()
            if words[:1] == ["syncd"]:
                assert not refusal(words[1:]), f"{typed}: write a command that the program takes"
