"""What a person reads about single paths that stay home."""

from __future__ import annotations

import errno

import pytest

from syncd.core.errors import SnapshotTooLarge
from syncd.model.entry import Entry, Kind
from syncd.model.manifest import Manifest
from syncd.scan.exclusions import (
    LONGEST_PATH_BYTES,
    check_size,
    leads_outside,
    too_deep,
    too_long,
    unmounted,
    unreadable,
)
from syncd.scan.file_reader import FileIdentity
from syncd.scan.tree_cache import DirRecord
from syncd.selection.selection import Rule, Selection


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.EACCES, "let your user read it"), (errno.EIO, "repair it"), (errno.ESTALE, "mount it again")],
)
def test_what_cannot_be_read(number: int, remedy: str) -> None:
    """What to do is said by the reason."""
    warning = unreadable("a", OSError(number, "why"))
    assert warning == ("unreadable:a", "'a' cannot be read (why) and is not sent", f"{remedy}, or exclude it")


def test_the_warnings_of_a_scan() -> None:
    """They say what was found, where, and what to do."""
    assert unmounted("disk") == (
        "unmounted:disk",
        "what was mounted at 'disk' is missing; what was sent of it stays in the sandbox",
        "mount it again, or run `syncd push --force` if it is to be removed there",
    )
    assert leads_outside("link") == (
        "link:link",
        "the link 'link' leads outside the workspace and is excluded",
        "let it point inside the workspace, or exclude it",
    )
    folder = "a" * 100 + "b" * 100
    assert too_deep(folder) == (
        f"long:{folder}",
        (
            f"in {'a' * 60!r} … {'b' * 60!r} are paths of more than 3,840 bytes, "
            "which are excluded as few programs can open them"
        ),
        "give its folders shorter names, or exclude it",
    )


def test_what_is_too_long() -> None:
    """By its bytes, not its characters."""
    for letters in ("d" * LONGEST_PATH_BYTES, "é" * (LONGEST_PATH_BYTES // 2)):
        assert (too_long(letters), too_long(letters + "d")) == (False, True)


def test_what_is_too_large() -> None:
    """The three largest files are named, with the key that bounds them."""
    sizes = {"b": 3 << 19, "c": 12 << 20, "d": 2, "e": 0, "f": 1}
    manifest = Manifest({path: Entry(Kind.FILE, 0o644, size_bytes=size) for path, size in sizes.items()})
    check_size(manifest, 14)
    check_size(Manifest({"c": manifest["c"]}), 12)
    with pytest.raises(SnapshotTooLarge) as refused:
        check_size(manifest, 13)
    assert str(refused.value) == (
        "the snapshot holds 13.5 MiB, more than sync.max_snapshot_mib = 13; "
        "the largest: 'c' (12.0 MiB), 'b' (1,536 KiB), 'd' (2 bytes): "
        "exclude what is large in .syncdignore, or raise sync.max_snapshot_mib with `syncd config edit`"
    )


def test_what_excludes_how_many() -> None:
    """Files of the same name are one source."""
    scope = Selection().root()
    record = DirRecord(FileIdentity(), scope, scope, {})
    for source in ("built-in", ".gitignore", "d/e/.gitignore", "/home/me/.config/git/ignore", "syncd's own files"):
        record.count_excluded(Rule(source, 1, "a"))
    assert record.excluded == {"built-in": 1, ".gitignore": 2, "ignore": 1, "syncd's own files": 1}
