"""What a person reads about single paths that stay home."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from syncd.core.errors import SnapshotTooLarge, SyncWarning
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
from syncd.selection.secret_scanner import Secret, secret_warning, sent_secret_warning
from syncd.selection.selection import Rule, Selection

FOLDER = "a" * 90 + "/" + "b" * 90
SENT_BEFORE = "what was sent of it before may still be in the sandbox"
TOKEN = Secret("a token", 7)
NOT_OPENED = "which are excluded as few programs can open them"


@pytest.mark.parametrize(
    ("warn", "what", "remedy"),
    [
        (
            lambda: unreadable("a", PermissionError(errno.EACCES, "Permission denied")),
            "'a' cannot be read (Permission denied) and is not sent",
            "let your user read it, or exclude it",
        ),
        (
            lambda: unreadable("a", OSError(errno.EIO, "Input/output error")),
            "'a' cannot be read (Input/output error) and is not sent",
            "repair it, or exclude it",
        ),
        (
            lambda: unreadable("a", OSError(errno.ESTALE, "Stale file handle")),
            "'a' cannot be read (Stale file handle) and is not sent",
            "mount it again, or exclude it",
        ),
        (
            lambda: unmounted("a"),
            "what was mounted at 'a' is missing; what was sent of it stays in the sandbox",
            "mount it again, or run `syncd push --force` if it is to be removed there",
        ),
        (
            lambda: leads_outside("a"),
            "the link 'a' leads outside the workspace and is excluded",
            "let it point inside the workspace, or exclude it",
        ),
        (
            lambda: too_deep(FOLDER),
            f"in '{'a' * 60}' … '{'b' * 60}' are paths of more than 3,840 bytes, {NOT_OPENED}",
            "give its folders shorter names, or exclude it",
        ),
        (
            lambda: secret_warning("a", TOKEN, sent=False),
            "'a' holds a token in line 7 and is excluded",
            "take it out, or allow the path in workspace.allow_secrets with `syncd config edit`",
        ),
        (
            lambda: secret_warning("a", TOKEN, sent=True),
            f"'a' holds a token in line 7 and is excluded, but {SENT_BEFORE}",
            "take it out, or allow the path in workspace.allow_secrets with `syncd config edit`",
        ),
        (
            lambda: sent_secret_warning("a"),
            f"in 'a' a secret was found here, and {SENT_BEFORE}",
            'with sandbox.deletions = "mirror" syncd removes it there; another sandbox does not have it',
        ),
    ],
)
def test_what_is_said(warn: Callable[[], SyncWarning], what: str, remedy: str) -> None:
    """What happened, to what, and what to do."""
    key, *said = warn()
    assert said == [what, remedy]
    assert key.endswith((":a", f":{FOLDER}"))


def test_what_is_too_long() -> None:
    """By its bytes, not its characters."""
    for letters in ("d" * LONGEST_PATH_BYTES, "é" * (LONGEST_PATH_BYTES // 2)):
        assert (too_long(letters), too_long(letters + "d")) == (False, True)


def test_what_is_too_large() -> None:
    """The three largest files are named, with the key that bounds them."""
    sizes = {"a": 1 << 20, "b": 3 << 19, "c": 1 << 21, "d": 1, "e": 0}
    manifest = Manifest({path: Entry(Kind.FILE, 0o644, size_bytes=size) for path, size in sizes.items()})
    check_size(manifest, 5)
    check_size(Manifest({"c": manifest["c"]}), 2)
    with pytest.raises(SnapshotTooLarge) as refused:
        check_size(manifest, 4)
    assert str(refused.value) == (
        "the snapshot holds 4.5 MiB, more than sync.max_snapshot_mib = 4; "
        "the largest: 'c' (2.0 MiB), 'b' (1.5 MiB), 'a' (1.0 MiB): "
        "exclude what is large in .syncdignore, or raise sync.max_snapshot_mib with `syncd config edit`"
    )


def test_what_excludes_how_many() -> None:
    """Files of the same name are one source."""
    scope = Selection().root()
    record = DirRecord(FileIdentity(), scope, scope, {})
    for source in ("built-in", ".gitignore", "d/e/.gitignore", "/home/me/.config/git/ignore", "syncd's own files"):
        record.count_excluded(Rule(source, 1, "a"))
    assert record.excluded == {"built-in": 1, ".gitignore": 2, "ignore": 1, "syncd's own files": 1}
