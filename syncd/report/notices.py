"""The rule of desktop notices: failing is told once it has lasted, success only after that, the agent's work at once.

Failing is counted in seconds awake (monotonic): a night with a closed lid is no night of failing.
"""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from syncd.core.formatting import counted
from syncd.core.text import one_line, redacted

# A failure that waits for a person is told this soon: by then a disk would be mounted again, a key file saved.
NEEDED_AFTER_S = 60.0
# What happens to the agent's work is told once in this time.
AGENT_EVERY_S = 3_600.0

_LONGEST = 400
# Of a URL only the host is for people.
_URL = re.compile(r"""(?i)\b[a-z][a-z0-9+.-]*://(?:[^\s/?#@'"]*@)?([^\s/?#'"]*)[^\s'"]*?(?=[.,:;)\]]*(?:[\s'"]|$))""")


class Told(StrEnum):
    """The part of a lasting trouble that a person was told."""

    NOTHING = "nothing"
    FAILING = "failing"
    NEEDED = "needed"


class LastNotice(Struct):
    """The last notice about syncing, and its number, by which the next one replaces it. It outlives a reload."""

    told: Told = Told.NOTHING
    number: int = 0


class Trouble(Struct, frozen=True):
    """Syncing fails. `since_s` and `needed_since_s` are seconds awake; the second is None where it may pass."""

    text: str
    since_s: float
    since_wall_s: float
    needed_since_s: float | None


class Notice(Struct, frozen=True):
    """One notice, as the Desktop Notifications Specification 1.2 has it; plain text, no markup."""

    summary: str
    body: str
    category: str
    icon: str


def after_failure(before: Trouble | None, text: str, now_s: float, wall_s: float, *, needs_person: bool) -> Trouble:
    """The trouble after a failure now (seconds awake), with the error's own line as `text`."""
    before = before or Trouble("", now_s, wall_s, None)
    needed_since_s = (now_s if before.needed_since_s is None else before.needed_since_s) if needs_person else None
    return replace(before, text=_line(text), needed_since_s=needed_since_s)


def due_s(trouble: Trouble, told: Told, after_s: float) -> float | None:
    """The second (awake) at which it is told; `after_s` is how long it must last. None: it was."""
    if trouble.needed_since_s is not None:
        return None if told is Told.NEEDED else trouble.needed_since_s + min(after_s, NEEDED_AFTER_S)
    return trouble.since_s + after_s if told is Told.NOTHING else None


def trouble_notice(trouble: Trouble, name: str, since: datetime, now: datetime) -> Notice:
    """The notice of a trouble in a workspace of this name. Both times are local."""
    when = f"{since:%H:%M}" if since.date() == now.date() else f"{since:%Y-%m-%d %H:%M}"
    body = f"Since {when}: {trouble.text}"
    if trouble.needed_since_s is not None:
        return Notice(f"{name} is not synced: you are needed", body, "transfer.error", "dialog-warning")
    body += "\nIt goes on by itself; `syncd status` says more."
    return Notice(f"{name} is not synced", body, "transfer.error", "dialog-warning")


def in_sync_notice(name: str) -> Notice:
    """The notice that the trouble is over."""
    return Notice(f"{name} is in sync again", "The last sync went through.", "transfer.complete", "emblem-default")


def agent_notice(saved: int, unsaved: str, name: str) -> Notice:
    """The notice that so many files of the agent were saved, and why others could not be, if `unsaved` says so."""
    if unsaved:
        summary = f"{name}: the agent's work is not saved"
        return Notice(summary, f"{_line(unsaved)}\n`syncd status` says more.", "transfer.error", "dialog-warning")
    was, it = ("was", "it") if saved == 1 else ("were", "they")
    body = f"{counted(saved, 'file')} of the agent {was} saved before {it} {was} overwritten.\n`syncd saved` says more."
    return Notice(f"{name}: both sides had changed", body, "transfer", "dialog-information")


def _line(text: str) -> str:
    return _URL.sub(r"\1", one_line(redacted(text), _LONGEST))
