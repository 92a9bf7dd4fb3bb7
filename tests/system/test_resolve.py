"""`syncd resolve`: what waits for a person is listed and decided; a decision is all or nothing, and can be undone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.agent import Agent
from tests.system.rig import DEFAULTS, Rig
from tests.system.test_apply import QUESTION, TEXT, _applied, agent
from tests.system.trees import tree

__all__ = ["agent"]  # a fixture

OURS, THEIRS = TEXT.replace("line 2\n", "ours\n"), TEXT.replace("line 2\n", "theirs\n")
MARKED = TEXT.replace("line 2\n", "<<<<<<< mine\nours\n=======\ntheirs\n>>>>>>> theirs\n")
BINARY = bytes(range(256)) * 9


def _resolve(rig: Rig, *args: str, code: int = 0) -> dict[str, Any]:
    """The lists that are not empty."""
    paths = [argument if argument.startswith("--") else str(rig.workspace / argument) for argument in args]
    done = rig.run("resolve", "--json", *paths)
    assert done.code == code, done
    return {name: value for name, value in json.loads(done.out).items() if value}


def _waiting(rig: Rig) -> dict[str, str]:
    rows = _resolve(rig, code=1)["waiting"] if rig.run("resolve").code else []
    return {row["path"]: row["reason"] for row in rows}


def _content(rig: Rig, path: str) -> bytes | None:
    place = rig.workspace / path
    return place.read_bytes() if place.exists() else None


def _side(content: str | bytes | None) -> bytes | None:
    return content.encode() if isinstance(content, str) else content


# What both sides have of a path, and what is then here for each choice; "": it is refused, None: it is gone.
STATES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "clash": (OURS, THEIRS, {"mine": OURS, "theirs": THEIRS, "markers": MARKED}),
    "both": (BINARY, BINARY[::-1], {"mine": BINARY, "theirs": BINARY[::-1], "markers": ""}),
    "d/b": (None, THEIRS, {"mine": None, "theirs": THEIRS, "markers": ""}),
    "gone": (OURS, None, {"mine": OURS, "theirs": None, "markers": ""}),
}


@pytest.mark.parametrize("choice", ["mine", "theirs", "markers"])
def test_each_choice(rig: Rig, agent: Agent, choice: str) -> None:
    """It does what it says to those paths alone, is undone exactly, and loses no version, before a sync or after it."""
    for path, (ours, theirs, _) in STATES.items():
        agent.delete(path) if theirs is None else agent.write(path, theirs)
        (rig.workspace / path).unlink() if ours is None else rig.write(path, ours)
    agent.write("a", "not asked for\n")
    _applied(rig, *(str(rig.workspace / path) for path in STATES))
    before = tree(rig.workspace)
    assert sorted(_waiting(rig)) == sorted(STATES)
    results = {path: each[choice] for path, (_, _, each) in STATES.items()}
    for path in [path for path, result in results.items() if result == ""]:
        refused = rig.run("resolve", str(rig.workspace / path), f"--{choice}")
        assert (refused.code, tree(rig.workspace)) == (2, before)
        assert f"{path} cannot be decided by --{choice} (it " in refused.err
    decided = {path: result for path, result in results.items() if result != ""}
    _resolve(rig, *decided, f"--{choice}")
    assert {path: _content(rig, path) for path in decided} == {p: _side(result) for p, result in decided.items()}
    after = tree(rig.workspace)
    assert {p: e for p, e in after.items() if p not in decided} == {p: e for p, e in before.items() if p not in decided}
    assert sorted(_waiting(rig)) == sorted(STATES.keys() - decided)
    assert sorted(_applied(rig, "--undo")[1]["undone"]) == sorted(decided)
    assert tree(rig.workspace) == before
    assert sorted(_waiting(rig)) == sorted(STATES)
    _resolve(rig, *decided, f"--{choice}")
    rig.ok("push")
    for path, mine in decided.items():
        assert (agent.read(path) if agent.exists(path) else None) == _side(mine)
        theirs = STATES[path][1]
        if theirs is not None and choice != "theirs":
            kept = next(row["id"] for row in rig.saved() if path in row["paths"])
            rig.ok("saved", "restore", kept, str(rig.home / path))
            assert (rig.home / path / path).read_bytes() == _side(theirs)
    assert not decided.keys() & _waiting(rig).keys()
    assert _applied(rig)[1]["taken"] == ["a"]


def test_a_directory_that_is_ours_arrives_with_all_in_it(rig: Rig, agent: Agent) -> None:
    """Also what only went there with it, unchanged here; an undo before the sync has all count as sent, as before."""
    agent.delete("d")
    agent.write("d", THEIRS)
    rig.write("d/new", OURS)
    assert list(_waiting(rig)) == ["d"]
    before = rig.run("diff").out
    _resolve(rig, "d", "--mine")
    rig.ok("apply", "--undo")
    assert rig.run("diff").out == before
    _resolve(rig, "d", "--mine")
    rig.ok("push")
    rig.converged()


@pytest.mark.parametrize(
    ("ours", "there", "advice"),
    [
        (None, "a", "where it stays: `syncd diff` shows it, `syncd resolve` decides"),
        (None, "a/in", "where it stays: `syncd diff` shows it, `syncd resolve` decides"),
        (OURS, "a/in", "has its place: `syncd diff` shows it, `syncd apply` merges, `syncd resolve` decides"),
    ],
)
def test_what_a_warning_advises_decides_it(rig: Rig, agent: Agent, ours: str | None, there: str, advice: str) -> None:
    """Deleted or changed here, and changed there; also where a directory has its place, whose files are saved then."""
    agent.delete("a")
    agent.write(there, THEIRS)
    rig.write("a", ours) if ours else (rig.workspace / "a").unlink()
    rig.ok("push")
    (warning,) = rig.status()["warnings"]
    assert warning.endswith(advice)
    _resolve(rig, "a", "--mine")
    rig.ok("push")
    assert (agent.holds("a", OURS.encode()) if ours else not agent.exists("a"), rig.status()["warnings"]) == (True, [])
    assert there in rig.saved()[0]["paths"]


def test_the_list(rig: Rig, agent: Agent) -> None:
    """Nothing; then each path with both sides and what is possible, in text and JSON."""
    quiet = rig.run("resolve")
    assert (quiet.code, quiet.out, quiet.told) == (0, "", "nothing waits for a decision\n")
    agent.write("clash", THEIRS)
    rig.write("clash", OURS)
    agent.write("d/b", BINARY)
    (rig.workspace / "d/b").unlink()
    agent.write("a", "only there\n")
    rows = {row["path"]: row for row in _resolve(rig, code=1)["waiting"]}
    assert {path: (row["reason"], row["choices"]) for path, row in rows.items()} == {
        "clash": ("both sides changed the same lines", ["mine", "theirs", "markers"]),
        "d/b": ("deleted here, changed in the sandbox", ["mine", "theirs"]),
    }
    assert rows["d/b"]["here"] is None
    assert rows["d/b"]["there"]["bytes"] == len(BINARY)
    lines = rig.run("resolve").out.splitlines()
    assert [line.split(" (")[0] for line in lines] == [
        "conflict  clash: both sides changed the same lines",
        "conflict  d/b: deleted here, changed in the sandbox",
    ]
    nothing = rig.run("resolve", str(rig.workspace / "a"), "--theirs")
    assert (nothing.code, _content(rig, "a")) == (0, TEXT.encode())
    assert "nothing waits for a decision there" in nothing.err
    for wrong in (["--mine"], ["a", "--mine", "--theirs"]):
        assert rig.run("resolve", *wrong).code == 2


def test_several_at_once(rig: Rig, agent: Agent) -> None:
    """Folders count with what is in them; one path that is refused leaves all as it is."""
    for path, mine in (("d/b", OURS), ("d/c", BINARY), ("clash", OURS)):
        rig.write(path, mine)
        agent.write(path, THEIRS)
    before = tree(rig.workspace)
    assert rig.run("resolve", str(rig.workspace / "d"), "--markers").code == 2
    assert tree(rig.workspace) == before
    assert _resolve(rig, "d", "--theirs")["taken"] == ["d/b", "d/c"]
    assert [*_waiting(rig)] == ["clash"]
    assert _applied(rig, "--undo") == (0, {"undone": ["d/b", "d/c"]})
    assert tree(rig.workspace) == before


def test_held_paths(rig: Rig, agent: Agent) -> None:
    """What `hold` holds waits until it is decided, one that merges too, and is then sent by a running daemon. A file in
    the place of a folder that changed here is a conflict, as `--deletions` would not take it either.
    """
    rig.configure({**DEFAULTS, "sandbox.agent_changes": "hold"})
    rig.watch()
    agent.write("clash", THEIRS)
    agent.write("both", THEIRS)
    rig.write("clash", OURS)
    rig.write("both", TEXT.replace("line 25\n", "ours\n"))
    rig.ok("flush")
    assert all(row["held"] for row in _resolve(rig, code=1)["waiting"])
    assert _waiting(rig) == {
        "both": "both sides changed it; `syncd apply` can merge it",
        "clash": "both sides changed the same lines",
    }
    _resolve(rig, "both", "--theirs")
    _resolve(rig, "clash", "--mine")
    assert [row["paths"] for row in rig.saved()] == [["clash"]]
    rig.until(lambda: agent.holds("clash", OURS.encode()), "mine to be sent")
    rig.ok("flush")
    agent.delete("d")
    agent.write("d", THEIRS)
    rig.write("d/b", OURS)
    rig.ok("flush")
    assert _waiting(rig) == {
        "d": "its directory here holds more than was deleted there",
        "d/b": "deleted in the sandbox, changed here",
    }
    code, done = _applied(rig)
    assert (code, done["conflicts"]) == (1, ["d"])
    _resolve(rig, "d", "--mine")
    rig.ok("flush")
    assert rig.status()["agent"]["held"] == []
    assert tree(rig.workspace) == tree(rig.sandbox.workspace)


def test_where_each_path_stands(rig: Rig, agent: Agent) -> None:
    """`explain` says it of each, as of the last sync, also while no daemon runs."""
    rig.configure({**DEFAULTS, "sandbox.agent_changes": "hold", "workspace.ignore": ["*.tmp"]})
    rig.write("x.tmp")
    agent.write("clash", THEIRS)
    agent.write("d/b", THEIRS)
    agent.write("theirs", THEIRS)
    rig.write("clash", OURS)
    (rig.workspace / "d/b").unlink()
    rig.ok("push")
    rig.run("diff", "--stat")  # a look at all
    rig.write("later")
    rig.write("both", "edited")
    expected = {"a": "as sent", "d": "as sent", "both": "not sent yet", "later": "not sent yet", "clash": "held"}
    expected |= {"d/b": "kept", "theirs": "kept", "x.tmp": "excluded", "none": "not there"}
    paths = {path: str(rig.workspace / path) for path in expected}
    found = {path: json.loads(rig.ok("explain", "--json", place).out) for path, place in paths.items()}
    assert {path: row["sandboxes"] for path, row in found.items()} == {
        path: {"main": state} for path, state in expected.items()
    }
    assert rig.ok("explain", paths["clash"]).out.endswith("\nin the sandbox: held\n")
    # What a script finds "not sent" in is excluded.
    assert rig.ok("explain", paths["later"]).out.endswith("\nin the sandbox: not yet sent\n")


@pytest.mark.parametrize(("by", "choice"), [("apply", "mine"), ("restore", "theirs"), ("apply", "markers")])
def test_theirs_was_overwritten_meanwhile(rig: Rig, agent: Agent, by: str, choice: str) -> None:
    """A conflict waits on with its saved version, until it is decided, by that undo again, or by another `apply`."""
    agent.write("clash", THEIRS)
    rig.write("clash", OURS)
    if by == "apply":
        assert _applied(rig)[0] == 1
        rig.ok("push")
    else:
        rig.ok("push")
        left = rig.run("saved", "restore", rig.saved()[0]["id"], "--here")
        assert (left.code, left.told) == (1, "`syncd resolve` decides\n")
    assert agent.read("clash").decode() == OURS
    assert [*_waiting(rig)] == ["clash"]
    _resolve(rig, "clash", f"--{choice}")
    assert _content(rig, "clash") == _side(STATES["clash"][2][choice])
    assert _waiting(rig) == {}
    again = rig.run("resolve", str(rig.workspace / "clash"), f"--{choice}")
    assert (again.code, by == "apply" or "saved where both changed a path: `syncd saved`" in again.err) == (0, True)
    assert _applied(rig, "--undo")[1] == {"undone": ["clash"]}
    assert _content(rig, "clash") == OURS.encode()
    assert [*_waiting(rig)] == ["clash"]
    _resolve(rig, "clash", f"--{choice}")
    rig.ok("push")
    assert agent.read("clash") == _content(rig, "clash")
    assert _waiting(rig) == {}


def test_another_apply_settles_it(rig: Rig, agent: Agent) -> None:
    """What a person has made of it without this command, and applied again, waits no more."""
    agent.write("clash", THEIRS)
    rig.write("clash", OURS)
    assert _applied(rig)[0] == 1
    rig.write("clash", "by hand\n")
    rig.ok("push")
    assert [*_waiting(rig)] == ["clash"]
    assert _applied(rig) == (0, {})
    assert _waiting(rig) == {}


def test_what_could_not_be_removed_is_brought_home(rig: Rig, agent: Agent) -> None:
    """It stays in the sandbox against nobody's will then, and no warning says so."""
    (rig.workspace / "clash").unlink()
    rig.faults("execution-upload-url: 404 always", "dump: 501 always")
    assert "1 deleted path stays in the sandbox" in rig.ok("push").err
    rig.emulator.faults.clear()
    agent.write("clash", THEIRS)
    _resolve(rig, "clash", "--theirs")
    assert "deleted path" not in rig.ok("push").err


# -- at a terminal


def test_the_diff_before_the_answer(rig: Rig, agent: Agent) -> None:
    """`d` shows the patch, and asks again."""
    agent.write("a", THEIRS)
    with rig.terminal("apply", TERM="xterm", PAGER="cat") as terminal:
        terminal.answer(f"Apply, or diff? {QUESTION}", "d")
        terminal.answer(f" line 5\nwould be: 1 applied. Apply, or diff? {QUESTION}", "y")
        assert terminal.finish() == 0
    assert _content(rig, "a") == THEIRS.encode()


def test_a_long_plan_is_shown_in_a_pager(rig: Rig, agent: Agent) -> None:
    """Each path has its line there, and the question comes after it."""
    for number in range(31):
        agent.write(f"new/n{number:02}", "theirs\n")
    with rig.terminal("apply", TERM="xterm", PAGER="sed s/^/paged:/") as terminal:
        terminal.answer(f"Apply, or diff? {QUESTION}", "n")
        assert terminal.finish() == 0
        assert terminal.text.count("paged:apply     new/n") == 31
