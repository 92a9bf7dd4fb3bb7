"""Writes the two files of `syncd init`: private, and only where no file exists."""

from __future__ import annotations

import contextlib
import errno
import os

import syncd
from syncd.core.errors import ConfigError, NeedsPerson

_EXAMPLE = "config.example.toml"


def example() -> str:
    """The text of the example configuration, of the installation or of a checkout."""
    package = os.path.dirname(os.path.abspath(syncd.__file__))
    for folder in (package, os.path.dirname(package)):
        with contextlib.suppress(FileNotFoundError), open(os.path.join(folder, _EXAMPLE), encoding="utf-8") as file:
            return file.read()
    raise NeedsPerson(f"{_EXAMPLE} is missing from this installation", "install syncd again")


def refuse_existing(path: str, option: str) -> None:
    """Raise `ConfigError` if the path exists; `option` is the option that names another."""
    if os.path.lexists(path):
        raise _exists(path, option)


def write_new(path: str, text: str, option: str) -> None:
    """Write a new file of mode 0600, in a folder of mode 0700 if that is new. Raises `ConfigError`."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as failure:
        if failure.errno == errno.EEXIST and os.path.lexists(path):
            raise _exists(path, option) from None
        raise ConfigError(
            f"{path} cannot be written ({failure.strerror})", f"name another file with {option}"
        ) from None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as failure:
        os.unlink(path)  # half a file is worse than none
        raise ConfigError(
            f"{path} cannot be written ({failure.strerror})", "free some disk space, then try again"
        ) from None


def _exists(path: str, option: str) -> ConfigError:
    return ConfigError(f"{path} is there already and is left as it is", f"edit it, or name another with {option}")
