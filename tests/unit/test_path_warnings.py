"""What a person reads about single paths that stay home."""

from __future__ import annotations

import errno
import os

import pytest

from syncd.core.errors import SnapshotTooLarge
from syncd.model.entry import Entry, Kind
from syncd.model.manifest import Manifest
from syncd.scan.exclusions import (
    SPECIAL,
    check_size,
    count_by_source,
    unreadable,
)
from syncd.selection.selection import Rule


@pytest.mark.parametrize(
    ("number", "reason", "remedy"),
    [
        (errno.EACCES, "Permission denied", "let your user read it"),
        (errno.EIO, "Input/output error", "repair it"),
        (errno.ESTALE, "Stale file handle", "mount it again"),
    ],
)
def test_what_is_unreadable(number: int, reason: str, remedy: str) -> None:
    """The reason decides what to do."""
    warning = unreadable("a", OSError(number, os.strerror(number)))
    assert warning == ("unreadable:a", f"'a' cannot be read ({reason}) and is not sent", f"{remedy}, or exclude it")


def test_what_is_too_large() -> None:
    """The three largest files are named, with the key that bounds them."""
    sizes = {"a": 1 << 20, "b": 3 << 19, "c": 1 << 21, "d": 1, "e": 0}
    manifest = Manifest({path: Entry(Kind.FILE, 0o644, size_bytes=size) for path, size in sizes.items()})
    check_size(manifest, 5)
    check_size(Manifest({"c": manifest["c"]}), 2)
    with pytest.raises(SnapshotTooLarge) as refused:
        check_size(manifest, 4)
    assert refused.value.message == (
        "the snapshot holds 4.5 MiB, more than sync.max_snapshot_mib = 4; "
        "the largest: 'c' (2.0 MiB), 'b' (1.5 MiB), 'a' (1.0 MiB)"
    )


def test_what_left_out_how_many() -> None:
    """Files of the same name are one source, and so are git's exclude files; what left out nothing is none."""
    rules = {
        Rule("built-in", None, "*.pem"): 1,
        SPECIAL.rule: 2,
        Rule(".gitignore", 1, "*.o"): 3,
        Rule("d/e/.gitignore", 1, "*.o"): 4,
        Rule(".syncdignore", 1, "a"): 5,
        Rule("/home/me/.config/git/ignore", 1, "b"): 6,
        Rule(".git/info/exclude", 1, "c"): 7,
        Rule("secrets", None, "d"): 0,
    }
    assert count_by_source(rules) == {
        "built-in": 1,
        "special files": 2,
        ".gitignore": 7,
        ".syncdignore": 5,
        "git excludes": 13,
    }
