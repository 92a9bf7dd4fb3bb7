"""Files that hold a secret stay out of a scan while they are what they were."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from syncd.archive.secret_files import SecretFiles
from syncd.scan.manifest import Entry, Kind, Stamp
from syncd.scan.scanner import Scan
from syncd.selection.secret_scanner import Secret

STAMP = Stamp(1, 2, 3, 4)
ENTRY = Entry(Kind.FILE, 0o644, 1, 5, stamp=STAMP, digest=b"d", written_back=True)
SECRET = Secret("a token", 7)


def noted(*paths: str, entry: Entry = ENTRY) -> SecretFiles:
    """What is remembered after these were held back."""
    held = SecretFiles()
    held.add(dict.fromkeys(paths, (entry, SECRET)))
    return held


def test_what_is_left_out() -> None:
    """Each of them, and none besides; their paths count as not read, so that nothing is deleted anywhere."""
    held = noted("a", "b")
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
def test_one_that_is_no_more_what_it_was(now: Entry | None) -> None:
    """It is looked at, and forgotten until it is found again; the others stay out."""
    held = noted("a", "b")
    manifest = {"b": ENTRY} if now is None else {"a": now, "b": ENTRY}
    scan = Scan(manifest=dict(manifest))
    held.exclude(scan)
    assert scan.manifest == ({} if now is None else {"a": now})
    assert scan.unread == {"b"}
    assert list(held) == ["b"]


def test_another_time_or_mode_is_no_other_content() -> None:
    """Only its stamp and size say whether it was written."""
    held = noted("a")
    scan = Scan(manifest={"a": replace(ENTRY, mode=0o600, digest=b"")})
    held.exclude(scan)
    assert scan.manifest == {}


def test_what_is_not_believed_is_looked_at() -> None:
    """It loses its stamp; nothing else does, and nothing new is remembered."""
    held = noted("a", "b")
    held.forget_stamps({"a", "c"})
    assert list(held) == ["a", "b"]
    scan = Scan(manifest={"a": ENTRY, "b": ENTRY, "c": ENTRY})
    held.exclude(scan)
    assert scan.manifest.keys() == {"a", "c"}
    assert list(held) == ["b"]


def test_which_may_have_changed_unseen() -> None:
    """Those whose stamps stand and were young at the read."""
    held = noted("old")
    young = replace(ENTRY, written_back=False)
    held.add({"young": (young, SECRET), "gone": (young, SECRET)})
    held.forget_stamps(["gone"])
    assert held.not_written_back() == ["young"]
    assert list(held) == ["old", "young", "gone"]


def test_the_warnings() -> None:
    """One a file, with what was found; of one that was sent before, what may be there."""
    sent, unsent = noted("sent", "unsent").warnings(lambda path: path == "sent")
    assert sent.key == "secret:sent"
    assert sent.what.startswith("'sent' holds a token in line 7 and stays home, but what was sent of it before")
    assert unsent.key == "secret:unsent"
    assert unsent.what == "'unsent' holds a token in line 7 and stays home"
