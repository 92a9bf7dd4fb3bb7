"""What a person reads about single paths that stay home."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest

from syncd.core.errors import SnapshotTooLarge, SyncWarning
from syncd.model.entry import Entry, Kind
from syncd.model.manifest import Manifest
from syncd.scan.exclusions import (
    LONGEST_PATH_BYTES,
    SPECIAL,
    check_size,
    count_by_source,
    leads_outside,
    too_deep,
    too_long,
    unmounted,
    unreadable,
)
from syncd.selection.secret_scanner import Secret, secret_warning, sent_secret_warning
from syncd.selection.selection import Rule

TOKEN = Secret("a token", 7)


def refused(number: int) -> SyncWarning:
    return unreadable("a", OSError(number, os.strerror(number)))


SENT_BEFORE = "what was sent of it before may still be in the sandbox"


@pytest.mark.parametrize(
    ("warn", "kind", "what", "remedy"),
    [
        (
            lambda: refused(errno.EACCES),
            "unreadable",
            "'a' cannot be read (Permission denied) and is not sent",
            "let your user read it, or exclude it",
        ),
        (
            lambda: refused(errno.EIO),
            "unreadable",
            "'a' cannot be read (Input/output error) and is not sent",
            "repair it, or exclude it",
        ),
        (
            lambda: refused(errno.ESTALE),
            "unreadable",
            "'a' cannot be read (Stale file handle) and is not sent",
            "mount it again, or exclude it",
        ),
        (
            lambda: unmounted("a"),
            "unmounted",
            "what was mounted at 'a' is missing; what was sent of it stays in the sandbox",
            "mount it again, or run `syncd push --force` if it is to be removed there",
        ),
        (
            lambda: leads_outside("a"),
            "link",
            "the link 'a' leads outside the workspace and is excluded",
            "let it point inside the workspace, or exclude it",
        ),
        (
            lambda: secret_warning("a", TOKEN, sent=False),
            "secret",
            "'a' holds a token in line 7 and is excluded",
            "take it out, or allow the path in workspace.allow_secrets",
        ),
        (
            lambda: secret_warning("a", TOKEN, sent=True),
            "secret",
            f"'a' holds a token in line 7 and is excluded, but {SENT_BEFORE}",
            "take it out, or allow the path in workspace.allow_secrets",
        ),
        (
            lambda: sent_secret_warning("a"),
            "secret",
            f"in 'a' a secret was found here, and {SENT_BEFORE}",
            'with sandbox.deletions = "mirror" syncd removes it there; another sandbox does not have it',
        ),
    ],
)
def test_what_is_said(warn: Callable[[], SyncWarning], kind: str, what: str, remedy: str) -> None:
    """One line: what happened, to what, and what to do."""
    assert warn() == (f"{kind}:a", what, remedy)


def test_what_is_too_deep() -> None:
    """A long name is told by its beginning and its end."""
    folder = "d" * 90 + "/" + "e" * 90
    found = too_deep(folder)
    assert (found.key, found.remedy) == (f"long:{folder}", "give its folders shorter names, or exclude it")
    assert found.what == (
        f"in '{'d' * 60}' … '{'e' * 60}' are paths of more than 3,840 bytes, "
        "which are excluded as few programs can open them"
    )


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


def test_what_is_too_long() -> None:
    """By its bytes, not its characters."""
    assert [too_long("d" * (LONGEST_PATH_BYTES + more)) for more in (0, 1)] == [False, True]
    assert [too_long("é" * (LONGEST_PATH_BYTES // 2 + more)) for more in (0, 1)] == [False, True]


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
