"""The API key: where it is looked for, who may read its file, and that it never shows."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping

from syncd.base.errors import KeyRefused

CREDENTIAL = "klavis-api-key"
_LONGEST = 4096


class ApiKey:
    """A key that no log line, traceback or `repr` can show."""

    def __init__(self, secret: str, source: str) -> None:
        self._secret = secret
        self.source = source

    def reveal(self) -> str:
        """The key itself, for the one header that carries it."""
        return self._secret

    def __repr__(self) -> str:
        return f"ApiKey(from {self.source})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ApiKey) and other._secret == self._secret

    def __hash__(self) -> int:
        return hash(self._secret)


def find_key(environ: Mapping[str, str], key_file: str) -> ApiKey:
    """The first of `$CREDENTIALS_DIRECTORY/klavis-api-key`, `$KLAVIS_API_KEY` and the configuration's file.

    Raises `KeyRefused` where none of them holds a usable key, or others may read the file.
    """
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if folder:
        path = os.path.join(folder, CREDENTIAL)
        if os.path.lexists(path):
            # The service manager guards this one: 0400, or 0440 with an ACL in a system unit.
            return checked_key(_read(path), path)
    if environ.get("KLAVIS_API_KEY"):
        return checked_key(environ["KLAVIS_API_KEY"], "$KLAVIS_API_KEY")
    return checked_key(_read_private(key_file), key_file)


def _read_private(path: str) -> str:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise KeyRefused(
            f"no API key: the file sandbox.api_key_file = {path!r} does not exist",
            "put the key there with mode 0600, or set KLAVIS_API_KEY",
        ) from None
    except OSError as failure:
        raise KeyRefused(f"the API key file sandbox.api_key_file = {path!r} cannot be read", _why(failure)) from None
    if mode & 0o077:
        raise KeyRefused(
            f"the API key file sandbox.api_key_file = {path!r} can be read by others (mode {stat.S_IMODE(mode):04o})",
            f"run: chmod 600 {path}",
        )
    return _read(path)


def _read(path: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise KeyRefused(f"the API key file {path!r} is not a regular file", "name a file that holds the key")
            return os.read(descriptor, _LONGEST).decode("utf-8", "replace")
        finally:
            os.close(descriptor)
    except OSError as failure:
        raise KeyRefused(f"the API key file {path!r} cannot be read", _why(failure)) from None


def _why(failure: OSError) -> str:
    reason = failure.strerror or str(failure)
    return f"{reason}; let your own user read it" if failure.errno == errno.EACCES else reason


def checked_key(text: str, source: str) -> ApiKey:
    """The key that a text holds. Raises `KeyRefused` for a text that is none."""
    key = text.strip()
    if not key:
        raise KeyRefused(f"the API key from {source} is empty", "put the key there")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise KeyRefused(
            f"the API key from {source} has blanks or characters that no key has", "copy it again, one line and no more"
        )
    return ApiKey(key, source)
