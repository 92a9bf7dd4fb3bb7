"""A report's texts: the fixed parts of syncd's own messages, and nothing of what was put between them."""

from __future__ import annotations

import errno

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from syncd.archive.snapshotter import described
from syncd.cli.check.fixed_text import fixed_text
from syncd.core.text import one_line, shown_path
from syncd.sandbox.look_request import RemoteEntry, RemoteKind
from syncd.sandbox.remote_changes import held_warning, why_unsaved
from syncd.scan import exclusions
from syncd.scan.entry import Entry, Kind
from syncd.scan.limits import over_limit
from syncd.scan.manifest import Difference, Manifest
from syncd.selection.secret_scanner import Secret, secret_warning
from syncd.watch import inotify_limits

# Words that messages have, and all that messages and shells give a meaning to.
_WORDS = ("secret", "plan", "status", "new", "changed", "gone", "and", "cannot be watched", "mended: ", "it's", "holds")
_SIGNS = " '\"()/\\`=.-,:\n\t\x1b\u202e\udcff…"
_PIECES = st.sampled_from([*_WORDS, *_SIGNS])
_PATHS = (
    st.lists(_PIECES, min_size=1, max_size=8).map("".join).filter(lambda path: path.strip("/") and "\0" not in path)
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "'zebra/plan' cannot be read (Permission denied) and is left out",
            "… cannot be read (Permission denied) and is left out",
        ),
        ("the API answered upload-url with 503 (zebra)", "the API answered … with 503 …"),
        ("synced 12 files, 4096 bytes, in 0.71 s", "synced 12 files, 4096 bytes, in 0.71 s"),
        ("zebra; trying again in 1.5 s", "… trying again in 1.5 s"),
        ("watching /home/zebra", "watching …"),
        (
            "zebra.service: Main process exited, code=exited, status=78/CONFIG",
            "… Main process exited, code=exited, status=78/CONFIG",
        ),
        ("Started syncd.service - Keep zebra in step.", "Started syncd …"),
        ("the secret plan of 4711", "…"),
        ("status", "…"),
        ("https://zebra/?X=1 10.0.0.7 me@zebra", "…"),
        ("", ""),
    ],
)
def test_what_is_kept(text: str, shown: str) -> None:
    """The longest fixed parts are kept, with the numbers that they format; the rest is one sign."""
    assert fixed_text(text) == shown


def _messages(path: str) -> list[str]:
    big = Entry(Kind.FILE, 0o644, 0, 1 << 30)
    return [
        str(secret_warning(path, Secret("a Stripe key", 3), sent=False)),
        str(secret_warning(path, Secret("a Stripe key", 3), sent=True)),
        str(exclusions.unreadable(path, PermissionError(errno.EACCES, "Permission denied"))),
        str(exclusions.leads_outside(path)),
        str(exclusions.too_deep(path)),
        *map(str, inotify_limits.unwatched({path: errno.ENOSPC}, 9)),
        *map(str, inotify_limits.unwatched({path: errno.EACCES, f"{path}x": errno.EACCES}, 9)),
        over_limit(Manifest({path: big}), 1) or "",
        str(held_warning(path, None)),
        str(held_warning(path, why_unsaved(RemoteEntry(RemoteKind.FILE), ""))),
        f"{shown_path(path)!r} was removed in the sandbox: it is about to be overwritten",
        f"packaging 3 files: {described(Difference(added=[path, 'x'], changed=[path], removed=[path]))}",
        f"resolved: {shown_path(path)}",
    ]


@settings(max_examples=150, deadline=None)
@given(_PATHS)
@example("secret plan")
@example("a'b secret plan")
@example("secret), 3 gone (plan status")
@example("secret), 3 removed (plan status")
@example("status cannot be watched and is polled")
@example("' secret")
@example("' secret\"")
def test_no_path_comes_through(path: str) -> None:
    """Of a message about a path, no word is shown that is not shown of the same message about another path."""
    for message, other in zip(_messages(path), _messages("zq"), strict=True):
        shown, known = fixed_text(one_line(message, 1000)), fixed_text(one_line(other, 1000))
        for word in ("plan", "secret"):
            assert shown.count(word) <= known.count(word), (message, shown)


def test_the_word_of_a_log_line_stays() -> None:
    """A line that begins with a single fixed word is known by it, whatever it names."""
    for line in ("watching /home/zq", "resolved: zq"):
        word = line.partition(" ")[0].rstrip(":")
        assert fixed_text(line).startswith(word), line
        assert "zq" not in fixed_text(line)


def test_endless_text() -> None:
    """A line of a megabyte is read once, without a search that grows with its square."""
    assert fixed_text("read now " + "1 new ('" * 100_000) == "…"
