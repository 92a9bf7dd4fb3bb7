"""Random scenarios of changes, faults, kills and damage end with the sandbox equal to the workspace.

Some dozens run here; `python -m tests.fuzz` runs as many as asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from syncd.sandbox.remover import Remover

from syncd.archive.snapshotter import Snapshotter
from syncd.remote.remote_job import RemoteJob
from syncd.remote.target import Target
from syncd.sandbox import provider, remover
from syncd.sandbox.blocked_paths import BlockedPaths
from syncd.sandbox.deletions import DeletionSync
from syncd.sandbox.partial_archives import PartialArchives
from syncd.scan import manifest
from syncd.scan.tree_cache import TreeCache
from syncd.sync import sync_cycle
from syncd.sync.sync_cycle import SyncCycle
from syncd.sync.sync_state import SyncState
from syncd.watch.changes import Changes
from syncd.watch.dirty_directories import DirtyDirectories
from tests.fuzz.runner import SharedEmulator, report, run
from tests.fuzz.scenario import Step, generate, parse, render, shrink
from tests.fuzz.simulation import Simulation

BATCH = 16


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedEmulator]:
    with SharedEmulator(tmp_path_factory.mktemp("emulator")) as shared:
        yield shared


def run_text(shared: SharedEmulator, folder: Path, text: str) -> Simulation:
    return run(shared, folder / f"scenario{shared.used}", parse(text), Counter())


@pytest.mark.parametrize("first", range(0, 5 * BATCH, BATCH))
def test_random_scenarios_lose_nothing(shared: SharedEmulator, tmp_path: Path, first: int) -> None:
    """Scenarios of some 40 steps, under any configuration: changes, faults and kills at any moment of a sync."""
    figures: Counter[str] = Counter()
    for seed in range(first, first + BATCH):
        simulation = run(shared, tmp_path / str(seed), generate(seed), figures)
        if simulation.lost:
            pytest.fail(report(shared, tmp_path, seed, simulation), pytrace=False)
    # Scenarios in which little happens test little.
    assert figures["partial scans"] > BATCH
    assert figures["failed syncs"] > BATCH / 4
    assert figures["kills"] > BATCH / 4
    assert figures["operations"] > 4 * BATCH
    assert figures["executions"] > BATCH / 2
    assert figures["partial archives"] > BATCH / 8
    assert figures["acquired"] > BATCH / 8
    assert figures["sandbox changes"] > BATCH / 4


# Each lost something once, in an earlier version of syncd or in one with a fault planted.
LOST_ONCE = {
    "a change is reverted after an initialize without an answer": """
        write('f', 8, 1)
        wait_idle()
        fault('initialize: lost')
        write('f', 8, 2)
        wait_failing()
        write('f', 8, 1)
    """,
    "a change is reverted by the next process after an initialize without an answer": """
        write('f', 8, 1)
        wait_idle()
        fault('initialize: 500 after')
        write('f', 8, 2)
        wait_failing()
        kill()
        revert('f')
    """,
    "a partial archive that held everything counted as the proof for partial archives": """
        settings('keep', 'changes', 0, 0, 1.0, False)
        wipe_sandboxes()
        write('f', 8, 1)
        wait_idle()
        write('f', 8, 2)
        wait_idle()
        write('g', 8, 3)
    """,
    "a name that is not UTF-8 was missing after a partial archive": """
        settings('keep', 'changes', 0, 0, 1.0, False)
        wipe_sandboxes()
        write('f', 8, 1)
        write('\\udcff', 300, 2)
        wait_idle()
        write('f', 8, 3)
    """,
    "partial archives were trusted where the sandbox gave no dump": """
        settings('keep', 'changes', 0, 0, 1.0, False)
        wipe_sandboxes()
        write('f', 8, 1)
        write('g', 8, 2)
        wait_idle()
        fault('dump: 404')
        write('f', 8, 3)
    """,
    "a file is written by an ignored hard link that is then removed": """
        write_rules('.gitignore', '/a/c\\n')
        write('a/c/e/first', 8, 0)
        hard_link('a/c/e/first', 'a/second')
        wait_idle()
        append('a/c/e/first', 8, 34)
        remove('a/c/e')
    """,
    "files were removed to make place for one that a file of the agent blocks": """
        write('a/g/deep/f', 8, 0)
        wait_idle()
        agent_writes('a/g/agents', 10)
        change_kind('a/g', 'file')
        wait_idle()
        change_kind('a/g', 'folder')
    """,
    "the workspace is moved away while the ignore files above it are read": """
        watch_fails()
        @9 move_workspace_away()
        wait_idle()
    """,
}


@pytest.mark.parametrize("text", LOST_ONCE.values(), ids=LOST_ONCE)
def test_scenarios_that_failed_once_lose_nothing(shared: SharedEmulator, tmp_path: Path, text: str) -> None:
    """The shortest scenarios that found a defect pass."""
    assert not run_text(shared, tmp_path, text).lost


@pytest.mark.parametrize("before", ["mkdir('a/c')", "write('a/c/ignored1', 8, 1)"])
def test_a_file_ignored_before_it_is_written_is_not_uploaded(
    shared: SharedEmulator, tmp_path: Path, before: str
) -> None:
    """A rule and then its file are written at any injection point of a sync: the file is not uploaded."""
    for point in range(6, 28):
        change = f"@{point} write_ignored('a/c', 1)"
        text = f"write('f', 8, 1)\n mkdir('a')\n {before}\n {change}\n request_sync()\n wait_idle()"
        assert not run_text(shared, tmp_path, text).lost, point


def _trust_young_stamps(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(manifest, "YOUNG_NS", -(10**20))
    # A close event would have the file read again, whatever its stamp says.
    patch.setattr(Snapshotter, "forget_stamps", lambda self, baseline, paths: None)


def _ignore_overflows(patch: pytest.MonkeyPatch) -> None:
    add = DirtyDirectories.add
    patch.setattr(DirtyDirectories, "add", lambda self, changes: add(self, Changes(changes.dirty)))


def _ignore_missing_answers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SyncState, "mark_uncertain", lambda self: None)


def _ignore_hard_links(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TreeCache, "with_shared_files", lambda self: [])


def _remove_changed_agent_files(patch: pytest.MonkeyPatch) -> None:
    real = remover._job

    def job(*args: Any) -> RemoteJob:
        made = real(*args)
        program = made.files["main.py"].replace(b'return "changed"', b"pass")
        return RemoteJob(made.name, made.purpose, {**made.files, "main.py": program})

    patch.setattr(remover, "_job", job)


def _forget_late_executions(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Remover, "settle_pending", lambda self, _: self._forget())


def _record_only_the_last_manifest(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SyncState, "possibly_applied", lambda self, target: {})


def _delete_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(DeletionSync, "paths_to_delete", lambda self, *_: {})


def _reset_without_deletions(patch: pytest.MonkeyPatch) -> None:
    real = DeletionSync.remove
    patch.setattr(DeletionSync, "remove", lambda self, paths, wanted: real(self, paths or {"any": []}, wanted))


def _send_a_partial_archive_after_a_reset(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SyncCycle, "_partial_is_enough", lambda self, _, manifest: bool(manifest and self.baseline))


def _skip_the_proof_for_partial_archives(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PartialArchives, "proved", lambda self, _: True)


def _confuse_sandboxes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Target, "same_sandbox", lambda self, other: True)


def _acquire_without_limit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(provider, "acquire_wait_s", lambda *_: 0.0)


def _ignore_expiry(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(provider, "should_be_replaced", lambda *_: False)
    patch.setattr(sync_cycle, "replace_in_s", lambda *_: None)


def _reset_for_a_new_rule(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(DeletionSync, "_without_exclusions", lambda self, found, wanted: found)


def _ignore_unlinked_names(patch: pytest.MonkeyPatch) -> None:
    add = DirtyDirectories.add
    patch.setattr(DirtyDirectories, "add", lambda self, changes: add(self, replace(changes, unlinked=frozenset())))


def _ignore_blocked_paths(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(BlockedPaths, "find", lambda *_: False)


def _block_free_paths(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(BlockedPaths, "_blocked_of", lambda self, _: {"b": "d"})


_MIRROR, _RESET, _CHANGES = (
    f"settings({deletions!r}, {archive!r}, 0, 0, 1.0, False)\n write('f', 8, 1)\n write('a/g', 8, 2)\n wait_idle()\n"
    for deletions, archive in (("mirror", "full"), ("reset", "changes"), ("keep", "changes"))
)
_ACQUIRE = "settings('keep', 'full', 600, 0, 1.0, False)\n write('f', 8, 1)\n write('a/g', 8, 2)\n wait_idle()\n"
PLANTED = {
    _remove_changed_agent_files: _MIRROR + "agent_writes('a/g', 3)\n remove('a/g')\n wait_idle()",
    _forget_late_executions: _MIRROR
    + "fault('execute: reset')\n remove('f')\n wait_failing()\n kill()\n write('f', 8, 1)\n wait_idle()",
    _record_only_the_last_manifest: _MIRROR
    + "fault('initialize: lost')\n write('b', 8, 1)\n wait_failing()\n kill()\n remove('b')\n wait_idle()",
    _delete_nothing: _MIRROR + "remove('a')\n wait_idle()",
    _reset_without_deletions: _RESET + "write('f', 8, 3)\n wait_idle()",
    _reset_for_a_new_rule: _RESET + "write_rules('.gitignore', 'f\\n')\n wait_idle()",
    _ignore_unlinked_names: "write('f', 8, 1)\n write('a/f', 8, 2)\n wait_idle()\n"
    "rotate('a/f', 'a/g')\n wait_idle()\n write_unlinked('a/f', 3)\n wait_idle()",
    _ignore_blocked_paths: _MIRROR + "agent_writes('b/f', 3)\n write('b', 8, 4)\n write('f', 8, 5)\n wait_idle()",
    _block_free_paths: _MIRROR
    + "agent_writes('b/f', 3)\n write('b', 8, 4)\n wait_idle()\n agent_removes('b')\n write('b', 8, 5)\n wait_idle()",
    _send_a_partial_archive_after_a_reset: _RESET + "write('f', 8, 3)\n wait_idle()\n remove('f')\n wait_idle()",
    _skip_the_proof_for_partial_archives: "wipe_sandboxes()\n" + _CHANGES + "write('f', 8, 3)\n wait_idle()",
    _confuse_sandboxes: _ACQUIRE + "advance(650)\n wait_idle()",
    _acquire_without_limit: _ACQUIRE
    + "\n".join(f"sandbox_expires()\n write('f', 8, {text})\n wait_idle()" for text in (3, 4, 5)),
    _ignore_expiry: _ACQUIRE + "advance(650)\n wait_idle()",
    _trust_young_stamps: "file_times('coarse')\n"
    "write('f', 8, 1)\n wait_idle()\n write_keep_mtime('f', 2)\n wait_idle()",
    _ignore_overflows: "write('f', 8, 1)\n wait_idle()\n overflow()\n write('a/g', 8, 2)\n wait_idle()",
    _ignore_missing_answers: next(iter(LOST_ONCE.values())),
    _ignore_hard_links: "write('a/f', 8, 1)\nhard_link('a/f', 'b/g')\n wait_idle()\n append('a/f', 8, 2)\n wait_idle()",
}


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__.strip("_"))
def test_a_planted_fault_loses_something(
    shared: SharedEmulator, tmp_path: Path, plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scenario fails with the fault planted in syncd, and passes without it."""
    assert not run_text(shared, tmp_path, PLANTED[plant]).lost
    plant(monkeypatch)
    lost = run_text(shared, tmp_path, PLANTED[plant]).lost
    assert lost
    # An error of the plant itself, after a rename say, must not pass for the fault that it no longer plants.
    assert not any("internal error" in line for line in lost), lost


def test_a_scenario_is_reproducible() -> None:
    """A seed gives the same scenario again, and so does its text, whatever names are in it."""
    for seed in range(50):
        assert parse(render(generate(seed))) == generate(seed) != generate(seed + 1)


def test_a_failing_scenario_is_shrunk() -> None:
    """Only the steps without which it does not fail are left."""
    whole = [Step("write", (str(number),)) for number in range(40)]
    needed = [whole[3], whole[20], whole[39]]
    assert shrink(whole, lambda part: all(step in part for step in needed), lambda: True) == needed
