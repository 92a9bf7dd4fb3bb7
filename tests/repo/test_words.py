"""The project uses the field's own words: no private names, one name a class, docstrings that begin with the thing."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from tests.repo.sources import REPO, Source, sources

# Each word with the glossary's own, from docs/architecture.md, in its place. Plurals of them count as well.
BANNED = {
    "attendant": "observer",
    "babble": "bad response",
    "chronicle": "history",
    "desk": "admin",
    "disguise": "anonymizer",
    "doomed": "to delete",
    "doubt": "uncertain, rescan reason",
    "errand": "remote job",
    "fate": "outcome",
    "herald": "notifier",
    "lease": "upload URL",
    "liaison": "agent notifier",
    "linger": "leftover",
    "lingering": "leftovers",
    "lodging": "sandbox provider",
    "mishap": "error record",
    "onlooker": "view",
    "photographer": "snapshotter",
    "premises": "sandbox services",
    "revision": "reload",
    "sentry": "guard",
    "setback": "back-off",
    "surroundings": "context",
    "tenancies": "acquired sandboxes",
    "tenancy": "acquired sandbox",
    "usher": "signal thread",
    "warmth": "keepalive",
}
# Words that are not ours to choose: a field of the status document, names that earlier versions gave to files and
# fields on disk, systemd's lingering and TCP's.
_CONTRACT = re.compile(
    r"""\blingering(?=: int|=|\.new)|(?<=\.)lingering\b|(["'`])(?:lease|lingering|tenancy)\1|(?<=\\xa7)tenancy\b"""
    r"""|\b(?:enable|disable)-linger\b|/systemd/linger\b|\bSO_LINGER\b|\.linger\(\)|\bdef linger\(|\bLINGER_S\b""",
)
_SYSTEMD = ("syncd/cli/service/*", "syncd/cli/check/service_check.py", "tests/*service*", "tests/system/machine*")
_ANY = re.compile("|".join(BANNED), re.IGNORECASE)
_LETTERS = re.compile(r"[A-Za-z]+")
# In `LeaseFile`, `fresh_lease` and `FRESH_LEASE` it is a word; in `release` it is none.
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
# How a docstring of the program may not begin.
_RIDDLES = ("What", "Whether", "How", "When", "Who", "Whoever", "Whose", "Where", "Why")
# The test itself names the words.
_SELF = Path(__file__).resolve().relative_to(REPO).as_posix()


def test_no_private_word_is_left() -> None:
    """Identifiers, docstrings, comments and texts of the program and its tests hold none of the banned words."""
    found = {
        source.path: lines
        for source in (*sources("syncd"), *sources("tests"))
        if source.path != _SELF and (lines := list(_banned(source)))
    }
    assert not found, _listed(found)


def test_no_two_classes_have_one_name() -> None:
    """A class's name says which one is meant, wherever it is read; private ones count too."""
    places: dict[str, list[str]] = defaultdict(list)
    for source in sources("syncd"):
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{source.path}:{node.lineno}")
    twice = {name: where for name, where in places.items() if len(where) > 1}
    assert not twice, _listed(twice)


def test_a_docstring_begins_with_the_thing() -> None:
    """A docstring of the program begins with what the thing does or is, not with a question word."""
    found = {source.path: lines for source in sources("syncd") if (lines := list(_riddles(source)))}
    assert not found, _listed(found)


def test_the_search_finds_each_word() -> None:
    """The check can fail: a word is found in names of each form, and no other word that holds it is."""
    wrong = (
        "lease LEASE Lease _lease lease_s fresh_lease FRESH_LEASE LeaseFile FreshLease leases, tenancies Doubt errands"
    )
    assert [word for word in wrong.split() if not list(_found(word))] == []
    right = (
        "release released Release RELEASE pleased redoubtable pusher desktop Desktop revisionist enable-linger fateful"
    )
    assert [word for word in right.split() if list(_found(word))] == []
    text = '"""Doc."""\n\n\nclass A:\n    """Whether it is."""\n\n    def f(self):\n        """What it does."""\n'
    assert [line.partition(":")[0] for line in _riddles(Source("syncd/a.py", text, ast.parse(text)))] == ["4", "7"]


def _found(text: str) -> Iterator[str]:
    """The banned words in a text."""
    if _ANY.search(text) is None:
        return
    plain = _CONTRACT.sub("", text)
    for letters in _LETTERS.findall(plain):
        for part in _PART.findall(letters):
            word = part.lower()
            if word in BANNED or word.removesuffix("s") in BANNED:
                yield word


def _banned(source: Source) -> Iterator[str]:
    systemd = any(fnmatchcase(source.path, pattern) for pattern in _SYSTEMD)
    for number, line in enumerate([source.path, *source.text.splitlines()]):
        for word in _found(line):
            if not (systemd and word.startswith("linger")):
                yield f"{number}: {word} ({BANNED[word if word in BANNED else word[:-1]]}): {line.strip()[:90]}"


def _riddles(source: Source) -> Iterator[str]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(source.tree):
        if isinstance(node, documented):
            first = (ast.get_docstring(node) or "").lstrip("`*_ ")
            if first and re.split(r"\W", first, maxsplit=1)[0] in _RIDDLES:
                yield f"{getattr(node, 'lineno', 1)}: {first.splitlines()[0][:100]}"


def _listed(found: dict[str, list[str]]) -> str:
    """Everything that is wrong, by file."""
    return "\n" + "\n".join(f"{path}\n" + "\n".join(f"    {line}" for line in found[path]) for path in sorted(found))
