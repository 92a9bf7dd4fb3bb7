"""The section of the errors and warnings that need a person, by subject, with what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tools.reference.messages import Message, messages

_NOT_LISTED = ("2", "75")  # wrong usage; it may work later
_BY_ITSELF = re.compile(r"(|(nothing to do|an? (later )?sync|the next sync|it is tried|it goes on).*)")
_HEAD = """\
## Errors and warnings

These need you: what happened, and after an arrow what to do. What varies is in *italics*, (…) is the reason of the
system or a server, and what may be missing is in brackets. 78 and 75 are how a command ends; a warning lets syncing go
on. Not listed are those that end by themselves, and what is wrong with the words of a command, the configuration, the
key file or another that you named: the message says it.
"""
# The first folder or module that a message is made in, or below, decides its subject.
_SUBJECTS = {
    "Network, API and bucket": ("remote",),
    "The sandbox": ("sandbox/account", "sandbox/provider"),
    "The workspace and its rules": ("selection", "scan", "archive/snapshotter"),
    "The watch": ("watch",),
    "A sync": ("sync", "store", "daemon", "report", "core", "cli/push", "cli/flush", "cli/run", "cli/daemon_client"),
    "What the agent changed": ("sandbox",),
}
# What is made in these is the answer to what someone typed.
_ANSWERS = ("cli", "merge", "archive", "emulator", "core/settings", "core/config_file", "core/api_key", "daemon/build")


def section() -> str:
    """Return the section as Markdown."""
    lines = [_HEAD.rstrip()]
    for subject in _SUBJECTS:
        rows = _rows(
            each
            for each in messages()
            if subject_of(each) == subject and each.ends not in _NOT_LISTED and not _BY_ITSELF.fullmatch(each.remedy)
        )
        lines += ["", f"### {subject}"] if rows else []
        for end in sorted({end for end, _ in rows}):
            listed = sorted((row for kind, row in rows if kind == end), key=_sort_key)
            lines += ["", f"**{end}**", "", *(f"- {row}" for row in listed)]
    return "\n".join((*lines, ""))


def _rows(found: Iterable[Message]) -> list[tuple[str, str]]:
    """Return how a command ends with the messages that ask for the same, but for those that a general one covers."""
    by_remedy: dict[tuple[str, str], set[str]] = {}
    for each in found:
        by_remedy.setdefault((each.ends, _shown(each.remedy)), set()).add(_shown(each.what))
    rows: dict[tuple[str, str], list[str]] = {}
    for (end, remedy), whats in by_remedy.items():
        for what in sorted(whats):
            if any(_is_covered(what, other) for other in whats):
                whats.remove(what)
        left = sorted(whats, key=_sort_key)
        rows.setdefault((end, " · ".join(left)), []).append(remedy)
    return [(end, f"{what} → {' · '.join(found)}") for (end, what), found in rows.items()]


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
    """Return the subject that a message belongs to, by the longest of the folders that it is in; "" is none."""
    path = message.path.removeprefix("syncd/").removesuffix(".py")
    every = {**_SUBJECTS, "": _ANSWERS}
    return max((len(place), subject) for subject, places in every.items() for place in places if _is_in(path, place))[1]


def _is_in(path: str, place: str) -> bool:
    return path == place or path.startswith(f"{place}/")


def _sort_key(what: str) -> tuple[str, str]:
    return re.sub(r"[^a-z ]", "", what.lower()).strip(), what


def _shown(text: str) -> str:
    parts = re.sub(r"\(<(reason|message)>\)", "(…)", text).split("`")  # no italics within code
    return "`".join(part if at % 2 else re.sub(r"<([^<>]*)>", r"*\1*", part) for at, part in enumerate(parts))
