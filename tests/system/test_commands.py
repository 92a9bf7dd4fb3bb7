"""Commands that work through the daemon if one runs, and by themselves otherwise."""

from __future__ import annotations

import json
import os
import re
import signal
import sys

import pytest

from tests.system.command import run_command, works
from tests.system.rig import Rig


def test_a_second_instance_ends_with_75(rig: Rig) -> None:
    """One daemon a workspace: the second names the first and touches nothing, the first goes on."""
    rig.write("a")
    first = rig.up()
    second = rig.start()
    assert second.wait() == 75
    assert str(first.pid) in second.err
    assert rig.status()["pid"] == first.pid
    rig.write("b")
    rig.converged()


def test_flush_sees_a_change_made_during_a_sync(rig: Rig) -> None:
    """A flush called during an upload of an older snapshot waits for a sync that began after it."""
    rig.write("a", "old")
    rig.up()
    held = rig.held("initialize")
    rig.write("a", "newer")
    rig.until(lambda: rig.count("initialize") == 2, "the sync that is on its way")
    rig.write("a", "newest")
    flush = rig.background("flush")
    held.set()
    assert flush.wait() == 0
    assert (rig.sandbox.workspace / "a").read_text() == "newest"


def test_push_goes_through_the_daemon(rig: Rig) -> None:
    """It is a sync of the daemon, reported as any; unchanged it has nothing to do, forced it is done again."""
    rig.configure({"sync.debounce_seconds": 30, "sync.max_wait_seconds": 60})
    rig.write("a")
    rig.up()
    rig.write("b")
    assert rig.ok("push").out.startswith("synced 1 new, ")
    assert "nothing to do" in rig.ok("push").out
    forced = json.loads(rig.ok("push", "--force", "--json").out)
    assert forced["outcome"] == "initialized"
    assert rig.status()["syncs"] == rig.count("initialize") == 3
    assert forced["sync"] == rig.status()["last_sync"]


def test_push_alone_is_recorded(rig: Rig) -> None:
    """Its result is JSON on request, `status` shows it, and the next daemon uploads nothing."""
    rig.fill(5)
    pushed = json.loads(rig.ok("push", "--json").out)
    assert (pushed["outcome"], pushed["files"], pushed["sync"]["files"]) == ("initialized", 5, 5)
    status = rig.status()
    assert (status["running"], status["state"], status["pending"]) == (False, "stopped", False)
    assert status["last_sync"] == pushed["sync"]
    assert json.loads(rig.ok("push", "--json").out)["outcome"] == "unchanged"
    rig.watch()
    rig.ok("flush")
    assert rig.count("upload") == 1
    assert rig.status()["last_sync"] == pushed["sync"]


def test_quiet_and_verbose(rig: Rig) -> None:
    """-q prints nothing of what went well, -v tells what was sent; both count before the command's name, too."""
    rig.write("a")
    for args in (("push", "-q"), ("-q", "push"), ("push", "--quiet", "--force")):
        said = rig.ok(*args)
        assert (said.out, said.err) == ("", ""), args
    rig.write("b")
    rig.write("a", "TEXT\n")  # of the same size
    told = rig.ok("push", "-v")
    assert "synced 1 new, 1 changed, " in told.out
    rig.faults("upload: 503 always")
    rig.configure({"retry.give_up_after_seconds": 0.5})
    rig.write("c")
    failed = rig.run("push", "-q")
    assert (failed.code, failed.out, failed.err.count("\n")) == (75, "", 1)


def test_results_as_json(rig: Rig) -> None:
    """Each command with a result prints it as a document."""
    rig.write("a")
    rig.write("b.tmp")
    rig.configure({"workspace.ignore": ["*.tmp"]})
    flushed = json.loads(rig.ok("flush", "--json").out)
    assert (flushed["outcome"], flushed["files"], flushed["held"]) == ("initialized", 1, [])
    assert json.loads(rig.ok("flush", "--json").out)["outcome"] == "unchanged"
    left_out = json.loads(rig.ok("explain", "work/b.tmp", "--json").out)
    assert (left_out["path"], left_out["included"], left_out["at"]) == ("b.tmp", False, "b.tmp")
    assert left_out["rule"].endswith("*.tmp")
    assert json.loads(rig.ok("explain", "work/a", "--json").out)["included"] is True
    for path, included in (("work/new/node_modules/", False), ("work/", True)):
        assert json.loads(rig.ok("explain", path, "--json").out)["included"] is included
    pulled = json.loads(rig.ok("pull", "dest", "--json").out)
    assert pulled == {"files": 1, "bytes": 5, "left_out": [], "unnamed": 0}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("psuh", "push"), ("upload", "push"), ("start", "service start"), ("version", "--version"), ("xyzzy", "--help")],
)
def test_a_command_that_is_none(rig: Rig, typed: str, meant: str) -> None:
    """The one that was probably meant is named, by its letters or by its meaning."""
    said = rig.run(typed)
    assert (said.code, said.err) == (2, f"syncd: there is no command '{typed}': try `syncd {meant}`\n")


def test_help_of_a_command(rig: Rig) -> None:
    """`syncd help COMMAND` is `syncd COMMAND --help`, and the version comes with what it runs on and from."""
    assert rig.ok("help", "service", "install").out == rig.ok("service", "install", "--help").out
    assert rig.ok("help").out == rig.ok("--help").out
    said = rig.run("completion").err
    assert said.endswith("Choose from: bash, zsh, fish (see `syncd completion --help`)\n"), said
    assert re.fullmatch(r"syncd, version \S+\nPython 3\.\S+, Linux \S+ \S+, .*/syncd\n", rig.ok("--version").out)


@pytest.mark.parametrize("group", [(), ("service",), ("sandbox",)])
def test_a_group_without_a_command(rig: Rig, group: tuple[str, ...]) -> None:
    """It is wrong usage, and the answer is the help, line by line."""
    said = rig.run(*group, place=rig.workspace)
    assert (said.code, said.out, said.err) == (2, "", rig.ok(*group, "--help").out)


def test_help_on_a_narrow_terminal(rig: Rig) -> None:
    """Each command of a group has its sentence whole."""
    with rig.terminal("sandbox", "--help", columns=60) as terminal:
        assert terminal.finish() == 0
    commands = " ".join(terminal.text.partition("Commands:")[2].split())
    assert "release Give this workspace's sandbox back, or that ID, with all in it. remove Sync" in commands


@pytest.mark.parametrize("command", ["push", "run", "init"])
def test_an_empty_name_of_a_configuration(rig: Rig, command: str) -> None:
    """It is refused, as the unset variable of a script is: the default configuration is another one."""
    refused = rig.run(command, "--config", "")
    told = f"syncd: invalid value for '--config': It is empty (see `syncd {command} --help`)\n"
    assert (refused.code, refused.err) == (2, told)
    assert rig.emulator.request_log.ops() == []


def test_a_current_directory_that_was_removed(rig: Rig) -> None:
    """A path can be relative to none, and the message says so; other commands go on."""
    rig.write("a")
    for args, code in ((("explain", "a"), 78), (("pull", "dest"), 78), (("status",), 0)):
        gone = rig.home / "gone"
        gone.mkdir()
        done = rig.run(*args, place=gone, prefix=("sh", "-c", 'rmdir "$PWD"; exec "$@"', "sh"))
        assert done.code == code
        assert done.err == ("syncd: the current directory was removed: change to one that is there\n" if code else "")


def test_too_large_a_snapshot_is_refused_before_any_request(rig: Rig) -> None:
    """`push` ends with 78, `run` holds; both name the largest paths and the key; once smaller the daemon goes on."""
    rig.configure({"sync.max_snapshot_mib": 1})
    rig.write("big/movie.bin", b"\0" * 3_000_000)
    rig.write("small")
    pushed = rig.run("push")
    assert pushed.code == 78
    assert "big/movie.bin" in pushed.err
    assert "max_snapshot_mib" in pushed.err
    rig.start()
    status = rig.status_in("held")
    assert "big/movie.bin" in status["last_error"]["message"]
    assert rig.emulator.request_log.ops() == []
    (rig.workspace / "big/movie.bin").unlink()
    rig.converged()
    rig.in_state("watching")


def test_a_pause_holds_changes_and_a_resume_sends_them(rig: Rig) -> None:
    """Nothing is sent while paused, before a first daemon, by a `flush` alone, or after a restart; then all is."""
    rig.write("a")
    for _ in range(2):
        assert rig.ok("pause").out == "paused until `syncd resume`; no daemon is running\n"
    flushed = rig.run("flush")
    assert (flushed.code, flushed.err) == (75, "syncd: syncing is paused: run `syncd resume`\n")
    rig.start()
    rig.in_state("paused")
    assert rig.emulator.request_log.ops() == []
    for _ in range(2):
        rig.ok("resume")
    rig.converged()
    rig.in_state("watching")
    rig.ok("pause")
    rig.in_state("paused")
    rig.write("b")
    assert rig.run("flush").code == 75
    rig.until(lambda: rig.status()["pending"], "the change to be noted")
    rig.daemons[0].stop()
    rig.start()
    rig.in_state("paused")
    rig.write("c")
    assert rig.run("flush").code == 75
    assert rig.count("upload") == 1
    rig.ok("resume")
    rig.converged()
    rig.in_state("watching")


_NOBODY = ("unshare", "--user", "--map-user=54321")


@pytest.mark.skipif(not works(*_NOBODY), reason="this machine lets nobody have another id")
@pytest.mark.parametrize("command", ["push", "run", "status", "apply", "init --path work --id box", "pause"])
def test_without_a_home(rig: Rig, command: str) -> None:
    """Neither HOME nor the password database has one, or it depends on where one is: 78, and no folder is made."""
    environ = {name: value for name, value in rig.environment().items() if name != "HOME" and "XDG" not in name}
    for home, why in (({}, "is not set, and no user has this id"), ({"HOME": "me"}, "= 'me' is no absolute path")):
        done = run_command(command.split(), {**environ, **home}, rig.home, _NOBODY)
        assert (done.code, done.out) == (78, ""), done
        assert done.err.endswith(f"your home directory is not known: HOME {why}: set HOME\n")
        assert not {"~", "me"} & {*os.listdir(rig.home)}


def test_a_place_that_another_kind_of_file_has(rig: Rig) -> None:
    """It is named with 75 and what to do, with and without a daemon; 0 once the place is free."""
    rig.write("d/ours", "here")
    rig.ok("push")
    (rig.sandbox.workspace / "d/theirs").write_text("the agent's")
    (rig.workspace / "d/ours").unlink()
    (rig.workspace / "d").rmdir()
    rig.write("d", "a file by now")
    rig.write("other", "here")
    for command in ("push", "flush"):
        ended = rig.run(command)
        assert ended.code == 75
        assert ended.err.splitlines()[-1].startswith("syncd: 'd' is not in the sandbox, where something else has")
        if command == "push":
            rig.watch()
    assert (rig.sandbox.workspace / "other").read_text() == "here"
    assert (rig.sandbox.workspace / "d/theirs").read_text() == "the agent's"
    assert any("'d' is not sent: in the sandbox a directory" in warning for warning in rig.status()["warnings"])
    (rig.sandbox.workspace / "d/theirs").unlink()
    rig.ok("push", "--force")
    rig.ok("flush")
    assert (rig.sandbox.workspace / "d").read_text() == "a file by now"


# -- beside a daemon that starts


@pytest.mark.parametrize("command", ["flush", "push"])
def test_a_command_typed_right_after_the_daemon(rig: Rig, command: str) -> None:
    """Whichever has the lock first, the command succeeds and the daemon stays."""
    rig.fill(3)
    daemon = rig.start()
    rig.ok(command)
    rig.until(lambda: rig.status()["state"] == "watching", "the daemon to watch")
    assert rig.status()["pid"] == daemon.pid
    rig.converged()


def test_a_daemon_that_is_killed_while_it_is_asked(rig: Rig) -> None:
    """What it had begun is not begun again by the command, which says that it was not done."""
    rig.fill(3)
    daemon = rig.up()
    held, uploads = rig.held("upload"), rig.count("upload")
    rig.write("new")
    asked = rig.background("push")
    rig.until(lambda: rig.count("upload") > uploads and "uploading" in asked.err, "the daemon's answers")
    daemon.kill()
    assert asked.wait() == 75
    held.set()
    assert "the daemon ended before it was done: try again" in asked.err


_WAITS_BRIEFLY = "import sys; from syncd.cli import main, run; del sys.argv[:3]; run._LOCKED_S = 0.2; main()"


def test_a_command_takes_the_lock_while_the_daemon_reloads(rig: Rig) -> None:
    """The daemon waits for its end, however long that takes, and then goes on with the new configuration."""
    rig.fill(3)
    asked, hold = rig.with_slow_git()
    daemon = rig.up(prefix=(sys.executable, "-c", _WAITS_BRIEFLY))
    asked.unlink()
    hold.touch()
    rig.configure({"workspace.ignore": ["late"]})
    daemon.send(signal.SIGHUP)
    rig.until(asked.exists, "the reload to ask git")
    del rig.environ["PATH"]
    held, uploads = rig.held("upload"), rig.count("upload")
    push = rig.background("push", "--force")
    rig.until(lambda: rig.count("upload") > uploads, "the push's upload")
    hold.unlink()
    rig.until(lambda: daemon.code is not None or "waiting for its end" in daemon.err, "the daemon to wait")
    held.set()
    assert (push.wait(), daemon.code) == (0, None)
    told = ("configuration read anew", "the new configuration is refused")
    assert rig.until(lambda: [each for each in told if each in daemon.err], "an answer") == [told[0]]
    rig.until(lambda: rig.status()["pid"] == daemon.pid, "the daemon to run")
    rig.write("late")
    rig.write("new")
    rig.converged(lambda path: path == "late")
