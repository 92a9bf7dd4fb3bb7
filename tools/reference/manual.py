"""The manual page syncd(1) in man(7) macros that every formatter knows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tools.reference.facts import (
    ENVIRONMENT,
    EXAMPLES,
    EXIT_CODES,
    FILES,
    SIGNALS,
    Verb,
    description,
    keys,
    summaries,
    verbs,
    version,
)

# A formatter gives each of these a meaning of its own, or a typographic form that cannot be copied into a shell.
_SPECIAL = {"\\": r"\e", "-": r"\-", "'": r"\[aq]", "`": r"\[ga]", "^": r"\[ha]", "~": r"\[ti]", '"': r"\[dq]"}


def manual() -> str:
    """Return the whole page as roff."""
    # No date: it would tell when someone ran this, and the version tells more.
    return "\n".join(
        (
            r".\" Made from the program by `python -m tools.reference`; a change by hand is lost.",
            f'.TH SYNCD 1 "" "syncd {version()}" "User Commands"',
            *_section("NAME", [rf"syncd \- {text(description()[0].lower() + description()[1:])}"]),
            *_section("SYNOPSIS", [r"\fBsyncd\fP \fICOMMAND\fP [\fIOPTIONS\fP] [\fIARGUMENTS\fP]"]),
            *_section("DESCRIPTION", _description()),
            *_section("COMMANDS", (line for verb in verbs() for line in _verb(verb))),
            *_section("CONFIGURATION", _keys()),
            *_section("FILES", _tagged(FILES.items())),
            *_section("EXIT STATUS", _tagged((str(int(code)), means) for code, means in EXIT_CODES.items())),
            *_section("SIGNALS", [text("To `syncd run`:"), *_tagged(SIGNALS)]),
            *_section("ENVIRONMENT", _tagged((f"`{name}`", means) for name, means in ENVIRONMENT)),
            *_section("EXAMPLES", _examples()),
            *_section("SEE ALSO", [r"\fBgitignore\fP(5), \fBinotify\fP(7), \fBsystemctl\fP(1), \fBjournalctl\fP(1)"]),
            "",
        )
    )


def text(words: str) -> str:
    """Return prose as one input line of roff, with text in backticks in bold."""
    components = [escaped(part) for part in re.split(r"`([^`]+)`", words)]
    line = "".join(rf"\fB{part}\fP" if at % 2 else part for at, part in enumerate(components))
    return rf"\&{line}" if line.startswith((".", r"\[aq]")) else line


def escaped(words: str) -> str:
    """Return text escaped for roff."""
    return "".join(_SPECIAL.get(c) or (c if c.isascii() else rf"\[u{ord(c):04X}]") for c in words)


def _section(name: str, lines: Iterable[str]) -> Iterator[str]:
    yield f".SH {name}"
    first, *rest = lines
    yield from (*([] if first == ".PP" else [first]), *rest)


def _description() -> Iterator[str]:
    yield text("The workspace is watched; when it has been quiet for a moment and differs from what the sandbox has,")
    yield text(
        "it is packed into one archive and put there. Excluded paths, secrets and what is outside are never sent."
    )
    yield from (".PP", text("Each command takes `--help`. The commands in a line each:"))
    yield from _tagged((f"`{name}`", summary) for name, summary in summaries().items())


def _verb(verb: Verb) -> Iterator[str]:
    yield from (f".SS {escaped(verb.path)}", rf"\fB{escaped(verb.path)}\fP{escaped(verb.usage[len(verb.path) :])}")
    for paragraph in verb.text:
        yield from _literal(paragraph) if "\n" in paragraph else (".PP", text(paragraph))
    for option in verb.options:
        yield from (".TP", _option(option.names), text(option.text))


def _option(names: str) -> str:
    """Return an option with its names in bold and its values in italics."""
    return " ".join(rf"\f{'B' if word.startswith('-') else 'I'}{escaped(word)}\fP" for word in names.split())


def _keys() -> Iterator[str]:
    yield text(
        "The file of `~/.config/syncd` whose workspace holds the current directory, else `config.toml` there, or what"
        " `--config` names, as TOML: a key `a.b` is `b` below `[a]`."
    )
    for key in keys():
        given = f"default: `{key.default}`" if key.default else "no default"
        yield from (".TP", text(f"`{key.name}`"), text(f"{key.meaning} Allowed: {key.allowed}; {given}."))


def _examples() -> Iterator[str]:
    for command, says in EXAMPLES:
        if says:
            yield from (".PP", text(says))
        yield from _literal(command)


def _literal(words: str) -> Iterator[str]:
    lines = (rf"\&{escaped(line)}" for line in words.splitlines())
    yield from (".PP", ".RS 4", ".nf", *lines, ".fi", ".RE")


def _tagged(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    for tag, means, *_ in rows:
        yield from (".TP", text(tag), text(means))
