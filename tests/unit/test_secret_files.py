"""Files that hold a secret are excluded from a scan while they are unchanged."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from syncd.archive.secret_files import SecretFiles
from syncd.scan.entry import Entry, Kind, Stamp
from syncd.scan.scanner import Scan
from syncd.selection.secret_scanner import Secret

STAMP = Stamp(1, 2, 3, 4)
ENTRY = Entry(Kind.FILE, 0o644, 1, 5, stamp=STAMP, digest=b"d", written_back=True)
SECRET = Secret("a token", 7)


def remembered(*paths: str, entry: Entry = ENTRY) -> SecretFiles:
    """The state after these files were found."""
    held = SecretFiles()
    held.add(dict.fromkeys(paths, (entry, SECRET)))
    return held


def test_secret_files_are_excluded() -> None:
    """These files and no others; they count as unread, so that they are not deleted in the sandbox."""
    held = remembered("a", "b")
    assert (list(held), len(held)) == (["a", "b"], 2)
    scan = Scan(manifest={"a": ENTRY, "b": ENTRY, "c": ENTRY}, unread={"x"})
    held.exclude(scan)
    assert scan.manifest == {"c": ENTRY}
    assert scan.unread == {"x", "a", "b"}
    assert list(held) == ["a", "b"]
    again = Scan(manifest={"a": ENTRY, "b": ENTRY, "c": ENTRY})
    held.exclude(again)
    assert again.manifest == {"c": ENTRY}
    assert [warning.key for warning in held.warnings(lambda _: False)] == ["secret:a", "secret:b"]


@pytest.mark.parametrize(
    "now",
    [
        None,
        replace(ENTRY, size_bytes=6),
        replace(ENTRY, stamp=Stamp(1, 2, 3, 5)),
        replace(ENTRY, stamp=None),
    ],
)
def test_a_changed_file_is_read_again(now: Entry | None) -> None:
    """It is forgotten until a secret is found again; the others stay excluded."""
    held = remembered("a", "b")
    manifest = {"b": ENTRY} if now is None else {"a": now, "b": ENTRY}
    scan = Scan(manifest=dict(manifest))
    held.exclude(scan)
    assert scan.manifest == ({} if now is None else {"a": now})
    assert scan.unread == {"b"}
    assert list(held) == ["b"]


def test_another_time_or_mode_is_the_same_content() -> None:
    """Only stamp and size tell if a file was written."""
    held = remembered("a")
    scan = Scan(manifest={"a": replace(ENTRY, mode=0o600, digest=b"")})
    held.exclude(scan)
    assert scan.manifest == {}


def test_a_file_without_a_stamp_is_read_again() -> None:
    """Only the named files lose their stamps, and no new ones are remembered."""
    held = remembered("a", "b")
    held.forget_stamps({"a", "c"})
    assert list(held) == ["a", "b"]
    scan = Scan(manifest={"a": ENTRY, "b": ENTRY, "c": ENTRY})
    held.exclude(scan)
    assert scan.manifest.keys() == {"a", "c"}
    assert list(held) == ["b"]


def test_files_that_may_have_changed_unnoticed() -> None:
    """Files with the same stamps that were recent when they were read."""
    held = remembered("old")
    young = replace(ENTRY, written_back=False)
    held.add({"young": (young, SECRET), "gone": (young, SECRET)})
    held.forget_stamps(["gone"])
    assert held.not_written_back() == ["young"]
    assert list(held) == ["old", "young", "gone"]


def test_the_warnings() -> None:
    """One per file, with the secret; one that was sent before says so."""
    sent, unsent = remembered("sent", "unsent").warnings(lambda path: path == "sent")
    assert sent.key == "secret:sent"
    assert sent.what.startswith("'sent' holds a token in line 7 and is left out, but what was sent of it before")
    assert unsent.key == "secret:unsent"
    assert unsent.what == "'unsent' holds a token in line 7 and is left out"
