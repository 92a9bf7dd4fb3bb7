"""The database `state.db` in the state folder of one workspace: records, manifests, past syncs, and transactions.

A step of a sync or of a command changes all that belongs together in one transaction: whatever dies, the next process
begins at what was last committed. A commit is one flush of SQLite's write-ahead log. A damaged row costs what it held;
a damaged file is set aside, and everything is compared and sent anew once.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import sqlite3
import stat
from collections.abc import Collection, Iterator
from typing import Any, Generic, TypeVar
from urllib.parse import quote
from zlib import crc32

import msgspec

from syncd.core.durable_file import flush_folder, move_aside
from syncd.core.errors import SyncWarning, TryLater
from syncd.core.settings import MAIN

_log = logging.getLogger("syncd.state")
NAME = "state.db"
_VERSION = 2
# SQLite writes its log into the file after so many pages of 4 KiB (its own default).
_CHECKPOINT_PAGES = 1000
_CACHE_KIB = 512
# Another process, a command, holds the file for as long as a transaction takes.
_BUSY_S = 5.0
# The place of the sandbox's name in the record of a saved version; an older one has none.
_SAVED_NAME = 6
_SCHEMA = """
CREATE TABLE owners (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE records (owner INTEGER NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL, checksum INTEGER NOT NULL,
    PRIMARY KEY (owner, name)) WITHOUT ROWID;
CREATE TABLE directories (owner INTEGER NOT NULL, version INTEGER NOT NULL, path BLOB NOT NULL, texts BLOB NOT NULL,
    encoded BLOB NOT NULL, checksum INTEGER NOT NULL, PRIMARY KEY (owner, version, path));
CREATE TABLE saved (id BLOB PRIMARY KEY, checksum INTEGER NOT NULL, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE history (number INTEGER PRIMARY KEY, value BLOB NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE blobs (digest BLOB NOT NULL, holder BLOB NOT NULL, PRIMARY KEY (digest, holder)) WITHOUT ROWID;
"""
_ERRORS = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR_SHMSIZE: errno.ENOSPC,  # to read, it needs an index of the log beside the file
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_BUSY: errno.EAGAIN,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_NOMEM: errno.ENOMEM,
}
# The log was cut short while it is open; what an open connection reads from it fails for ever.
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_IOERR_SHORT_READ)

Shape = TypeVar("Shape")


@contextlib.contextmanager
def required_record(not_done: str) -> Iterator[None]:
    """Turn a failed record into `TryLater`: without it, a later process would trust one that is no longer true.

    `not_done` says what is not done without it.
    """
    try:
        yield
    except OSError as failure:
        raise TryLater(
            f"the state folder cannot be written ({failure.strerror or failure}), so {not_done}",
            "free some disk space, or make it writable; a daemon goes on by itself",
        ) from None


class _Damaged(Exception):
    """The file holds no database of this version."""


class StateDb:
    """The database of one workspace. `warning` is about a file that was set aside, None if none was.

    It is opened when it is first used, and made when something is first written. The process that has the workspace's
    lock writes; a command beside a daemon does so while no sync is under way.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.path = os.path.join(folder, NAME)
        self.warning: SyncWarning | None = None
        self._guarded = self.path
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None  # device and inode of the open file
        self._depth = 0

    # -- reading

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query; none where there is no usable file. Raises `OSError`."""
        for _ in range(2):  # the second time of the file in the place of one that was set aside
            try:
                connection = self._open()
                return connection.execute(query, values).fetchall() if connection is not None else []
            except _Damaged as failure:
                self._set_aside(str(failure))
            except (sqlite3.Error, UnicodeDecodeError) as failure:  # a damaged schema may be no UTF-8
                self._raise_unless_damaged(failure)
        return []

    def saved_of(self) -> list[str]:
        """Return the name of the sandbox of each saved version; nothing else of it is decoded. Raises `OSError`."""
        names = []
        for (value,) in self.rows("SELECT value FROM saved"):
            with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, TypeError):
                fields = msgspec.msgpack.decode(value, type=list[msgspec.Raw])
                names.append(msgspec.msgpack.decode(fields[_SAVED_NAME], type=str) if fields[_SAVED_NAME:] else MAIN)
        return names

    def require_readable(self) -> None:
        """Raise `OSError` for a file that is there and cannot be read now: nothing is known then, and all may be."""
        self.rows("SELECT 1")

    # -- writing

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Change all that is changed within, or nothing; it is durable at the end. One within another is part of it.

        Raises `OSError` if it cannot be written; then nothing was.
        """
        if self._depth:
            yield
            return
        connection = self._writable()
        self._depth = 1
        try:
            yield
            self._commit(connection)
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        finally:
            self._depth = 0

    def _commit(self, connection: sqlite3.Connection) -> None:
        # A statement that failed within took the others back; one that found damage closed the connection.
        if connection is not self._connection or not connection.in_transaction:
            raise OSError(errno.EIO, os.strerror(errno.EIO), self.path)
        self.change("COMMIT")

    def change(self, statement: str, *values: object) -> None:
        """Carry out a statement in the transaction that is open. Raises `OSError`; a damaged file is set aside."""
        if self._connection is not None:
            try:
                self._connection.execute(statement, values)
            except sqlite3.Error as failure:
                self._raise_unless_damaged(failure)
            else:
                return
        raise OSError(errno.EIO, os.strerror(errno.EIO), self.path)

    def owner(self, name: str) -> int:
        """Return the number of an owner of rows; a new one gets one, in the transaction that is open.

        "" is the workspace itself.
        """
        query = "SELECT number FROM owners WHERE name = ?"
        found = self.rows(query, name)
        if not found:
            self.change("INSERT INTO owners (name) VALUES (?)", name)
            found = self.rows(query, name)
        return int(found[0][0]) if found else 0

    def forget_owners_but(self, kept: Collection[str]) -> None:
        """Remove what is of other owners, but not of the workspace itself, in the transaction that is open."""
        for number, name in self.rows("SELECT number, name FROM owners"):
            if name and name not in kept:
                self.change("DELETE FROM records WHERE owner = ?", number)
                self.change("DELETE FROM directories WHERE owner = ?", number)
                self.change("UPDATE OR REPLACE blobs SET holder = x'' WHERE holder = ?", holder_of(name))
                self.change("DELETE FROM owners WHERE number = ?", number)

    def close(self) -> None:
        """Close the file; what was committed stays."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
        self._connection = self._opened = None

    # -- the file

    def _writable(self) -> sqlite3.Connection:
        """Return a connection that has begun to write. Raises `OSError`."""
        for _ in range(2):
            try:
                connection = self._open() or self._make()
                connection.execute("BEGIN IMMEDIATE")
            except _Damaged as failure:
                self._set_aside(str(failure))
            except (sqlite3.Error, UnicodeDecodeError) as failure:
                self._raise_unless_damaged(failure)
            else:
                return connection
        raise OSError(errno.EIO, os.strerror(errno.EIO), self.path)

    def _make(self) -> sqlite3.Connection:
        """Return the connection to a file that has nothing in it yet. Raises `OSError`."""
        with contextlib.suppress(FileExistsError):  # of a process that died before it was written
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            flush_folder(self.folder)
        return self._connected(os.stat(self.path, follow_symlinks=False))

    def _open(self) -> sqlite3.Connection | None:
        """Return the connection to the file that is there now; None if there is none, or nothing in it."""
        try:
            status = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            self.close()
            return None
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise _Damaged("it is no regular file")
        is_open = self._connection is not None and self._opened == (status.st_dev, status.st_ino)
        if not os.access(self._guarded if is_open else self.path, os.W_OK):
            is_read_only = os.statvfs(self.folder).f_flag & os.ST_RDONLY
            number = errno.EROFS if is_read_only else errno.EACCES
            raise OSError(number, os.strerror(number), self.path)
        if is_open:
            return self._connection
        self.close()  # someone removed the file, or put another in its place
        return self._connected(status) if status.st_size else None

    def _connected(self, status: os.stat_result) -> sqlite3.Connection:
        connection = sqlite3.connect(_uri(self.path, "rw"), uri=True, isolation_level=None, timeout=_BUSY_S)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._connection, self._opened = connection, (status.st_dev, status.st_ino)
        # SQLite maps its index of the log into memory, and a write to a mapping that the system refuses would end the
        # process with a SIGBUS.
        shared = f"{self.path}-shm"
        self._guarded = shared if os.path.exists(shared) else self.path
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA mmap_size = 0")  # a damaged disk is an error, not a SIGBUS
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            connection.execute("PRAGMA journal_mode = TRUNCATE")  # a file system without shared memory
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        connection.execute("PRAGMA journal_size_limit = 0")  # what a large commit left is given back
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            connection.execute("BEGIN IMMEDIATE")
            if connection.execute("PRAGMA user_version").fetchone()[0] == 0:  # else another process was faster
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {_VERSION}")
            connection.execute("COMMIT")
        elif version != _VERSION:
            raise _Damaged("it is of another version")

    def _raise_unless_damaged(self, failure: Exception) -> None:
        """Set the file aside if it is damaged. Raises `OSError` otherwise."""
        if isinstance(failure, sqlite3.Error) and not {_code(failure), _extended_code(failure)} & {*_DAMAGE}:
            raise _as_os_error(failure, self.path) from None
        self._set_aside("it is damaged")

    def _set_aside(self, why: str) -> None:
        opened = self._opened
        self.close()
        if opened not in (None, self._there()):
            return  # another process did so
        what = f"the state file {NAME!r} cannot be used ({why})"
        try:
            aside = move_aside(self.path)
            for end in ("-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.replace(self.path + end, aside + end)
        except OSError as failure:
            remedy = f"remove {self.path} ({failure.strerror}); a daemon goes on by itself"
        else:
            remedy = f"nothing to do; it is kept as {aside}, saved versions are read from it, and all is sent anew once"
            with contextlib.suppress(OSError):
                _carry_over(aside, self.folder)
        self.warning = SyncWarning("state", what, remedy)
        _log.warning("%s", self.warning)  # when the status shows it, all may be in order again

    def _there(self) -> tuple[int, int] | None:
        """Return device and inode of the file that is there now."""
        try:
            status = os.stat(self.path, follow_symlinks=False)
        except OSError:
            return None
        return status.st_dev, status.st_ino


def _uri(path: str, mode: str) -> str:
    return f"file:{quote(os.fsencode(path))}?mode={mode}"


def _carry_over(aside: str, folder: str) -> None:
    """Take over what no sync can make again from a file that was set aside: the saved versions that can be read.

    Raises `OSError` if they cannot be written.
    """
    if not stat.S_ISREG(os.lstat(aside).st_mode):
        return
    found: dict[str, dict[Any, tuple[Any, ...]]] = {"saved": {}, "blobs": {}}
    for table, rows in found.items():
        for order in ("ASC", "DESC"):  # from both ends up to what is damaged
            with (
                contextlib.suppress(sqlite3.Error, UnicodeDecodeError),
                contextlib.closing(sqlite3.connect(_uri(aside, "ro"), uri=True)) as connection,
            ):
                for row in connection.execute(f"SELECT * FROM {table} ORDER BY 1 {order}"):  # noqa: S608
                    rows[row[:2]] = row
    if found["saved"]:
        with contextlib.closing(StateDb(folder)) as db, db.transaction():
            for row in found["saved"].values():
                db.change("INSERT OR IGNORE INTO saved VALUES (?, ?, ?)", *row)
            for row in found["blobs"].values():
                db.change("INSERT OR IGNORE INTO blobs VALUES (?, ?)", *row)


def holder_of(owner: str) -> bytes:
    """Return the holder of an owner's contents: they are let go when the owner is forgotten."""
    return os.fsencode(f"owner {owner}")


class Record(Generic[Shape]):
    """One value in the database, of one `owner`. `cost` tells in the log what the loss of a damaged one costs."""

    def __init__(self, db: StateDb, name: str, shape: type[Shape], cost: str, owner: str = "") -> None:
        self._db = db
        self._name = name
        self._shape = shape
        self._cost = cost
        self._owner = owner

    @property
    def exists(self) -> bool:
        """True if there is a value, be it a damaged one. A state that cannot be read has none."""
        try:
            return bool(self._rows())
        except OSError:
            return False

    def load(self) -> Shape | None:
        """Return the value, None if there is no usable one, or if the state cannot be read."""
        try:
            return self.read()
        except OSError as failure:
            _log.warning("the state cannot be read (%s): %s", failure.strerror, self._cost)
            return None

    def read(self) -> Shape | None:
        """Return the value, None if there is no usable one. Raises `OSError` if the state cannot be read."""
        rows = self._rows()
        if not rows:
            return None
        value, checksum = rows[0]
        try:
            if isinstance(value, bytes) and crc32(value) == checksum:
                return msgspec.convert(json.loads(value), self._shape)
        except (msgspec.MsgspecError, ValueError):
            pass
        _log.warning("%r in the state was damaged: %s", self._name, self._cost)
        return None

    def save(self, value: Shape) -> None:
        """Replace the value, if it is another one. Raises `OSError`."""
        # Not msgspec's own encoder: a path need not be UTF-8, and `json` writes what is not as an escape.
        encoded = json.dumps(msgspec.to_builtins(value, order="deterministic")).encode()
        if self._rows() == [(encoded, crc32(encoded))]:
            return
        with self._db.transaction():
            self._db.change(
                "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?)",
                self._db.owner(self._owner),
                self._name,
                encoded,
                crc32(encoded),
            )

    def remove(self) -> None:
        """Remove the value. Raises `OSError`."""
        if self._rows():
            with self._db.transaction():
                what = "DELETE FROM records WHERE name = ? AND owner = (SELECT number FROM owners WHERE name = ?)"
                self._db.change(what, self._name, self._owner)

    def _rows(self) -> list[tuple[Any, ...]]:
        query = (
            "SELECT value, checksum FROM records WHERE name = ? AND owner = (SELECT number FROM owners WHERE name = ?)"
        )
        return self._db.rows(query, self._name, self._owner)


def _code(failure: sqlite3.Error) -> int:
    return _extended_code(failure) & 0xFF


def _extended_code(failure: sqlite3.Error) -> int:
    return getattr(failure, "sqlite_errorcode", sqlite3.SQLITE_MISUSE)  # without one, it is no damage


def _as_os_error(failure: sqlite3.Error, path: str = NAME) -> OSError:
    number = _ERRORS.get(_extended_code(failure)) or _ERRORS.get(_code(failure), errno.EIO)
    return OSError(number, os.strerror(number), path)
