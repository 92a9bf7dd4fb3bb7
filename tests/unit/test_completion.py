"""Shell completion of every command, option, choice and path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete

from syncd.cli.commands import COMMANDS, cli


def test_every_command_is_offered_without_being_imported() -> None:
    """The first word is one of the commands in `syncd --help`, in that order, each with its summary."""
    items = cli.shell_complete(click.Context(cli), "")
    assert [(item.value, item.help) for item in items] == list(COMMANDS.items())


@pytest.mark.parametrize("path", COMMANDS)
def test_every_option_is_offered(path: str) -> None:
    """After a dash all options of a command and of its subcommands are offered."""
    context = click.Context(cli)
    verb = cli.get_command(context, path)
    assert verb is not None
    for words, command in _below((path,), verb):
        names = [parameter.opts[0] for parameter in command.params if isinstance(parameter, click.Option)]
        offered = [item.value for item in _completed(f"{' '.join(words)} -")]
        assert [name for name in names if name not in offered] == []
        assert "--help" in offered


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two configurations in the configuration folder, one of them broken."""
    (tmp_path / "syncd").mkdir()
    for name in ("config.toml", "site.toml", "api-key"):
        (tmp_path / "syncd" / name).write_text("no TOML")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


@pytest.mark.usefixtures("configs")
@pytest.mark.parametrize(("typed", "names"), [("", ["config", "site"]), ("si", ["site"]), ("./", [])])
def test_configurations_are_offered_by_name(typed: str, names: list[str]) -> None:
    """The names come after the files, which are left to the shell; no configuration is read."""
    files, *others = _completed(f"push --config {typed}")
    assert files.type == "file"
    assert [item.value for item in others] == names


def _below(words: tuple[str, ...], command: click.Command) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield words, command
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from _below((*words, name), below)


def _completed(typed: str) -> list[click.shell_completion.CompletionItem]:
    *words, incomplete = typed.split(" ")
    return BashComplete(cli, {}, "syncd", "_SYNCD_COMPLETE").get_completions(words, incomplete)
