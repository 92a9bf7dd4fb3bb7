"""Random scenarios in which the agent's work comes home lose no version of either side.

`apply`, its undo and `--branch`, `saved restore --here` and `sandbox release` run beside syncs, during slow or
late initializes, before a sandbox's end; they die anywhere, or meet a full disk. A few run here; `python -m tests.fuzz`
runs as many as asked for.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.cli import sandbox
from syncd.cli.apply import branch
from syncd.merge import commits as commits_module
from syncd.merge.workspace_writer import WorkspaceWriter, Written
from syncd.model import reconcile
from syncd.sandbox import executions
from syncd.sync.work_saver import Unsaved, WorkSaver
from tests.fuzz.generator import generate
from tests.fuzz.runner import report, run, running_simulation
from tests.instants import some_of
from tests.integration.test_convergence import must_lose, program_with, run_text

# The second half of each eight seeds has commands.
SEEDS = [seed for seed in range(72) if seed % 8 >= 4]
BATCH = 3


@pytest.mark.parametrize(
    "seeds",
    [pytest.param(SEEDS[at : at + BATCH], marks=pytest.mark.long if at else ()) for at in range(0, len(SEEDS), BATCH)],
    ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}",
)
def test_random_stories_lose_nothing(tmp_path: Path, seeds: list[int]) -> None:
    """Scenarios of some 10 to 40 steps, under any configuration, with commands at any moment."""
    figures: Counter[str] = Counter()
    for seed in seeds:
        simulation = run(tmp_path / str(seed), generate(seed), figures)
        if simulation.lost:
            pytest.fail(report(tmp_path, seed, simulation), pytrace=False)
    # Scenarios in which little happens test little.
    assert figures["commands"] >= BATCH / 2
    assert figures["sandbox changes"] >= BATCH / 2


_BEGIN = "settings('mirror', 'auto', 0, 0, 1.0, 'save')\n write('f', 300, 1)\n write('g', 8, 1)\n wait_idle()\n"
# Both sides change another line of the same file, and nothing is synced meanwhile.
_BOTH = _BEGIN + "pause()\n agent_prepends('f', 2)\n append('f', 8, 3)\n"
_MERGED = _BOTH + "apply((), (), ())\n"
_SENT = _MERGED + "resume()\n wait_idle()\n"
_ENDS = (
    "settings('mirror', 'auto', 90, {limit}, 1.0, 'save')\n write('f', 300, 1)\n wait_idle()\n agent_prepends('f', 2)\n"
)

# The agent commits twice, and leaves something that it does not commit.
_COMMITS = (
    "write('f', 300, 1)\n repository('above')\n write('g', 8, 1)\n wait_idle()\n"
    "agent_writes('f', 2)\n agent_commits('all', 3)\n agent_writes('n', 4)\n agent_commits('all', 5)\n"
    "agent_writes('g', 6)\n"
)
_BRANCH = _COMMITS + "branch('agent/1', (), ())"

# The shortest scenario of each defect that was found.
LOST_ONCE = {
    "what an undo takes back is the agent's again, though an archive that is not answered has all that is there": (
        "write('d/f', 8, 6)\n wait_idle()\n agent_writes('d/n', 9)\n apply((), (), ())\n"
        "fault('initialize: 500 after')\n rest(60.0)\n@2 undo(())\n push_force()"
    ),
    "what an undo takes back is the agent's again, though an archive that is not answered has it with other times": (
        "rest(6.0)\n hold_initialize()\n agent_writes('d/n', 18)\n apply((), (), ())\n push_force()\n undo(())"
    ),
    "what a forced push could not save goes with all else, once the sandbox turns out to replace it": (
        "wipe_sandboxes()\n write('d/f', 1500, 7)\n wait_idle()\n agent_makes_folder('d/f', 4)\n push_force()"
    ),
    "what a forced push could not save is gone there by its next archive": (
        "wipe_sandboxes()\n write('d/f', 1500, 7)\n wait_idle()\n agent_makes_folder('d/f', 4)\n stop()\npush_force()"
    ),
    "what the agent had kept of a deleted file is a leftover no more in a sandbox that replaces all": (
        "settings('mirror', 'auto', 0, 0, 1.0, 'save')\n wipe_sandboxes()\n write('d/h', 1500, 4)\n wait_idle()\n"
        "pause()\n agent_prepends('d/h', 3)\n remove('d/h')\n undo(())\n wait_idle()\n stop()\n wait_idle()\n"
        "move_in('new\\nline', 16)"
    ),
    "what an undo takes back came from a sandbox that was left, and the next one has what was sent": (
        "write('a', 300, 3)\n wait_idle()\n agent_prepends('a', 4)\n apply((), (), ())\n move_sandbox(2)\n"
        " wait_idle()\n undo(())\n apply((), (), ())\n wait_idle()"
    ),
    "a sandbox whose first initialize was never answered is left for another one": (
        "settings('mirror', 'auto', 0, 0, 1.0, 'save')\n fault('initialize: lost x99')\n write('f', 8, 1)\n"
        "wait_failing()\n agent_links('f', '.')\n move_sandbox(2)\n wait_failing()\n wait_idle()"
    ),
    "a link that leads through a link of the agent's at an excluded path makes each initialize fail": (
        "settings('mirror', 'auto', 0, 0, 1.0, 'save')\n write('f', 8, 1)\n wait_idle()\n"
        "agent_links('node_modules', '../f')\n symlink('x.log', 'node_modules/g')\n write('b', 8, 2)\n wait_idle()"
    ),
    "what was sent and never arrived counts as what the agent changed": (
        "settings('mirror', 'auto', 0, 0, 1.0, 'save')\n write('d/f', 8, 0)\n wait_idle()\n lasting('nobody looks')\n"
        "change_kind('d', 'link')\n rest(60.0)\n damage('state', 'foreign', 5)\n rest(60.0)\n wait_failing()\n"
        "kill()\n apply((), (), ())"
    ),
    "what was followed of the agent's counts as there after it was removed there": (
        "write('a', 300, 1)\n write('b', 300, 2)\n wait_idle()\n agent_prepends('a', 5)\n follow()\n remove('a')\n"
        "wait_idle()\n follow()\n push_force()\n stop()\n apply((), (), ())"
    ),
    "a sync begins right after an apply, before any event tells of what that wrote": (
        "write('f', 1500, 2)\n wait_idle()\n fault('upload: reset mid-body x9')\n write('g', 8, 1)\n rest(60.0)\n"
        "agent_prepends('f', 3)\n apply((), (), ())\n undo(())"
    ),
    "an initialize that is unpacked late overwrites what an agent wrote since, and what is held is not saved": (
        "settings('mirror', 'auto', 0, 4000, 1.0, 'hold')\n write('deep/h', 300, 7)\n wait_idle()\n hold_initialize()\n"
        "write('deep/h', 300, 8)\n wait_failing()\n agent_prepends('deep/h', 9)\n apply((), (), ('dies', 2, 4))\n"
        "branch('agent/4', (), ())"
    ),
    "an archive that was never answered puts there what was deleted here, after the look for that": (
        "hold_initialize()\n write('b/deep/h', 8, 33)\n stop()\n remove('b/deep/h')"
    ),
    "an apply takes what was sent and never answered for what an older version of the agent began with": (
        "write('f', 8, 1)\n wait_idle()\n agent_writes('n', 5)\n write('n', 8, 2)\n hold_initialize()\n"
        "wait_failing()\n apply((), (), ())"
    ),
    "a saved version takes what was sent and never answered for what it began with": (
        "settings('mirror', 'auto', 600, 0, 1.0, 'save')\n write('f', 8, 1)\n wait_idle()\n agent_writes('n', 5)\n"
        "write('n', 8, 2)\n hold_initialize()\n wait_failing()\n agent_writes('n', 6)\n release(())\n restore(0, ())\n"
        "restore(1, ())"
    ),
    "what was kept there, and is to go by a person's choice, stays until something else is deleted": (
        "write('g', 300, 4)\n wait_idle()\n agent_prepends('g', 6)\n remove('g')\n wait_idle()\n"
        "resolve('mine', ('g',), ())\n wait_idle()"
    ),
    "what a person chose there, and a forced push sent since, is the agent's again after an undo": (
        "write('n', 300, 2)\n wait_idle()\n remove('n')\n agent_writes('n', 6)\n resolve('theirs', ('n',), ())\n"
        "push_force()\n undo(())\n wait_idle()"
    ),
    "a killed apply leaves temporary files, which the next sync sends": _BEGIN
    + "agent_writes('f', 2)\n apply((), (), ('dies', 2, 'open .syncd-'))\n write('g', 8, 2)\n wait_idle()",
    "a killed apply leaves temporary files in a folder that was renamed since": (
        "write('d/f', 300, 1)\n wait_idle()\n pause()\n agent_writes('d/f', 2)\n"
        "apply((), (), ('dies', 2, 'open .syncd-'))\n rename('d', 'e')\n undo(())"
    ),
    "an undo of a merge whose initialize is unanswered does not save what the merge has overwritten there": _MERGED
    + "fault('initialize: lost')\n resume()\n wait_failing()\n undo(())\n wait_idle()",
    "an undo of a merge that is unpacked late does not save what the merge overwrites there": _MERGED
    + "hold_initialize()\n resume()\n wait_failing()\n undo(())\n late_initialize()\n wait_idle()",
    "an undo that dies after it has restored, and before it has saved, is not finished by anything": _SENT
    + "undo(('dies', 1, 'os.rename f'))\n wait_idle()",
    "an undo that dies before it has recorded: the next sync takes what it restored for a person's change": _BEGIN
    + "agent_writes('f', 3)\n apply((), (), ())\n undo(('dies', 1, 'os.rename f'))\n wait_idle()",
    "an undo that dies before it has recorded: the next sync removes a new file of the agent": _BEGIN
    + "agent_writes('n', 3)\n apply((), (), ())\n undo(('dies', 1, 'os.remove n'))\n wait_idle()",
    "an undo that dies while it restores: the next apply ends it, and says 0 while the sides differ": _BEGIN
    + "agent_writes('f', 3)\n agent_writes('g', 4)\n apply((), (), ())\n undo(('dies', 1, 'os.rename f'))",
    "an undo of a choice by which nothing counted as sent saves what was sent as the agent's": (
        "write('f', 300, 20)\n wait_idle()\n agent_writes('f', 22)\n hold_initialize()\n write('f', 8, 23)\n"
        "wait_failing()\n agent_removes('f')\n restore(0, ())\n late_initialize()\n resolve('theirs', ('',), ())\n"
        "undo(())"
    ),
    "an archive that is sent again, and unpacked late, overwrites what the agent changed since": (
        "write('a/f', 8, 3)\n wait_idle()\n agent_writes('a/f', 6)\n hold_initialize()\n push_force()\n kill()\n"
        "agent_writes('a/f', 7)"
    ),
    "an archive that is sent again, and unpacked only after an apply, puts what that replaced there for good": (
        "write('a/f', 8, 3)\n wait_idle()\n hold_initialize()\n push_force()\n kill()\n agent_writes('a/f', 7)\n"
        "agent_writes('n', 8)\n apply((), (), ())\n remove('n')\n late_initialize()\n wait_idle()"
    ),
    "an undo of a new file, while an archive that is sent again is unanswered, removes the agent's": (
        "write('a/f', 8, 3)\n wait_idle()\n hold_initialize()\n push_force()\n kill()\n agent_writes('n', 7)\n"
        "apply((), (), ())\n undo(())\n late_initialize()\n wait_idle()"
    ),
    "what was taken, and whose sandbox was released since, is lost by an undo": _ENDS.format(limit=0)
    + "apply((), (), ())\n release(())\n undo(())\n wait_idle()",
    "the first archive into a sandbox that removes what an archive lacks: what only that has was not looked at": """
        wipe_sandboxes()
        agent_writes('h', 3)
        write('f', 8, 1)
        wait_idle()
        apply((), (), ())
    """,
    "an undo that cannot save for lack of room has restored already, and nothing tries again": _SENT
    + "undo(('full', 1, 'os.rename f'))\n wait_idle()",
    "the save before a sandbox's end is tried once, whatever failed": _ENDS.format(limit=0)
    + "rest(8.0)\n fault('download: 503 x3')\n rest(100.0)\n wait_idle()",
    "with the clock set back, nothing is saved before a sandbox's end": _ENDS.format(limit=0)
    + "set_clock(-4000.0)\n rest(100.0)\n wait_idle()",
    "a folder of the agent's in the place of a file keeps the repository there from following, for ever": """
        repository('in')
        write('f', 300, 1)
        wait_idle()
        at_request('initialize', 'after', 'fault', 'execution-logs: lost x3')
        write('g', 8, 2)
        wait_idle()
        agent_makes_folder('f', 3)
        rest(20.0)
        write('h', 8, 4)
        stop()
        wait_idle()
    """,
    "a branch of named paths, where the agent committed a link elsewhere, ends with an internal error": _COMMITS
    + "agent_links('l', 'f')\n agent_commits('all', 7)\n branch('agent/1', ('g',), ())",
    "an archive that holds nothing empties a sandbox, where nobody had looked": """
        settings('keep', 'auto', 600, 4000, 0.05, 'save')
        wipe_sandboxes()
        write('g', 300, 4)
        wait_idle()
        agent_prepends('g', 5)
        remove('g')
        apply(('--deletions',), (), ())
    """,
    "nothing is saved before a sandbox's end while a long upload is under way": _ENDS.format(limit=1)
    + "rest(8.0)\n write_noise('g', 60000, 5)\n rest(100.0)\n wait_idle()",
}


@contextlib.contextmanager
def _objects_at_home(*_: object) -> Iterator[str]:
    yield str(running_simulation().folder / ".git")


# What is replaced, and by what; and the story that it loses something in.
PLANTED: dict[str, tuple[object, str, object, str]] = {
    "changes are taken over": (
        reconcile,
        "who_changed",
        lambda *_: reconcile.Changed.THERE,
        _BOTH + "apply((), (), ())\n resume()\n wait_idle()",
    ),
    "an undo saves nothing": (WorkspaceWriter, "_save_theirs", lambda *_: None, _SENT + "undo(())\n wait_idle()"),
    "what was killed is left": (
        WorkspaceWriter,
        "_take_back",
        lambda *_: Written(),
        _BEGIN + "agent_writes('f', 2)\n apply((), (), ('dies', 2, 'open .syncd-'))\n undo(())",
    ),
    "a release saves nothing": (
        sandbox,
        "save_before_release",
        lambda _: "",
        _ENDS.format(limit=0) + "release(())\n wait_idle()",
    ),
    "objects are made at home": (commits_module, "private_repository", _objects_at_home, _BRANCH),
    "the commits are left off the branch": (branch, "_commits_to_make", lambda *_: ([], {}, {}), _BRANCH),
    # Its work tree is at the end as it was.
    "the agent's branch is moved": (
        executions,
        "program_text",
        program_with(b" or not self._git.is_ancestor(at, home)", b""),
        """
        write('f', 8, 1)
        repository('in')
        wait_idle()
        agent_writes('n', 2)
        agent_commits('all', 3)
        agent_removes('n')
        agent_commits('all', 4)
        write('g', 8, 5)
        flush()
        wait_idle()
        """,
    ),
    "a move saves nothing": (
        WorkSaver,
        "_save_all",
        lambda *_: Unsaved(),
        _BEGIN + "agent_writes('f', 2)\n move_sandbox(1)\n wait_idle()",
    ),
}


@pytest.mark.parametrize(
    "text",
    [pytest.param(text, id=name) for name, text in LOST_ONCE.items()]
    + [pytest.param(text, id=plant, marks=pytest.mark.long) for plant, (*_, text) in PLANTED.items()],
)
def test_stories_that_lose_nothing(tmp_path: Path, text: str) -> None:
    """The shortest scenarios of defects that are mended."""
    assert not run_text(tmp_path, text).lost


def test_a_request_puts_no_look_off(tmp_path: Path) -> None:
    """It asks at once if all is there, though a look hung right before it."""
    text = "write('f', 8, 1)\n wait_idle()\n agent_empties()\n fault('execution-logs: hang 60 x2')\n"
    simulation = run_text(tmp_path, f"{text} fault('dump: hang 60')\n flush()\n flush()")
    assert not simulation.lost
    told = "".join(simulation.log).partition("stopping")[0]  # the next process asks in any case
    assert "the sandbox lost what was put there" in told


@pytest.mark.parametrize("plant", some_of(PLANTED, 6))
def test_the_account_notices_a_planted_fault(tmp_path: Path, plant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scenario fails with the fault planted in syncd; it passes without, see above."""
    *fault, story = PLANTED[plant]
    monkeypatch.setattr(*fault)
    must_lose(tmp_path, story)
