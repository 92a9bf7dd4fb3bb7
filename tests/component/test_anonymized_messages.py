"""Messages about paths of any kind, anonymized as in a report, show no path."""

from __future__ import annotations

import errno

from hypothesis import example, given, settings
from hypothesis import strategies as st

from syncd.archive.snapshotter import described
from syncd.cli.check.anonymizer import Anonymizer, words_and_phrases
from syncd.cli.check.public_words import public_texts
from syncd.core.text import one_line, shown_path
from syncd.sandbox.remote_changes import RemoteChange, warnings
from syncd.scan import exclusion_warnings
from syncd.scan.manifest import Difference, Entry, Kind
from syncd.scan.size_limit import over_limit
from syncd.selection.secret_scanner import Secret, secret_files
from syncd.watch import inotify_limits

WORDS, PHRASES = words_and_phrases(public_texts())
# Words that may be shown, and all that messages and shells give a meaning to.
_WORDS = ("secret", "plan", "status", "new", "changed", "gone", "and", "cannot be watched", "mended: ", "it's", "holds")
_SIGNS = " '\"()/\\`=.-,:\n\t\x1b\u202e\udcff…"
_PIECES = st.sampled_from([*_WORDS, *_SIGNS])
_PATHS = (
    st.lists(_PIECES, min_size=1, max_size=8).map("".join).filter(lambda path: path.strip("/") and "\0" not in path)
)


def _messages(path: str) -> list[str]:
    big = Entry(Kind.FILE, 0o644, 0, 1 << 30)
    return [
        str(secret_files(path, Secret("a Stripe key", 3), sent=False)),
        str(secret_files(path, Secret("a Stripe key", 3), sent=True)),
        str(exclusion_warnings.unreadable(path, PermissionError(errno.EACCES, "Permission denied"))),
        str(exclusion_warnings.leads_outside(path)),
        str(exclusion_warnings.too_deep(path)),
        *map(str, inotify_limits.unwatched({path: errno.ENOSPC}, 9)),
        *map(str, inotify_limits.unwatched({path: errno.EACCES, f"{path}x": errno.EACCES}, 9)),
        over_limit({path: big}, 1) or "",
        *map(str, warnings({path: RemoteChange.CHANGED}, "14:03 UTC")),
        *map(
            str,
            warnings(
                {path: RemoteChange.FOREIGN, "x": RemoteChange.FOREIGN, f"{path}y": RemoteChange.FOREIGN}, "14:03 UTC"
            ),
        ),
        *map(str, warnings({f"{path}{number}": RemoteChange.REMOVED for number in range(5)}, "14:03 UTC")),
        f"{shown_path(path)!r} was removed in the sandbox: it is about to be overwritten",
        f"packaging 3 files: {described(Difference(added=[path, 'x'], changed=[path], removed=[path]))}",
        f"mended: {shown_path(path)}",
    ]


@settings(max_examples=150, deadline=None)
@given(_PATHS)
@example("secret plan")
@example("a'b secret plan")
@example("secret), 3 gone (plan status")
@example("status cannot be watched and is polled")
@example("' secret")
@example("' secret\"")
def test_no_path_comes_through(path: str) -> None:
    """Messages about two paths differ only in pseudonyms once anonymized."""
    anonymizer = Anonymizer(WORDS, PHRASES, {})
    for message, other in zip(_messages(path), _messages("zq"), strict=True):
        shown, known = anonymizer.text(one_line(message, 1000)), anonymizer.text(one_line(other, 1000))
        for word in ("plan", "secret"):
            assert shown.count(word) <= known.count(word), (message, shown)


def test_the_words_of_the_paths_are_public() -> None:
    """The words themselves are shown elsewhere, so only the anonymizer hides them."""
    assert Anonymizer(WORDS, PHRASES, {}).text("the secret plan") == "the secret plan"
