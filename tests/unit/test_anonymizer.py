"""Foreign text in a report: syncd's own words, numbers and times stay, all else becomes a pseudonym."""

from __future__ import annotations

import pytest

from syncd.cli.check.anonymizer import Anonymizer, words_and_phrases

_OWN = [
    "the link leads outside and stays home; cannot be read: raise fs.inotify.max_user_watches now, syncd's status",
    "run `syncd push --force` or see ~/.config/syncd/config.toml; upload exited code secret plan",
]


def _anonymized(private: dict[str, str] | None = None) -> Anonymizer:
    return Anonymizer(*words_and_phrases(_OWN), private or {})


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("the link 'zebra/plan' leads outside", "the link <path-1> leads outside"),
        ("cannot be read: 12,345 and 7.5 KiB (37%), 5s", "cannot be read: 12,345 and 7.5 <name-1> (37%), 5s"),
        ("at 2026-11-24T13:20:11Z", "<name-1> 2026-11-24T13:20:11Z"),
        ("zebra zebra lion", "<name-1> <name-1> <name-2>"),
        ("run `syncd push --force`", "run `syncd push --force`"),
        ("raise fs.inotify.max_user_watches", "raise fs.inotify.max_user_watches"),
        ("see ~/.config/syncd/config.toml, now", "see ~/.config/syncd/config.toml, now"),
        ("see /srv/zebra.", "see <path-1>."),
        ("code=exited upload=zebra zebra=7", "code=exited upload=<name-1> <name-2>"),
        ("secret-plan secret_plan secret.plan", "<name-1> <name-2> <name-3>"),
        ("10.0.0.7 fe80::1 me@zebra", "<name-1> <name-2> <name-3>"),
        ("https://zebra/?X=1", "<url-1>"),
        ("'the secret plan' 'cut off: the secret pl", "<name-1> <name-2>"),
        ('"it\'s the secret plan" and', "<name-1> and"),
        ("syncd's secret", "syncd's secret"),
        (r"b'the secret' 'it\'s \' plan' now", "<name-1> <name-2> now"),
        ("4711471147114711", "<name-1>"),
        ("status \xdcbung \U0001f600 caf\xe9", "status <name-1> <name-2> <name-3>"),
        ("syncd[4242]: status", "syncd[4242]: status"),
    ],
)
def test_text(text: str, shown: str) -> None:
    """Only words of syncd's own messages stay; the same text gets the same pseudonym."""
    assert _anonymized().text(text) == shown


_BARE = "new changed gone mended first and more cannot be watched is polled chmod see plan the secret now it's"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "upload 3: 1 new (the secret), 12 changed (see (now) it's, …), 1 gone (plan)",
            "upload 3: 1 new (<name-1>), 12 changed (<name-2>, …), 1 gone (<name-3>)",
        ),
        ("mended: the secret plan", "mended: <name-1>"),
        ("3 changed, 9 more (first: the secret): see", "3 changed, 9 more (first: <name-1>): see"),
        (
            "the secret and 3 more cannot be watched and is polled",
            "<name-1> and 3 more cannot be watched and is polled",
        ),
        ("syncd[7]: plan cannot be watched and is polled", "syncd[7]: <name-1> cannot be watched and is polled"),
        ("see: chmod 600 /srv/the secret plan", "see: chmod 600 <path-1>"),
    ],
)
def test_paths_without_quotes(text: str, shown: str) -> None:
    """A path without quotes in a message is replaced as a whole, though each of its words may be shown."""
    assert Anonymizer(*words_and_phrases([*_OWN, _BARE]), {}).text(text) == shown


def test_names_that_are_not_utf8() -> None:
    """A name of other bytes is replaced like any name."""
    assert ascii(_anonymized().text("status \udcff \udcff\udcfe")) == ascii("status <name-1> <name-2>")


def test_private_names_are_replaced() -> None:
    """A private name that is one of syncd's words is replaced, also as a part of other names."""
    private = {"/home/plan": "<home>", "plan": "<user>", "Status-7": "<host>"}
    anonymizer = Anonymizer(*words_and_phrases(_OWN), private, names=["secret upload"])
    assert anonymizer.text("read the plan in /home/plan/secret") == "read the <user> in <home><path-1>".replace(
        " in ", " <name-1> "
    )
    assert anonymizer.text("see secret upload now, or upload") == "see <file> now, or upload"
    assert anonymizer.text("see '/home/plan' now") == "see <home> now"
    assert anonymizer.text("status Plan PLAN") == "<name-2> <name-3> <name-4>"
    assert anonymizer.text("on Status-7") == "<name-5> <host>"


def test_values() -> None:
    """JSON keeps its shape, numbers and booleans; field names are replaced like texts."""
    value = {"status": "zebra", "zebra": [1, 2.5, None, True, {"read": "now"}]}
    assert _anonymized().value(value) == {"status": "<name-1>", "<name-1>": [1, 2.5, None, True, {"read": "now"}]}
    assert _anonymized().value({"first_added": "plan"}) == {"<name-1>": "<name-2>"}
    deep: object = "zebra"
    for _ in range(100):
        deep = [deep]
    assert "zebra" not in str(_anonymized().value(deep))


def test_very_long_text() -> None:
    """Only the beginning of a very long line is used."""
    shown = _anonymized().text("read now " + "1 new ('" * 100_000)
    assert shown.startswith("read now 1 <name-1>")
    assert len(shown) < 20_000


def test_without_the_sources() -> None:
    """Everything is replaced if the sources cannot be read."""
    assert Anonymizer([], [], {"": "<nothing>"}).text("a b 3") == "<name-1> <name-2> 3"
