"""The status file, and the check that the process that wrote it still runs.

A document counts as that of a running daemon only while that daemon holds the workspace's lock, which the kernel
releases with the process, however it ends. No decision rests on the document, so it is not flushed to the disk: a power
cut loses only the report of the last sync.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from syncd.core.clock import seconds_of
from syncd.core.directories import STATUS, holder
from syncd.core.durable_file import read_file, write_whole
from syncd.core.text import shown_path
from syncd.remote.target import Target
from syncd.store.state_db import Record, StateDb
from syncd.sync.status_document import VERSION, AgentStatus, SandboxStatus, Status


class _Seen(Struct, frozen=True):
    """The part of the record of what was seen in a sandbox that a status shows."""

    changed: set[str]
    looked_at: str | None


def write_status(folder: str, content: bytes) -> None:
    """Write the `encoded` document into this state folder. Raises `OSError`."""
    write_whole(os.path.join(folder, STATUS), content)


def encoded(status: Status) -> bytes:
    """The document as it is written."""
    return msgspec.json.encode(status.document())


def read_status(folder: str, otherwise: Status) -> Status:
    """The status of this state folder's daemon; `otherwise` if there is none.

    Of a process that has ended only its last results count, and only those of the sandboxes that `otherwise` names, or
    that it acquired: its state, its pid and its plans ended with it.
    """
    status = read_document(folder) or otherwise
    owner = holder(folder)
    runs = owner is not None and status.running and owner in (0, status.pid)
    sandboxes = status.sandboxes
    if not runs:
        recorded = {each.name: each for each in status.sandboxes}
        named = ((each, recorded.get(each.name, each)) for each in otherwise.sandboxes)
        sandboxes = tuple((before if each.may_be(before) else each).stopped() for each, before in named)
        is_known = sandboxes[0].is_of(status.main)
        status = replace(status if is_known else otherwise, running=False, pid=None)
    # Commands drop and add saved versions too, and look.
    try:
        with contextlib.closing(StateDb(folder)) as db:
            db.require_readable()
            if not runs:
                known = zip(sandboxes, otherwise.sandboxes, strict=True)
                sandboxes = tuple(named.stopped() if _is_released(db, each) else each for each, named in known)
            sandboxes = tuple(replace(each, agent=_agent_now(db, each)) for each in sandboxes)
    except OSError as failure:
        unread = f"the state in {shown_path(folder)} cannot be read ({failure.strerror}): see `syncd check`"
        status = replace(status, warnings=(*status.warnings, unread))
    return replace(status, sandboxes=sandboxes)


def _is_released(db: StateDb, sandbox: SandboxStatus) -> bool:
    """True if a command gave the sandbox back, and nothing was sent there since."""
    return Record(db, "released", bool, "status shows what was there", _owner(sandbox)).exists


def _owner(sandbox: SandboxStatus) -> str:
    return Target(sandbox.base_url, sandbox.id, "").owner


def _agent_now(db: StateDb, sandbox: SandboxStatus) -> AgentStatus:
    """Return the agent's side as it is recorded by now. Raises `OSError`."""
    agent = replace(sandbox.agent, saved=db.saved_of().count(sandbox.name))
    seen = Record(db, "seen", _Seen, "status shows what the daemon knew", _owner(sandbox)).load()
    if seen is None:
        return agent
    looked_at = max(agent.looked_at, seen.looked_at, key=lambda at: at or "")  # one that found nothing is not recorded
    return replace(agent, changed=len(seen.changed), looked_at=looked_at)


def followed_at_s(folder: str, target: Target) -> float:
    """Return when a daemon followed the agent in this sandbox last, in seconds since 1970; 0: it is not known."""
    status = read_document(folder)
    ids = target.sandbox_id, target.base_url
    found = [each for each in status.sandboxes if (each.id, each.base_url) == ids] if status is not None else []
    return seconds_of(found[0].agent.followed_at) or 0.0 if found else 0.0


def running_daemons(folder: str) -> Iterator[Status]:
    """Yield the status of each running daemon; `folder` is the one with the state folders of all workspaces."""
    try:
        state_folders = [entry.path for entry in os.scandir(folder)]
    except OSError:
        return
    for state_folder in state_folders:
        status = read_document(state_folder)
        if status is not None and status.running and holder(state_folder) in (0, status.pid):
            yield status


def read_document(folder: str) -> Status | None:
    """Return the document as it was written last, by any process; None if there is no valid one."""
    try:
        status = msgspec.json.decode(read_file(os.path.join(folder, STATUS)), type=Status)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return status if status.version == VERSION else None
