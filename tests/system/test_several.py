"""Several sandboxes of one workspace, an agent in each: the commands as a person types them, and a real daemon."""

from __future__ import annotations

import json
import re
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agent import Agent
from tests.emulator import RequestRecord, Sandbox, When
from tests.recorded import records
from tests.repositories import committed, git
from tests.system.command import CLOCK
from tests.system.rig import DEFAULTS, KEY, TIMEOUT_S, Rig
from tests.system.trees import tree

TEXT = "".join(f"line {number}\n" for number in range(30))
BLUE: dict[str, object] = {"sandboxes.blue.id": "box-blue"}
NAMES = "main, blue"


class Several:
    """Two sandboxes, `main` and `blue`, that hold the workspace, with an agent in each."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.blue = rig.emulator.create_sandbox("box-blue")
        self.agents = {"main": rig.agent, "blue": Agent(self.blue.workspace)}
        for path in ("a", "both", "d/gone", "d/run", "thé vert"):
            rig.write(path, TEXT)
        rig.configure({**DEFAULTS, **BLUE})
        rig.ok("push")

    def work(self) -> None:
        """Have both agents do something of each kind; `both` is changed by either."""
        main, blue = self.agents["main"], self.agents["blue"]
        for name, agent in self.agents.items():
            agent.write("both", TEXT.replace("line 7", f"LINE 7 of {name}"))
        main.write("new/of main", "main's\n")
        main.delete("d/gone")
        main.write("binary", bytes(range(256)) * 4)
        blue.chmod("d/run", 0o755)
        blue.write("thé vert", TEXT + "blue's\n")
        blue.write("new/of blue", "no line end")
        blue.symlink("link", "a")

    def json(self, *args: str) -> dict[str, Any]:
        """Return the JSON document that a command prints."""
        found: dict[str, Any] = json.loads(self.rig.run(*args, "--json").out)
        return found

    def sandbox(self, name: str) -> Sandbox:
        return self.rig.sandbox if name == "main" else self.blue

    def holds(self, name: str, path: str, content: str) -> bool:
        return self.agents[name].holds(path, content.encode())


@pytest.fixture
def several(rig: Rig) -> Several:
    return Several(rig)


@pytest.fixture
def unanswered() -> Iterator[str]:
    """The address of an API that takes requests and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_first_archives_go_past_one_that_hangs(rig: Rig) -> None:
    """A bucket that takes the first archive of one and does not answer keeps no other from getting its own."""
    blue = rig.emulator.create_sandbox("box-blue")
    rig.write("a", TEXT)
    rig.configure({**DEFAULTS, **BLUE})
    rig.faults("upload@box: hang 80 always")
    rig.start()
    rig.until(lambda: Agent(blue.workspace).holds("a", TEXT.encode()), "the other's archive")


# -- sandbox add and remove


@pytest.mark.parametrize(("daemon", "how"), [(True, "--acquire"), (False, "--id")])
def test_one_is_added_and_removed(rig: Rig, daemon: bool, how: str) -> None:
    """It gets everything; its agent's work is saved at its end. The file keeps its comments, the other its peace."""
    rig.write("a", TEXT)
    rig.configure(DEFAULTS)
    with rig.config_file.open("a") as file:
        file.write("# a remark\n\n[notifications]  # about them\n")
    before = rig.config_file.read_text()
    rig.ok("push")
    first = _initialized(rig, "box")
    if daemon:
        rig.watch()
    there = rig.emulator.create_sandbox("box-blue") if how == "--id" else None
    words = ("--id", "box-blue") if there else ("--acquire",)
    added = rig.ok("sandbox", "add", "blue", *words)
    assert added.out.startswith("added blue")
    assert ("syncd push --sandbox blue" in added.err) is not daemon
    assert before in rig.config_file.read_text()
    assert "[sandboxes.blue" in rig.config_file.read_text()
    rig.ok("flush")
    blue = there or next(box for box in rig.emulator.sandboxes() if box.id != "box")
    agent = Agent(blue.workspace)
    assert agent.holds("a", TEXT.encode())
    assert [row["name"] for row in rig.status()["sandboxes"]] == ["main", "blue"]
    agent.write("a", "blue's\n")
    refused = rig.run("sandbox", "remove", "blue")
    assert (refused.code, "--yes" in refused.err) == (2, True)
    with rig.terminal("sandbox", "remove", "blue", columns=200) as terminal:
        terminal.answer("Remove it? [y/N]:", "n")
        assert terminal.finish() == 0
        assert ("Then it is released." in terminal.text) is (how == "--acquire")
    removed = rig.ok("sandbox", "remove", "blue", "--yes").out
    assert ("released" in removed) is (how == "--acquire")
    assert (rig.emulator.sandbox(blue.id) is None) is (how == "--acquire")
    assert rig.config_file.read_text().rstrip() == before.rstrip()
    (saved,) = json.loads(rig.ok("saved", "--sandbox", "blue", "--json").out)["saved"]
    assert (saved["sandbox"], saved["sandbox_id"], saved["paths"]) == ("blue", blue.id, ["a"])
    assert _initialized(rig, "box") == first
    rig.write("a", "mine\n")
    rig.ok("flush")
    assert (rig.sandbox.workspace / "a").read_text() == "mine\n"
    assert [row["name"] for row in rig.status()["sandboxes"]] == ["main"]
    if there:  # a name that is added again is a new sandbox, which may have what it had
        rig.ok("sandbox", "add", "blue", *words)
        rig.ok("flush")
        assert agent.holds("a", b"mine\n")


def test_one_that_klavis_does_not_know_is_not_added(rig: Rig) -> None:
    """It is named, with 78, and the file stays; where nobody answers, that is told, and it is added."""
    before = rig.config_file.read_bytes()
    refused = rig.run("sandbox", "add", "blue", "--id", "mistyped")
    assert (refused.code, "name a living one" in refused.err) == (78, True), refused
    assert rig.config_file.read_bytes() == before
    rig.faults("get: 503 always")
    assert "could not be tried" in rig.ok("sandbox", "add", "blue", "--id", "mistyped").err
    assert "mistyped" in rig.config_file.read_text()


def _initialized(rig: Rig, sandbox_id: str) -> int:
    entries = rig.emulator.request_log.entries()
    return sum(each.op == "initialize" and each.sandbox == sandbox_id for each in entries)


def test_what_was_followed_is_saved_when_its_table_goes(several: Several) -> None:
    """What is at home of a sandbox that is configured no more is a saved version, which has its name."""
    rig, follows = several.rig, {**DEFAULTS, "sandbox.follow_seconds": 5}
    rig.configure({**follows, **BLUE})
    rig.watch()
    several.agents["blue"].write("a", "theirs\n")
    rig.ok("flush")
    rig.until(lambda: rig.shown()["sandboxes"][1]["agent"]["changed"] == 1, "the look that follows")
    rig.configure(follows)
    rig.ok("reload")
    (saved,) = rig.until(lambda: several.json("saved")["saved"], "what was followed")
    assert (saved["why"], saved["sandbox"], saved["paths"]) == ("sandbox-ended", "blue", ["a"])


def _red_at_work(several: Several, content: str) -> str:
    """Acquire one more, in which an agent writes that content, and return its id."""
    rig = several.rig
    rig.ok("sandbox", "add", "red", "--acquire")
    rig.ok("push")
    sandbox = rig.emulator.sandbox(rig.status()["sandboxes"][-1]["id"])
    assert sandbox is not None
    Agent(sandbox.workspace).write("a", content)
    return sandbox.id


def _saved_of_red(several: Several) -> list[tuple[str, list[str]]]:
    return [(row["why"], row["paths"]) for row in several.json("saved")["saved"] if row["sandbox"] == "red"]


def test_an_acquired_one_whose_table_goes(rig: Rig, several: Several) -> None:
    """While it cannot be saved a warning names it, by the next process too; then it is saved, and the name is a new
    sandbox's. That one is the workspace's, whichever name it has: its agent's work is saved before it is released.
    """
    before = rig.config_file.read_text()
    _red_at_work(several, "red's\n")
    running = rig.watch()
    rig.faults("execution-upload-url: 503 always", "dump: 503 always")
    rig.config_file.write_text(before)
    rig.ok("reload")

    def named() -> bool:
        return any("[sandboxes.red] was removed" in warning for warning in rig.status()["warnings"])

    rig.until(named, "the warning")
    running.stop()
    running = rig.start()
    rig.until(named, "the warning of the next process")
    assert _saved_of_red(several) == []
    rig.emulator.faults.clear()
    rig.until(lambda: _saved_of_red(several) == [("sandbox-ended", ["a"])] and not named(), "what was saved")
    running.stop()
    acquired = rig.count("acquire")
    red = _red_at_work(several, "red's later\n")
    assert rig.count("acquire") == acquired + 1
    assert "not saved" not in rig.ok("sandbox", "release", red, "--yes").err
    assert _saved_of_red(several)[0] == ("released", ["a"])
    assert "until sandboxes.blue.id names another one" in rig.ok("sandbox", "release", "box-blue", "--yes").out


def test_one_is_added_meanwhile(rig: Rig) -> None:
    """A daemon that starts reads the configuration anew, as the command could not tell it; one that syncs another does
    once that has ended, and who asks for the added one before is to ask again.
    """
    red, blue = (rig.emulator.create_sandbox(f"box-{name}") for name in ("red", "blue"))
    asked, hold = rig.with_slow_git()
    hold.touch()
    rig.start()
    rig.until(asked.exists, "git to be asked")
    rig.ok("sandbox", "add", "red", "--id", "box-red")
    hold.unlink()
    rig.write("b")
    rig.until(lambda: "b" in tree(red.workspace), "a sync to it")
    rig.ok("flush")
    held = rig.held("initialize")
    rig.write("a", TEXT)
    rig.in_state("initializing")
    rig.ok("sandbox", "add", "blue", "--id", "box-blue")
    assert rig.run("flush", "--sandbox", "blue", "--timeout", "1").code == 75
    held.set()
    rig.ok("flush", "--sandbox", "blue")
    assert Agent(blue.workspace).holds("a", TEXT.encode())


def test_a_push_to_one_forgets_nothing_of_another(rig: Rig, several: Several) -> None:
    """Without a daemon changes are pending for the other if this one got some since, and what is excluded is shown; the
    status still names what is held there.
    """
    for path, pending in ((".syncdignore", True), ("excluded", False)):
        rig.write(path, "excluded\n")
        rig.ok("push", "--sandbox", "blue")
        assert rig.status()["pending"] is pending
        rig.ok("push", "--sandbox", "main")
        assert (rig.status()["pending"], rig.status()["left_out"]) == (False, {} if pending else {".syncdignore": 1})
    rig.configure({**DEFAULTS, **BLUE, "sandbox.agent_changes": "hold"})
    several.agents["blue"].write("a", "blue's\n")
    rig.write("a", "mine\n")
    assert "held: a stays in the sandbox blue" in rig.ok("push").err
    before = rig.status()
    for command in ("push", "flush"):
        assert "blue" not in rig.ok(command, "--sandbox", "main").err
        after = rig.status()
        assert after["warnings"] == before["warnings"] != []
        assert [row["agent"]["held"] for row in after["sandboxes"]] == [[], ["a"]]


def test_what_cannot_be_saved_is_not_removed(rig: Rig, several: Several) -> None:
    """It is named, with 75, and the table stays; --force goes on."""
    several.agents["blue"].write("a", "blue's\n")
    before = rig.config_file.read_text()
    rig.faults("execute: 503 always", "dump: 503 always")
    refused = rig.run("sandbox", "remove", "blue", "--yes")
    assert (refused.code, "blue is not removed" in refused.err, "--force" in refused.err) == (75, True, True)
    assert rig.config_file.read_text() == before
    rig.ok("sandbox", "remove", "blue", "--force")
    assert "blue" not in rig.config_file.read_text()


def test_one_without_a_key_is_removed_by_force(rig: Rig, several: Several) -> None:
    """Nobody can look there, as where the key is refused; without --force that keeps its table."""
    rig.configure({**DEFAULTS, **BLUE, "sandboxes.blue.api_key_file": str(rig.home / "missing")})
    refused = rig.run("sandbox", "remove", "blue", "--yes")
    assert (refused.code, "no API key" in refused.err, "blue" in rig.config_file.read_text()) == (78, True, True)
    forced = rig.run("sandbox", "remove", "blue", "--force")
    assert (forced.code, "no API key" in forced.err, "blue" in rig.config_file.read_text()) == (0, True, False), forced


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("sandbox remove main --yes", 2, "this workspace; it has blue (see "),
        ("sandbox remove nobody --yes", 2, "this workspace; it has blue (see "),
        ("sandbox add red --id box", 78, "'main' has that sandbox"),
        ("sandbox add red --id box-blue", 78, "'blue' has that sandbox"),
        ("sandbox add blue --id other", 2, "there is a sandbox named 'blue'"),
        ("sandbox add red", 2, "--acquire"),
        ("sandbox add red --id other --acquire", 2, "--acquire"),
        ("sandbox add main --id other", 78, "not 'main'"),
        ("sandbox add a.b --id other", 78, "a.b"),
        ("diff --sandbox nobody", 2, f"this workspace; it has {NAMES} (see "),
        ("diff --all --sandbox blue", 2, "--all"),
        ("apply --all --yes", 2, "{sandbox}"),
        ("apply --all --branch agent", 2, "{sandbox}"),
        ("push --sandbox nobody", 2, NAMES),
        ("flush --sandbox nobody", 2, NAMES),
        *((f"{command}", 2, NAMES) for command in ("diff", "apply --yes", "verify", "pull copy", "resolve")),
    ],
)
def test_what_is_refused(rig: Rig, line: str, code: int, words: str) -> None:
    """Each says what to name; the file is left as it was, and no one is asked."""
    rig.configure({**DEFAULTS, **BLUE})
    before = rig.config_file.read_bytes()
    done = rig.run(*line.split())
    assert (done.code, words in done.err) == (code, True), done
    assert rig.config_file.read_bytes() == before
    assert not rig.emulator.request_log.entries()


@pytest.mark.parametrize("daemon", [True, False])
def test_the_commands_that_are_named_can_be_typed(several: Several, daemon: bool) -> None:
    """In the status, its warnings, and in what the commands say that these name, each has its sandbox."""
    rig, blue = several.rig, several.agents["blue"]
    rig.configure({**DEFAULTS, **BLUE, "sandboxes.blue.agent_changes": "hold"})
    blue.write("both", "blue's\n")
    blue.write("d/gone", "blue's\n")
    rig.write("both", "mine\n")
    (rig.workspace / "d/gone").unlink()
    if daemon:
        rig.watch()
    said = [
        rig.ok("push").err,
        rig.ok("flush", "--sandbox", "blue").err,
        rig.ok("status").out,
        *rig.status()["warnings"],
    ]
    named = _named_commands(said)
    done = [rig.run(*command.split()) for command in ("resolve --sandbox blue", *named)]
    assert {each.code for each in done} <= {0, 1}, done
    said += [each.err for each in done]
    assert {command.split()[0] for command in _named_commands(said)} >= {"diff", "apply", "resolve"}, said
    assert all("--sandbox blue" in command for command in _named_commands(said)), said


def _named_commands(said: list[str]) -> list[str]:
    pattern = "`syncd ((?:diff|apply|resolve|push|saved).*?)`"
    return [command for text in said for command in re.findall(pattern, " ".join(text.split()))]


# -- what is sent


@pytest.mark.parametrize("daemon", [True, False])
def test_what_sends_means_all(rig: Rig, several: Several, daemon: bool) -> None:
    """`push` and `flush` send to each; with --sandbox to one, where no daemon sends to the others by itself."""
    if daemon:
        rig.watch()
    for number, command in enumerate(("push", "flush")):
        rig.write("a", all_text := f"for all {number}\n")
        rows = several.json(command)["sandboxes"]
        assert [row["name"] for row in rows] == ["main", "blue"]
        assert several.holds("main", "a", all_text)
        assert several.holds("blue", "a", all_text)
        rig.write("a", one_text := f"for one {number}\n")
        rig.ok(command, "--sandbox", "blue")
        assert several.holds("blue", "a", one_text)
        assert daemon or several.holds("main", "a", all_text)
        if not daemon:
            before = _initialized(rig, "box-blue")
            rig.ok(command, "--sandbox", "main")
            assert several.holds("main", "a", one_text)
            assert _initialized(rig, "box-blue") == before


# -- what the agents did


def test_they_are_compared_in_a_table(rig: Rig, several: Several) -> None:
    """A row a path, a column a sandbox; a mark where several changed it. One that is gone is named; the rest shows."""
    assert (rig.ok("diff", "--all", "--stat").out, several.json("diff", "--all")["changes"]) == ("", [])
    several.work()
    several.agents["blue"].write(".env", "x=1\n")
    done = rig.run("diff", "--all", "--stat")
    assert done.told == "1 excluded path in the sandbox: not shown (blue)\n"
    rows = [re.split(r" {2,}", line) for line in done.out.splitlines()]
    assert (done.code, rows[0]) == (1, ["", "main", "blue"])
    assert [row for row in rows if row[0].startswith("!")] == [["! both", "modified", "modified"]]
    column = done.out.splitlines()[0].index("blue")
    assert [line[column:] for line in done.out.splitlines() if "run" in line or "gone" in line] == ["", "mode"]
    changes = {(row["sandbox"], row["path"]) for row in several.json("diff", "--all")["changes"]}
    assert {("main", "both"), ("blue", "both"), ("main", "binary"), ("blue", "link")} <= changes
    rig.configure({**DEFAULTS, "sandboxes.blue.id": "nobody"})
    for command, shown, why in (
        ("diff --stat", "binary", "nothing"),
        ("diff --json", '"sandbox": "main"', "nothing"),
        ("verify", "main:\n", "set sandboxes.blue.id to"),
    ):
        name, *more = command.split()
        lone = rig.run(name, "--all", *more)
        assert (lone.code, lone.told.count("blue: "), shown in lone.out) == (78, 1, True), lone
        assert (why in lone.told, lone.told.count("\n")) == (True, 1), lone
    assert "set sandboxes.blue.id to" in rig.run("sandbox", "show", "--sandbox", "blue").err


def test_what_is_told_of_one_names_it(rig: Rig, several: Several) -> None:
    """With `--all`, the lines on stderr about a sandbox that cannot be asked begin with its name."""
    rig.configure({**DEFAULTS, **BLUE, "sandbox.follow_seconds": 5})
    rig.watch()
    several.agents["blue"].write("new", "blue's\n")
    rig.until(lambda: rig.shown()["sandboxes"][1]["agent"]["changed"], "a look that follows blue")
    rig.faults("any@box-blue: 503 always")
    done = rig.run("diff", "--all", "--stat")
    assert ("new" in done.out, [line[:6] for line in done.told.splitlines()]) == (True, ["blue: "] * 2), done


def _files(root: Path) -> dict[str, object]:
    """What a patch tells of: no directories, and no repository."""
    return {path: what for path, what in tree(root).items() if what != ("folder",) and not path.startswith(".git/")}


def _changed(several: Several, name: str) -> list[object]:
    return [(row["path"], row["change"]) for row in several.json("diff", "--sandbox", name)["changes"]]


def test_one_is_taken_back_and_the_other_taken(rig: Rig, several: Several) -> None:
    """Each step is exact: the workspace is as that agent left it, as it was, as the other one left it."""
    rig.configure({**DEFAULTS, **BLUE, "sandbox.agent_changes": "hold"})
    several.work()
    before = tree(rig.workspace)
    changes = {name: _changed(several, name) for name in several.agents}
    made = {name: _files(several.sandbox(name).workspace) for name in several.agents}
    for name in ("main", "blue", "main"):
        rig.ok("apply", "--sandbox", name, "--yes", "--deletions")
        assert _files(rig.workspace) == made[name], name
        other = rig.run("apply", "--undo", "--sandbox", {"main": "blue", "blue": "main"}[name])
        assert (other.code, f"was of {name}; `syncd apply --undo` takes" in other.err) == (2, True), other
        rig.ok("apply", "--undo", "--sandbox", name)
        assert tree(rig.workspace) == before, name
        assert {each: _changed(several, each) for each in changes} == changes, name
        assert {each: _files(several.sandbox(each).workspace) for each in made} == made
    assert rig.ok("apply", "--undo", "--sandbox", "blue").out == "nothing to undo\n"


def test_an_apply_of_one_that_is_gone_is_taken_back(rig: Rig, several: Several) -> None:
    """The undo works after the sandbox was removed from the configuration, and the next apply is main's."""
    several.work()
    before = tree(rig.workspace)
    rig.watch()
    rig.ok("pause")
    rig.ok("apply", "--sandbox", "blue", "--yes")
    rig.ok("sandbox", "remove", "blue", "--yes")
    rig.ok("apply", "--undo")
    assert tree(rig.workspace) == before
    rig.ok("apply", "--yes", "--deletions")  # only main is left: it need not be named
    assert _files(rig.workspace) == _files(rig.sandbox.workspace)


def test_a_killed_apply_is_taken_back_by_another_ones_command(rig: Rig, several: Several) -> None:
    """Wherever it dies: an apply of main begins from the workspace as it was, and nothing of blue's counts as sent."""
    several.agents["blue"].write("a", "blue's\n")
    several.agents["blue"].write("new/deep", "blue's\n")
    before = tree(rig.workspace)
    died = 0
    for commit in range(1, 5):
        died += rig.dies_at(commit, "apply", "--sandbox", "blue", "--yes") == 9
        if tree(rig.workspace) != before and "pending" not in records(rig.state_folder):
            rig.ok("apply", "--undo")  # it had ended
        rig.ok("apply", "--sandbox", "main", "--yes")
        assert tree(rig.workspace) == before, commit
        changes = several.json("diff", "--sandbox", "blue")["changes"]
        assert [row["path"] for row in changes if "new" not in row["path"]] == ["a"], commit
    assert died


def test_a_branch_for_each(rig: Rig, several: Several) -> None:
    """One command makes all, each with its own sandbox's changes; the work tree stays."""
    committed(rig.workspace)
    rig.ok("push")
    several.work()
    before = _files(rig.workspace)
    rig.ok("apply", "--branch", "agent/{sandbox}", "--all")
    made_branches = git(rig.workspace, "for-each-ref", "--format=%(refname:short)", "refs/heads/agent")
    assert made_branches.split() == ["agent/blue", "agent/main"]
    for name in several.agents:
        assert f"LINE 7 of {name}" in git(rig.workspace, "show", f"agent/{name}:both")
    made = several.json("apply", "--branch", "again/{sandbox}", "--all")
    assert [(row["sandbox"], "both" in row["taken"]) for row in made["sandboxes"]] == [("main", True), ("blue", True)]
    assert "both" in made["taken"]
    assert _files(rig.workspace) == before


def test_the_way_home_of_one(rig: Rig, several: Several, tmp_path: Path) -> None:
    """`pull`, `verify` and `resolve` of one; `verify` of all, each under its name."""
    several.agents["blue"].write("a", "blue's\n")
    rig.ok("pull", "--sandbox", "blue", str(tmp_path / "copy"))
    assert (tmp_path / "copy/a").read_text() == "blue's\n"
    assert several.json("verify", "--sandbox", "main")["equal"]
    of_all = several.json("verify", "--all")
    assert [(row["sandbox"], row["equal"]) for row in of_all["sandboxes"]] == [("main", True), ("blue", False)]
    assert of_all["equal"] is False
    assert "main:\nin sync: " in rig.run("verify", "--all").out
    rig.write("a", "mine\n")
    rig.ok("push")
    assert [row["path"] for row in several.json("resolve", "--sandbox", "main").get("waiting", [])] == []


# -- what is told


def test_each_is_told_of(rig: Rig, several: Several) -> None:
    """The status has a line for each and is in sync if all are; JSON, history, saved versions, log."""
    running = rig.watch()
    rig.write("a", "mine\n")
    rig.ok("flush")
    screen = rig.ok("status").out
    assert "in sync" in screen.splitlines()[0]
    assert screen.count("main: in sync") == screen.count("blue: in sync") == 1
    document = rig.status()
    assert [(row["name"], row["id"]) for row in document["sandboxes"]] == [("main", "box"), ("blue", "box-blue")]
    assert document["sandbox"]["id"] == "box"
    for row in document["sandboxes"]:
        assert {"name", "id", "state", "last_sync", "last_error", "retry_at", "agent"} <= set(row)
    records = [json.loads(line) for line in rig.ok("history", "--json").out.splitlines()]
    assert {(each["sandbox"], each["sandbox_id"]) for each in records} == {("main", "box"), ("blue", "box-blue")}
    assert "blue" in rig.ok("history").out
    for agent in several.agents.values():
        agent.write("a", "the agent's\n")
    rig.write("a", "mine once more\n")
    rig.ok("flush")
    (saved,) = several.json("saved", "--sandbox", "blue")["saved"]
    assert (saved["sandbox"], several.json("saved", "--sandbox", "blue")["saved"]) == ("blue", [saved])
    assert rig.run("saved", "drop", saved["id"], "--sandbox", "main", "--yes").code == 78
    assert {row["sandbox"] for row in several.json("saved")["saved"]} == {"main", "blue"}
    assert [row["agent"]["saved"] for row in rig.status()["sandboxes"]] == [1, 1]
    for name in ("main", "blue"):
        assert re.search(rf":\d\d info    {name}: synced ", running.err, re.MULTILINE), running.err


def test_check_asks_for_each(rig: Rig, several: Several) -> None:
    """One that the API does not know, or whose key cannot be read or is refused, is a failure under its name. The key
    of the environment is for main, and for those that name no file of their own: not for others.
    """
    assert "pass  sandbox        blue: box-blue is " in rig.ok("check").out
    for key, value in (("id", "nobodys"), ("api_key_file", str(rig.home / "missing"))):
        rig.configure({**DEFAULTS, **BLUE, f"sandboxes.blue.{key}": value})
        found = rig.run("check")
        assert (found.code, " blue: " in found.out, value in found.out) == (78, True, True)
    (rig.home / "blue-key").touch(0o600)
    (rig.home / "blue-key").write_text("the-key-of-another-account\n")
    rig.configure({**DEFAULTS, **BLUE, "sandboxes.blue.api_key_file": str(rig.home / "blue-key")})
    rig.environ["KLAVIS_API_KEY"] = KEY
    found = rig.run("check")
    assert (found.code, "blue: Klavis refused the key from ~/blue-key" in found.out) == (78, True)


def test_a_key_that_is_replaced_while_another_one_uploads(rig: Rig, several: Several) -> None:
    """A push without a daemon reads no configuration anew: it ends with what it began with."""
    key_file = rig.home / "blue-key"
    key_file.touch(0o600)
    key_file.write_text("the-key-of-another-account\n")
    rig.configure({**DEFAULTS, **BLUE, "sandboxes.blue.api_key_file": str(key_file)})
    rig.write("a", "edited")
    rig.faults("upload@box: delay 6")
    push = rig.background("push")
    rig.until(lambda: [each for each in rig.emulator.request_log.entries() if each.status == 401], "the refusal")
    key_file.write_text("the-key-of-a-third-account\n")
    assert push.wait() == 78
    assert several.holds("main", "a", "edited")


def test_another_directory_is_forced_into_one_alone(rig: Rig, several: Several) -> None:
    """A workspace in another's place stays refused for the sandbox that holds the old one, whatever the others got."""
    for number in range(30):
        rig.write(f"old{number}")
    rig.ok("push")
    rig.workspace.rename(rig.home / "aside")
    for number in range(30):
        rig.write(f"new{number}")
    assert rig.run("push").code == 78
    rig.ok("push", "--force", "--sandbox", "blue")
    assert rig.run("push").code == 78
    assert (rig.sandbox.workspace / "old7").exists()
    rig.ok("push", "--force", "--sandbox", "main")
    assert not (rig.sandbox.workspace / "old7").exists()


def test_a_reload_waits_for_one_alone(rig: Rig, several: Several) -> None:
    """While it waits for the end of a sync, the other gets edits; then the new configuration holds for both."""
    daemon = rig.watch()
    begun, held = threading.Event(), threading.Event()

    def hold(entry: RequestRecord) -> None:
        if entry.sandbox == rig.sandbox.id:
            begun.set()
            held.wait(TIMEOUT_S)

    rig.emulator.faults.on("initialize", When.BEFORE, hold)
    rig.write("a", "first\n")
    rig.until(lambda: begun.is_set() and several.holds("blue", "a", "first\n"), "the edit in blue, and on its way")
    rig.configure({**DEFAULTS, **BLUE, "workspace.ignore": ["excluded"]})
    daemon.send(signal.SIGHUP)
    rig.write("a", "second\n")
    rig.ok("flush", "--sandbox", "blue")
    assert several.holds("blue", "a", "second\n")
    assert "read anew" not in daemon.err
    held.set()
    rig.until(lambda: "read anew" in daemon.err, "the reload")
    rig.write("excluded")
    rig.write("a", "third\n")
    rig.until(lambda: all(several.holds(name, "a", "third\n") for name in ("main", "blue")), "the last edit in both")
    assert not any((several.sandbox(name).workspace / "excluded").exists() for name in ("main", "blue"))


@pytest.mark.parametrize("daemon", [True, False])
def test_one_that_fails_tells_of_the_others(rig: Rig, several: Several, daemon: bool) -> None:
    """`push` and `flush` of all name the one that failed and what of the other is known: it has what was sent."""
    if daemon:
        rig.watch()
    rig.faults("initialize@box-blue: 422 always")
    for command in ("push", "flush"):
        rig.write("a", f"for {command}\n")
        failed = rig.run(command)
        assert (failed.code, failed.out) == (78, ""), failed
        assert re.search(r"^syncd: main: in sync; blue: .*\(422", failed.err, re.MULTILINE), failed
        assert several.holds("main", "a", f"for {command}\n")


@pytest.mark.parametrize("how", ["dead", "unanswered"])
def test_a_dead_one_keeps_no_other_waiting(rig: Rig, several: Several, unanswered: str, how: str) -> None:
    """It is shown as late, the whole is not in sync, and `apply` and `push` of the other end at once."""
    url = "http://127.0.0.1:9" if how == "dead" else unanswered
    rig.configure({**DEFAULTS, **BLUE, "sandboxes.blue.base_url": url})
    rig.start()
    rig.until(lambda: several.holds("main", "a", TEXT), "main")
    rig.write("a", "mine\n")
    rig.until(lambda: several.holds("main", "a", "mine\n"), "the edit in main")
    several.agents["main"].write("both", "main's\n")
    began_s = CLOCK.monotonic_s()
    rig.ok("apply", "--sandbox", "main", "--yes")
    rig.ok("push", "--sandbox", "main")
    rig.ok("flush", "--sandbox", "main")
    assert CLOCK.monotonic_s() - began_s < 60
    assert (rig.workspace / "both").read_text() == "main's\n"
    screen = rig.ok("status").out
    assert "in sync" not in screen.splitlines()[0]
    assert "main: in sync" in screen
    assert "blue: in sync" not in screen
    assert rig.status()["pending"]
    late = rig.run("flush", "--timeout", "2")
    assert (late.code, "blue: " in late.err) == (75, how == "dead")
