"""What a state database holds, for tests that look at it, or damage it, from the outside; and a disk that is full."""

from __future__ import annotations

import errno
import sqlite3
from contextlib import closing
from pathlib import Path

from syncd.store.state_db import NAME


def records(state_folder: Path) -> set[str]:
    """Return the names of the records, of all sandboxes; `unanswered` if versions are on their way."""
    if not (state_folder / NAME).exists():
        return set()
    try:
        with closing(sqlite3.connect(state_folder / NAME)) as connection:
            names = {name for (name,) in connection.execute("SELECT name FROM records")}
            (versions,) = connection.execute("SELECT count(*) FROM directories WHERE version > 0").fetchone()
    except sqlite3.DatabaseError:
        return set()  # the process died before it had made the tables, or someone damaged the file
    return names | ({"unanswered"} if versions and "uncertain" in names else set())


def change(state_folder: Path, statement: str, *values: object) -> None:
    """Change rows of the database from the outside."""
    with closing(sqlite3.connect(state_folder / NAME)) as connection, connection:
        assert connection.execute(statement, values).rowcount, f"there is no {values}"


def remove(state_folder: Path, name: str) -> None:
    """Remove a record, without a process that would keep it in memory."""
    change(state_folder, "DELETE FROM records WHERE name = ?", name)


def damage(state_folder: Path, name: str) -> None:
    """Replace a record by something else, without a process that has the file open."""
    change(state_folder, "UPDATE records SET value = x'00' WHERE name = ?", name)


def full_disk(*_: object, **__: object) -> None:
    """Fail as what writes to a full disk."""
    raise OSError(errno.ENOSPC, "No space left on device")
