"""Foreign text takes time in proportion to its length: what a server sends does not block the daemon."""

from __future__ import annotations

import pytest

from syncd.core.text import one_line, redacted

SIZE = 1 << 18


@pytest.mark.timeout(30)  # each takes a moment, or, where it grows with the square of the length, many minutes
@pytest.mark.parametrize(
    "word",
    [
        "x-goog-",
        "x-goog-a%25",
        "?x-amz-a ",
        "&amp;x-goog-a-",
        "%25",
        "%2525x-goog-",
        "bearer",
        "bearer%25",
        "bearer ",
        "signature ",
        "?signature%25",
        "x-goog-a=",
        '"x-goog-a": [',
        " ",
        "\x1b",
        "\udcff",
    ],
)
def test_any_word_without_end(word: str) -> None:
    """Secrets are removed in time proportional to the text, whatever it repeats."""
    text = word * (SIZE // len(word))
    one_line(redacted(text, "the-key"))
    one_line(redacted(word + " " * SIZE, "the-key"))
