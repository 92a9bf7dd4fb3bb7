"""An agent at work in a sandbox: it edits the workspace behind syncd's back, as tests tell it to."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path

NamedPath = str | bytes


class Agent:
    """Edits the files of a sandbox's workspace.

    A path is relative to `workspace`, in bytes or as Python's file names; directories that it needs are made. What it
    writes gets an mtime that is later than the old one by whole seconds, which is all that an archive tells: no test
    depends on how fast it is.
    """

    def __init__(self, workspace: Path | str) -> None:
        self._top = os.fsencode(workspace)

    def path(self, path: NamedPath) -> bytes:
        """The full path."""
        return os.path.join(self._top, os.fsencode(path))

    def read(self, path: NamedPath) -> bytes:
        """A file's content."""
        with open(self.path(path), "rb") as file:
            return file.read()

    def holds(self, path: NamedPath, content: bytes) -> bool:
        """True if a file has this content; false while an extractor replaces it."""
        try:
            return self.read(path) == content
        except FileNotFoundError:
            return False

    def exists(self, path: NamedPath) -> bool:
        """True if there is anything, a link that leads nowhere too."""
        return os.path.lexists(self.path(path))

    def write(self, path: NamedPath, content: bytes | str, mode: int | None = None) -> None:
        """Write a file in place, as a new one where there is a link or a FIFO. Its mtime is a new one."""
        before = self._status(path)
        full = self._write(path, content)
        if mode is not None:
            os.chmod(full, mode)
        now = os.stat(full)
        if before is not None and int(now.st_mtime) <= int(before.st_mtime):
            os.utime(full, (now.st_atime, int(before.st_mtime) + 1))

    def write_with_old_mtime(self, path: NamedPath, content: bytes | str) -> None:
        """Write an existing file in place, and set its mtime back. With a content as long, no stat tells."""
        before = os.stat(self.path(path))
        os.utime(self._write(path, content), ns=(before.st_atime_ns, before.st_mtime_ns))

    def chmod(self, path: NamedPath, mode: int) -> None:
        """Set permission bits."""
        os.chmod(self.path(path), mode)

    def delete(self, path: NamedPath) -> None:
        """Delete a file, or a directory with all in it."""
        full = self.path(path)
        if os.path.isdir(full) and not os.path.islink(full):
            shutil.rmtree(full)
        else:
            os.unlink(full)

    def mkdir(self, path: NamedPath) -> None:
        """Make a directory."""
        os.makedirs(self.path(path), exist_ok=True)

    def symlink(self, path: NamedPath, target: NamedPath) -> None:
        """Put a symlink there, in the place of what is there, a whole directory too."""
        full = self._with_parents(path)
        if os.path.lexists(full):
            self.delete(path)
        os.symlink(os.fsencode(target), full)

    def fifo(self, path: NamedPath) -> None:
        """Make a FIFO, in the place of what is there."""
        full = self._with_parents(path)
        if os.path.lexists(full):
            self.delete(path)
        os.mkfifo(full)

    def rename(self, old: NamedPath, new: NamedPath) -> None:
        """Rename a file or directory; it replaces a file that is there, as the system call does."""
        os.rename(self.path(old), self._with_parents(new))

    def _status(self, path: NamedPath) -> os.stat_result | None:
        with suppress(FileNotFoundError, NotADirectoryError):
            return os.lstat(self.path(path))
        return None

    def _write(self, path: NamedPath, content: bytes | str) -> bytes:
        before, full = self._status(path), self._with_parents(path)
        # Writing through a link would change another file, and opening a FIFO would block.
        if before is not None and not (stat.S_ISREG(before.st_mode) or stat.S_ISDIR(before.st_mode)):
            os.unlink(full)
        with open(full, "wb") as file:
            file.write(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)
        return full

    def _with_parents(self, path: NamedPath) -> bytes:
        full = self.path(path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        return full
