"""Files that must survive a crash: written whole beside their place, flushed, moved into it, checked when read.

A file that is cut short, garbage or of a newer version is set aside under another name and told about; what it held
is then unknown, which costs a full sync and never a crash.
"""

from __future__ import annotations

import contextlib
import hashlib
import os

from syncd.base.problem import Problem

_MAGIC = b"syncd-state 1 "


class StateFile:
    """One named record in the state folder."""

    def __init__(self, folder: str, name: str) -> None:
        self.path = os.path.join(folder, name)

    def write(self, payload: bytes) -> None:
        """Replace the record; after a crash there is either the old one or the new one. Raises `OSError`."""
        header = _MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n"
        write_durably(self.path, header + payload)

    def read(self) -> tuple[bytes | None, Problem | None]:
        """The record, or None where there is none; and what was wrong with the one that was set aside."""
        try:
            with open(self.path, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            return None, None
        except OSError as failure:
            return None, Problem(
                f"state:{self.path}",
                f"the state file {self.path!r} cannot be read ({failure.strerror})",
                "let your user read it; until then everything is uploaded anew",
            )
        header, _, payload = content.partition(b"\n")
        if header == _MAGIC + hashlib.sha256(payload).hexdigest().encode():
            return payload, None
        return None, self.set_aside()

    def set_aside(self) -> Problem:
        """Move a record that makes no sense out of the way, for a person to look at."""
        aside = f"{self.path}.damaged"
        with contextlib.suppress(OSError):
            os.replace(self.path, aside)
        return Problem(
            f"state:{self.path}",
            f"the state file {os.path.basename(self.path)!r} was damaged or of another version",
            f"nothing to do; it is kept as {aside}, and everything is uploaded anew once",
        )

    def remove(self) -> None:
        """Forget the record. Where the folder cannot be written, nothing can have been recorded since either."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)
            _flush_folder(os.path.dirname(self.path))


def write_durably(path: str, content: bytes) -> None:
    """Replace a file so that a crash leaves the old one or the new one, whole. Raises `OSError`."""
    _replace(path, content, durable=True)
    _flush_folder(os.path.dirname(path))


def write_whole(path: str, content: bytes) -> None:
    """Replace a file so that readers see the old one or the new one; a crash of the machine may lose either."""
    _replace(path, content, durable=False)


def _replace(path: str, content: bytes, *, durable: bool) -> None:
    beside = f"{path}.new"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.replace(beside, path)


def _flush_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
