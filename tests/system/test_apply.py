"""`syncd apply`: the sandbox's changes come home, all or nothing, and can be taken back."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
from typing import Any

import pytest

from tests.agent import Agent
from tests.recorded import records
from tests.repositories import committed, git
from tests.system.command import AS_ANYONE, Running, as_anyone
from tests.system.rig import DEFAULTS, TIMEOUT_S, Rig
from tests.system.trees import tree

TEXT = "".join(f"line {number}\n" for number in range(30))
QUESTION = "[y/d/N]:"
LARGE_BYTES = 112 << 20
MEMORY_BYTES = 84 << 20  # is enough for the command, some 50 MiB, and not with such a file in it


@pytest.fixture
def agent(rig: Rig) -> Agent:
    """A workspace that was sent, and the agent in its sandbox."""
    rig.configure(DEFAULTS)
    for path in ("a", "both", "clash", "d/b", "gone", "mine", "run"):
        rig.write(path, TEXT)
    rig.ok("push")
    return rig.agent


def _read(rig: Rig, path: str) -> str:
    return (rig.workspace / path).read_bytes().decode()


def _applied(rig: Rig, *args: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and the lists that are not empty, but for what a person should look at."""
    done = rig.run("apply", "--json", *args)
    document = json.loads(done.out)
    lists = ["taken", "merged", "deleted", "mine", "conflicts", "stays", "never", "undone", "look_at"]
    assert list(document) == lists
    return done.code, {name: paths for name, paths in document.items() if paths and name != "look_at"}


def _both_at_work(rig: Rig, agent: Agent) -> None:
    """One path for each row of the table."""
    agent.write_with_old_mtime("a", TEXT.replace("line 7", "LINE 7"))
    agent.write("new/deep", "theirs\n")
    agent.write("both", TEXT.replace("line 2\n", "theirs\n"))
    rig.write("both", TEXT.replace("line 25\n", "ours\n"))
    agent.write("clash", TEXT.replace("line 2\n", "theirs\n"))
    rig.write("clash", TEXT.replace("line 2\n", "ours\n"))
    agent.delete("gone")
    agent.write("d/b", "theirs\n")
    (rig.workspace / "d/b").unlink()
    agent.delete("mine")
    rig.write("mine", "ours\n")
    agent.chmod("run", 0o755)


def test_a_merge_of_any_size_needs_no_memory(rig: Rig, agent: Agent) -> None:
    """Where one side changed the content of a large file, and the other its mode, nothing holds it in memory."""
    for path in ("content", "mode"):
        with open(rig.workspace / path, "wb") as file:
            file.truncate(LARGE_BYTES)
    rig.ok("push")
    for path, theirs in (("content", True), ("mode", False)):
        at = agent.path(path) if theirs else os.fsencode(rig.workspace / path)
        with open(at, "ab") as file:
            file.write(b"more")
    agent.chmod("mode", 0o755)
    (rig.workspace / "content").chmod(0o755)
    done = rig.run("apply", "--json", prefix=("prlimit", f"--data={MEMORY_BYTES}"))
    assert (done.code, json.loads(done.out or "{}").get("merged")) == (0, ["content", "mode"]), done
    for path in ("content", "mode"):
        status = (rig.workspace / path).stat()
        assert (status.st_size, status.st_mode & 0o777) == (LARGE_BYTES + len(b"more"), 0o755)


TAKEN = ["a", "new", "new/deep", "run"]


def test_the_table(rig: Rig, agent: Agent) -> None:
    """Each state has its outcome; a conflict stops nothing, and its version is saved once. A second time does nothing,
    and --undo gives back all but what was changed since.
    """
    _both_at_work(rig, agent)
    expected = {"taken": TAKEN, "merged": ["both"], "conflicts": ["clash"], "stays": ["d/b", "gone", "mine"]}
    before = tree(rig.workspace)
    assert _applied(rig, "--dry-run") == (1, expected)
    assert (tree(rig.workspace), rig.saved()) == (before, [])
    assert _applied(rig) == (1, expected)
    assert _read(rig, "a") == TEXT.replace("line 7", "LINE 7")
    assert _read(rig, "new/deep") == "theirs\n"
    assert _read(rig, "both") == TEXT.replace("line 2\n", "theirs\n").replace("line 25\n", "ours\n")
    assert _read(rig, "clash") == TEXT.replace("line 2\n", "ours\n")
    assert (_read(rig, "gone"), _read(rig, "mine")) == (TEXT, "ours\n")
    assert not (rig.workspace / "d/b").exists()
    assert os.access(rig.workspace / "run", os.X_OK)
    assert [(row["why"], row["paths"]) for row in rig.saved()] == [("conflict", ["clash"])]
    assert rig.restored("clash") == TEXT.replace("line 2\n", "theirs\n")
    after = tree(rig.workspace)
    assert _applied(rig) == (1, {"conflicts": ["clash"], "stays": ["d/b", "gone", "mine"]})
    assert (tree(rig.workspace), len(rig.saved())) == (after, 1)
    said = rig.run("apply", str(rig.workspace / "a"))
    assert (said.code, said.out) == (0, "nothing to apply\n")
    assert _applied(rig, "--undo")[0] == 0
    assert tree(rig.workspace) == before
    assert rig.ok("apply", "--undo").out == "nothing to undo\n"
    _applied(rig, "--deletions")
    assert not (rig.workspace / "gone").exists()
    # The agent's own text is in the sandbox still; a merged file, and only that, is sent with ours.
    rig.ok("push")
    assert agent.read("both").decode() == _read(rig, "both")
    assert agent.read("d/b") == b"theirs\n"
    rig.write("a", "newer\n")
    code, lists = _applied(rig, "--undo")
    assert (code, lists["stays"]) == (0, ["a"])
    assert tree(rig.workspace) == {**before, "a": tree(rig.workspace)["a"]}


@as_anyone
def test_what_cannot_be_read_here(rig: Rig, agent: Agent) -> None:
    """It is a conflict, named with the reason, and keeps nothing else from being shown, taken and decided."""
    for path in ("a", "both", "d/b"):
        agent.write(path, "theirs\n")
    rig.write("both", "ours\n")
    (rig.workspace / "both").chmod(0)
    (rig.workspace / "d").chmod(0)
    try:
        shown = rig.run("diff", prefix=AS_ANYONE)
        assert (shown.code, "+++ b/a" in shown.out) == (1, True), shown
        applied = rig.run("apply", prefix=AS_ANYONE)
        assert applied.code == 1
        assert {"apply     a", "conflict  both: it cannot be read here, or is being written"} <= set(
            applied.out.splitlines()
        )
        listed = rig.run("resolve", prefix=AS_ANYONE)
        assert (listed.code, "both: it cannot be read here, or is being written (here unreadable" in listed.out) == (
            1,
            True,
        ), listed
        refused = rig.run("resolve", "--theirs", str(rig.workspace / "both"), prefix=AS_ANYONE)
        assert (refused.code, "conflict  both: it cannot be read here, or is being written\n" in refused.out) == (
            1,
            True,
        ), refused
    finally:
        (rig.workspace / "d").chmod(0o700)
        (rig.workspace / "both").chmod(0o600)
    assert [_read(rig, path) for path in ("a", "both", "d/b")] == ["theirs\n", "ours\n", TEXT]
    assert "both" in rig.saved()[0]["paths"]


def test_what_a_program_here_writes_to(rig: Rig, agent: Agent) -> None:
    """A file that changes while it is read is a conflict: it stays, and the agent's version is saved."""
    for path in ("a", "both"):
        agent.write(path, "theirs\n")
    os.truncate(rig.workspace / "both", 64 << 20)  # not read in an instant
    write = "import os, sys\nfile = os.open(sys.argv[1], os.O_WRONLY)\nwhile os.pwrite(file, b'ours', 4096): pass"
    with subprocess.Popen([sys.executable, "-c", write, str(rig.workspace / "both")]) as writer:
        try:
            applied = rig.run("apply")
            listed = rig.run("resolve")
        finally:
            writer.kill()
    assert "conflict  both: it cannot be read here, or is being written" in applied.out.splitlines()
    assert (applied.code, _read(rig, "a"), rig.saved()[0]["paths"]) == (1, "theirs\n", ["both"])
    assert (listed.code, "both: it cannot be read here" in listed.out) == (1, True), listed
    with open(rig.workspace / "both", "rb") as file:
        assert file.read(len(TEXT)) == TEXT.encode()


def test_what_is_asked_for(rig: Rig, agent: Agent) -> None:
    """Paths, relative to the current directory; ignored files by a pattern; deletions. Nothing else is taken, and what
    was needs no upload.
    """
    rig.write(".gitignore", "*.log\nbuild/\n")
    rig.write("e/f")
    rig.ok("push")
    before = tree(rig.workspace).keys()
    for path in ("a", "d/b", "d/new", "b", "x.log", "y.log", "build/out", "g/h/new", "g/other"):
        agent.write(path, "theirs\n")
    agent.chmod("run", 0o755)
    agent.delete("gone")
    agent.delete("e")
    done = rig.run("apply", "--json", "b", place=rig.workspace / "d")
    assert json.loads(done.out)["taken"] == ["d/b"]
    assert _applied(rig, str(rig.workspace / "d")) == (0, {"taken": ["d/new"]})
    # With the directories that it needs here, which need no upload either.
    assert _applied(rig, str(rig.workspace / "g/h/new")) == (0, {"taken": ["g", "g/h", "g/h/new"]})
    uploads = rig.count("upload")
    rig.ok("push")
    assert (rig.count("upload"), _read(rig, "a")) == (uploads, TEXT)
    said = rig.ok("apply")
    assert "stays     gone: deleted in the sandbox; --deletions deletes it here" in said.out.splitlines()
    assert (_read(rig, "a"), _read(rig, "b"), _read(rig, "gone")) == ("theirs\n", "theirs\n", TEXT)
    assert not {"x.log", "y.log", "build"} & set(tree(rig.workspace))
    included = _applied(rig, "--include", "x.log", "--include", "build/", str(rig.workspace / "build"))
    assert included == (0, {"taken": ["build", "build/out"]})
    assert _applied(rig, "--include", "x.log", "--deletions") == (
        0,
        {"taken": ["x.log"], "deleted": ["e", "e/f", "gone"]},
    )
    brought = {"b", "build", "build/out", "d/new", "g", "g/h", "g/h/new", "g/other", "x.log"}
    assert tree(rig.workspace).keys() == (before | brought) - {"e", "e/f", "gone"}
    uploads = rig.count("upload")
    rig.ok("push")
    assert (rig.count("upload"), agent.read("a")) == (uploads, b"theirs\n")


def test_what_is_included_in_an_excluded_folder(rig: Rig, agent: Agent) -> None:
    """One file of a folder that is excluded, also of one that is not searched otherwise; and nothing beside it."""
    rig.write(".gitignore", "build/\ngen/\n")
    rig.ok("push")
    for path in ("build/out/made", "build/y", "node_modules/p/patched", "gen/z", "gen/other", "dist.js"):
        agent.write(path, "theirs\n")
    before = tree(rig.workspace).keys()
    patterns = ("build/out/made", "/node_modules/p/patched", "gen/z", "build/missing/*")
    options = [option for pattern in patterns for option in ("--include", pattern)]
    assert _applied(rig, *options, "build", "node_modules", "gen")[1]["taken"] == [
        "build/out/made",
        "gen/z",
        "node_modules/p/patched",
    ]
    files = {path for path in tree(rig.workspace).keys() - before if (rig.workspace / path).is_file()}
    assert files == {"build/out/made", "gen/z", "node_modules/p/patched"}
    rig.ok("apply", "--undo")
    assert tree(rig.workspace).keys() == before
    assert _applied(rig, "--include", "build/nothing", "build") == (0, {})
    assert tree(rig.workspace).keys() == before


def test_what_a_later_rule_leaves_out(rig: Rig, agent: Agent) -> None:
    """It is neither taken, merged nor deleted; with --include it is, and no sync removes the agent's file for that."""
    ours, theirs = TEXT.replace("line 25\n", "ours\n"), TEXT.replace("line 2\n", "theirs\n")
    for path in ("both", "clash"):
        agent.write(path, theirs)
    agent.delete("gone")
    rig.write(".syncdignore", "/both\n/clash\n/gone\n")
    rig.write("both", ours)
    for left_out in (3, 2):
        assert _applied(rig, "--deletions") == (0, {})
        assert (_read(rig, "both"), _read(rig, "clash"), _read(rig, "gone")) == (ours, TEXT, TEXT)
        assert json.loads(rig.ok("diff", "--json").out) == {"changes": [], "left_out": left_out}
        if left_out == 3:
            rig.ok("push")
    assert _applied(rig, "--include", "both", "--include", "clash") == (0, {"taken": ["clash"], "merged": ["both"]})
    assert (_read(rig, "both"), _read(rig, "clash")) == (ours.replace("line 2\n", "theirs\n"), theirs)
    for options in ((), ("--force",)):
        rig.write("a", f"ours {options}\n")
        rig.ok("push", *options)
        assert agent.read("both").decode() == agent.read("clash").decode() == theirs
    assert _applied(rig, "--undo") == (0, {"undone": ["both", "clash"]})
    rig.ok("push")
    assert (_read(rig, "both"), agent.read("both").decode()) == (ours, theirs)
    assert (_read(rig, "clash"), agent.read("clash").decode()) == (TEXT, theirs)
    # An undo leaves what a rule leaves out by now.
    agent.write("a", theirs)
    agent.write("new/deep", "theirs\n")
    assert _applied(rig) == (0, {"taken": ["a", "new", "new/deep"]})
    rig.write(".gitignore", "/new/\n")
    assert _applied(rig, "--undo") == (0, {"stays": ["new", "new/deep"], "undone": ["a"]})
    assert _read(rig, "new/deep") == "theirs\n"


def test_a_terminal_is_asked_once(rig: Rig, agent: Agent) -> None:
    """With `n` nothing changes; with `y` all does; --yes does not ask."""
    agent.write("a", "theirs\n")
    agent.write("Makefile", "theirs\n")
    before = tree(rig.workspace)

    def asked(answer: str) -> str:
        with rig.terminal("apply", columns=100) as terminal:
            terminal.asked(QUESTION)
            assert tree(rig.workspace) == before
            terminal.type(f"{answer}\r")
            assert terminal.finish() == 0
            return terminal.text

    said = asked("what\rn")
    assert "Error: invalid input" in said
    assert "apply     a" in said
    assert "look at   Makefile: it may run by itself here" in said
    assert said.endswith("nothing was changed")
    assert tree(rig.workspace) == before
    assert asked("y").count(QUESTION) == 1
    assert _read(rig, "a") == "theirs\n"
    agent.write("d/b", "theirs\n")
    with rig.terminal("apply", "--yes") as terminal:
        assert terminal.finish() == 0
        assert QUESTION not in terminal.text
    assert _read(rig, "d/b") == "theirs\n"


def test_the_agents_ignore_files_are_named(rig: Rig, agent: Agent) -> None:
    """A person sees each with the plan, and once it is here; what only the old ones excluded is sent, but no secret."""
    rig.write(".gitignore", "private/\n")
    rig.write("d/.gitignore", "only-here\n")
    for path in ("d/only-here", "private/diary", ".env", "private/k.pem", "d/.env"):
        rig.write(path, "mine\n")
    rig.write("private/notes", "-----BEGIN PRIVATE KEY-----\n" + "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n" * 20)
    rig.ok("push")
    agent.write(".gitignore", "")
    agent.write(".syncdignore", "!.env\n!*.pem\n")
    agent.delete("d/.gitignore")
    document = json.loads(rig.run("apply", "--dry-run", "--json").out)
    assert document["look_at"] == [".gitignore", ".syncdignore"]
    applied = rig.ok("apply", "--yes", "--deletions").out
    for path in (".gitignore", ".syncdignore", "d/.gitignore"):
        assert f"look at   {path}: it decides what is sent\n" in applied
    rig.ok("push")
    assert {"d/only-here", "private/diary"} <= set(rig.there())
    assert not {".env", "d/.env", "private/k.pem", "private/notes"} & set(rig.there())


def test_a_question_stops_no_sync(rig: Rig, agent: Agent) -> None:
    """What is edited meanwhile is sent, and a conflict if it was to be written; the rest is taken."""
    rig.watch()
    for path in ("a", "both", "clash"):
        agent.write(path, TEXT.replace("line 2\n", "theirs\n"))
    rig.ok("pause")
    rig.write("both", TEXT.replace("line 25\n", "ours\n"))
    with rig.terminal("apply", columns=100) as terminal:
        terminal.asked(QUESTION)
        rig.ok("resume")
        rig.write("d/b", "ours\n")
        rig.write("clash", "ours\n")
        rig.ok("flush")
        assert (agent.read("d/b"), agent.read("clash")) == (b"ours\n", b"ours\n")
        terminal.type("y\r")
        assert terminal.finish() == 1
        assert "conflict  clash: it changed here meanwhile" in terminal.text
        assert "`syncd resolve` decides" in " ".join(terminal.text.split())
    assert (_read(rig, "a"), _read(rig, "clash")) == (TEXT.replace("line 2\n", "theirs\n"), "ours\n")
    assert _read(rig, "both") == TEXT.replace("line 2\n", "theirs\n").replace("line 25\n", "ours\n")
    rig.ok("flush")
    assert tree(rig.workspace) == tree(rig.sandbox.workspace)
    assert _applied(rig) == (0, {})


def test_a_forced_push_during_the_question(rig: Rig, agent: Agent) -> None:
    """What is taken although it was overwritten there meanwhile is sent again; what was deleted there is removed."""
    agent.write("a", "theirs\n")
    agent.delete("gone")
    with rig.terminal("apply", "--deletions") as terminal:
        terminal.asked(QUESTION)
        rig.ok("push", "--force")
        assert (agent.read("a").decode(), agent.exists("gone")) == (TEXT, True)
        terminal.type("y\r")
        assert terminal.finish() == 0
    rig.ok("push")
    assert (_read(rig, "a"), agent.read("a"), agent.exists("gone")) == ("theirs\n", b"theirs\n", False)


def test_a_question_that_is_left(rig: Rig, agent: Agent) -> None:
    """At a Ctrl-C, or when the terminal is closed, nothing changes and nothing is left behind."""
    agent.write("a", "theirs\n")
    before = tree(rig.workspace)
    spool = next((rig.home / ".cache/syncd").iterdir())
    for leave in (signal.SIGINT, signal.SIGHUP, "\x04"):
        with rig.terminal("apply") as terminal:
            terminal.asked(QUESTION)
            terminal.type(leave) if isinstance(leave, str) else terminal.send(leave)
            assert terminal.finish() == 75, leave
            assert "syncd:stopped;nothingwaschanged" in "".join(terminal.text.split())
        assert tree(rig.workspace) == before
        assert not [path.name for path in spool.iterdir() if path.name.startswith(("look-", "merge-"))]


def test_it_waits_for_an_initialize(rig: Rig, agent: Agent) -> None:
    """It says so, a signal ends the wait, and one that waits on writes as soon as that has ended."""
    rig.watch()
    agent.write("a", "theirs\n")
    said: list[object] = []

    def waiting() -> Running:
        running = rig.background("apply", "--yes")
        rig.until(lambda: "a sync is under way" in running.err, "apply to say that it waits")
        said.append(_read(rig, "a"))
        return running

    def meanwhile() -> None:
        said.append(waiting().stop(signal.SIGINT))
        waiting()

    done = rig.once("initialize", "before", meanwhile)
    rig.write("both", "ours\n")
    assert done.wait(TIMEOUT_S)
    assert said == [TEXT, 75, TEXT]
    assert (rig.daemons[-1].wait(), _read(rig, "a")) == (0, "theirs\n")


def test_beside_a_daemon_nothing_goes_up_again(rig: Rig, agent: Agent) -> None:
    """What was taken counts as arrived, and so does what was taken back; what was merged is sent."""
    rig.watch()
    agent.write("a", "theirs\n")
    agent.write("new/deep", "theirs\n")
    uploads = rig.count("upload")
    assert _applied(rig) == (0, {"taken": ["a", "new", "new/deep"]})
    rig.ok("flush")
    assert rig.count("upload") == uploads
    assert rig.run("diff").code == 0
    assert _applied(rig, "--undo") == (0, {"undone": ["a", "new", "new/deep"]})
    rig.ok("flush")
    assert rig.count("upload") == uploads
    assert agent.read("a") == b"theirs\n"
    assert _applied(rig) == (0, {"taken": ["a", "new", "new/deep"]})
    rig.write("d/b", "ours\n")
    rig.ok("flush")
    assert (agent.read("d/b"), agent.read("a")) == (b"ours\n", b"theirs\n")
    assert rig.status()["agent"]["saved"] == 0


def test_what_is_never_taken(rig: Rig, agent: Agent) -> None:
    """Links that lead out, what is below a repository's folder, sockets and FIFOs; they are told, and exit 0."""
    rig.write("folder/inside", "ours\n")
    rig.ok("push")
    agent.symlink("out", "/etc/passwd")
    agent.symlink("folder", str(rig.home))
    agent.write(".git/hooks/post-checkout", "#!/bin/sh\n")
    agent.write("sub/.GIT/config", "[core]\n")
    agent.fifo("fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(rig.sandbox.workspace)  # a socket's path is short
        listener.bind("socket")
        os.chdir(here)
        agent.write("a", "theirs\n")
        before = {path: entry for path, entry in tree(rig.workspace).items() if path != "a"}
        code, lists = _applied(rig, "--deletions")
    assert (code, lists["taken"]) == (0, ["a"])
    assert {"out", "folder", "fifo", "sub/.GIT"} <= set(lists["never"])  # an archive of the sandbox has no sockets
    assert lists.get("stays") == ["folder/inside"], lists
    assert not any(path.lower().startswith((".git", "sub/.git")) for path in lists["taken"])
    after = tree(rig.workspace)
    assert {path: after.get(path) for path in before} == before
    assert after.keys() - before.keys() <= {"a", "sub"}


@pytest.mark.parametrize("looks", ["by a program", "by a dump"])
def test_other_spellings_of_a_repository(rig: Rig, agent: Agent, looks: str) -> None:
    """What NTFS or HFS+ take for a `.git` is told, never shown or written; what only looks like it comes."""
    never = ["GIT~1", ".g\u200cit", ".git.", ".git ", "sub/.git::$INDEX_ALLOCATION"]
    comes = [".github/notes", "git~notes", ".gitx/y", "sub/.git-notes"]
    for path in never:
        agent.write(f"{path}/hooks/post-checkout", "#!/bin/sh\n")
    for path in comes:
        agent.write(path, "theirs\n")
    if looks == "by a dump":
        rig.faults("execute: 404 always")
    shown = {row["path"] for row in json.loads(rig.run("diff", "--json").out)["changes"]}
    code, lists = _applied(rig)
    assert (code, sorted(lists["never"])) == (0, sorted(never))
    assert set(comes) <= shown & set(lists["taken"])
    assert not [path for path in (*shown, *tree(rig.workspace)) if path.startswith(tuple(never))]


def test_secrets_of_both_sides(rig: Rig, agent: Agent) -> None:
    """A file that stays home, by its name or for what is in it, is not touched, whatever the agent made by that name,
    and however it is asked for.
    """
    rig.write(".env", "KEY=ours\n")
    rig.ok("push")
    ours = TEXT.replace("line 25\n", "token = ghp_" + "aB3dE5gH7jK9mN1pQ3sT5vX7zA2cF4hJ6kL8" + "\n")
    rig.write("both", ours)
    agent.write("both", TEXT.replace("line 2\n", "theirs\n"))
    agent.write(".env", "KEY=theirs\n")
    assert _applied(rig) == (0, {})
    assert _applied(rig, "--include", ".env") == (1, {"conflicts": [".env"]})
    assert "syncd resolve" not in rig.run("apply", "--include", ".env").err  # it lists none that a rule excludes
    assert (_read(rig, "both"), _read(rig, ".env")) == (ours, "KEY=ours\n")
    rig.ok("push", "--force")
    assert agent.read(".env") == b"KEY=theirs\n"


def test_what_was_merged_by_hand(rig: Rig, agent: Agent) -> None:
    """It is not written again: its time stays, and an undo leaves it."""
    agent.write("a", "theirs\n")
    agent.write("both", TEXT.replace("line 2\n", "theirs\n"))
    rig.write("both", TEXT.replace("line 2\n", "theirs\n").replace("line 25\n", "ours\n"))
    before = (rig.workspace / "both").lstat().st_ctime_ns
    assert _applied(rig) == (0, {"taken": ["a"], "merged": ["both"]})
    assert (rig.workspace / "both").lstat().st_ctime_ns == before
    assert _applied(rig, "--undo") == (0, {"undone": ["a"]})


def test_what_a_branch_tells(rig: Rig, agent: Agent) -> None:
    """Where the agent did nothing none is made, whatever was sent beyond HEAD. What may run by itself is named, also
    what only a commit of the agent's has.
    """
    committed(rig.workspace)
    rig.write("a", "not committed\n")
    rig.ok("push")
    assert rig.ok("apply", "--branch", "none").out == "no branch is made, as there is nothing new in the sandbox\n"
    assert not list((rig.workspace / ".git/refs/heads").glob("none"))
    for path in ("conftest.py", "CLAUDE.md", ".gitignore", "ordinary"):
        agent.write(path, "theirs\n")
    agent.write("d/tool", "theirs\n", 0o755)
    rig.until((rig.sandbox.workspace / ".git/HEAD").exists, "the sandbox's repository")
    git(rig.sandbox.workspace, "add", "conftest.py")
    git(rig.sandbox.workspace, "commit", "-qm", "c")
    agent.delete("conftest.py")
    shown = rig.ok("apply", "--branch", "shown").out.splitlines()
    assert "branch shown: 3 new commits" in shown[-1]
    assert [line for line in shown if line.startswith("look at")] == [
        "look at   .gitignore: it decides what is sent",
        "look at   CLAUDE.md: it may run by itself here",
        "look at   conftest.py: it may run by itself here",
        "look at   d/tool: it is executable now",
    ]
    told = json.loads(rig.ok("apply", "--branch", "told", "--json").out)
    assert told["look_at"] == [".gitignore", "CLAUDE.md", "conftest.py", "d/tool"]


def test_a_folder_in_the_place_of_a_file(rig: Rig, agent: Agent) -> None:
    """The file is gone on a branch, also where nothing in the folder can be in a commit."""
    rig.write(".gitignore", "node_modules/\n")
    committed(rig.workspace)
    rig.ok("push")
    agent.delete("a")
    agent.mkdir("a")
    agent.mkdir("new")
    agent.delete("both")
    agent.write("both/node_modules/x", "")
    branch = json.loads(rig.ok("apply", "--branch", "agent", "--json").out)
    assert (branch["taken"], branch["deleted"]) == ([], ["a", "both"])
    assert git(rig.workspace, "diff", "--name-status", "main", "agent") == "D\ta\nD\tboth\n"


REFUSED_SUBMODULES = (
    '[submodule "a"]\n\tpath = -x\n\turl = https://example.org/a\n',
    '[submodule "a"]\n\tpath = a\n\turl = -x\n',
    '[submodule "a/../b"]\n\tpath = a\n\turl = https://example.org/a\n',
    '[submodule "a"]\n\tpath = a\n\turl = https://example.org/%0ahost=x\n',
    '[submodule "a"]\n\tpath = a\n\turl = https://example.org/a\n\tupdate = !sh\n',
    '[submodule "a"\n',
)


def test_submodules_that_git_refuses(rig: Rig, agent: Agent) -> None:
    """They are told, and come neither into the workspace nor onto a branch, where all else is taken, or deleted."""
    committed(rig.workspace)
    rig.ok("push")
    agent.delete("clash")
    for number, content in enumerate(REFUSED_SUBMODULES):
        agent.write(".gitmodules", content)
        agent.write("sub/.GITMODULES", content)
        agent.write("a", f"theirs {number}\n")
        if not number:
            branch = json.loads(rig.ok("apply", "--branch", "theirs", "--json").out)
            assert (branch["taken"], branch["deleted"]) == (["a"], ["clash"])
            assert branch["never"] == [".gitmodules", "sub/.GITMODULES"]
        applied = rig.ok("apply").out
        assert re.search(r"never     \.gitmodules: git refuses it \(gitmodules[A-Z]", applied), content
        assert not (rig.workspace / ".gitmodules").exists()
        assert _read(rig, "a") == f"theirs {number}\n"


def test_submodules_that_git_accepts(rig: Rig, agent: Agent) -> None:
    """They come, and are named; where no git can be asked, none comes."""
    content = '[submodule "a"]\n\tpath = a\n\turl = ../a\n'
    agent.write(".gitmodules", content)
    agent.symlink("sub/.gitmodules", "../a")
    path = rig.environment()["PATH"]
    rig.environ["PATH"] = str(rig.home / "nothing")
    code, lists = _applied(rig)
    assert (code, lists["never"]) == (0, [".gitmodules", "sub/.gitmodules"])
    rig.environ["PATH"] = path
    assert "look at   .gitmodules: it may run by itself here" in rig.ok("apply").out
    assert _read(rig, ".gitmodules") == content
    assert not (rig.workspace / "sub/.gitmodules").is_symlink()


def test_what_was_saved_with_its_sandbox(rig: Rig, agent: Agent) -> None:
    """What nobody changed here is taken as from the sandbox, what both changed merged, what is gone here is back; what
    a rule excludes by now stays.
    """
    large = TEXT * 20_000  # beyond what is kept for a merge
    rig.write("large", large)
    rig.ok("push")
    for path in ("a", "both", "clash", "d/b", "gone", "new", "mine"):
        agent.write(path, TEXT.replace("line 2\n", "theirs\n"))
    agent.write("large", "theirs\n")
    agent.chmod("run", 0o755)
    agent.symlink("mine", "a")
    rig.ok("sandbox", "release", "--yes")
    rig.write("both", TEXT.replace("line 25\n", "ours\n"))
    rig.write("clash", TEXT.replace("line 2\n", "ours\n"))
    rig.write(".gitignore", "/gone\n")
    (rig.workspace / "d/b").unlink()
    [version] = [row["id"] for row in rig.saved() if row["why"] == "released"]
    done = rig.run("saved", "restore", version, "--here", "--json")
    said = {name: paths for name, paths in json.loads(done.out).items() if paths}
    taken = ["a", "d/b", "large", "mine", "new", "run"]
    wanted = {"taken": taken, "merged": ["both"], "conflicts": ["clash"], "stays": ["gone"], "look_at": ["run"]}
    assert (done.code, said) == (1, wanted)
    assert _read(rig, "both") == TEXT.replace("line 2\n", "theirs\n").replace("line 25\n", "ours\n")
    assert _read(rig, "clash") == TEXT.replace("line 2\n", "ours\n")
    assert (os.readlink(rig.workspace / "mine"), _read(rig, "large")) == ("a", "theirs\n")


def test_a_saved_version_after_a_killed_apply(rig: Rig, agent: Agent) -> None:
    """`saved restore --here` takes back first what was killed, says so, and decides by what is here then."""
    agent.write("both", TEXT.replace("line 2\n", "theirs\n"))
    rig.write("both", ours := TEXT.replace("line 25\n", "ours\n"))
    rig.ok("push")
    version = rig.saved()[0]["id"]
    agent.write("both", ours.replace("line 12\n", "theirs again\n"))
    was_halfway = False
    for number in range(1, 9):
        assert rig.dies_at(number, "apply") == 9
        if _read(rig, "both") != ours and "pending" not in records(rig.state_folder):
            break  # all was written, and it counts
        restored = rig.ok("saved", "restore", version, "--here", "--json")
        was_halfway |= "took back an apply that was killed" in restored.err
        assert json.loads(restored.out)["merged"] == ["both"]
        assert _read(rig, "both") == ours.replace("line 2\n", "theirs\n")
        rig.ok("apply", "--undo")
        assert _read(rig, "both") == ours
    assert was_halfway


def test_a_killed_apply_is_told(rig: Rig, agent: Agent) -> None:
    """What only shows something changes nothing here, and so says that half of an apply is here."""
    agent.write("a", "theirs\n")
    agent.write("d/b", "theirs\n")
    commits = iter(range(1, 9))
    while _read(rig, "d/b") == TEXT:
        assert rig.dies_at(next(commits), "apply") == 9
    for command in (("apply", "--dry-run"), ("diff", "--name-only"), ("resolve",)):
        assert "an apply was killed, and what it wrote is still here" in rig.run(*command).err
    assert _read(rig, "d/b") == "theirs\n"
    rig.ok("apply", "--undo")
    assert "was killed" not in rig.run("apply", "--dry-run").err
    assert [_read(rig, path) for path in ("a", "d/b")] == [TEXT, TEXT]


def test_what_was_changed_after_a_killed_apply(rig: Rig, agent: Agent) -> None:
    """It stays, and is named; the rest is taken back, and counted."""
    agent.write("a", "theirs\n")
    agent.write("d/b", "theirs\n")
    commits = iter(range(1, 9))
    while _read(rig, "d/b") == TEXT:
        assert rig.dies_at(next(commits), "apply") == 9
    rig.write("a", "theirs, and mine\n")
    applied = rig.run("apply", "d")
    assert applied.err.splitlines() == [
        "took back an apply that was killed: 1 path",
        "stays     a: changed since the apply, or excluded by a rule",
    ]
    assert [_read(rig, path) for path in ("a", "d/b")] == ["theirs, and mine\n", "theirs\n"]


@pytest.mark.parametrize(
    ("args", "said"), [((), "all was written: `syncd apply --undo`"), (("--undo",), "all was taken back")]
)
def test_a_stop_after_the_write_tells_the_truth(rig: Rig, agent: Agent, args: tuple[str, ...], said: str) -> None:
    """A command whose output nobody reads waits with all done: a signal does not have it say that nothing was."""
    names = [f"{number}-{'x' * 230}" for number in range(600)]
    for name in names:
        agent.write(name, "theirs")
    if args:
        rig.ok("apply")
    with rig.piped("apply", "--json", *args) as process:
        select.select([process.stdout], [], [], 30)  # it has begun to print, and the pipe holds less
        process.terminate()
        assert process.wait(60) == 75
        assert said in process.stderr.read().decode()
    assert (rig.workspace / names[-1]).exists() is not bool(args)


_LISTS_TWO = "from syncd.sandbox import protocol; protocol.MOST_NEW = 2; from syncd.cli import main; main()"


def test_more_than_a_look_lists(rig: Rig, agent: Agent) -> None:
    """Where the sandbox has more new paths than a look lists, `apply` does not end as if it had seen all."""
    for path in ("new1", "new2", "new3"):
        agent.write(path, TEXT)
    command, place = [sys.executable, "-c", _LISTS_TWO, "apply"], rig.workspace
    seen = [subprocess.run(command, env=rig.environment(), cwd=place, capture_output=True, check=False) for _ in "12"]
    assert [each.returncode for each in seen] == [75, 0]
    told = b"not applied: . (1 more new path in the sandbox could not be listed): run `syncd apply` again for the rest"
    assert told in seen[0].stderr
    assert _read(rig, "new3") == TEXT
