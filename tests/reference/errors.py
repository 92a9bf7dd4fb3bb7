"""docs/errors.md: every error and warning, by subject, with what to do about it."""

from __future__ import annotations

import re

from tests.reference.messages import Message, messages
from tests.reference.page import table

_HEAD = """\
# Errors and warnings

<!-- Made from the program by `python -m tests.reference`; a change by hand is lost. -->

An error is one line on stderr, `syncd: what happened: what to do`; `syncd status` shows the last one, and each warning
until its cause is gone. What varies is in *italics* here; what may be missing is in brackets.

| ends with | means |
| --- | --- |
| 2 | wrong usage: type the command otherwise |
| 75 | it may work later; the daemon tries again by itself, and where nothing else is said, so may you |
| 78 | a person must change something before |
| 75 or 78 | one of these, by what the server answered |
| warning | syncing goes on |
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
    lines = [_HEAD, *(f"- [{subject}](#{_anchor(subject)})" for subject in _SUBJECTS)]
    for subject in _SUBJECTS:
        ours = (each for each in messages() if subject_of(each) == subject)
        rows = {(_shown(each.what), _shown(each.remedy), each.ends) for each in ours}
        lines += ["", f"## {subject}", "", *table(("message", "do", "ends with"), sorted(rows, key=_sort_key))]
    return "\n".join((*lines, ""))


def subject_of(message: Message) -> str:
    """Return the subject of the page that a message belongs to: by the longest of the folders that it is in."""
    path = message.path.removeprefix("syncd/").removesuffix(".py")
    found = [(len(place), subject) for subject, places in _SUBJECTS.items() for place in places if _is_in(path, place)]
    return max(found)[1]


def _is_in(path: str, place: str) -> bool:
    return path == place or path.startswith(f"{place}/")


def _sort_key(row: tuple[str, ...]) -> tuple[str, ...]:
    return re.sub(r"[^a-z ]", "", row[0].lower()).strip(), *row


def _shown(text: str) -> str:
    parts = text.split("`")  # no italics within code
    return "`".join(part if at % 2 else re.sub(r"<([^<>]*)>", r"*\1*", part) for at, part in enumerate(parts))


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
