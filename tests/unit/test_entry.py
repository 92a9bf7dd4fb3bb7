"""What is known of a path: if it is the same and unchanged, where a link leads, and what git takes for its own."""

from __future__ import annotations

import os
import posixpath
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from syncd.model.entry import (
    ABSENT,
    ALL_BITS,
    EXECUTABLE,
    YOUNG_NS,
    Entry,
    Kind,
    SeenEntry,
    Stamp,
    as_read,
    as_sent,
    has_inner_dotdot,
    is_savable,
    leads_out,
    mode_at_home,
    same,
    stays_inside,
    with_copy,
)
from syncd.model.git_names import is_in_repository, names_submodules

OLD = Stamp(1_000, 2_000, 3, 4)
FILE = Entry(Kind.FILE, 0o644, 1, 5, stamp=OLD, digest=b"d1")
UNREAD = replace(FILE, digest=b"")
FOLDER = Entry(Kind.DIRECTORY, 0o755, 1)
LINK = Entry(Kind.SYMLINK, 0o777, 1, target="a")


@pytest.mark.parametrize(
    ("age_ns", "kept"), [(YOUNG_NS + 1, True), (YOUNG_NS, False), (1, False), (0, False), (-5, False)]
)
def test_as_read(age_ns: int, *, kept: bool) -> None:
    """The stamp of a file with a time of the last minute, or in the future, is not kept."""
    entry = as_read(replace(UNREAD, sent_digest=b"s"), b"d", OLD.ctime_ns + age_ns)
    assert entry == replace(FILE, digest=b"d", stamp=OLD if kept else None)
    assert as_read(replace(UNREAD, stamp=None), b"d", OLD.ctime_ns + age_ns) == replace(FILE, digest=b"d", stamp=None)


def test_what_is_known_of_a_content_that_changed() -> None:
    """What was sent of it, of one that changed while it was read."""
    assert as_sent(FILE, 9, b"s") == Entry(Kind.FILE, 0o644, 1, 9, sent_digest=b"s")


@pytest.mark.parametrize(
    ("one", "other", "bits", "expected"),
    [
        (FILE, replace(FILE, mtime_s=9, stamp=None), ALL_BITS, True),
        (FILE, replace(UNREAD, sent_digest=FILE.digest), ALL_BITS, True),
        (UNREAD, UNREAD, EXECUTABLE, False),
        (FILE, replace(FILE, mode=0o600), EXECUTABLE, True),
        (FILE, replace(FILE, mode=0o600), ALL_BITS, False),
        (FILE, replace(FILE, mode=0o744), EXECUTABLE, False),
        (FOLDER, replace(FOLDER, mode=0o600), EXECUTABLE, True),
        (FOLDER, replace(FOLDER, mode=0o600), ALL_BITS, False),
        (FOLDER, replace(FOLDER, mtime_s=9), ALL_BITS, True),
        (LINK, replace(LINK, mode=0), ALL_BITS, True),
        (LINK, replace(LINK, target="b"), EXECUTABLE, False),
        (FILE, LINK, EXECUTABLE, False),
        (ABSENT, ABSENT, ALL_BITS, True),
        (Entry(Kind.OTHER), Entry(Kind.OTHER), EXECUTABLE, False),
        (Entry(Kind.UNREAD), Entry(Kind.UNREAD), EXECUTABLE, False),
    ],
)
def test_two_entries_that_are_the_same(one: Entry, other: Entry, bits: int, *, expected: bool) -> None:
    """Times do not count, nor what nobody has read; of a mode the bits that are asked for."""
    assert (same(one, other, bits), same(other, one, bits)) == (expected, expected)


def test_a_link_by_its_text() -> None:
    """One that is absolute, or leaves the workspace on its way, even if it comes back, leads outside."""
    inside = ("a b", "a ./b//c/", "a .", "d/a ..", "d/e/a ../../b", "a d/../b", "a b/c/../..", "a ...")
    outside = ("a ", "a /etc/passwd", "a ..", "d/a ../../d/a", "a d/../../b", "a d/.././/../b")
    for link in (*inside, *outside):
        path, _, target = link.partition(" ")
        assert stays_inside(path, target) is (link in inside), link


def test_an_inner_dotdot() -> None:
    """A ".." after a name, which may be a link."""
    inner = ("a/..", "../a/../b", "a/./../b", "a//../b", "..a/..")
    for target in (*inner, "", ".", "../../a/b", "..//..", "/..", "./../a", "a/..b", "a/.../b", "/a"):
        assert has_inner_dotdot(target) is (target in inner), target


@pytest.mark.parametrize(
    ("links", "outside"),
    [
        ({"d/e/up": "../..", "d/out": "e/up/../outside"}, {"d/out"}),
        ({"d/up": "..", "l": "d/up//.."}, {"l"}),
        ({"d/up": "..", "l": "d/up/./.."}, {"l"}),
        ({"d/up": "..", "l": "d/up/../x", "m": "l"}, {"l", "m"}),
        ({"d/up": ".", "l": "d/up/../x"}, set()),
        ({"a": "b", "b": "a", "c": "a/../x"}, set()),
        ({"x": "x/../y"}, set()),
        ({"l": "out/../secret"}, set()),
    ],
)
def test_links_through_others(links: dict[str, str], outside: set[str]) -> None:
    """A ".." after a link starts at the link's target; a circle leads nowhere."""
    assert {path for path, target in links.items() if leads_out(path, target, links.get)} == outside


@pytest.mark.parametrize(("length", "leaves"), [(1, True), (40, True), (256, True), (257, False)])
def test_links_one_behind_the_other(length: int, leaves: bool) -> None:
    """The way out is found behind many links; what goes on for longer counts as a circle."""
    links = {f"d/l{number}": f"l{number + 1}" for number in range(1, length)} | {f"d/l{length}": "../.."}
    assert leads_out("d/l", "l1", links.get) is leaves


PARTS = st.sampled_from(["..", "..", ".", "", "a", "b", "c"])
LINKS = st.dictionaries(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join),
    st.lists(PARTS, min_size=1, max_size=5).map("/".join),
    max_size=5,
)


@settings(max_examples=40)
@given(LINKS)
def test_links_stay_inside_together_unless_one_has_an_inner_dotdot(links: dict[str, str]) -> None:
    """So only links with an inner ".." need the other links to be checked."""
    # As in a snapshot, nothing is below a link.
    links = {path: text for path, text in links.items() if not any(path.startswith(f"{other}/") for other in links)}
    kept = {path: text for path, text in links.items() if stays_inside(path, text)}
    for path, target in kept.items():
        if leads_out(path, target, kept.get):
            assert any(has_inner_dotdot(text) for text in kept.values())
        elif not has_inner_dotdot(target):
            text = posixpath.normpath(os.path.join(posixpath.dirname(path), target))
            assert not text.startswith("..")


@pytest.mark.parametrize(
    ("mode", "umask", "expected"),
    [(0o777, 0o022, 0o755), (0o666, 0o077, 0o600), (0o600, 0, 0o600), (0o700, 0o777, 0o700), (0o4755, 0, 0o755)],
)
def test_the_mode_of_something_new(mode: int, umask: int, expected: int) -> None:
    """Of others' bits those that the umask allows, all of the owner's, and no set-id bit."""
    assert mode_at_home(mode, umask) == expected


def test_what_can_be_saved() -> None:
    """A directory, a link, and a file with its content; a copy is as what is here."""
    sent = Entry(Kind.FILE, 0o755, 7, 9, sent_digest=b"s")
    copied = with_copy(sent, "/copies/0")
    assert copied == SeenEntry(Kind.FILE, 0o755, 7, 9, digest=b"s", copy="/copies/0")
    savable = (copied, SeenEntry(Kind.DIRECTORY), SeenEntry(Kind.SYMLINK, target="a"))
    others = (with_copy(sent, ""), ABSENT, SeenEntry(Kind.OTHER), SeenEntry(Kind.UNREAD))
    assert [*map(is_savable, (*savable, *others))] == [True] * 3 + [False] * 4


# -- names of a repository

REPOSITORIES = (
    *(".git", ".git/config", "sub/.GiT/x", "a/.git"),
    *("git~1", "GIT~1/config", "sub/git~1"),
    *(".g\u200cit/config", ".git\u200d", ".\ufeffgit/x", "\u202e.git", "g\u206fit~1"),
    *(".git.", ".git ", ".git ./x", ".git. \u200c./x"),
    *(".git::$INDEX_ALLOCATION/hooks/x", ".git:stream", "a\\.git\\config"),
)
ORDINARY = (
    *("src/main.py", ".gitignore", ".github/x", ".gitx/y", "agit/config", "git", "git.", "sub/.git-notes", "x.git/y"),
    *("git~notes", "git~2", "git~10", ".git x", "\udcff.git", ".g\u200bit", ".g\u0131t", "\u00e9/git"),
)


def _plain(path: str) -> str:
    """Return an id without a backslash or `::`, by which a test can be named on a command line."""
    return quote(os.fsencode(path))


@pytest.mark.parametrize("path", REPOSITORIES, ids=_plain)
def test_names_of_a_repository(path: str) -> None:
    """In any letter case, and as NTFS and HFS+ read a name."""
    assert is_in_repository(path)


@pytest.mark.parametrize("path", ORDINARY, ids=_plain)
def test_names_that_only_look_alike(path: str) -> None:
    """They are files like others."""
    assert not is_in_repository(path)


def test_names_of_the_list_of_submodules() -> None:
    """The last name alone counts."""
    named = (".gitmodules", "a/.GITMODULES ", "GITMOD~1", "gi7eba~12", ".gitmodules:x", ".git\u200cmodules")
    assert [path for path in named if not names_submodules(path)] == []
    others = (".gitmodules/x", ".gitmodule", "gitmod~5", "x.gitmodules", ".gitmodules\\x", ".gitmodules/\n")
    assert [path for path in others if names_submodules(path)] == []
