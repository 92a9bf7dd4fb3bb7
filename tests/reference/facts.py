"""The facts of the reference: commands and options of the parser, keys of the configuration, tables."""

from __future__ import annotations

import inspect
import re
import tomllib
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec

from syncd.cli.commands import cli
from syncd.cli.init.config_template import toml
from syncd.core.settings import SECTIONS, CeilingKeys

REPO = Path(__file__).resolve().parent.parent.parent

# What a person may set, and what a service manager does. A test compares this with what the source reads.
ENVIRONMENT = (
    ("KLAVIS_API_KEY", "The API key; it comes before `sandbox.api_key_file`. A service does not see it."),
    ("CREDENTIALS_DIRECTORY", "Set by systemd: the folder in which `klavis-api-key`, if it is there, comes first."),
    ("XDG_CONFIG_HOME", "Where configuration and API key lie, in a folder `syncd`; default: `~/.config`."),
    ("XDG_STATE_HOME", "Where state lies, in a folder `syncd`; default: `~/.local/state`."),
    ("XDG_CACHE_HOME", "Where the last archive's chunks lie, in a folder `syncd`; default: `~/.cache`."),
    ("STATE_DIRECTORY", "Set by systemd; it comes before `XDG_STATE_HOME`."),
    ("CACHE_DIRECTORY", "Set by systemd; it comes before `XDG_CACHE_HOME`."),
    (
        "HTTPS_PROXY",
        "The proxy for `https`, an `http://` address. `ALL_PROXY` and `NO_PROXY` count too, all in lower case as well.",
    ),
    ("SSL_CERT_FILE", "Certificates to trust in place of the system's: a company's own, for example."),
    ("SSL_CERT_DIR", "The same, as a folder."),
    ("NO_COLOR", "Not empty: no colours."),
    ("PAGER", "The program that shows `syncd diff` on a terminal, with its options; default: `less -FRX`."),
    ("NOTIFY_SOCKET", "Set by systemd: where `syncd run` says that it is ready, alive, or stopping."),
    ("WATCHDOG_USEC", "Set by systemd: how often it has to say so."),
    ("WATCHDOG_PID", "Set by systemd: who has to say so."),
    ("JOURNAL_STREAM", "Set by systemd: log lines to the journal carry their priority."),
)

# The keys of the managed file's ceiling.
CEILING = {
    "ceiling.base_urls": "The addresses that `sandbox.base_url` may have; this machine's own loopback is one always.",
    "ceiling.agent_changes": "The values that `sandbox.agent_changes` may have.",
    "ceiling.upload_secrets": "`false`: secrets stay home, whatever the keys of `[workspace]` say.",
    "ceiling.ignore": "Patterns, as in a `.gitignore` without `!`, for what always stays home.",
    "ceiling.max_snapshot_mib": "The most that `sync.max_snapshot_mib` can be.",
}

EXAMPLES = (
    ("syncd init", "Write the configuration; then try it, see what would be sent, and send it once:"),
    ("syncd check && syncd ls && syncd push", ""),
    ("syncd service install", "Keep it in sync from now on, and at every login."),
    ("syncd explain build/report.pdf", "Why does this file not arrive?"),
    ("syncd flush --timeout 60 && start-the-agent", "Start something that needs all that is on disk now."),
    ("syncd diff && syncd apply", "See what the agent changed, and bring it home."),
    ("syncd log && syncd apply --branch agent", "List the agent's commits, and put them on a branch."),
    ("syncd apply --undo", "Take the last one back."),
    ("syncd status --watch", "Look on."),
    ("syncd push --config site", "Elsewhere than in its directory: push the workspace of `~/.config/syncd/site.toml`."),
    ("syncd status --all", "See all workspaces."),
)


@dataclass(frozen=True)
class Option:
    """`names` is the option as typed, as `--config FILE`."""

    names: str
    text: str


@dataclass(frozen=True)
class Verb:
    """`path` is the whole command; a paragraph of `text` with more than one line is kept as it is."""

    path: str
    usage: str
    text: tuple[str, ...]
    options: tuple[Option, ...]


@dataclass(frozen=True)
class Key:
    """`default` is TOML, or empty if there is none."""

    name: str
    default: str
    allowed: str
    meaning: str


def verbs() -> list[Verb]:
    """Return every command and subcommand, in the order of `syncd --help`."""
    return list(_verbs(cli, click.Context(cli, info_name="syncd")))


def summaries() -> dict[str, str]:
    """Return the commands with a line each, as `syncd --help` shows them."""
    from syncd.cli.commands import COMMANDS  # noqa: PLC0415

    return dict(COMMANDS)


def keys() -> list[Key]:
    """Return every key of the configuration, in the order of the file."""
    meanings = {row[0].strip("`"): row[2] for row in table("key")}
    return [
        Key(name, "" if default in (None, msgspec.NODEFAULT) else toml(default, name), allowed, meanings[name])
        for section, struct in SECTIONS.items()
        for name, default, allowed in _keys(section, struct)
    ]


def ceiling_keys() -> list[Key]:
    """Return every key of the managed file's ceiling. None has a default that limits anything."""
    return [Key(name, "", allowed, CEILING[name]) for name, _, allowed in _keys("ceiling", CeilingKeys)]


def table(first_head: str) -> list[tuple[str, ...]]:
    """Return the rows of the README's table whose first column has this head."""
    for block in re.findall(r"(?:^\|.*\n)+", (REPO / "README.md").read_text("utf-8"), re.MULTILINE):
        head, _, *rows = [_cells(line) for line in block.splitlines()]
        if head[0] == first_head:
            return rows
    raise AssertionError(f"the README has no table with the head {first_head!r}")


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1])


def _verbs(group: click.Group, context: click.Context) -> Iterator[Verb]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        below = click.Context(command, info_name=name, parent=context)
        pieces = [piece for piece in command.collect_usage_pieces(below) if piece != "[OPTIONS]"]
        options = [*_options(command, below)]
        usage = " ".join((below.command_path, *(["[OPTIONS]"] if options else []), *pieces))
        yield Verb(below.command_path, usage, _paragraphs(command.help), tuple(options))
        if isinstance(command, click.Group):
            yield from _verbs(command, below)


def _options(command: click.Command, context: click.Context) -> Iterator[Option]:
    """Return all options but `--help`, which each command has."""
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if isinstance(parameter, click.Option) and record and "--help" not in parameter.opts:
            yield Option(record[0], re.sub(r"\s+", " ", record[1]))


def _paragraphs(text: str | None) -> tuple[str, ...]:
    blocks = inspect.cleandoc(text or "").split("\n\n")
    return tuple(
        block.removeprefix("\b\n") if block.startswith("\b\n") else block.replace("\n", " ")
        for block in blocks
        if block
    )


def _keys(section: str, struct: type[msgspec.Struct]) -> Iterator[tuple[str, Any, str]]:
    changes = typing.get_type_hints(struct, include_extras=True)
    for field in msgspec.structs.fields(struct):
        below = [part for part in typing.get_args(changes[field.name]) if isinstance(part, type)]
        tables = [part for part in below if issubclass(part, msgspec.Struct)]
        if tables:
            yield from _keys(f"{section}.{field.name}", tables[0])
        else:
            yield f"{section}.{field.name}", field.default, _allowed(changes[field.name])


def _allowed(hint: Any) -> str:
    """Return the allowed values, in the words of an error."""
    for part in (hint, *typing.get_args(hint)):
        for meta in getattr(part, "__metadata__", ()):
            if isinstance(meta, msgspec.Meta) and meta.description:
                return meta.description
    raise AssertionError(hint)


def version() -> str:
    """Return the program's version, as its package has it."""
    from syncd import __version__  # noqa: PLC0415

    return __version__


def description() -> str:
    """Return the package's one-line description."""
    text: str = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))["project"]["description"]
    return text
