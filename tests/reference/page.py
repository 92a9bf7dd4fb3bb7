"""docs/reference.md: every command with its options, every key, every variable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tests.reference.facts import ENVIRONMENT, Verb, ceiling_keys, keys, verbs

_HEAD = """\
# Reference

<!-- Made from the program by `python -m tests.reference`; a change by hand is lost. -->

The same as a manual page: `man syncd`. Exit codes, signals and files are in the [README](../README.md).

- [Commands](#commands)
- [Configuration](#configuration)
- [Environment](#environment)

## Commands

Each command takes `--help`; `syncd --version` tells the version.
"""
_KEYS = """\
## Configuration

The file is the one in `~/.config/syncd` whose workspace holds the current directory, else `config.toml` there, or what
`--config` names. A key in `a.b` is written as `b = …` below `[a]`.
"""
_CEILING = """\
### The managed file

`/etc/syncd/managed.toml` takes the same keys as defaults for everyone on the machine, but `workspace.path` and
`sandbox.id`, and a table `[ceiling]`, which limits nothing where a key is left out: see [fleet.md](fleet.md).
"""


def page() -> str:
    """Return the whole page as Markdown."""
    return "\n".join(
        (
            _HEAD,
            *(line for verb in verbs() for line in _verb(verb)),
            _KEYS,
            *table(
                ("key", "default", "allowed", "means"),
                (
                    (f"`{key.name}`", f"`{key.default}`" if key.default else "none", key.allowed, key.meaning)
                    for key in keys()
                ),
            ),
            "",
            _CEILING,
            *table(
                ("key", "allowed", "means"), ((f"`{key.name}`", key.allowed, key.meaning) for key in ceiling_keys())
            ),
            "",
            "## Environment",
            "",
            *table(("variable", "means"), ((f"`{name}`", text) for name, text in ENVIRONMENT)),
            "",
        )
    )


def _verb(verb: Verb) -> Iterator[str]:
    yield from (f"### {verb.path}", "", "```text", verb.usage, "```", "")
    for paragraph in verb.text:
        yield from (("```text", paragraph, "```", "") if "\n" in paragraph else (paragraph, ""))
    if verb.options:
        yield from table(("option", "does"), ((f"`{option.names}`", option.text) for option in verb.options))
        yield ""


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Yield the lines of a table."""
    for row in (head, ("---",) * len(head), *rows):
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
