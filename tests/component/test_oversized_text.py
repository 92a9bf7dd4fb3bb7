"""Foreign text takes time in proportion to its length: a server's megabyte does not block the daemon."""

from __future__ import annotations

import pytest

from syncd.core.text import one_line, redacted

MIB = 1 << 20


@pytest.mark.timeout(30)  # each takes a fraction of a second, or, where it grows with the square of the length, an hour
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
def test_a_megabyte_of_anything(word: str) -> None:
    """Secrets are removed in time proportional to the text, whatever it repeats."""
    text = word * (MIB // len(word))
    one_line(redacted(text, "the-key"))
    one_line(redacted(word + " " * MIB, "the-key"))


def test_a_secret_is_found_at_the_end_of_a_megabyte() -> None:
    """The fast search misses nothing."""
    said = redacted("x-goog-" * (MIB // 7) + " https://h/o?X-Goog-Signature=5ECRET&X-Goog-Expires%3D1 bearer 5ECRET")
    assert "5ECRET" not in said
