"""Each error and warning says what happened and what to do, in the same form."""

from __future__ import annotations

import re

import pytest

from tools.reference.errors import subject_of
from tools.reference.messages import WARNING, Message, messages

_USAGE, _PERSON = "2", "78"


def _at(found: list[Message]) -> list[str]:
    return [f"{each.path}:{each.line}: {each.what} | {each.remedy}" for each in found]


def test_they_are_found() -> None:
    """Those that a user meets first are there, with their remedies, and what a helper function is told."""
    found = {each.what: each.remedy for each in messages()}
    remedy = "tools/reference/messages.py: find the calls of syncd/core/errors.py again, or name the new words here"
    assert found["no configuration file at <path>"] == "run `syncd init`, or name one with --config", remedy
    assert found["the workspace '<path>' was replaced by a link"].startswith("bring it back"), remedy
    assert len(found) > 150, remedy
    assert {subject_of(each) for each in messages()} >= {"", "The watch"}, remedy  # each is in a list, or in none


def test_a_person_is_told_what_to_do() -> None:
    """What waits for a person, and each warning, has a remedy."""
    needed = [each for each in messages() if each.ends in (_PERSON, WARNING) and "remedy>" not in each.remedy]
    bare = [each for each in needed if not re.search("[a-z]{2}", re.sub("<.*?>", "", each.remedy))]
    assert _at(bare) == [], "say there what to do: the command, the key or the file to change"


def test_a_remedy_is_no_sentence() -> None:
    """A message and its remedy begin in lower case and have no period: they are joined to one line by a colon."""
    joined = [each for each in messages() if each.ends != _USAGE]
    for part in ("what", "remedy"):
        wrong = [each for each in joined if re.search(r"^[A-Z](?!PI\b)|(?<!…)\.$|\s$", getattr(each, part))]
        assert _at(wrong) == [], f"begin {part} in lower case there, and end it without a period"


def test_a_remedy_has_no_colon() -> None:
    """The last colon divides the message from the remedy, so that `status` can show them on lines of their own."""
    assert _at([each for each in messages() if ": " in each.remedy]) == [], "write the remedy without a colon there"


def test_wrong_usage_is_a_sentence() -> None:
    """An error of usage begins with an option, a value or a capital letter and ends with a period, as click's own."""
    usage = [each for each in messages() if each.ends == _USAGE]
    odd = [each for each in usage if not re.fullmatch(r"(--|['<A-Z]).*\.", each.what)]
    assert _at(odd) == [], "write a sentence there: an option, a value or a capital letter first, a period last"


def test_a_reason_is_in_parentheses() -> None:
    """What the system or a server gave as the reason is in parentheses: after a colon it would look like a remedy."""
    after_colon = [each for each in messages() if re.search(r": '?<(reason|message|said)>", each.what)]
    assert _at(after_colon) == [], "put the reason into parentheses there"
    without = [each for each in messages() if not each.remedy and ": " in each.what]
    assert _at(without) == [], "put what stands after the colon into parentheses there, or make it the remedy"


@pytest.mark.parametrize("words", [("make room", "free some disk space"), ("sign-in?", "sign in")])
def test_one_thing_has_one_name(words: tuple[str, str]) -> None:
    """The same remedy has the same words: the second, not the first."""
    assert _at([each for each in messages() if words[0] in each.remedy]) == [], f"write {words[1]!r} there"
    assert any(words[1] in each.remedy for each in messages()), "no message has these words: take them from this list"
