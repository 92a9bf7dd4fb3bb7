"""The names that git takes for a repository, or for its list of submodules, on any file system.

As well as any letter case, NTFS has short names, ends a name before spaces, dots and a stream, and separates by
backslashes; HFS+ passes over some characters. git refuses all of these too (`is_ntfs_dotgit` in its path.c,
`next_hfs_char` in its utf8.c).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable

_PASSED_OVER = r"(?:\xe2\x80[\x8c-\x8f\xaa-\xae]|\xe2\x81[\xaa-\xaf]|\xef\xbb\xbf)"  # in UTF-8
_OF_NAMES = sys.getfilesystemencoding()


def _spelled(*names: Iterable[str]) -> str:
    """Return a pattern for bytes that finds these names in a path; each is given in the parts that it consists of."""
    some = "|".join(f"{_PASSED_OVER}*".join(name) for name in names)
    return rf"(?i)(?:^|[/\\]){_PASSED_OVER}*(?:{some})(?:[ .]|{_PASSED_OVER})*(?=[:/\\]|\Z)"


REPOSITORY = _spelled([r"\.", *"git"], "git~1")
"""A pattern of bytes, in ASCII, that finds the name of a repository in a path."""

_REPOSITORY = re.compile(REPOSITORY.encode("ascii"))
_SUBMODULES = re.compile(
    _spelled([r"\.", *"gitmodules"], [*"gitmod~", "[1-4]"], [*"gi7eba~", "[0-9]+"], [*"gi7d29~", "[0-9]+"]).encode(
        "ascii"
    )
    + rb"[^/\\]*\Z"
)


def is_in_repository(path: str) -> bool:
    """Return True for a path that is named as a repository, and for all in it."""
    if path.isascii() and "git" not in path.lower():
        return False  # nearly all; a tenth of the time
    return _REPOSITORY.search(path.encode(_OF_NAMES, "surrogateescape")) is not None


def names_submodules(path: str) -> bool:
    """Return True for a path whose last name is `.gitmodules`, spelled in any way."""
    return _SUBMODULES.search(path.encode(_OF_NAMES, "surrogateescape")) is not None
