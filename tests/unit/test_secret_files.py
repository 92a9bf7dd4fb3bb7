"""Files that hold a secret are excluded from a scan while they are unchanged."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from syncd.archive.packer import Packed
from syncd.archive.secret_files import SecretFiles
from syncd.scan.manifest import Entry, Kind, Stamp
from syncd.scan.scanner import Scan
from syncd.selection.secret_scanner import Secret

STAMP = Stamp(1, 2, 3, 4)
ENTRY = Entry(Kind.FILE, 0o644, 1, 5, stamp=STAMP, digest=b"d", written_back=True)
SECRET = Secret("a token", 7)


def noted(*paths: str, entry: Entry = ENTRY) -> SecretFiles:
    """Return the record after these files were excluded."""
    held = SecretFiles()
    held.note(Packed(secret_files=dict.fromkeys(paths, (entry, SECRET))))
    return held


def test_what_is_left_out() -> None:
    """Each of them is excluded, and no others; their paths count as unread, so they are not deleted anywhere."""
    held = noted("a", "b")
    assert (list(held), len(held)) == (["a", "b"], 2)
    scan = Scan(manifest={"a": ENTRY, "b": ENTRY, "c": ENTRY}, unread={"x"})
    held.leave_out(scan)
    assert scan.manifest == {"c": ENTRY}
    assert scan.unread == {"x", "a", "b"}
    assert list(held) == ["a", "b"]
    again = Scan(manifest={"a": ENTRY, "b": ENTRY, "c": ENTRY})
    held.leave_out(again)
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
def test_a_changed_file_is_searched_again(now: Entry | None) -> None:
    """It is read and forgotten until a secret is found again; the others stay excluded."""
    held = noted("a", "b")
    manifest = {"b": ENTRY} if now is None else {"a": now, "b": ENTRY}
    scan = Scan(manifest=dict(manifest))
    held.leave_out(scan)
    assert scan.manifest == ({} if now is None else {"a": now})
    assert scan.unread == {"b"}
    assert list(held) == ["b"]


def test_another_time_or_mode_is_no_other_content() -> None:
    """Only the stamp and the size show that the file was written."""
    held = noted("a")
    scan = Scan(manifest={"a": replace(ENTRY, mode=0o600, digest=b"")})
    held.leave_out(scan)
    assert scan.manifest == {}


def test_a_file_without_a_trusted_stamp_is_searched_again() -> None:
    """It loses its stamp, the others keep theirs, and nothing new is recorded."""
    held = noted("a", "b")
    held.disbelieve({"a", "c"})
    assert list(held) == ["a", "b"]
    scan = Scan(manifest={"a": ENTRY, "b": ENTRY, "c": ENTRY})
    held.leave_out(scan)
    assert scan.manifest.keys() == {"a", "c"}
    assert list(held) == ["b"]


def test_files_that_may_have_changed_without_an_event() -> None:
    """Files whose stamps are unchanged and were young when read may have changed."""
    held = noted("old")
    young = replace(ENTRY, written_back=False)
    held.note(Packed(secret_files={"young": (young, SECRET), "gone": (young, SECRET)}))
    held.disbelieve(["gone"])
    assert held.not_written_back() == ["young"]
    assert list(held) == ["old", "young", "gone"]


def test_the_warnings() -> None:
    """One warning a file says what was found, and for a file sent before, what may be in the sandbox."""
    sent, unsent = noted("sent", "unsent").warnings(lambda path: path == "sent")
    assert sent.key == "secret:sent"
    assert sent.what.startswith("'sent' holds a token in line 7 and stays home, but what was sent of it before")
    assert unsent.key == "secret:unsent"
    assert unsent.what == "'unsent' holds a token in line 7 and stays home"
