"""Foreign text for logs and messages: no secret, one line, no control characters."""

from __future__ import annotations

import pytest

from syncd.core.errors import SyncWarning
from syncd.core.text import few, for_sandbox, one_line, redacted, shown_path, size

SECRET = "5ECRET"


@pytest.mark.parametrize(
    "text",
    [
        f"PUT https://h/o?X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Expires=1800&X-Goog-Signature={SECRET}",
        f"https://h/o?x-goog-signature={SECRET}&x-goog-credential=me",
        f"https://h/o?a=b&X-GOOG-SIGNATURE={SECRET} was refused",
        f"https%3A%2F%2Fh%2Fo%3FX-Goog-Expires%3D1%26X-Goog-Signature%3D{SECRET}",
        f"https%253A%252F%252Fh%253FX-Goog-Signature%253D{SECRET}",
        f"<a href='https://h/o?X-Goog-Expires=1&amp;X-Goog-Signature={SECRET}'>",
        f"{{'X-Goog-Signature': '{SECRET}'}}",
        f'{{"X-Goog-Signature":["{SECRET}"]}}',
        f"X-Goog-Security-Token={SECRET}",
        f"X-Amz-Security-Token={SECRET}",
        f"x-goog-signature:{SECRET}",
        f"https://h/o?GoogleAccessId=a&Expires=1&Signature={SECRET}",
        f"Authorization: Bearer {SECRET}",
        f"authorization=bearer%20{SECRET}",
        f"b'Bearer {SECRET}'",
        f"Bearer\n {SECRET}",
    ],
)
def test_url_signatures_are_removed(text: str) -> None:
    """Signed queries in any form and bearer tokens are removed, whatever wrote them."""
    assert SECRET not in redacted(text)


@pytest.mark.parametrize(
    "text", ["the key sk-5+E/T= is wrong", "key=sk-5%2BE%2FT%3D", r'{"key": "sk-5+E\/T="}', "sk-5+E/T=sk-5+E/T="]
)
def test_the_key_is_removed(text: str) -> None:
    """The key is removed, also where it is quoted for a URL or for JSON."""
    cleaned = redacted(text, "sk-5+E/T=")
    assert "[key]" in cleaned
    assert "sk-5" not in cleaned


@pytest.mark.parametrize(
    "text",
    [
        "Klavis' storage answered the upload with 400 ExpiredToken",
        "https://h/o?region=us",
        "signature verification is on",
        "src/goog-expires.py",
        "a designature=7 stays",
    ],
)
def test_ordinary_text_is_unchanged(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nb\r\n  c\t", "a b c"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\u202eabc", "\\u202eabc"),
        ("n\udcffme", "n\\udcffme"),
        ("Büro", "Büro"),
        ("", ""),
        ("abcdef", "abcd…"),
    ],
)
def test_one_line(text: str, expected: str) -> None:
    """The result is one line, bounded, printable, and can be encoded."""
    assert one_line(text, 5 if text == "abcdef" else 300) == expected
    one_line(text).encode("utf-8")
    assert (one_line("x" * 300), one_line("x" * 301)) == ("x" * 300, "x" * 299 + "…")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a b/ü.py", "a b/ü.py"),
        ("a\nbü", "a\\nbü"),
        ("n\udcffme", "n\\xffme"),
        ("\udc80\udc7f\udd00", "\\x80\\udc7f\\udd00"),
        ("\x1b]0;x", "\\x1b]0;x"),
    ],
)
def test_shown_path(path: str, expected: str) -> None:
    """Only bytes that a terminal must not get are escaped."""
    assert shown_path(path) == expected


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [
        (1, "1 byte"),
        (9_999, "9,999 bytes"),
        (10_000, "10 KiB"),
        ((10 << 20) - 1, "10,240 KiB"),
        (10 << 20, "10.0 MiB"),
        ((10 << 30) - 1, "10,240.0 MiB"),
        (10 << 30, "10 GiB"),
    ],
)
def test_size(size_bytes: int, shown: str) -> None:
    """In the unit that needs few digits."""
    assert size(size_bytes) == shown


def test_the_first_of_many_names() -> None:
    """Five, and how many more there are, and where."""
    assert few("abcde", 5) == [*"abcde"]
    assert few("abcdef", 1_205, "; see `syncd ls`") == [*"abcde", "and 1,200 more; see `syncd ls`"]


def test_commands_for_one_of_several_sandboxes() -> None:
    """Those that mean one get its name; an undo is of the last one, whichever that was."""
    text = (
        "`syncd diff` shows it, `syncd apply --undo` takes it back, `syncd status` too: `syncd push --force`, `x diff`"
    )
    assert for_sandbox(text, "blue") == (
        "`syncd diff --sandbox blue` shows it, `syncd apply --undo` takes it back, `syncd status` too: "
        "`syncd push --sandbox blue --force`, `x diff`"
    )


def test_what_stands_in_the_place_of_a_secret() -> None:
    """Nothing, or what it was."""
    assert redacted(f"a b/c+d sk-{'X' * 4}", "b/c+d") == f"a [key] sk-{'X' * 4}"
    assert redacted("Authorization: Bearer abc.def") == "Authorization: Bearer [key]"
    assert redacted("https://h/o?X-Goog-Date=1&X-Goog-Signature=ab is over") == "https://h/o is over"
    assert redacted("X" * 4) == "X" * 4


def test_a_warning_without_a_remedy() -> None:
    """Some can only be known."""
    assert str(SyncWarning("key", "it is so", "")) == "it is so"


# -- text without end


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
