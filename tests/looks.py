"""What looks at a sandbox are asked for."""

from __future__ import annotations

import hashlib

from syncd.model.entry import Entry, Kind
from syncd.sandbox.look_request import LookAction, LookItem

COMPARE, FETCH, REMOVE, EXISTS = LookAction.COMPARE, LookAction.FETCH, LookAction.REMOVE, LookAction.EXISTS
PLACE, COMMITS = LookAction.PLACE, LookAction.COMMITS
FOLDER = Entry(Kind.DIRECTORY, 0o755, 1)


def a_file(content: bytes = b"ours", mode: int = 0o644) -> Entry:
    return Entry(Kind.FILE, mode, 1, len(content), digest=hashlib.sha256(content).digest())


def item(action: LookAction, *versions: Entry) -> LookItem:
    return LookItem(versions, action)
