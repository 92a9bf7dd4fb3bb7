"""docs/errors.md: every error and warning, by subject, with what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tests.reference.messages import Message, messages

_USAGE = "2"
_HEAD = """\
# Errors and warnings

<!-- Made from the program by `python -m tests.reference`; a change by hand is lost. -->

An error is one line on stderr, `syncd: what happened: what to do`; `syncd status` shows the last one, and each warning
until its cause is gone. Here an arrow is before what to do. What varies is in *italics*, (…) is the reason of the
system or a server, and what may be missing is in brackets. Each list is by how a command ends:

- 75: it may work later. The daemon tries again by itself, and where nothing else is said, so may you.
- 78: a person must change something before.
- 75 or 78: one of these, by what the server answered.
- warning: syncing goes on.

Errors of usage (2) say how to type the command, and are not listed.
"""
# The first folder or module that a message is made in, or below, decides its subject.
_SUBJECTS = {
    "Configuration and key": (
        "core/settings",
        "core/config_file",
        "core/api_key",
        "cli/options",
        "cli/init",
        "daemon/build",
    ),
    "Network, API and bucket": ("remote",),
    "The sandbox": ("sandbox/account", "sandbox/provider", "cli/sandbox"),
    "The workspace and its rules": ("selection", "scan", "archive/snapshotter", "cli/explain"),
    "The watch": ("watch",),
    "A sync": ("sync", "store", "daemon", "report", "core", "cli/push", "cli/flush", "cli/run", "cli/daemon_client"),
    "What the agent changed": ("sandbox", "merge", "cli/apply", "cli/diff", "cli/log", "cli/saved", "cli/agent_side"),
    "The service": ("cli/service",),
    "Other commands": ("cli", "archive", "emulator"),
}


def page() -> str:
    """Return the whole page as Markdown."""
    subjects = [f"[{subject}](#{_anchor(subject)})" for subject in _SUBJECTS]
    lines = [_HEAD, f"{', '.join(subjects)}."]
    for subject in _SUBJECTS:
        lines += ["", f"## {subject}"]
        rows = _rows(each for each in messages() if subject_of(each) == subject and each.ends != _USAGE)
        for end in sorted({end for end, _ in rows}):
            listed = sorted((row for kind, row in rows if kind == end), key=_sort_key)
            lines += ["", f"**{end}**", "", *(f"- {row}" for row in listed)]
    return "\n".join((*lines, ""))


def _rows(found: Iterable[Message]) -> list[tuple[str, str]]:
    """Return how a command ends with the messages that ask for the same, but for those that a general one covers."""
    by_remedy: dict[tuple[str, str], set[str]] = {}
    for each in found:
        by_remedy.setdefault((each.ends, _shown(each.remedy)), set()).add(_shown(each.what))
    rows = []
    for (end, remedy), whats in by_remedy.items():
        for what in sorted(whats):
            if any(_is_covered(what, other) for other in whats):
                whats.remove(what)
        left = sorted(whats, key=_sort_key)
        rows += [(end, f"{' · '.join(left)} → {remedy}")] if remedy else [(end, what) for what in left]
    return rows


def _is_covered(what: str, general: str) -> bool:
    """Return True if another message is the same but for a place where it has no words of its own."""
    one, other = what.split(), general.split()
    begins = _common(one, other)
    ends = _common(one[begins:][::-1], other[begins:][::-1])
    return one != other and _has_words(one[:begins]) and not _has_words(other[begins : len(other) - ends])


def _has_words(words: list[str]) -> bool:
    return re.search("[a-z]{2}", re.sub(r"\*[^*]+\*", "", " ".join(words))) is not None


def _common(one: list[str], other: list[str]) -> int:
    """Return how many words at the beginning are the same."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (first, second) in pairs if first != second), min(len(one), len(other)))


def subject_of(message: Message) -> str:
    """Return the subject of the page that a message belongs to: by the longest of the folders that it is in."""
    path = message.path.removeprefix("syncd/").removesuffix(".py")
    found = [(len(place), subject) for subject, places in _SUBJECTS.items() for place in places if _is_in(path, place)]
    return max(found)[1]


def _is_in(path: str, place: str) -> bool:
    return path == place or path.startswith(f"{place}/")


def _sort_key(what: str) -> tuple[str, str]:
    return re.sub(r"[^a-z ]", "", what.lower()).strip(), what


def _shown(text: str) -> str:
    parts = re.sub(r"\(<(reason|message)>\)", "(…)", text).split("`")  # no italics within code
    return "`".join(part if at % 2 else re.sub(r"<([^<>]*)>", r"*\1*", part) for at, part in enumerate(parts))


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
