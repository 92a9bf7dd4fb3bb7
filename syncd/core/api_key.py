"""Finds the API key, checks the rights of its file, and keeps it out of every output."""

from __future__ import annotations

import errno
import os
import re
import shlex
import stat
from collections.abc import Mapping
from typing import NoReturn

from syncd.core.errors import KeyRefused

CREDENTIAL = "klavis-api-key"
KEY_VARIABLE = "KLAVIS_API_KEY"
KEY_PAGE = "https://www.klavis.ai/home/"
"""Where a person finds the key, and what the account may do."""
# The units set this in place of a key file that does not exist: without it the service manager would restart for ever.
NOT_LOADED = " "
_MAX_BYTES = 4096
# Longer than most names of files, and with digits, as a name of words has none.
_MAY_BE_KEY = re.compile(r"^(?=.*\d).{16,}$", re.DOTALL)


class ApiKey:
    """A key that no log line, traceback or `repr` can show, and that cannot be pickled or copied."""

    __slots__ = ("_secret", "source")

    def __init__(self, secret: str, source: str) -> None:
        self._secret = secret
        self.source = source

    def reveal(self) -> str:
        """Return the key itself, for the one header that carries it."""
        return self._secret

    def __repr__(self) -> str:
        return f"ApiKey(from {self.source})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key must not be copied or stored")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ApiKey) and other._secret == self._secret

    def __hash__(self) -> int:
        return hash(self._secret)


def find_key(environ: Mapping[str, str], key_file: str) -> ApiKey:
    """Return the key from `$CREDENTIALS_DIRECTORY/klavis-api-key`, `$KLAVIS_API_KEY` or the configuration's file.

    The first that exists counts. Raises `KeyRefused` if it holds no usable key, or if others may read the file.
    """
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if folder:
        path = os.path.join(folder, CREDENTIAL)
        if os.path.lexists(path):
            # The service manager gives this file the mode 0400, or 0440 with an ACL in a system unit.
            loaded = _read(path, f"the API key file {path!r}", stat.S_IRWXO)
            if loaded != NOT_LOADED:
                return parse_key(loaded, path)
    if environ.get(KEY_VARIABLE):
        return parse_key(environ[KEY_VARIABLE], f"${KEY_VARIABLE}")
    if _MAY_BE_KEY.search(os.path.basename(key_file)) and not os.path.lexists(key_file):
        raise KeyRefused(
            "no API key: sandbox.api_key_file names no file; its value is not shown, as it may be the key itself",
            "put the key into a file with mode 0600 and name that, or set KLAVIS_API_KEY",
        )
    return key_in_file(key_file, f"the API key file sandbox.api_key_file = {key_file!r}")


def key_in_file(path: str, what: str) -> ApiKey:
    """Return the key in a file, which errors call `what`. Raises `KeyRefused` as `find_key` does."""
    return parse_key(_read(path, what, stat.S_IRWXG | stat.S_IRWXO), path)


def was_replaced(key: ApiKey, environ: Mapping[str, str], key_file: str) -> bool:
    """True if the key is a copy from the service manager, and the key's file was changed or replaced since."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if not folder or key.source != os.path.join(folder, CREDENTIAL):
        return False
    try:
        return os.stat(key_file).st_ctime_ns > os.stat(key.source).st_ctime_ns
    except OSError:
        return False


def _read(path: str, what: str, forbidden: int) -> str:
    """Return the file's text. Raises `KeyRefused` if the open file grants one of the `forbidden` rights."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(mode):
                raise KeyRefused(f"{what} is not a regular file", "name a file that holds the key")
            if mode & forbidden:
                raise KeyRefused(
                    f"{what} can be read by others (mode {stat.S_IMODE(mode):04o})",
                    f"run `chmod 600 {shlex.quote(path)}`",
                )
            content = os.read(descriptor, _MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise KeyRefused(
            f"no API key: the {what.removeprefix('the API key ')} does not exist",
            f"run `install -m 600 /dev/null {shlex.quote(path)}`, and paste the key of {KEY_PAGE} into it,"
            " or set KLAVIS_API_KEY",
        ) from None
    except OSError as failure:
        remedy = "let your user read it" if failure.errno == errno.EACCES else "name a file that holds the key"
        raise KeyRefused(f"{what} cannot be read ({failure.strerror or failure})", remedy) from None
    if len(content) > _MAX_BYTES:
        raise KeyRefused(f"{what} is longer than any key", "name a file that holds the key and nothing else")
    return content.decode("utf-8", "replace")


def parse_key(text: str, source: str) -> ApiKey:
    """Return the key in a text. Raises `KeyRefused` if the text is not a key."""
    key = text.strip()
    if not key:
        raise KeyRefused(f"the API key from {source} is empty", f"put the one of {KEY_PAGE} there")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise KeyRefused(
            f"the API key from {source} has blanks or characters that no key has",
            f"copy it again from {KEY_PAGE}, one line and no more",
        )
    return ApiKey(key, source)
