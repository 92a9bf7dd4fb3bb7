"""docs/reference.md: what the program says of itself, and the documents that scripts read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from tools.reference.facts import (
    ENVIRONMENT,
    EXIT_CODES,
    FILES,
    SIGNALS,
    Option,
    Verb,
    common_options,
    failures,
    own_options,
    verbs,
)

_HEAD = """\
# Reference

<!-- Made by `python -m tools.reference`, from the program and tools/reference/formats.md; a change by hand is lost. -->

`syncd COMMAND --help` and the manual page, `man syncd`, say more of each command.

## Commands

`syncd --version` tells the version. Results go to stdout, logs and messages to stderr.
`push`, `flush`, `pause` and `resume` work through the running daemon where there is one, and by themselves where there
is none. What is printed for people may change. In JSON, fields may be added, and none is renamed or removed; times are
UTC, and a byte of a path that is not UTF-8 is a lone surrogate, as in Python. Many commands have these options:
"""
_CONFIGURATION = """\
## Configuration

[config.example.toml](../config.example.toml) has every key with its default and what it means, as does the file that
`syncd init` writes; `man syncd` has what is allowed. A key that is called `a.b` here is `b = …` below `[a]`. A table
`[sandboxes.NAME]` is [one more sandbox](agent-changes.md#several-agents-one-workspace), with the keys of `[sandbox]`.
An unknown key or a bad value ends a command with 78, and the message says what is allowed. `syncd config show` prints
each value with where it is from.
"""
_ERRORS = """\
An error is one line on stderr: what happened, to what, and what to do. The same line is `last_error` of the status. A
warning stops nothing: `syncd status` shows it, with what to do, until it is mended.
"""
_STATE = """\
They move with the variables above. Folders are 0700, files 0600. With the daemon stopped, the cache can be removed: the
next archive is compressed anew, and less can be merged. The state can be removed too, but the saved versions and the
undo go with it; the next start sends everything once. [internals.md](internals.md#state) has each file.
"""


def page() -> str:
    """Return the whole page as Markdown."""
    return "\n".join(
        (
            _HEAD,
            *table(("option", "does"), ((f"`{option.names}`", option.text) for option in common_options())),
            "",
            f"All but {_without(common_options()[0])} have the first one, which is not named again.",
            "",
            *(line for verb in verbs() for line in _verb(verb)),
            "## Exit codes",
            "",
            *table(("code", "means"), ((str(int(code)), text) for code, text in EXIT_CODES.items())),
            "",
            _ERRORS,
            *table(("an error", "ends a command with"), failures()),
            "",
            "## Signals",
            "",
            *table(("signal to `syncd run`", "does"), SIGNALS),
            "",
            _CONFIGURATION,
            "## Environment",
            "",
            *table(("variable", "means"), ((f"`{name}`", text) for name, text in ENVIRONMENT)),
            "",
            "## Files",
            "",
            *table(("path", "holds"), FILES.items()),
            "",
            _STATE,
            (Path(__file__).parent / "formats.md").read_text("utf-8"),
        )
    )


def _without(option: Option) -> str:
    """Return the commands that do not have an option, but for groups and those that have another one of its name."""
    every = (verb for verb in verbs() if "COMMAND" not in verb.usage)
    names = [verb.path for verb in every if option.names not in {each.names for each in verb.options}]
    return ", ".join(map(_code, names))


def _verb(verb: Verb) -> Iterator[str]:
    yield from (f"### {verb.path}", "")
    first = verb.text[0]
    takes = verb.usage.removeprefix(verb.path).replace("[OPTIONS]", "").replace("COMMAND [ARGS]...", "").strip()
    yield from (f"`{verb.path} {takes}`: {first}" if takes and takes != "[]" else first, "")
    own = own_options(verb)
    yield from (f"- `{option.names}`: {option.text}" for option in own)
    shared = [_code(each.names) for each in common_options()[1:] if each in verb.options]
    yield from [f"- {', '.join(shared)}"] if shared else []
    yield from [""] if own or shared else []


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Yield the lines of a table."""
    for row in (head, ("---",) * len(head), *rows):
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def _code(words: str) -> str:
    return f"`{words}`" if words else ""
