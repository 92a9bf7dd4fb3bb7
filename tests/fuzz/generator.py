"""Generates the scenario of a seed, of one of four kinds, by the rules of `tests.fuzz.grammar`."""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Iterator, Mapping
from functools import cache
from random import Random
from typing import Any

from tests.fuzz.grammar import CONFIGURED, DEFAULT, NAMES, REPOSITORY, RULES, SCOPES, SETTINGS, SWARM, WAY_HOME
from tests.fuzz.lasting import with_lasting_fault
from tests.fuzz.scenario import Scenario, Step, parse

# Of eight seeds one after the other, the second half has commands of the agent's side.
_KINDS = (DEFAULT, *(CONFIGURED,) * 3, *(WAY_HOME,) * 2, *(REPOSITORY,) * 2)
# Of so many, one follows the agent, after each step with this chance.
_FOLLOWING_OF, _FOLLOW_SHARE = 2, 0.3
# Of so many, one has a fault that never heals.
_LASTING_OF = 16
_WEIGHT = re.compile(r"\s*(\d+)([x%]) ")

# An alternative: how often it is drawn, and its parts. A part is a text, the alternatives of a pair of braces, or both
# for one that has a rule's name only.
Alternative = tuple[int, list[Any]]


def generate(seed: int) -> Scenario:
    """Generate a scenario of some 15 to 60 steps."""
    scenario, random = drawn(_KINDS[seed % len(_KINDS)], seed), Random(f"lasting {seed}")
    scenario = _following(scenario, Random(f"follow {seed}"))
    if random.randrange(_LASTING_OF) == 0:
        scenario = with_lasting_fault(scenario, random)
    # No sandbox begins to drop what it has proved to keep.
    return sorted(scenario, key=lambda step: step.name != "wipe_sandboxes")


def drawn(kind: Mapping[str, str], seed: int, text: int = 0) -> Scenario:
    """Draw a story of this kind. The contents in it have numbers after `text`."""
    return parse(_Story(kind, seed, text).rule("story"))


def _following(scenario: Scenario, random: Random) -> Scenario:
    """Return the scenario with looks that follow the agent, in a story that follows it."""
    if random.randrange(_FOLLOWING_OF):
        return scenario
    followed: Scenario = []
    for step in scenario:
        followed.append(step)
        if random.random() < _FOLLOW_SHARE:
            followed.append(Step("follow", at=random.choice((None, random.randrange(100)))))
    return followed


class _Story:
    """What one story has drawn so far."""

    def __init__(self, kind: Mapping[str, str], seed: int, text: int) -> None:
        self._random = Random(seed)
        self._swarm = Random(f"swarm {seed}")
        self._left: dict[str, list[Alternative]] = {}
        self._text = text
        self._settings: dict[str, str] = {}
        # What was given once and is given again comes before the rules.
        self._rules = ChainMap({}, self._settings, {**RULES, **kind})

    def rule(self, name: str) -> str:
        """Return what the rule of that name gives."""
        match name:
            case "text":
                self._text += 1
                return str(self._text)
            case "at" | "point":
                return str(int(2 ** self._random.uniform(0, 7 if name == "point" else 8)))
            case "other settings":
                self._settings.pop(self._random.choice(SETTINGS), None)
                return self.rule("settings")
        outer, alternatives = self._rules, _alternatives(self._rules[name])
        if name in SCOPES:
            self._rules = ChainMap({}, *outer.maps[1:])
        if name in SWARM:
            first, *others = alternatives
            alternatives = self._left.setdefault(name, [first, *self._swarm.sample(others, len(others) // 2)])
        text, self._rules = self._drawn(alternatives), outer
        text = text.strip() if "\n" in text else text  # of a rule that has several lines; " " is a name
        if name in NAMES:
            self._rules.maps[0][name] = text
        elif name in SETTINGS:
            self._settings[name] = text
        return text

    def _drawn(self, alternatives: list[Alternative]) -> str:
        """Return one of them, with the names in it replaced."""
        ((_, parts),) = self._random.choices(alternatives, [weight for weight, _ in alternatives])
        return "".join(part if isinstance(part, str) else self._replaced(part) for part in parts)

    def _replaced(self, braces: list[Alternative]) -> str:
        match braces:
            case [(1, [str(name)])]:
                return self.rule(name)
        return self._drawn(braces)


@cache
def _alternatives(text: str) -> list[Alternative]:
    """Return the alternatives of a rule."""
    return list(_parsed(iter(re.split(r"([{|}])", text))))


def _parsed(tokens: Iterator[str]) -> list[Alternative]:
    """Return the alternatives up to the end of the braces."""
    found: list[list[Any]] = [[]]
    for token in tokens:
        match token:
            case "{":
                found[-1].append(_parsed(tokens))
            case "|":
                found.append([])
            case "}":
                break
            case _ if token:
                found[-1].append(token)
    alternatives: list[Alternative] = []
    left = 0
    for parts in found:
        weight = _WEIGHT.match(parts[0]) if parts and isinstance(parts[0], str) else None
        if weight is None:
            alternatives.append((1, parts))
        else:
            left = 100 if weight[2] == "%" else 0
            alternatives.append((int(weight[1]), [parts[0][weight.end() :], *parts[1:]]))
    left -= sum(weight for weight, _ in alternatives)
    return [*alternatives, (left, [])] if left > 0 else alternatives
