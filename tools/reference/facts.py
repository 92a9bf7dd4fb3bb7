"""The facts of the reference: commands and options of the parser, keys of the configuration, tables."""

from __future__ import annotations

import inspect
import re
import tomllib
import typing
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec

from syncd.cli.commands import cli
from syncd.cli.config import toml
from syncd.core import errors
from syncd.core.errors import ExitCode, NeedsPerson, SyncdError, TryLater
from syncd.core.settings import SECTIONS

REPO = Path(__file__).resolve().parent.parent.parent

# So many commands have an option that is described once.
_MANY = 4
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
    ("VISUAL", "The editor of `syncd config edit`, with its options; else `EDITOR`, else `vi`."),
    ("EDITOR", "The same, where `VISUAL` is not set."),
)

EXIT_CODES = {
    ExitCode.DONE: "Done, or nothing to do; `run` was told to stop.",
    ExitCode.DIFFERENT: (
        "`verify` found the sandbox not equal to the workspace; `diff` found changes in the sandbox; `apply` or"
        " `saved restore --here` left conflicts; `resolve` left something to decide."
    ),
    ExitCode.WRONG_USAGE: "Wrong usage.",
    ExitCode.TRY_LATER: (
        "It could not finish, but the same command may work later: network, Klavis, a file that keeps changing, or"
        " that `apply` could not fetch; another instance has the workspace."
    ),
    ExitCode.NEEDS_PERSON: (
        "It will not work until a person changes something: configuration, key, sandbox, workspace. A refusal by"
        " Klavis ends `run` so only before its first sync; after that the daemon is `held`, says why, and tries again"
        " after minutes, at a SIGHUP and when the key file changes."
    ),
}

SIGNALS = (
    ("SIGTERM, SIGINT", "It stops within 5 seconds; what was not sent is sent after the next start."),
    ("SIGHUP", "It reads the configuration again; a bad one is refused, and the old one stays."),
    ("SIGUSR1", "It syncs now."),
)

FILES = {
    "`~/.config/syncd/config.toml`": "The configuration; `NAME.toml` beside it is that of another workspace.",
    "`~/.config/syncd/api-key`": "The API key; another place is `sandbox.api_key_file`.",
    "`~/.local/state/syncd/`": (
        "A folder for each workspace: what was sent last, the agent's saved versions, what the last `apply` replaced,"
        " past syncs, the lock, the status, the daemon's socket."
    ),
    "`~/.cache/syncd/`": (
        "A folder for each workspace: the compressed chunks of the last archive, at most twice its size, and copies of"
        " what was sent and differs here now."
    ),
}

EXAMPLES = (
    ("syncd init", "Write the configuration; then try it, see what would be sent, and send it once:"),
    ("syncd check && syncd ls && syncd push", ""),
    ("syncd service install", "Keep it in sync from now on, and at every login."),
    ("syncd explain build/report.pdf", "Why does this file not arrive?"),
    ("syncd flush --timeout 60 && start-the-agent", "Start something that needs all that is on disk now."),
    ("syncd diff && syncd apply", "See what the agent changed, and bring it home."),
    ("syncd apply --branch agent && git log -p ..agent", "Put the agent's commits on a branch, and read them."),
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
    """`path` is the whole command; a paragraph of `text` that ends with a line break is kept as it is."""

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
    meanings = _comments()
    missing = [name for section, struct in SECTIONS.items() for name, *_ in _keys(section, struct)]
    missing = [name for name in missing if name not in meanings]
    assert not missing, f"write what it means above the line of each in config.example.toml: {missing}"
    return [
        Key(name, "" if default in (None, msgspec.NODEFAULT) else toml(default, name), allowed, meanings[name])
        for section, struct in SECTIONS.items()
        for name, default, allowed in _keys(section, struct)
    ]


def failures() -> list[tuple[str, str]]:
    """Return the kinds of errors that end a command, each in a sentence and with its exit code."""
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, SyncdError)]
    named = [kind for kind in kinds if kind not in (SyncdError, TryLater, NeedsPerson)]
    ordered = sorted(named, key=lambda kind: (kind.exit_code, inspect.getsourcelines(kind)[1]))
    return [(inspect.getdoc(kind) or "", str(int(kind.exit_code))) for kind in ordered]


def common_options() -> list[Option]:
    """Return the options that many commands have, in the same words, the most frequent one first."""
    every = Counter(option for verb in verbs() for option in verb.options)
    return [option for option, count in every.most_common() if count >= _MANY]


def own_options(verb: Verb) -> list[Option]:
    """Return the options that are only this command's."""
    common = common_options()
    return [each for each in verb.options if each not in common]


def _comments() -> dict[str, str]:
    """Return what the example configuration says above each key."""
    found: dict[str, str] = {}
    table, lines = "", list[str]()
    for line in (REPO / "config.example.toml").read_text("utf-8").splitlines():
        heading, key = re.match(r"(?:# )?\[([\w.]+)\]$", line), re.match(r"(?:# )?(\w+) = ", line)
        if heading:
            table = heading[1]
        elif key:
            found[f"{table}.{key[1]}"] = " ".join(lines)
        elif line:
            lines.append(line.removeprefix("# "))
            continue
        lines = []
    return found


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
    blocks = inspect.cleandoc(text or "").replace("\f\n", "").split("\n\n")
    return tuple(
        block.removeprefix("\b\n") + "\n" if block.startswith("\b\n") else block.replace("\n", " ")
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
