"""`syncd status` in every state, of a killed process, before anything ran, and of no other workspace or sandbox."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal

import pytest

from tests.system.command import AS_ANYONE, as_anyone
from tests.system.rig import Rig

# As the reference has them.
KEYS = (
    "version running pid state workspace sandbox pending syncs failures last_sync last_error retry_at"
    " upload_url_expires_at warnings"
)
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def test_from_nothing_to_a_pause(rig: Rig) -> None:
    """Before anything ran the document is complete, and no folder is made; then it has the figures of the last sync.
    `--check`: 1 unless a daemon runs and everything is there; the document is printed all the same.
    """
    status = rig.status()
    assert " ".join(key for key in status if key in KEYS.split()) == KEYS
    assert (status["running"], status["pid"], status["state"], status["last_sync"]) == (False, None, "stopped", None)
    assert (status["pending"], status["config"]) == (True, str(rig.config_file))
    assert not (rig.home / ".local").exists()
    assert rig.run("status", "--check").code == 1
    assert (rig.run("status", "--all", "--check").code, rig.run("status", "--check", "--watch").code) == (1, 2)
    rig.fill(5)
    daemon = rig.up()
    status = rig.status()
    assert (status["running"], status["pid"], status["state"]) == (True, daemon.pid, "watching")
    assert status["workspace"] == str(rig.workspace)
    assert status["sandbox"] == {"id": "box", "base_url": rig.emulator.base_url, "region": "us"}
    assert (status["syncs"], status["failures"], status["pending"], status["warnings"]) == (1, 0, False, [])
    assert status["last_sync"]["files"] == 5
    assert status["last_sync"]["archive_bytes"] == rig.archive().stat().st_size
    assert TIME.fullmatch(status["last_sync"]["finished_at"])
    assert TIME.fullmatch(status["upload_url_expires_at"])
    assert "in sync" in rig.ok("status").out
    for args in ((), ("--json",), ("--all",)):
        assert rig.ok("status", "--check", *args).out
    rig.ok("pause")
    paused = rig.run("status", "--check", "--json")
    assert (paused.code, json.loads(paused.out)["state"]) == (1, "paused")


def test_a_retrying_daemon(rig: Rig) -> None:
    """The failure, its step, the count, and the time of the next attempt. Killed, it has none, nor a pid: no status
    outlives its process, but for the last sync.
    """
    rig.configure({"retry.first_delay_seconds": 20, "retry.max_delay_seconds": 20})
    rig.write("a")
    rig.faults("upload: 503")
    rig.start()
    status = rig.status_in("retrying")
    assert (status["last_error"]["step"], status["failures"], status["pending"]) == ("upload", 1, True)
    assert "503" in status["last_error"]["message"]
    assert TIME.fullmatch(status["retry_at"])
    assert TIME.fullmatch(status["last_error"]["at"])
    assert status["failures_in_row"] == 1
    shown = rig.run("status", "--check")
    assert shown.code == 1
    assert re.match(r". retrying: attempt 2 in \d+ s\n\n", shown.out), shown.out
    assert "nothing to do" not in shown.out
    rig.daemons[-1].send(signal.SIGUSR1)
    synced = rig.status_in("watching")
    assert synced["failures_in_row"] == 0
    rig.faults("upload: 503")
    rig.write("a", "changed")
    rig.in_state("retrying")
    rig.kill()
    status = rig.status()
    assert (status["running"], status["pid"], status["state"], status["retry_at"]) == (False, None, "stopped", None)
    assert (status["last_sync"], status["pending"]) == (synced["last_sync"], True)


def test_a_daemon_that_starts_paused(rig: Rig) -> None:
    """Its status and its log say so. As it has not looked yet, what changed before it or a reload is pending."""
    rig.ok("push")
    rig.write("a")
    rig.ok("pause")
    daemon = rig.start()
    assert rig.status_in("paused")["pending"] is True
    rig.ok("reload")
    rig.until(lambda: "read anew" in daemon.err, "the reload")
    assert rig.status_in("paused")["pending"] is True
    rig.until(lambda: daemon.err.count("paused") == 2, "the end of the reload")
    assert daemon.err.endswith(f"watching {rig.workspace}, paused\n")


@pytest.mark.parametrize("damage", ["rescan_minuts = 3\n", "no TOML\n", "path = 3\n"])
def test_a_typo_hides_no_daemon(rig: Rig, damage: str) -> None:
    """The daemon that runs is shown, and can be paused; the typo and the exit code say that a person is needed."""
    rig.write("a")
    daemon = rig.up()
    good = rig.config_file.read_text()
    rig.config_file.write_text(good + damage)
    shown = rig.run("status", "--json")
    document = json.loads(shown.out)
    assert (shown.code, document["pid"], document["state"]) == (78, daemon.pid, "watching")
    assert document["sandbox"]["id"] == "box"
    assert "syncd: ~/.config/syncd/config.toml" in shown.err
    (row,) = json.loads(rig.ok("status", "--all", "--json").out)["workspaces"]
    assert (row["pid"], str(rig.config_file) in str(row["warnings"])) == (daemon.pid, True)
    for command, state in (("pause", "paused"), ("resume", "watching")):
        assert "no daemon" not in rig.ok(command).out
        rig.in_state(state)
    daemon.send(signal.SIGHUP)
    rig.until(lambda: "goes on with what it read before" in str(rig.shown()["warnings"]), "its warning")
    rig.in_state("watching")  # before, it would read a change of the file by itself
    rig.config_file.write_text(good)
    rig.ok("reload")
    rig.until(lambda: not rig.status()["warnings"], "the end of the warning")
    rig.config_file.write_text(good + damage)
    daemon.stop()
    gone = rig.run("status", "--json")
    assert (gone.code, gone.out) == (78, "")


def test_a_hung_daemon(rig: Rig) -> None:
    """A process that does not answer is distinguished from one that works, with the way to end it."""
    rig.write("a")
    daemon = rig.up()
    assert rig.status()["responding"] is True
    daemon.send(signal.SIGSTOP)
    status = rig.status()
    assert (status["responding"], status["state"], status["running"]) == (False, "watching", True)
    text = rig.ok("status").out
    assert text.startswith(f"● hung: process {daemon.pid} does not answer, last seen ")
    assert f"\n  restart it: `kill -9 {daemon.pid}`, then `syncd run`\n" in text
    ended = rig.run("push")
    wanted = f"syncd: the daemon (process {daemon.pid}) does not answer: see `syncd status`"
    assert (ended.code, ended.err.splitlines()[-1]) == (75, wanted)
    daemon.send(signal.SIGCONT)
    assert rig.status()["responding"] is True
    rig.kill()
    assert rig.status()["responding"] is None


def test_a_busy_daemon(rig: Rig) -> None:
    """It answers while it waits for the sandbox; while it works it may not, and does not count as hung."""
    rig.write("a")
    held = rig.held("initialize")
    daemon = rig.start()
    rig.until(lambda: rig.shown()["state"] == "initializing", "initializing")
    assert rig.status()["responding"] is True
    daemon.send(signal.SIGSTOP)
    assert rig.status()["responding"] is None
    assert rig.ok("status").out.startswith("● unpacking")
    daemon.send(signal.SIGCONT)
    held.set()


def test_another_version(rig: Rig) -> None:
    """Unknown fields do no harm; an older daemon is named; an unreadable document is, too."""
    rig.write("a")
    daemon = rig.up()
    file = rig.state_folder / "status.json"
    document = json.loads(file.read_text())
    file.write_text(json.dumps({**document, "daemon_version": "0.0.1", "of_tomorrow": {"a": [1]}}))
    text = rig.ok("status").out
    assert text.startswith("● in sync\n")
    assert "the daemon is syncd 0.0.1, this is" in text
    (box,) = document["sandboxes"]
    for odd in ({"version": 2}, {"sandboxes": [{**box, "state": "dreaming"}]}, {"pid": "many"}):
        file.write_text(json.dumps({**document, **odd}))
        text = rig.ok("status").out
        assert text.startswith(f"● another syncd is working here (process {daemon.pid}), which shows no status\n")
    assert (rig.status()["running"], rig.status()["state"]) == (False, "stopped")


def test_a_command_that_syncs_is_no_daemon(rig: Rig) -> None:
    """A push does not count as a daemon that ended; of one that did, its end is told, and no push changes that."""
    rig.write("a")
    rig.ok("push")
    assert rig.ok("status").out.startswith("● not running\n")
    assert rig.status()["state_since"] is None
    daemon = rig.watch()
    daemon.stop()
    ended = rig.status()["state_since"]
    assert rig.ok("status").out.startswith("● not running: it ended ")
    rig.write("a", "changed")
    rig.ok("push")
    assert (rig.status()["syncs"], rig.status()["state_since"]) == (1, ended)
    assert rig.ok("status").out.startswith("● not running: it ended ")


def test_how_to_start_it(rig: Rig) -> None:
    """The unit's command if the unit is installed for this configuration, else the program's own."""
    assert "start it: `syncd run`\n" in rig.ok("status").out
    rig.up()
    rig.kill()
    rig.ok("pause")  # the next daemon keeps to it
    shown = rig.ok("status").out
    assert shown.startswith("● not running: it ended unexpectedly, last seen ")
    assert "start it: `syncd run`; it is paused: `syncd resume`\n" in shown
    rig.ok("resume")
    units = rig.home / ".config/systemd/user"
    (units / "default.target.wants").mkdir(parents=True)
    (units / "syncd.service").touch()
    (units / "syncd@.service").touch()
    assert "`systemctl --user start syncd`" in rig.ok("status").out
    other = rig.config_file.with_name("work.toml")
    other.write_text(rig.config_file.read_text())
    text = "".join(rig.ok("status", "--config", str(other)).out.split())  # a long path is cut where the line ends
    assert "`syncdrun--config~/.config/syncd/work.toml`" in text
    (units / "default.target.wants/syncd@work.service").symlink_to("../syncd@.service")
    assert "`systemctl --user start syncd@work`" in rig.ok("status", "--config", str(other)).out


@as_anyone
@pytest.mark.parametrize("closed", ["", "..", "lock", "status.json"])
def test_a_state_folder_of_another_user(rig: Rig, closed: str) -> None:
    """It is not taken for that of a workspace on which no daemon has worked, such as root's after a `sudo`."""
    rig.write("a")
    rig.ok("push")
    place = os.path.join(rig.state_folder, closed)
    mode = os.stat(place).st_mode & 0o777
    os.chmod(place, 0)
    commands = [("status", "--json"), ("push",), ("pause",)]
    done = [rig.run(*command, prefix=AS_ANYONE) for command in commands]
    every = rig.run("status", "--all", "--json", prefix=AS_ANYONE)
    os.chmod(place, mode)
    line = f"syncd: the folder '{rig.state_folder}' cannot be used (Permission denied): make it writable, or "
    assert [(each.code, each.out, each.err[: len(line)]) for each in done] == [(78, "", line)] * len(commands)
    assert line.removeprefix("syncd: ") in json.loads(every.out)["workspaces"][0]["error"]


@as_anyone
def test_folders_that_are_closed(rig: Rig) -> None:
    """A person must let syncd write to its state: 78, though the status is known. `--all` does not take a folder of
    configurations that cannot be read for an empty one.
    """
    rig.write("a")
    rig.ok("push")
    os.chmod(rig.state_folder, 0o500)
    codes = [rig.run(command, prefix=AS_ANYONE).code for command in ("push", "run", "diff", "pause", "status")]
    os.chmod(rig.state_folder, 0o700)
    assert codes == [78, 78, 78, 78, 0]
    folder = rig.config_file.parent
    folder.chmod(0)
    done = rig.run("status", "--all", prefix=AS_ANYONE)
    folder.chmod(0o700)
    assert (done.code, done.out) == (78, "")
    assert done.err == "syncd: the configuration folder ~/.config/syncd cannot be read: let your user read it\n"
    rig.config_file.unlink()
    assert rig.ok("status", "--all").out == "no configuration in ~/.config/syncd yet: `syncd init` writes one\n"


def test_an_ascii_locale(rig: Rig) -> None:
    """What the encoding lacks is escaped, and is no failure."""
    rig.environ["PYTHONIOENCODING"] = "ascii"
    assert rig.ok("status").out.startswith("\\u25cf not running: no daemon")


def test_an_uncertain_sandbox_is_pending(rig: Rig) -> None:
    """A paused daemon reports changes as pending that a killed one may have sent."""
    rig.write("a", "first")
    first = rig.up()
    killed = rig.once("initialize", "after", first.kill)
    rig.write("a", "other")
    assert killed.wait(60), rig.report()
    rig.write("a", "first")
    rig.ok("pause")
    rig.start()
    assert rig.status_in("paused")["pending"] is True
    rig.ok("resume")
    rig.converged()
    rig.ok("flush")
    assert rig.status()["pending"] is False


@as_anyone
def test_an_unreadable_file(rig: Rig) -> None:
    """The others are sent, a warning names it, and it does not count as deleted; readable again it is sent.

    `explain` says why it is not, and `verify` counts it as not compared.
    """
    rig.write("a", "readable")
    rig.write("closed", "at first readable")
    rig.up(prefix=AS_ANYONE)
    rig.write("closed", "changed, and not to be read")
    closed = rig.workspace / "closed"
    closed.chmod(0)
    rig.write("b", "readable")
    rig.until(lambda: "b" in rig.there(), "the others")
    rig.until(lambda: any("'closed'" in warning for warning in rig.status()["warnings"]), "the warning")
    rig.in_state("watching")
    explained = rig.run("explain", str(closed), prefix=AS_ANYONE)
    assert (explained.code, explained.out) == (0, "excluded: closed, because it cannot be read\n"), explained
    assert "not compared, as they are excluded: 1 " in rig.run("verify", prefix=AS_ANYONE).err
    verified = json.loads(rig.run("verify", "--json", prefix=AS_ANYONE).out)
    assert (verified["only_there"], verified["deleted_here"]) == (["closed"], []), verified
    closed.chmod(0o600)
    rig.converged()
    rig.until(lambda: rig.status()["warnings"] == [], "the end of the warning")
    rig.ok("flush")


@as_anyone
def test_a_path_in_a_folder_that_is_unreadable(rig: Rig) -> None:
    """`explain` says that the folder, or its rules, cannot be read."""
    rig.write("closed/deeper/a")
    rig.write("ruled/deeper/a")
    rig.write("ruled/.gitignore", "b")
    (rig.workspace / "closed").chmod(0)
    (rig.workspace / "ruled/.gitignore").chmod(0)
    for folder, why in (
        ("closed", "Permission denied"),
        ("ruled", "its rules in .gitignore cannot be read: Permission denied"),
    ):
        said = rig.run("explain", str(rig.workspace / folder / "deeper/a"), prefix=AS_ANYONE)
        excluded = f"excluded: {folder}/deeper/a, as its folder {folder}/deeper/ is, "
        assert (said.code, said.out) == (0, f"{excluded}because it cannot be read ({why})\n"), said
    (rig.workspace / "closed").chmod(0o700)


# -- of another workspace or sandbox, and before its process has begun


@pytest.mark.parametrize("moves", ["sandbox", "workspace"])
def test_a_reload_to_another_workspace_resets_the_status(rig: Rig, moves: str) -> None:
    """Counts, last sync, last error and warnings begin anew for the new workspace or sandbox."""
    rig.emulator.create_sandbox("other")
    (rig.home / "elsewhere").mkdir()
    (rig.home / "elsewhere" / "b").write_text("text")
    rig.write("a")
    (rig.workspace / "outside").symlink_to("/etc/passwd")
    daemon = rig.up()
    before = rig.status_in("watching")
    assert (before["syncs"], len(before["warnings"])) == (1, 1)
    assert before["last_sync"]["files"] == 1
    rig.faults("upload-url: 503 always")
    where = {"sandbox.id": "other"} if moves == "sandbox" else {"workspace.path": str(rig.home / "elsewhere")}
    rig.configure(where)
    daemon.send(signal.SIGHUP)
    status = rig.until(lambda: (now := rig.status())["state"] == "retrying" and now, "the failure")
    assert (status["syncs"], status["last_sync"], status["uploaded_bytes"]) == (0, None, 0)
    assert status["started_at"] == before["started_at"]
    if moves == "sandbox":
        assert status["sandbox"]["id"] == "other"
    rig.emulator.faults.clear()
    rig.until(lambda: rig.status()["last_sync"], "the sync")
    assert rig.status()["syncs"] == 1


def test_a_configuration_that_names_another_sandbox(rig: Rig) -> None:
    """With no syncd since, nothing of the former one is shown; with one that is to be acquired, that of its address."""
    rig.write("a")
    rig.ok("push")
    for key, value in (("sandbox.id", "other"), ("sandbox.base_url", "http://127.0.0.1:9"), ("sandbox.region", "asia")):
        rig.configure({key: value})
        status, is_other = rig.status(), key != "sandbox.region"
        assert (status["last_sync"] is None, status["pending"]) == (is_other, is_other), key


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not on this machine")
def test_a_starting_daemon(rig: Rig) -> None:
    """It shows its state as soon as it has the lock, however long its start takes."""
    for number in range(3):
        rig.write(f"a{number}")
    rig.up()
    rig.daemons[-1].stop()
    # The first thing after the lock that can be made to take long from outside: opening the watch.
    daemon = rig.start(
        prefix=("strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=inotify_init,inotify_init1:delay_enter=3000000")
    )
    status = rig.until(lambda: (now := rig.status())["running"] and now, "the status")
    try:
        assert status["state"] == "starting"
        assert status["last_sync"]["files"] == 3
        shown = rig.ok("status").out
        assert shown.startswith("● starting\n")
        assert "kill" not in shown
        assert daemon.code is None
        rig.in_state("watching")
    finally:
        os.kill(status["pid"], signal.SIGKILL)  # a tracer that is killed lets go of it
        daemon.wait()
