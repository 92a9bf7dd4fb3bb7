"""The API key: where it is looked for, who may read its file, and that it never shows."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from typing import NoReturn

from syncd.core.errors import KeyRefused

CREDENTIAL = "klavis-api-key"
KEY_VARIABLE = "KLAVIS_API_KEY"
# What the units set in place of a key file that is not there: without it the service manager would try for ever.
NOT_LOADED = " "
_LONGEST = 4096


class ApiKey:
    """A key that no log line, traceback or `repr` can show, and no pickle or copy takes along."""

    __slots__ = ("_secret", "source")

    def __init__(self, secret: str, source: str) -> None:
        self._secret = secret
        self.source = source

    def reveal(self) -> str:
        """The key itself, for the one header that carries it."""
        return self._secret

    def __repr__(self) -> str:
        return f"ApiKey(from {self.source})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is not to be copied or stored")

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
            # The service manager makes this one 0400, or 0440 with an ACL in a system unit.
            loaded = _read(path, f"the API key file {path!r}", stat.S_IRWXO)
            if loaded != NOT_LOADED:
                return checked_key(loaded, path)
    if environ.get(KEY_VARIABLE):
        return checked_key(environ[KEY_VARIABLE], f"${KEY_VARIABLE}")
    what = f"the API key file sandbox.api_key_file = {key_file!r}"
    return checked_key(_read(key_file, what, stat.S_IRWXG | stat.S_IRWXO), key_file)


def is_outdated(key: ApiKey, environ: Mapping[str, str], key_file: str) -> bool:
    """Whether the service manager handed over a copy of the key, and the key's file changed or was replaced since."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if not folder or key.source != os.path.join(folder, CREDENTIAL):
        return False
    try:
        return os.stat(key_file).st_ctime_ns > os.stat(key.source).st_ctime_ns
    except OSError:
        return False


def _read(path: str, what: str, forbidden: int) -> str:
    """The file's text, if no one has one of the `forbidden` rights to the very file that is read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise KeyRefused(f"{what} is not a regular file", "name a file that holds the key")
            if mode & forbidden:
                raise KeyRefused(
                    f"{what} can be read by others (mode {stat.S_IMODE(mode):04o})", f"run: chmod 600 {path}"
                )
            content = os.read(descriptor, _LONGEST + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise KeyRefused(
            f"no API key: the {what.removeprefix('the API key ')} does not exist",
            "put the key there with mode 0600, or set KLAVIS_API_KEY",
        ) from None
    except OSError as failure:
        raise KeyRefused(f"{what} cannot be read", _why(failure)) from None
    if len(content) > _LONGEST:
        raise KeyRefused(f"{what} is longer than any key", "name a file that holds the key and nothing else")
    return content.decode("utf-8", "replace")


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
