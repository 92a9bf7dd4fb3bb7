"""Random scenarios of changes, faults, kills and damage end with the sandbox equal to the workspace.

Some dozens run here; `python -m tests.fuzz` runs as many as asked for.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import msgspec
import pytest

from syncd.model.reconcile import PathOutcome, Plan
from syncd.sandbox import executions, provider
from syncd.sandbox.deletions import Removals
from syncd.sandbox.saved_versions import VersionSaver
from syncd.sync import sync_plan
from syncd.watch.changes import Changes, DirtyDirectories
from tests.fuzz.generator import generate
from tests.fuzz.runner import digest, report, run
from tests.fuzz.scenario import parse
from tests.fuzz.simulation import Simulation
from tests.instants import FEW_OR_ALL, Choice, some_of
from tools.conformance.profile import Profile

BATCH = 6
# The first half of each eight seeds has no commands: see `test_way_home_stories`.
SEEDS = [seed for seed in range(128) if seed % 8 < 4]
# The fourth is as assumed, as in all other tests.
PROFILES = [
    Path(__file__).parents[2] / f"tools/conformance/profiles/{name}.json" for name in ("lenient", "replaces", "strict")
]
RETRYING, COMMANDS = 24, 46  # a seed with kills, and waits of random length; one with commands
REPLACING = 19  # one in which what a sandbox lacks is told by one path of several


def run_text(folder: Path, text: str) -> Simulation:
    return run(folder / "scenario", parse(text), Counter())


@pytest.mark.parametrize("first", [0, *(pytest.param(BATCH * batch, marks=pytest.mark.long) for batch in range(1, 11))])
def test_random_scenarios_lose_nothing(tmp_path: Path, first: int) -> None:
    """Scenarios of some 40 steps, under any configuration: changes, faults and kills at any moment of a sync."""
    figures: Counter[str] = Counter()
    for seed in SEEDS[first : first + BATCH]:
        simulation = run(tmp_path / str(seed), generate(seed), figures)
        if simulation.lost:
            pytest.fail(report(tmp_path, seed, simulation), pytrace=False)
    # Scenarios in which little happens test little.
    assert figures["partial scans"] > BATCH
    assert figures["failed syncs"] > BATCH / 4
    assert figures["kills"] > BATCH / 4
    assert figures["operations"] > 4 * BATCH
    assert figures["executions"] > BATCH / 2
    assert figures["partial archives"] > BATCH / 8
    assert figures["acquired"] > BATCH / 8
    assert figures["sandbox changes"] > BATCH / 4


def test_steps_happen_at_each_request(tmp_path: Path) -> None:
    """Those of the API by the last word of their path, those of the bucket by what they do there."""
    ops = ("execution-upload-url", "execution-upload", "execute", "execution-logs", "upload", "initialize")
    steps = [
        f"at_request({op!r}, {when!r}, 'agent_writes', 'of {op}', 3)" for op in ops for when in ("before", "after")
    ]
    simulation = run_text(
        tmp_path, "\n".join(["write('f', 8, 1)", "wait_idle()", *steps, "write('f', 8, 2)", "wait_idle()"])
    )
    assert [sum(f"agent_writes('of {op}'" in line for line in simulation.log) for op in ops] == [2] * len(ops)


# Written through the link, the other file would change.
LINK_GIVES_WAY = """
    settings('keep', 'full', 0, 0, 1.0, 'save')
    write('b', 8, 1)
    symlink('a', 'b')
    wait_idle()
    change_kind('a', 'file')
"""


@pytest.mark.parametrize("first", [3, *(pytest.param(2 * batch + 3, marks=pytest.mark.long) for batch in range(1, 9))])
@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.stem)
def test_services_that_differ(tmp_path: Path, profile: Path, first: int) -> None:
    """What syncd finds out by itself is enough, however a service unpacks and executes."""
    differs = msgspec.json.decode(profile.read_bytes(), type=Profile)
    stories = {f"seed {seed}": generate(seed) for seed in SEEDS[first : first + 2]} | {"link": parse(LINK_GIVES_WAY)}
    for name, story in stories.items():
        assert run(tmp_path / name, story, Counter(), differs).lost == [], name


# Each lost something once, in an earlier version of syncd or in one with a fault planted.
LOST_ONCE = {
    "a link that leads through a link of the agent's in a folder's place makes each initialize fail": """
        settings('mirror', 'auto', 0, 0, 1.0, 'hold')
        fill_folder('many', 5)
        write('a/x', 8, 0)
        wait_idle()
        agent_links('a', '../f')
        wait_idle()
        write('a/f', 8, 1)
        wait_idle()
        symlink('b/l', '../a/f')
        wait_idle()
    """,
    "what was in a folder that is a file there stays in each archive": """
        settings('keep', 'auto', 0, 0, 1.0, 'hold')
        write('p/c', 8, 1)
        write('q', 8, 1)
        wait_idle()
        agent_removes('p')
        agent_writes('p', 3)
        remove('p')
        wait_idle()
        write('p/c', 8, 1)
        wait_idle()
    """,
    "a partial archive that held everything counted as the proof for partial archives": """
        settings('keep', 'auto', 0, 0, 1.0, 'overwrite')
        wipe_sandboxes()
        write('f', 8, 1)
        wait_idle()
        write('f', 8, 2)
        wait_idle()
        write('g', 8, 3)
    """,
    "a name that is not UTF-8 was missing after a partial archive": """
        settings('keep', 'auto', 0, 0, 1.0, 'overwrite')
        wipe_sandboxes()
        write('f', 8, 1)
        write('\\udcff', 300, 2)
        wait_idle()
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
    "a folder of many files that the agent replaced by a file was taken for an emptied sandbox": """
        settings('mirror', 'full', 0, 0, 1.0, 'save')
        write('f', 8, 1)
        fill_folder('b', 25)
        wait_idle()
        agent_removes('b')
        agent_writes('b', 3)
        write('f', 8, 4)
        wait_idle()
        agent_removes('b')
        write('f', 8, 5)
        wait_idle()
    """,
    "a forced sync did not look, as a look had failed shortly before": """
        settings('mirror', 'auto', 0, 0, 1.0, 'save')
        write('f', 8, 1)
        write('g', 8, 1)
        wait_idle()
        agent_writes('f', 3)
        fault('execute: 404')
        fault('dump: 404')
        write('g', 8, 4)
        wait_idle()
        write('f', 8, 5)
        push_force()
        wait_idle()
    """,
    "what stayed there as configured was taken for the agent's when it was written again": """
        settings('keep', 'auto', 0, 0, 1.0, 'hold')
        write('f', 8, 1)
        write('g', 8, 1)
        wait_idle()
        remove('f')
        wait_idle()
        write('f', 16, 2)
        wait_idle()
    """,
    "a folder was written through a link that the agent had put in its place": """
        mkdir('a/c/e/f')
        wait_idle()
        agent_links('a/c', '..')
        write('a/c/e/deep/h', 8, 5035)
    """,
    "a sandbox that had ended was taken for one in which nobody can look": """
        reconfigure('keep', 'full', 600, 0, 1.0, 'hold')
        mkdir('x.log')
        wait_idle()
        sandbox_expires()
    """,
    "a change was appended to a record that was damaged while it was in use": """
        write('build/ ', 8, 18)
        @16 damage('state', 'drop', 1)
        fill_folder('many', 25)
        wait_idle()
        replace_workspace(0)
        reload()
    """,
    "a link led out of the sandbox through a link of the agent": """
        settings('mirror', 'auto', 90, 0, 4.0, 'overwrite')
        symlink_loop('b/-', 'a/c/e/g')
        fault('upload: 503')
        @2 mkdir('é/f~')
        agent_links('b', '../f')
    """,
    "a process ended before it found out that its first archives took away what they lacked": """
        wipe_sandboxes()
        write('f', 300, 2)
        wait_idle()
        agent_writes('f', 4)
        at_request('initialize', 'after', 'stop')
        write('a/deep/h', 8, 5)
        wait_idle()
    """,
    "a link to the workspace's top was taken for one that leads out, and held": """
        settings('keep', 'full', 0, 0, 1.0, 'overwrite')
        write(' ', 8, 14)
        wait_idle()
        agent_removes(' ')
        agent_makes_folder(' ', 17)
        write('a/f', 8, 5)
        symlink('deep/h', '..')
        wait_idle()
    """,
    "a held file was lost by a whole archive in a sandbox that removes what an archive lacks": """
        wipe_sandboxes()
        reconfigure('keep', 'full', 0, 0, 4.0, 'hold')
        write('a/-', 8, 38)
        agent_writes('a/-', 38)
    """,
    "the workspace is moved away while the ignore files above it are read": """
        watch_fails()
        @9 move_workspace_away()
        wait_idle()
    """,
    "the agent empties a sandbox that holds no more than what is written": """
        write('d/f', 8, 1)
        wait_idle()
        write('a/g', 8, 2)
        agent_empties()
    """,
    "what a new process held counted here as it was sent, once something else was changed": """
        write('b', 300, 13)
        write('a/f', 300, 17)
        wait_idle()
        agent_makes_folder('a/f', 20)
        append('a/f', 8, 21)
        stop()
        wait_idle()
        write('b', 8, 28)
    """,
    "a held path that was left over is removed in vain by each new process": """
        settings('mirror', 'full', 90, 4000, 0.05, 'hold')
        write('a/x.log', 300, 2)
        wait_idle()
        agent_chmod('a/x.log')
        write_rules('.gitignore', '*.log\\n')
        request_sync()
        wait_idle()
        write_rules('.gitignore', '')
        wait_idle()
    """,
    "what was deleted here and changed there is tried again by each new process": """
        write('d/f', 16, 0)
        write('f', 300, 4)
        wait_idle()
        agent_edits_alike('f', 7)
        at_request('initialize', 'before', 'takes', 60.0)
        fault('initialize: 500 after')
        remove('f')
        wait_idle()
    """,
}


@pytest.mark.parametrize("text", LOST_ONCE.values(), ids=LOST_ONCE)
def test_scenarios_that_failed_once_lose_nothing(tmp_path: Path, text: str) -> None:
    """The shortest scenarios that found a defect pass."""
    assert not run_text(tmp_path, text).lost


def test_what_could_not_be_packed_is_scanned_again(tmp_path: Path) -> None:
    """Where no event tells what became of it, a sync that follows finds out at once."""
    story = """
        settings('mirror', 'full', 0, 4000, 1.0, 'save')
        write('f', 8, 0)
        wait_idle()
        limit_watches(1)
        write('deep/h', 8, 0)
        wait_idle()
        change_kind('deep/h', 'folder')
        write('f', 8, 2)
        wait_idle()
    """
    simulation = run_text(tmp_path, story)
    assert not simulation.lost
    assert simulation.figures["initialized"] == 4


@FEW_OR_ALL
@pytest.mark.parametrize("before", ["mkdir('a/c')", "write('a/c/ignored1', 8, 1)"])
def test_a_file_ignored_before_it_is_written_is_not_uploaded(tmp_path: Path, before: str, choice: Choice) -> None:
    """A rule and then its file are written at any injection point of a sync: the file is not uploaded."""
    for point in choice(22):
        change = f"@{5 + point} write_ignored('a/c', 1)"
        text = f"write('f', 8, 1)\n mkdir('a')\n {before}\n {change}\n request_sync()\n wait_idle()"
        assert not run_text(tmp_path, text).lost, point


@FEW_OR_ALL
def test_a_look_that_follows_finds_an_emptied_sandbox_in_the_midst_of_a_sync(tmp_path: Path, choice: Choice) -> None:
    """Whichever finds it, at any injection point: all that was there is sent again."""
    for point in choice(40):
        text = f"""
            write('b/-', 8, 2)
            write('a/f', 0, 0)
            wait_idle()
            agent_empties()
            @{20 + point} follow()
            write('c/f', 8, 44)
            flush()
        """
        assert not run_text(tmp_path, text).lost, point


def program_with(old: bytes, new: bytes) -> Callable[[Collection[str]], bytes]:
    """Return a `program_text` of the sandbox's program with this change."""
    real = executions.program_text
    assert old in real(executions._PARTS_OF)
    return lambda verbs: real(verbs).replace(old, new)


def _without_holds(*args: Any, plan_look: Any = sync_plan.plan_look) -> Plan:
    return Plan(tuple(each for each in plan_look(*args).paths if each.outcome is not PathOutcome.HOLD))


def _without_overflows(self: DirtyDirectories, changes: Changes, add: Any = DirtyDirectories.add) -> None:
    add(self, Changes(changes.dirty))


_COMPARED = b"            if found.same_as_any(versions):\n                parent"
_MIRROR, _HOLD = (
    f"settings('mirror', 'auto', 0, 0, 1.0, {agent_changes!r})\nwrite('f', 8, 1)\n write('a/g', 8, 2)\n wait_idle()\n"
    for agent_changes in ("save", "hold")
)
_ACQUIRE = "settings('mirror', 'auto', 600, 0, 1.0, 'save')\n write('f', 8, 1)\n write('a/g', 8, 2)\n wait_idle()\n"
_BOTH = "agent_writes('f', 3)\n write('f', 8, 4)\n wait_idle()"
# What is replaced, and by what; and the story that it loses something in.
PLANTED: dict[str, tuple[object, str, object, str]] = {
    "nothing is saved": (VersionSaver, "save", lambda self, *_: frozenset(), _MIRROR + _BOTH),
    "nothing is held": (sync_plan, "plan_look", _without_holds, _HOLD + _BOTH),
    "the agent's changed files are removed": (
        executions,
        "program_text",
        program_with(_COMPARED, _COMPARED.replace(b"found.same_as_any(versions)", b"True")),
        _MIRROR + "agent_writes('a/g', 3)\n remove('a/g')\n wait_idle()",
    ),
    "nothing is deleted": (Removals, "due", lambda self, *_: {}, _MIRROR + "remove('a')\n wait_idle()"),
    "sandboxes are acquired without a limit": (
        provider,
        "acquire_wait_s",
        lambda *_: 0.0,
        _ACQUIRE + "\n".join(f"sandbox_expires()\n write('f', 8, {text})\n wait_idle()" for text in (3, 4, 5)),
    ),
    "overflows are ignored": (
        DirtyDirectories,
        "add",
        _without_overflows,
        "write('f', 8, 1)\n wait_idle()\n overflow()\n write('a/g', 8, 2)\n wait_idle()",
    ),
}


@pytest.mark.parametrize("plant", some_of(PLANTED, 6))
def test_a_planted_fault_loses_something(tmp_path: Path, plant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scenario fails with the fault planted in syncd, and passes without it."""
    *fault, story = PLANTED[plant]
    assert not run_text(tmp_path, story).lost
    monkeypatch.setattr(*fault)
    must_lose(tmp_path, story)


def must_lose(folder: Path, text: str) -> None:
    lost = run_text(folder, text).lost
    assert lost
    # An error of the plant itself, after a rename say, must not pass for the fault that it no longer plants.
    assert not any("internal error" in line for line in lost), lost


@pytest.mark.long
@pytest.mark.parametrize("seed", [RETRYING, COMMANDS, REPLACING])
def test_a_seed_takes_the_same_course_again(tmp_path: Path, seed: int) -> None:
    """Whatever ran before it, and in another process: requests, times, operations, messages and states are the same."""
    course = run(tmp_path / "first", generate(seed), Counter()).course
    run(tmp_path / "between", generate(seed + 1), Counter())
    assert run(tmp_path / "again", generate(seed), Counter()).course == course
    other = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--seed", str(seed), "--schedules", "1", "--dir", str(tmp_path)],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"course {digest([digest(course)])}" in other.stdout
