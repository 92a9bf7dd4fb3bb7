"""Contents beside the database, each once: a file named by its SHA-256.

A content is written and flushed before the transaction that has it `held`, so that nobody waits for the disk meanwhile;
that transaction writes anew what was removed before it began. Contents are removed within a transaction too.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
from collections.abc import Collection, Iterable, Iterator

from syncd.core.choices import SAVED_DAYS
from syncd.core.durable_file import flush_folder, flush_together, new_file
from syncd.core.safe_open import blocks_of, write_blocks
from syncd.store.state_db import StateDb

_DAY_S = 86_400
_MOST_OPEN = 64
_NAME = re.compile(r"[0-9a-f]{64}(?P<draft>\.[0-9a-f]{16}\.new)?")


class Blobs:
    """The contents of one database. A *holder* is what needs some of them, by a name; its rows name the digests."""

    def __init__(self, db: StateDb) -> None:
        self._db = db
        self._folder = os.path.join(db.folder, "blobs")

    def path(self, digest: bytes) -> str:
        """Return the file of a content, which may be missing or damaged."""
        return os.path.join(self._folder, digest.hex())

    def has(self, digest: bytes) -> bool:
        return os.path.lexists(self.path(digest))

    def is_whole(self, digest: bytes) -> bool:
        """True if the content is there, and as it was written."""
        try:
            for _ in self.blocks(digest):
                pass
        except OSError:
            return False
        return True

    def drop_unless_whole(self, digest: bytes) -> None:
        """Remove a content that is not as it was written, so that it is written anew."""
        if not self.is_whole(digest):
            with contextlib.suppress(OSError):
                os.unlink(self.path(digest))

    def blocks(self, digest: bytes) -> Iterator[bytes]:
        """Yield a content. Raises `OSError`, at the end also if it was damaged."""
        path, hashed = self.path(digest), hashlib.sha256()
        for block in blocks_of(path):
            hashed.update(block)
            yield block
        if hashed.digest() != digest:
            raise OSError(errno.EBADMSG, "its saved content was damaged on this disk", path)

    def content(self, digest: bytes) -> bytes | None:
        """Return a content; None if it is gone or damaged."""
        try:
            return b"".join(self.blocks(digest))
        except OSError:
            return None

    # -- writing

    def add(self, source: str, digest: bytes = b"", parent: int | None = None) -> tuple[bytes, int]:
        """Copy a file, unless its content is here undamaged, and return its digest and size.

        `source` is a path, or a name in the directory whose descriptor is `parent`. The content survives a power cut
        once it was flushed. Raises `OSError`, also if the file does not have that digest.
        """
        if digest and self.is_whole(digest):
            return digest, os.path.getsize(self.path(digest))
        return self._write(blocks_of(source, parent), digest, source)

    def add_bytes(self, content: bytes, digest: bytes) -> None:
        """Write a content, unless there is a file of that name. Raises `OSError`."""
        if not self.has(digest):
            self._write([content], digest, self.path(digest))

    def flush(self, digests: Collection[bytes]) -> None:
        """Have these contents survive a power cut, whoever has written them. Raises `OSError`."""
        # All are written before the first is flushed: a journaling file system writes the others' data with it.
        opened: list[int] = []
        try:
            for digest in digests:
                opened.append(os.open(self.path(digest), os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC))
                if len(opened) >= _MOST_OPEN:
                    flush_together(opened)
            flush_together(opened)
        finally:
            for descriptor in opened:
                os.close(descriptor)
        if digests:
            flush_folder(self._folder)

    def _write(self, blocks: Iterable[bytes], digest: bytes, source: str) -> tuple[bytes, int]:
        self._make_folder()
        draft = f"{self.path(digest or bytes(32))}.{secrets.token_hex(8)}.new"
        with new_file(draft) as file:
            found, size_bytes = write_blocks(blocks, file.fileno())
            if digest not in (b"", found):
                raise OSError(errno.EIO, "the copy differs from what was found in the sandbox", source)
            os.rename(draft, self.path(found))
        return found, size_bytes

    def _make_folder(self) -> None:
        try:
            os.mkdir(self._folder, 0o700)
        except FileExistsError:
            return
        flush_folder(os.path.dirname(self._folder))

    # -- who needs what

    def hold(self, holder: bytes, digests: Iterable[bytes]) -> None:
        """Keep these contents until the holder lets go, in the transaction that is open. Raises `OSError`."""
        for digest in digests:
            self._db.change("INSERT OR REPLACE INTO blobs VALUES (?, ?)", digest, holder)

    def let_go(self, holder: bytes) -> None:
        """Leave what this holder had to the next clean-up, in the transaction that is open. Raises `OSError`."""
        self._db.change("UPDATE OR REPLACE blobs SET holder = x'' WHERE holder = ?", holder)

    def clean_up(self, now_s: float, unwanted: Collection[bytes] = ()) -> None:
        """Remove what was let go, and what is `unwanted`, but for what is held; the next call does what fails now.

        What nobody has ever let go goes by its age: a draft after a day, as no process still writes it, and a content
        after as many days as versions are kept: a process died before it was held, or the database was lost.
        """
        with contextlib.suppress(OSError), self._db.transaction():
            held = {digest for (digest,) in self._db.rows("SELECT digest FROM blobs WHERE holder != x''")}
            let_go = {digest for (digest,) in self._db.rows("SELECT digest FROM blobs WHERE holder = x''")}
            at_once = {digest.hex() for digest in (let_go | set(unwanted)) - held}
            kept = {digest.hex() for digest in held}
            self._db.change("DELETE FROM blobs WHERE holder = x''")
            for name, written_s in self._files():
                most_s = _DAY_S if name.endswith(".new") else SAVED_DAYS * _DAY_S
                if name in at_once or (name not in kept and now_s - written_s > most_s):
                    os.unlink(os.path.join(self._folder, name))

    def _files(self) -> list[tuple[str, float]]:
        """Return the names in the folder that are the store's, each with the time of its last write."""
        try:
            with os.scandir(self._folder) as entries:
                own = [each for each in entries if _NAME.fullmatch(each.name)]
                return [(each.name, each.stat(follow_symlinks=False).st_mtime) for each in own]
        except FileNotFoundError:
            return []
