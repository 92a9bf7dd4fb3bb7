"""Whatever is done to a workspace, its daemon, the network and the sandbox: once it is quiet, both sides are equal.

Each story is random and made from a seed; some dozens are lived here, as many as asked for by `python -m tests.fuzz`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from syncd.archive.snapshotter import Snapshotter
from syncd.remote.remote_job import RemoteJob
from syncd.remote.target import Target
from syncd.sandbox import provider, remover
from syncd.sandbox.blocked_paths import BlockedPaths
from syncd.sandbox.deletions import DeletionSync
from syncd.sandbox.partial_archives import PartialArchives
from syncd.sandbox.remover import Remover
from syncd.scan import manifest
from syncd.scan.tree_cache import TreeCache
from syncd.sync import sync_cycle
from syncd.sync.sync_cycle import SyncCycle
from syncd.sync.sync_state import SyncState
from syncd.watch.changes import Changes
from syncd.watch.dirty_directories import DirtyDirectories
from tests.fuzz.scenario import Line, parsed, shortened, story, told
from tests.integration.convergence import Cloud, World, lived, report

BATCH = 16


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with Cloud(tmp_path_factory.mktemp("cloud")) as cloud:
        yield cloud


def lives(cloud: Cloud, folder: Path, text: str) -> World:
    return lived(cloud, folder / f"story{cloud.used}", parsed(text), Counter())


@pytest.mark.parametrize("first", range(0, 5 * BATCH, BATCH))
def test_nothing_is_lost(cloud: Cloud, tmp_path: Path, first: int) -> None:
    """Stories of some 40 lines each, under any configuration: changes, faults, kills, at any instant of a sync."""
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
    assert figures["programs"] > BATCH / 2
    assert figures["in part"] > BATCH / 8
    assert figures["acquired"] > BATCH / 8
    assert figures["done there"] > BATCH / 4


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
    "a small archive that held everything was to prove that small ones will do": """
        settings('keep', 'changes', 0, 0, 1.0, False)
        forgetful()
        write('f', 8, 1)
        rest()
        write('f', 8, 2)
        rest()
        write('g', 8, 3)
    """,
    "a name that is no UTF-8 was missing after a small archive": """
        settings('keep', 'changes', 0, 0, 1.0, False)
        forgetful()
        write('f', 8, 1)
        write('\\udcff', 300, 2)
        rest()
        write('f', 8, 3)
    """,
    "small archives were believed where the sandbox gave no dump": """
        settings('keep', 'changes', 0, 0, 1.0, False)
        forgetful()
        write('f', 8, 1)
        write('g', 8, 2)
        rest()
        fault('dump: 404')
        write('f', 8, 3)
    """,
    "a file is written by a second name that is ignored, and that is gone then": """
        rules('.gitignore', '/a/c\\n')
        write('a/c/e/first', 8, 0)
        hard('a/c/e/first', 'a/second')
        rest()
        append('a/c/e/first', 8, 34)
        remove('a/c/e')
    """,
    "what was in the way of a file is gone in vain, as the agent has a file beside it": """
        write('a/g/deep/f', 8, 0)
        rest()
        agent_writes('a/g/agents', 10)
        morph('a/g', 'file')
        rest()
        morph('a/g', 'folder')
    """,
    "the workspace is moved away while the rules around it are looked for": """
        deaf()
        @9 away()
        rest()
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
    # As if the file were open still: that it was closed would have it read, whatever its stamp says.
    patch.setattr(Snapshotter, "forget_stamps", lambda self, baseline, paths: None)


def _pass_over_an_overflow(patch: pytest.MonkeyPatch) -> None:
    add = DirtyDirectories.add
    patch.setattr(DirtyDirectories, "add", lambda self, changes: add(self, Changes(changes.dirty)))


def _make_nothing_of_silence(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SyncState, "mark_uncertain", lambda self: None)


def _know_no_second_names(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TreeCache, "with_shared_files", lambda self: [])


def _remove_what_the_agent_changed(patch: pytest.MonkeyPatch) -> None:
    real = remover._job

    def job(*args: Any) -> RemoteJob:
        made = real(*args)
        program = made.files["main.py"].replace(b'return "changed"', b"pass")
        return RemoteJob(made.name, made.purpose, {**made.files, "main.py": program})

    patch.setattr(remover, "_job", job)


def _forget_what_may_run_late(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Remover, "settle_pending", lambda self, _: self._forget())


def _remember_only_the_last_manifest(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SyncState, "possibly_applied", lambda self, target: {})


def _remove_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(DeletionSync, "paths_to_delete", lambda self, *_: {})


def _reset_for_any_reason(patch: pytest.MonkeyPatch) -> None:
    real = DeletionSync.remove
    patch.setattr(DeletionSync, "remove", lambda self, paths, wanted: real(self, paths or {"any": []}, wanted))


def _send_a_part_after_a_reset(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SyncCycle, "_partial_is_enough", lambda self, _, manifest: bool(manifest and self.baseline))


def _ask_for_no_proof(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PartialArchives, "proved", lambda self, _: True)


def _take_one_sandbox_for_another(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Target, "same_sandbox", lambda self, other: True)


def _acquire_without_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(provider, "acquire_wait_s", lambda *_: 0.0)


def _stay_until_the_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(provider, "should_be_replaced", lambda *_: False)
    patch.setattr(sync_cycle, "replace_in_s", lambda *_: None)


def _reset_for_a_new_rule(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(DeletionSync, "_without_exclusions", lambda self, found, wanted: found)


def _pass_over_names_that_are_gone(patch: pytest.MonkeyPatch) -> None:
    add = DirtyDirectories.add
    patch.setattr(DirtyDirectories, "add", lambda self, changes: add(self, replace(changes, unlinked=frozenset())))


def _let_one_path_stop_the_others(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(BlockedPaths, "find", lambda *_: False)


def _call_a_free_place_taken(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(BlockedPaths, "_blocked_of", lambda self, _: {"b": "d"})


_MIRROR, _RESET, _CHANGES = (
    f"settings({deletions!r}, {archive!r}, 0, 0, 1.0, False)\n write('f', 8, 1)\n write('a/g', 8, 2)\n rest()\n"
    for deletions, archive in (("mirror", "full"), ("reset", "changes"), ("keep", "changes"))
)
_ACQUIRE = "settings('keep', 'full', 600, 0, 1.0, False)\n write('f', 8, 1)\n write('a/g', 8, 2)\n rest()\n"
PLANTED = {
    _remove_what_the_agent_changed: _MIRROR + "agent_writes('a/g', 3)\n remove('a/g')\n rest()",
    _forget_what_may_run_late: _MIRROR
    + "fault('execute: reset')\n remove('f')\n failing()\n kill()\n write('f', 8, 1)\n rest()",
    _remember_only_the_last_manifest: _MIRROR
    + "fault('initialize: lost')\n write('b', 8, 1)\n failing()\n kill()\n remove('b')\n rest()",
    _remove_nothing: _MIRROR + "remove('a')\n rest()",
    _reset_for_any_reason: _RESET + "write('f', 8, 3)\n rest()",
    _reset_for_a_new_rule: _RESET + "rules('.gitignore', 'f\\n')\n rest()",
    _pass_over_names_that_are_gone: "write('f', 8, 1)\n write('a/f', 8, 2)\n rest()\n"
    "rotate('a/f', 'a/g')\n rest()\n write_on('a/f', 3)\n rest()",
    _let_one_path_stop_the_others: _MIRROR + "agent_writes('b/f', 3)\n write('b', 8, 4)\n write('f', 8, 5)\n rest()",
    _call_a_free_place_taken: _MIRROR
    + "agent_writes('b/f', 3)\n write('b', 8, 4)\n rest()\n agent_removes('b')\n write('b', 8, 5)\n rest()",
    _send_a_part_after_a_reset: _RESET + "write('f', 8, 3)\n rest()\n remove('f')\n rest()",
    _ask_for_no_proof: "forgetful()\n" + _CHANGES + "write('f', 8, 3)\n rest()",
    _take_one_sandbox_for_another: _ACQUIRE + "tick(650)\n rest()",
    _acquire_without_end: _ACQUIRE
    + "\n".join(f"sandbox_ends()\n write('f', 8, {text})\n rest()" for text in (3, 4, 5)),
    _stay_until_the_end: _ACQUIRE + "tick(650)\n rest()",
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
    assert lives(cloud, tmp_path, PLANTED[plant]).lost


def test_a_story_can_be_lived_again() -> None:
    """From its seed and from its text, whatever names are in it."""
    for seed in range(50):
        assert parsed(told(story(seed))) == story(seed) != story(seed + 1)


def test_a_story_is_shortened() -> None:
    """To the lines without which it does not fail."""
    whole = [Line("write", (str(number),)) for number in range(40)]
    needed = [whole[3], whole[20], whole[39]]
    assert shortened(whole, lambda part: all(line in part for line in needed), lambda: True) == needed
