"""Chooses the kind of scenario that a seed has."""

from __future__ import annotations

from random import Random

from tests.fuzz.configured_generator import ConfiguredGenerator
from tests.fuzz.generator import Generator
from tests.fuzz.lasting import with_lasting_fault
from tests.fuzz.repository_generator import RepositoryGenerator
from tests.fuzz.scenario import Scenario, Step
from tests.fuzz.way_home_generator import WayHomeGenerator

# Of so many seeds one after the other, the second half has commands of the agent's side.
_OF = 8
# Of these again, so many of the last ones have a repository.
_WITH_REPOSITORY = 2
# Of so many others, one has the default configuration and no agent in the sandbox.
_DEFAULT_OF = 4
# Of so many, one follows the agent, after each step with this chance.
_FOLLOWING_OF, _FOLLOW_SHARE = 2, 0.3
# Of so many, one has a fault that never heals.
_LASTING_OF = 16


def generate(seed: int) -> Scenario:
    """Generate a scenario of some 15 to 60 steps."""
    scenario, random = _generate(seed), Random(f"lasting {seed}")
    scenario = _following(scenario, Random(f"follow {seed}"))
    return with_lasting_fault(scenario, random) if random.randrange(_LASTING_OF) == 0 else scenario


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


def _generate(seed: int) -> Scenario:
    if seed % _OF >= _OF - _WITH_REPOSITORY:
        return RepositoryGenerator(seed).scenario()
    return WayHomeGenerator(seed).scenario() if seed % _OF >= _OF // 2 else generate_syncs(seed)


def generate_syncs(seed: int) -> Scenario:
    """Generate a scenario without commands of the agent's side."""
    return Generator(seed).scenario() if seed % _DEFAULT_OF == 0 else ConfiguredGenerator(seed).scenario()
