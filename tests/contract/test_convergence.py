"""Whatever is done to a workspace, its daemon, the network and the sandbox: once it is quiet, both sides are equal.

Each story is random and made from a seed; a few hundred are lived here, as many as asked for by `python -m tests.fuzz`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from convergence import Cloud, World, lived, report
from fuzz.story import Line, parsed, shortened, story, told

from syncd.effects.hints import Hints
from syncd.effects.journal import Journal
from syncd.effects.listing import Tree
from syncd.policy import manifest
from syncd.process.suspicion import Suspicion

BATCH = 30


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with Cloud(tmp_path_factory.mktemp("cloud")) as cloud:
        yield cloud


def lives(cloud: Cloud, folder: Path, text: str) -> World:
    return lived(cloud, folder / f"story{cloud.used}", parsed(text), Counter())


@pytest.mark.parametrize("first", range(0, 5 * BATCH, BATCH))
def test_nothing_is_lost(cloud: Cloud, tmp_path: Path, first: int) -> None:
    """Stories of some 40 lines each: changes, faults, kills, stops, harms, at any instant of a sync."""
    figures: Counter[str] = Counter()
    for seed in range(first, first + BATCH):
        world = lived(cloud, tmp_path / str(seed), story(seed), figures)
        if world.lost:
            pytest.fail(report(cloud, tmp_path, seed, world), pytrace=False)
    # What a story is worth shows in what happened in it.
    assert figures["looks at some"] > BATCH
    assert figures["failed syncs"] > BATCH / 4
    assert figures["kills"] > BATCH / 4
    assert figures["deeds"] > 4 * BATCH


# Each was lost once: by a version of syncd that was, or by one with a fault put in on purpose.
LOST_ONCE = {
    "a change is taken back after an initialize that was done but not answered": """
        write('f', 8, 1)
        rest()
        fault('initialize: lost')
        write('f', 8, 2)
        failing()
        write('f', 8, 1)
    """,
    "the same, with another process": """
        write('f', 8, 1)
        rest()
        fault('initialize: 500 after')
        write('f', 8, 2)
        failing()
        kill()
        revert('f')
    """,
}


@pytest.mark.parametrize("text", LOST_ONCE.values(), ids=LOST_ONCE)
def test_what_was_lost_once(cloud: Cloud, tmp_path: Path, text: str) -> None:
    """The shortest stories that ended badly."""
    assert not lives(cloud, tmp_path, text).lost


@pytest.mark.parametrize("before", ["mkdir('a/c')", "write('a/c/hushed1', 8, 1)"])
def test_a_rule_holds_for_what_is_written_after_it(cloud: Cloud, tmp_path: Path, before: str) -> None:
    """At whichever instant of a sync a rule and then its file are written: the file does not leave."""
    for instant in range(6, 28):
        text = f"write('f', 8, 1)\n mkdir('a')\n {before}\n @{instant} hush('a/c', 1)\n order()\n rest()"
        assert not lives(cloud, tmp_path, text).lost, instant


def _believe_the_young(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(manifest, "YOUNG_NS", -(10**20))


def _pass_over_an_overflow(patch: pytest.MonkeyPatch) -> None:
    heard = Suspicion.heard
    patch.setattr(Suspicion, "heard", lambda self, hints: heard(self, Hints(hints.dirty)))


def _make_nothing_of_silence(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Journal, "doubt", lambda self: None)


def _know_no_second_names(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Tree, "with_shared_files", lambda self: [])


PLANTED = {
    _believe_the_young: "stamps('coarse')\n write('f', 8, 1)\n rest()\n forge('f', 2)\n rest()",
    _pass_over_an_overflow: "write('f', 8, 1)\n rest()\n overflow()\n write('a/g', 8, 2)\n rest()",
    _make_nothing_of_silence: next(iter(LOST_ONCE.values())),
    _know_no_second_names: "write('a/f', 8, 1)\n hard('a/f', 'b/g')\n rest()\n append('a/f', 8, 2)\n rest()",
}


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__.strip("_"))
def test_a_fault_would_be_noticed(
    cloud: Cloud, tmp_path: Path, plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version of syncd with a fault put in loses something; without it the same story ends well."""
    assert not lives(cloud, tmp_path, PLANTED[plant]).lost
    plant(monkeypatch)
    # More than once, as two writes fall into two grains of a file system's time now and then.
    assert any(lives(cloud, tmp_path, PLANTED[plant]).lost for _ in range(3))


def test_a_story_can_be_lived_again() -> None:
    """From its seed and from its text, whatever names are in it."""
    for seed in range(50):
        assert parsed(told(story(seed))) == story(seed) != story(seed + 1)


def test_a_story_is_shortened() -> None:
    """To the lines without which it does not fail."""
    whole = [Line("write", (str(number),)) for number in range(40)]
    needed = [whole[3], whole[20], whole[39]]
    assert shortened(whole, lambda part: all(line in part for line in needed), lambda: True) == needed
