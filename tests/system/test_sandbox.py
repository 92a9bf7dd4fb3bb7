"""`syncd sandbox`, and a daemon that acquires: the account's sandboxes, and the agent's notification."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.agent import Agent
from tests.system.rig import DEFAULTS, Rig

ACQUIRE: dict[str, object] = {"sandbox.acquire.servers": ["filesystem", "git"], "sandbox.acquire.ttl_seconds": 600}


@pytest.fixture
def acquiring(rig: Rig) -> Rig:
    """A workspace whose sandbox syncd acquires."""
    rig.configure(ACQUIRE)
    rig.write("a.txt")
    return rig


def ours(rig: Rig) -> str:
    """Return the id of the workspace's sandbox."""
    shown = json.loads(rig.ok("sandbox", "show", "--json").out)
    return str(shown["id"])


def test_from_nothing_to_nothing(acquiring: Rig) -> None:
    """A sandbox is acquired, shown in each form, filled, listed, released, and replaced by the next sync."""
    rig = acquiring
    refused = rig.run("sandbox", "show")
    assert (refused.code, "`syncd sandbox acquire`" in refused.err) == (78, True)
    assert "in the sandbox: not yet sent" in rig.ok("explain", str(rig.workspace / "a.txt")).out
    first = json.loads(rig.ok("sandbox", "acquire", "--json").out)
    assert first["new"]
    assert set(first["servers"]) == {"filesystem", "git"}
    assert "nothing to do" in rig.ok("sandbox", "acquire").out
    rig.ok("push")
    assert rig.emulator.sandbox(first["id"]).workspace.joinpath("a.txt").exists()
    text = rig.ok("sandbox", "show").out
    assert f"git: {first['servers']['git']}" in text
    assert re.search(r"^ends     in 9 min, \w{3} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d$", text, re.MULTILINE)
    assert json.loads(rig.ok("sandbox", "show", "--json").out)["servers"] == first["servers"]
    rows = json.loads(rig.ok("sandbox", "list", "--json").out)["sandboxes"]
    assert {row["id"]: row["in_use"] for row in rows} == {"box": False, first["id"]: True}
    assert f"* {first['id']}" in rig.ok("sandbox", "list").out
    with rig.terminal("sandbox", "list", columns=50, TERM="xterm") as narrow:
        assert narrow.finish() == 0
        assert max(map(len, narrow.text.splitlines())) < 50
    assert rig.run("sandbox", "release").code == 2
    assert "another one" in rig.ok("sandbox", "release", "--yes").out
    assert rig.emulator.sandbox(first["id"]) is None
    status = rig.status()
    assert (status["sandbox"]["id"], status["last_sync"]) == ("", None)
    assert rig.run("sandbox", "release", "--yes", first["id"]).code == 78
    rig.ok("push")
    assert rig.count("acquire") == 2


def test_one_that_is_gone(acquiring: Rig) -> None:
    """No command and no warning says to configure the id of one that is acquired: the next sync acquires another."""
    rig = acquiring
    rig.configure({**DEFAULTS, **ACQUIRE})
    rig.ok("push")
    rig.emulator.api.delete_sandbox(ours(rig))
    refused = rig.run("diff")
    assert (refused.code, "config edit" in refused.err, "`syncd push`" in refused.err) == (78, False, True), refused
    rig.up()
    (lost,) = [each for each in rig.status()["warnings"] if "could not be saved before it ended" in each]
    assert "it may have expired" not in lost


def test_beside_a_named_one(rig: Rig) -> None:
    """A sandbox acquired by hand is named, and nothing is sent to it."""
    acquired = rig.ok("sandbox", "acquire").out
    (new,) = [box for box in rig.emulator.sandboxes() if box.id != "box"]
    assert f'sandbox.id = "{new.id}" with `syncd config edit`' in acquired
    assert new.record.servers == ["filesystem", "git", "terminal"]
    rig.write("a.txt")
    rig.ok("push")
    assert rig.sandbox.workspace.joinpath("a.txt").exists()
    rig.ok("sandbox", "release", "--yes", new.id)
    released = rig.ok("sandbox", "release", "--yes").out
    assert "sandbox.id names another one (`syncd config edit`)" in released
    assert rig.run("push", "--force").code == 78


@pytest.mark.parametrize("odd", ["", "..", "a\n", "\udcff"])
@pytest.mark.parametrize("verb", ["show", "release"])
def test_an_id_that_no_sandbox_has(rig: Rig, verb: str, odd: str) -> None:
    """An id that no request can name is wrong usage, bytes that are not UTF-8 too."""
    refused = rig.run("sandbox", verb, odd)
    assert (refused.code, "is no sandbox's id" in refused.err, refused.err.count("\n")) == (2, True, 1)


@pytest.mark.parametrize("released", ["main", "blue"])
def test_what_status_shows_of_the_others(rig: Rig, released: str) -> None:
    """Without a daemon: a release forgets the last sync to that one alone; one that was removed is not shown."""
    blue = {f"sandboxes.blue.{key.removeprefix('sandbox.')}": value for key, value in ACQUIRE.items()}
    rig.emulator.create_sandbox("red")
    rig.write("a.txt")

    def synced(keys: Mapping[str, object]) -> dict[str, bool]:
        rig.configure({**ACQUIRE, **keys})
        return {each["name"]: each["last_sync"] is not None for each in rig.status()["sandboxes"]}

    rig.configure({**ACQUIRE, **blue, "sandboxes.red.id": "red"})
    rig.ok("push")
    rig.ok("sandbox", "release", "--yes", "--sandbox", released)
    expected = {"main": True, "blue": True, "red": True, released: False}
    assert synced({**blue, "sandboxes.red.id": "red"}) == expected
    del expected["red"]
    assert synced(blue) == expected
    assert (rig.status()["last_sync"] is not None) == expected["main"]


@pytest.fixture
def changed(rig: Rig) -> Agent:
    """The agent in a sandbox that holds `a` and `b`, and where it changed `a`."""
    rig.configure(DEFAULTS)
    rig.write("a", "as sent")
    rig.write("b", "as sent")
    rig.ok("push")
    rig.agent.write("a", "the agent's")
    return rig.agent


def saved_paths(rig: Rig) -> list[str]:
    return sorted(path for version in rig.saved() for path in version["paths"])


def test_a_release_that_would_lose_something(rig: Rig, changed: Agent) -> None:
    """It names that and ends with 75, or asks once more; --force goes on."""
    changed.write("large", random.Random(1).randbytes(200_000))
    small_files = ("prlimit", "--fsize=100000")
    kept = rig.run("sandbox", "release", "--yes", prefix=small_files)
    assert (kept.code, len(kept.told.splitlines())) == (75, 1)
    assert "2 paths there could not be saved: 'a' (files from the sandbox cannot be kept" in kept.err
    assert "--force" in kept.err
    rig.faults("execute: 404 always", "dump: 404 always")
    nobody = rig.run("sandbox", "release", "--yes")
    assert (nobody.code, "nobody could look for what an agent changed there (" in nobody.err) == (75, True)
    with rig.terminal("sandbox", "release", columns=100) as left:
        left.asked("[y/N]:")
        left.send(signal.SIGINT)
        assert (left.finish(), "\nsyncd: stopped; nothing was changed" in left.text) == (75, True)
    with rig.terminal("sandbox", "release", columns=100) as terminal:
        terminal.answer("[y/N]:", "y")
        terminal.until(lambda text: text.count("[y/N]:") == 2, "the second question")
        assert "is saved here before" in terminal.text
        assert "nobody could look" in terminal.text
        terminal.type("n\r")
        assert terminal.finish() == 0
    assert rig.count("release") == 0
    rig.emulator.faults.clear()
    forced = rig.ok("sandbox", "release", "--force")
    assert "large" not in forced.err
    assert rig.count("release") == 1
    assert saved_paths(rig) == ["a", "large"]


def test_what_is_written_while_a_release_asks(rig: Rig, changed: Agent) -> None:
    """It is saved after the answer, and what is accepted as lost is not asked for again."""
    changed.write("large", random.Random(1).randbytes(200_000))
    with rig.terminal("sandbox", "release", columns=100, prefix=("prlimit", "--fsize=100000")) as terminal:
        terminal.answer("[y/N]:", "y")
        terminal.until(lambda text: text.count("[y/N]:") == 2, "the second question")
        assert "could not be saved: " in terminal.text
        changed.delete("large")
        changed.write("late", "theirs, late")
        terminal.type("y\r")
        assert terminal.finish() == 0
    assert rig.count("release") == 1
    assert saved_paths(rig) == ["a", "late"]


def test_a_release_with_a_path_that_is_too_long(rig: Rig, changed: Agent) -> None:
    """What is below is not looked at, and no rule leaves it out: it is named, and the sandbox stays."""
    folder = os.open(changed.path("."), os.O_RDONLY)
    for _ in range(18):
        os.mkdir("n" * 250, dir_fd=folder)
        below = os.open("n" * 250, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(folder)
    kept = rig.run("sandbox", "release", "--yes")
    assert (kept.code, "there could not be saved: 'nnn" in kept.err) == (75, True)
    assert (rig.count("release"), saved_paths(rig)[0]) == (0, "a")
    shown = rig.run("diff", "--name-only")
    assert ("a" in shown.out.splitlines(), "not searched: nnn" in shown.err) == (True, True)
    applied = rig.run("apply")
    assert (applied.code, "not applied: nnn" in applied.err) == (75, True), applied
    assert (rig.workspace / "a").read_bytes() == changed.read("a")


def test_a_move_after_the_release_of_another_one(rig: Rig, changed: Agent) -> None:
    """The release of one that nothing was sent to forgets no other one: what is in that is saved before the move."""
    for name in ("unused", "next"):
        rig.emulator.create_sandbox(name)
    rig.configure({**DEFAULTS, "sandbox.id": "unused"})
    rig.ok("sandbox", "release", "--yes")
    rig.configure({**DEFAULTS, "sandbox.id": "next"})
    rig.ok("push")
    assert (rig.status()["warnings"], saved_paths(rig)) == ([], ["a"])


def test_a_release_where_nobody_looks(rig: Rig, changed: Agent) -> None:
    """With `overwrite` it says that nothing is saved, in the question or without one."""
    rig.configure({**DEFAULTS, "sandbox.agent_changes": "overwrite"})
    with rig.terminal("sandbox", "release", columns=200) as terminal:
        terminal.answer("[y/N]:", "n")
        assert terminal.finish() == 0
        assert 'is lost, as with sandbox.agent_changes = "overwrite" nobody looks' in terminal.text
    assert changed.exists("a")
    assert 'is lost, as with sandbox.agent_changes = "overwrite"' in rig.ok("sandbox", "release", "--yes").err
    assert rig.count("release") == 1


@pytest.mark.parametrize("running", [False, True])
def test_nothing_is_in_sync_with_a_released_sandbox(rig: Rig, changed: Agent, running: bool) -> None:
    """No command says that it holds anything; the next one is filled, and no work in the old one counts as lost."""
    daemon = rig.start() if running else None
    if running:
        rig.in_state("watching")
    rig.ok("sandbox", "release", "--yes")
    assert [rig.run(command).code for command in ("push", "flush")] == [78, 78]
    assert (rig.status()["state"], rig.run("status", "--check").code) == ("held" if running else "stopped", 1)
    rig.emulator.create_sandbox("other", [])
    rig.configure({**DEFAULTS, "sandbox.id": "other"})
    if daemon is not None:
        daemon.send(signal.SIGHUP)
        rig.until(lambda: rig.status()["sandbox"]["id"] == "other", "the reload")
    rig.ok("flush")
    assert (rig.status()["warnings"], saved_paths(rig)) == ([], ["a"])
    assert Agent(rig.emulator.sandbox("other").workspace).holds("a", b"as sent")


def test_a_release_after_the_state_was_lost(rig: Rig, changed: Agent) -> None:
    """All that differs from the workspace is saved, as nothing is known of what was sent."""
    for path in rig.state_folder.iterdir():
        if path.is_file():
            path.unlink()
    rig.ok("sandbox", "release", "--yes")
    assert rig.count("release") == 1
    assert saved_paths(rig) == ["a"]


def test_what_the_account_refuses(acquiring: Rig) -> None:
    """Each error is one line with its exit code."""
    acquiring.faults("acquire: 402", "list: 500", "release: 401")
    paid = acquiring.run("sandbox", "acquire")
    assert (paid.code, "pays for no further sandbox" in paid.err) == (78, True)
    assert acquiring.run("sandbox", "list").code == 75
    assert acquiring.run("sandbox", "release", "--yes", "box").code == 78
    assert acquiring.run("sandbox", "release", "--yes", "..").code == 2


def test_a_release_that_a_sign_in_page_answers(acquiring: Rig) -> None:
    """It released nothing: the sandbox stays this workspace's, and the next release asks again."""
    acquiring.ok("push")
    acquiring.faults("release: html")
    failed = acquiring.run("sandbox", "release", "--yes")
    assert (failed.code, failed.out, "sign in to this network" in failed.err) == (75, "", True)
    assert ours(acquiring) in acquiring.ok("sandbox", "release", "--yes").out


def test_a_daemon_moves_to_the_next_sandbox(acquiring: Rig, tmp_path: Path) -> None:
    """Its sandbox is released: the agent is notified of each filled one and its servers, without a local change."""
    rig, reported = acquiring, tmp_path / "told"
    keys = """python3 -c 'import json, sys; d = json.load(sys.stdin)
print(d["sandbox_id"], d["sandbox_changed"], d["sandbox_id"] in d["mcp_servers"]["git"])'"""
    line = f'{keys} <"$SYNCD_CHANGES" >>{shlex.quote(str(reported))}'
    rig.configure({**ACQUIRE, "sync.on_synced": ["sh", "-c", line]})
    rig.faults("acquire: 503 always")
    daemon = rig.start()
    rig.until(lambda: rig.status()["retry_at"], "a failure")
    busy = rig.run("sandbox", "acquire")
    assert (busy.code, "`syncd flush`" in busy.err) == (75, True)
    rig.emulator.faults.clear()
    rig.ok("flush")
    first = ours(rig)
    rig.until(lambda: reported.exists() and reported.read_text() == f"{first} True True\n", "the hook")
    for words in ((), ("--json",), ("--all",)):  # the servers' URLs may hold tokens
        assert f"/{first}/git" not in rig.run("status", *words).out
    assert f"/{first}/git" not in (rig.state_folder / "status.json").read_text()
    assert f"/{first}/git" in rig.ok("sandbox", "show").out
    assert "next sync acquires another one" in rig.ok("sandbox", "release", "--yes").out
    rig.until(lambda: reported.read_text().count("\n") == 2, "the hook for the next one, though nothing changed")
    second = ours(rig)
    assert reported.read_text() == f"{first} True True\n{second} True True\n"
    assert daemon.stop() == 0
