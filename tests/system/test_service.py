"""`syncd service` and its unit under a real systemd: from install to uninstall, what fails, and what is said of it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.emulator import Emulator
from tests.system.machine import HOME, UID, Machine, needs_machine
from tests.system.rig import KEY
from tests.system.service_rig import UNITS, VENV, ServiceRig

pytestmark = needs_machine

LINGER = "var/lib/systemd/linger/dev"


@pytest.fixture
def emulator(machine: Machine, tmp_path: Path) -> Iterator[Emulator]:
    """The emulated API, on the machine's loopback."""
    emulator = Emulator(tmp_path / "cloud", api_key=KEY)
    with machine.network():
        emulator.start()
    yield emulator
    emulator.close()


@pytest.fixture
def rig(machine: Machine, emulator: Emulator) -> Iterator[ServiceRig]:
    """The rig of the default configuration; nothing is left of it, and no secret is shown."""
    rig = ServiceRig(machine, emulator)
    yield rig
    log = machine.run("journalctl", "--user", "--no-pager").out
    machine.run("systemctl", "--user", "stop", "syncd*")
    machine.run("systemctl", "--user", "reset-failed")
    for folder in (".config", ".local", ".cache", "work", "worktwo"):
        shutil.rmtree(machine.home / folder, ignore_errors=True)
    machine.run("systemctl", "--user", "daemon-reload")
    for text in (log, *rig.outputs):
        assert KEY not in text
        assert "Traceback (most recent" not in text
        assert "x-goog-signature" not in text.lower()


def test_from_install_to_uninstall(rig: ServiceRig) -> None:
    """One command writes, enables and starts the unit, from a venv with an odd path; again it starts it anew. The other
    one leaves configuration, key, workspace and state. A second time it does nothing.
    """
    done = rig.installed()
    assert f"wrote ~/{UNITS}/syncd.service" in done.out
    assert "undo it: syncd service uninstall" in done.out
    assert "note" not in done.out
    assert rig.shown("UnitFileState") == "enabled"
    assert f'"{HOME}/{VENV}/bin/python"'.replace("%", "%%") in rig.at(f"{HOME}/{UNITS}/syncd.service").read_text()
    pid, text = rig.shown("MainPID"), rig.at(f"{HOME}/{UNITS}/syncd.service").read_text()
    rig.write("second.txt")
    rig.converged()
    assert rig.service("install").code == 0
    assert rig.at(f"{HOME}/{UNITS}/syncd.service").read_text() == text
    pid = rig.active(other_than=pid)
    for verb in ("flush", "pause", "resume", "push"):  # through the daemon's socket, out of its namespaces
        assert rig.syncd(verb).code == 0
    assert rig.status()["pid"] == int(pid)
    gone = rig.service("uninstall")
    assert (gone.code, f"removed ~/{UNITS}/syncd.service" in gone.out) == (0, True)
    assert rig.shown("ActiveState") == "inactive"
    assert [path for path in rig.at(f"{HOME}/{UNITS}").rglob("*") if not path.is_dir()] == []
    for path in (rig.config_file, rig.key_file, f"{rig.workspace}/first.txt"):
        assert rig.at(path).exists()
    assert rig.state_folder.exists()
    again = rig.service("uninstall")
    assert (again.code, "not installed" in again.out) == (0, True)


def test_systemd_as_it_is(rig: ServiceRig) -> None:
    """The other verbs are systemctl's and journalctl's own, with their options, output and exit codes."""
    rig.installed()
    first = rig.shown("MainPID")
    status = rig.service("status", "--no-pager", "-n", "0")
    its_own = rig.systemctl("status", "--no-pager", "-n", "0", rig.unit)
    assert (status.code, _without_times(status.out)) == (its_own.code, _without_times(its_own.out))
    on_terminal = f"stty cols 40 && {shlex.join(rig.command('service', 'status', '--no-pager', '--full'))}"
    assert f"watching {HOME}/" in rig.machine.run("script", "-qec", on_terminal, "/dev/null").out  # not cut
    assert rig.service("restart").code == 0
    assert rig.shown("MainPID") not in ("0", first)
    assert rig.service("stop").code == 0
    stopped = rig.service("status")
    assert (stopped.code, "inactive" in stopped.out) == (3, True)
    assert rig.service("start").code == 0
    rig.in_state("watching")
    logs = rig.service("logs", "-o", "cat", "-n", "2")
    its_own = rig.machine.run("journalctl", "--user", "-o", "cat", "-n", "2", "-u", rig.unit)
    assert (logs.code, logs.out) == (its_own.code, its_own.out)
    assert logs.out.count("\n") == 2
    assert rig.service("logs", "--nonsense").code != 0
    line = rig.machine.line(*rig.command("service", "logs", "-f", "-n", "1"))
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as follows:
        try:
            assert follows.stdout
            assert follows.stdout.readline()  # it is there, and sees all that comes from now on
            rig.write("another.txt")
            assert any("synced" in line and " syncd[" in line for line in follows.stdout)
        finally:
            follows.kill()


def _without_times(text: str) -> str:
    """What systemctl tells of a unit, without how long it has run and what it has used since."""
    return re.sub(r"\b[\d.]+(ms|s|min|M|K|B)\b", "", text)


def test_a_day(rig: ServiceRig) -> None:
    """State and cache are private folders, never links into the configuration, and created again if they are removed.

    `systemctl reload` returns once the configuration is read, in the same process; an invalid one is refused. A stop in
    the middle of an upload ends before the manager would kill, and the next start sends the rest. A new key file ends a
    hold. An idle daemon pings, one that hangs is started again, and `kill -9` loses nothing, however often.
    """
    rig.installed()
    for _ in range(2):
        for folder in (f"{HOME}/.local/state/syncd", f"{HOME}/.cache/syncd"):
            found = rig.at(folder).lstat()
            assert (oct(found.st_mode), found.st_uid) == ("0o40700", UID)
        rig.systemctl("stop", rig.unit)
        for folder in (".local", ".cache"):
            shutil.rmtree(rig.home / folder)
        assert rig.systemctl("start", rig.unit).code == 0
        rig.converged()

    pid = rig.shown("MainPID")
    rig.configure({"workspace.ignore": ["*.log"], "sync.upload_limit_kib_per_second": 20})
    assert rig.systemctl("reload", rig.unit).code == 0
    assert "configuration read anew" in rig.log()
    rig.write("noise.log")
    rig.write("kept.txt")
    rig.until((rig.sandbox.workspace / "kept.txt").exists, "the next sync")
    assert not (rig.sandbox.workspace / "noise.log").exists()
    rig.put(rig.config_file, "nonsense")
    assert rig.systemctl("reload", rig.unit).code == 0
    rig.until(lambda: "the new configuration is refused" in rig.log(), "the refusal")
    assert rig.active() == pid

    rig.write("random", os.urandom(8_000_000))
    rig.in_state("uploading")
    stopped = rig.systemctl("stop", rig.unit)
    assert (stopped.code, rig.shown("Result")) == (0, "success")
    (rig.at(rig.workspace) / "noise.log").unlink()
    rig.configure()
    rig.systemctl("start", rig.unit)
    rig.converged()
    rig.in_state("watching")

    rig.emulator.faults.script("initialize: 401 always")
    rig.write("second.txt")
    rig.in_state("held")
    pid = rig.shown("MainPID")
    rig.emulator.faults.clear()
    rig.put(rig.key_file, KEY + "\n")
    rig.active(other_than=pid)
    rig.converged()

    rig.drop_in("WatchdogSec=600ms", "RestartSec=10ms", "RestartSteps=0")
    rig.systemctl("restart", rig.unit)
    pid, seen = rig.active(), set[str]()
    rig.until(lambda: seen.add(rig.shown("WatchdogTimestampMonotonic")) or len(seen) > 3, "pings")
    assert rig.active() == pid
    os.kill(rig.pid, signal.SIGSTOP)
    rig.active(other_than=pid)
    assert "Watchdog timeout" in rig.log()
    for number in range(6):  # more often than systemd's default limit of five starts
        before = rig.shown("MainPID")
        rig.write(f"after{number}.txt")
        rig.systemctl("kill", "--signal=KILL", rig.unit)
        rig.active(other_than=before)
    rig.converged()


def test_errors_that_a_person_must_fix_stay_failed(rig: ServiceRig) -> None:
    """Exit 78 is not retried; `logs` has the error, `install` refuses before it writes, and `restart` goes on."""
    rig.installed()
    for spoil, words in (
        (lambda: rig.configure({"workspace.path": "/"}), "workspace.path"),
        (rig.at(rig.key_file).unlink, f"no API key: the file sandbox.api_key_file = '{rig.key_file}' does not exist"),
    ):
        spoil()
        assert rig.service("restart").code != 0
        state = [rig.shown(name) for name in ("ActiveState", "ExecMainStatus", "NRestarts")]
        assert state == ["failed", "78", "0"]
        assert words in rig.service("logs").out
        done = rig.service("install")
        assert (done.code, done.err.count("\n")) == (78, 1), done
        rig.set_up()
        assert rig.service("restart").code == 0
        assert rig.shown("ActiveState") == "active"


def test_errors_that_may_pass_are_retried(rig: ServiceRig) -> None:
    """Another daemon has the workspace: exit 75 is retried, and succeeds when that one ends."""
    rig.set_up()
    other = subprocess.Popen(
        rig.machine.line(*rig.command("run")), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        rig.converged()
        rig.restarts_after(8)
        done = rig.service("install")
        assert (done.code, done.err.count("\n")) == (75, 1), done
        assert "did not start (exit 75), and is tried again" in done.err
    finally:
        rig.machine.run("kill", str(rig.status()["pid"]))  # the process in there; `other` only waits for it
        other.wait()
    rig.active()


def test_a_workspace_that_is_renamed_or_mounted_over(rig: ServiceRig) -> None:
    """The hardened unit sees a directory that replaces the workspace and, at a scan, a disk mounted there."""
    rig.installed()
    old = rig.at(rig.workspace)
    old.rename(old.with_name("old"))
    rig.in_state("held")
    rig.write("first.txt")
    rig.write("in-the-new-one.txt")
    rig.until((rig.sandbox.workspace / "in-the-new-one.txt").exists, "the new directory's file")
    shutil.rmtree(old.with_name("old"))
    mounted = rig.machine.run("mount", "-t", "tmpfs", "disk", rig.workspace, as_root=True)
    assert mounted.code == 0, mounted.err
    try:
        rig.machine.run("touch", *(f"{rig.workspace}/{name}.txt" for name in ("first", "on-the-disk")), as_root=True)
        assert rig.syncd("flush").code == 0  # no event tells of what is mounted over a directory
        rig.until((rig.sandbox.workspace / "on-the-disk.txt").exists, "the disk's file")
    finally:
        rig.machine.run("umount", rig.workspace, as_root=True)
    rig.write("without-the-disk.txt")
    rig.until((rig.sandbox.workspace / "without-the-disk.txt").exists, "the directory's file")


def test_an_edited_unit_stays(rig: ServiceRig) -> None:
    """It is neither overwritten nor removed; a drop-in is kept by both commands. A masked one stays off; a disabled one
    is enabled again by an installation.
    """
    rig.installed()
    unit = rig.at(f"{HOME}/{UNITS}/syncd.service")
    rig.drop_in("Nice=5")
    edited = unit.read_text() + "# mine\n"
    unit.write_text(edited)
    done = rig.service("install")
    assert (done.code, done.err.count("\n")) == (78, 1)
    assert "systemctl --user edit syncd" in done.err
    gone = rig.service("uninstall")
    assert (gone.code, "stays" in gone.out) == (0, True)
    assert unit.read_text() == edited
    assert rig.at(f"{HOME}/{UNITS}/syncd.service.d/override.conf").exists()
    unit.unlink()
    assert rig.service("install").code == 0
    assert rig.shown("Nice") == "5"
    assert rig.service("uninstall").code == 0
    rig.systemctl("mask", rig.unit)
    done = rig.service("install")
    assert (done.code, "is not as syncd wrote it and is left alone" in done.err) == (78, True)
    assert "and stays" in rig.service("uninstall").out
    assert rig.machine.run("systemctl", "--user", "unmask", "syncd").code == 0
    assert rig.service("install").code == 0
    rig.systemctl("disable", rig.unit)
    assert rig.service("install").code == 0
    assert rig.shown("UnitFileState") == "enabled"


def test_no_service_manager(rig: ServiceRig) -> None:
    """Every command says so in one line and ends with 78. A state folder that only the shell has is refused by the
    variable's name, as daemon and commands would differ.
    """
    rig.set_up()
    for verb in ("install", "uninstall", "start", "stop", "restart", "status", "logs"):
        done = rig.syncd("service", verb, environ={"XDG_RUNTIME_DIR": "/nowhere"})
        assert (done.code, done.out, done.err.count("\n")) == (78, "", 1), done
        assert "no systemd user manager answers" in done.err
    found = rig.syncd("service", "start", environ={"XDG_RUNTIME_DIR": ""})  # as under cron: it is found all the same
    assert "syncd.service not found" in found.err
    done = rig.syncd("service", "install", environ={"XDG_STATE_HOME": f"{HOME}/elsewhere"})
    assert (done.code, done.err.count("\n"), "XDG_STATE_HOME" in done.err) == (78, 1, True)


def test_services_of_several_workspaces(rig: ServiceRig, machine: Machine, emulator: Emulator) -> None:
    """`install` in a workspace takes its configuration: NAME.toml is an instance with its own key file. `status --all`
    tells which run.
    """
    rig.installed()
    two, idle = ServiceRig(machine, emulator, "two"), ServiceRig(machine, emulator, "idle")
    two.workspace = "/tmp/work two"
    two.key_file = f"{HOME}/keys of mine/100%.key"
    two.set_up()
    idle.configure()
    done = machine.run("sh", "-c", f"cd '{two.workspace}' && exec \"$@\"", "sh", *rig.command("service", "install"))
    assert (done.code, "syncd@two.service was started" in done.out) == (0, True), f"{done}{two.log()}"
    assert "look at it: syncd service status\n" in done.out  # in that directory the option is not needed
    two.converged()
    assert two.shown("UnitFileState") == "enabled"
    assert _running(rig) == {"config": True, "idle": False, "two": True}
    assert two.service("uninstall").code == 0
    assert not list(rig.at(f"{HOME}/{UNITS}").glob("**/syncd@*"))
    assert _running(rig) == {"config": True, "idle": False, "two": False}
    shutil.rmtree(rig.home / "keys of mine")


def _running(rig: ServiceRig) -> dict[str, bool]:
    rows = json.loads(rig.syncd("status", "--all", "--json").out)["workspaces"]
    return {row["name"]: row["running"] for row in rows}


# -- failures


def test_what_systemd_cannot_use(rig: ServiceRig) -> None:
    """A file in the place of the state folder, or a key file that it cannot read, fails the unit before the daemon's
    first line: `logs` and `status` show that, and it is over with the cause.
    """
    rig.set_up()
    rig.put(f"{HOME}/.local/state/syncd", "a file")
    rig.restarts_after(100)
    done = rig.service("install")
    assert (done.code, done.err.count("\n")) == (75, 1)
    assert "`syncd service logs`" in done.err

    def is_told() -> bool:
        """The journal may not know any more of which unit a line is, as its process has ended: then once more."""
        told = "mkdir" in rig.service("logs").out
        if not told:
            assert rig.systemctl("restart", rig.unit).code != 0
        return told

    rig.until(is_told, "the reason")
    rig.at(f"{HOME}/.local/state/syncd").unlink()
    assert rig.service("restart").code == 0
    rig.converged()
    rig.restarts_after(10)
    os.chown(rig.at(rig.key_file), 0, 0)
    assert rig.systemctl("restart", rig.unit).code != 0
    assert "243/CREDENTIALS" in rig.service("status").out
    refused = rig.service("install")
    assert (refused.code, refused.err.count("\n")) == (78, 1)
    os.chown(rig.at(rig.key_file), UID, UID)
    rig.active()


def test_an_installation_that_moved_or_broke(rig: ServiceRig) -> None:
    """If Python or syncd is needs_machine, `status` shows it, and `install` repairs the unit."""
    rig.installed()
    rig.restarts_after(100)
    venv = rig.at(f"{HOME}/{VENV}")
    (hook,) = venv.glob("lib/python*/site-packages/shared.pth")
    hook.rename(hook.with_suffix(".away"))
    assert rig.systemctl("restart", rig.unit).code != 0
    hook.with_suffix(".away").rename(hook)
    assert rig.service("install").code == 0

    moved = venv.with_name("moved")
    venv.rename(moved)
    try:
        assert rig.systemctl("restart", rig.unit).code != 0
        syncd = (f"{HOME}/{VENV}".replace("venv", "moved") + "/bin/python", "-m", "syncd", "service")
        assert "203/EXEC" in rig.machine.run(*syncd, "status").out
        assert rig.machine.run(*syncd, "install").code == 0
        rig.converged()
    finally:
        moved.rename(venv)


def test_what_an_installation_says_first(rig: ServiceRig) -> None:
    """A missing workspace is refused at once, as the daemon would fail only after it, and so is a key that the shell
    alone has; one in environment.d needs no file. Of a service that ends with the session it says how to keep it, and
    does not do that.
    """
    rig.set_up({"workspace.path": f"{HOME}/nowhere"})
    done = rig.service("install")
    assert (done.code, done.err.count("\n")) == (78, 1)
    assert f"the workspace '{HOME}/nowhere' does not exist" in done.err
    rig.configure()
    rig.at(rig.key_file).unlink()
    refused = rig.syncd("service", "install", environ={"KLAVIS_API_KEY": KEY})
    assert (refused.code, "no API key: the file" in refused.err) == (78, True)
    assert not rig.at(f"{HOME}/{UNITS}/{rig.unit}").exists()
    rig.systemctl("set-environment", f"KLAVIS_API_KEY={KEY}")
    (rig.root / LINGER).unlink()
    try:
        done = rig.service("install")
        rig.converged()
    finally:
        (rig.root / LINGER).touch()
        rig.systemctl("unset-environment", "KLAVIS_API_KEY")
    assert done.code == 0
    assert "note: it ends when you log out; to keep it: sudo loginctl enable-linger $USER\n" in done.out


def test_a_machine_that_systemd_does_not_run(rig: ServiceRig) -> None:
    """In a container with systemd's programs alone the message says so, and what works there."""
    here = rig.machine.line(*rig.command("service", "install"), environ={"XDG_RUNTIME_DIR": "/nowhere"})
    covered = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /run/systemd && exec "$@"', "sh")
    done = rig.machine.run(*covered, *here[here.index("setpriv") :], as_root=True)
    assert (done.code, done.out, done.err.count("\n")) == (78, "", 1)
    assert "this machine is not run by systemd" in done.err
    assert "syncd run" in done.err
