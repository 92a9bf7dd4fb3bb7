"""`syncd service` with failures under a real systemd: its messages, and their remedies."""

from __future__ import annotations

import os
import re

import pytest

from tests.screens.terminal import Terminal
from tests.system.machine import HOME, UID, missing
from tests.system.rig import KEY
from tests.system.service_rig import UNITS, VENV, ServiceRig
from tests.system.test_service import emulator, machine, rig

__all__ = ["emulator", "machine", "rig"]  # fixtures

_WHY_NOT = missing()
pytestmark = pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT or "all is here")

LINGER = "var/lib/systemd/linger/dev"


def test_a_key_file_that_systemd_cannot_read(rig: ServiceRig) -> None:
    """The unit fails before the daemon's first line: reported as that, and over once the file is readable."""
    rig.installed()
    rig.restarts_after(10)
    os.chown(rig.at(rig.key_file), 0, 0)
    assert rig.systemctl("restart", rig.unit).code != 0
    status = rig.service("status")
    assert status.code == 78
    assert "exit 243: systemd cannot read the API key file" in status.out
    assert f"to do       let your own user read {rig.key_file}; it tries again by itself" in status.out
    refused = rig.service("install")
    assert (refused.code, refused.err.count("\n")) == (78, 1)
    os.chown(rig.at(rig.key_file), UID, UID)
    rig.active()


def test_folders_that_cannot_be_created(rig: ServiceRig) -> None:
    """A file in the place of its state folder fails the unit, too."""
    rig.set_up()
    rig.put(f"{HOME}/.local/state/syncd", "a file")
    rig.restarts_after(100)
    assert rig.service("install").code == 78
    status = rig.service("status")
    assert status.code == 78
    assert "last end    its state and cache folders cannot be made" in status.out
    rig.at(f"{HOME}/.local/state/syncd").unlink()
    assert rig.machine.run(*_then(status.out)).code == 0
    rig.converged()


def test_an_installation_that_moved_or_broke(rig: ServiceRig) -> None:
    """If Python or syncd is missing, `status` names the cause, and `install` repairs the unit."""
    rig.installed()
    rig.restarts_after(100)
    venv = rig.at(f"{HOME}/{VENV}")
    (hook,) = venv.glob("lib/python*/site-packages/shared.pth")
    hook.rename(hook.with_suffix(".away"))
    assert rig.systemctl("restart", rig.unit).code != 0
    hook.with_suffix(".away").rename(hook)
    status = rig.service("status")
    assert (status.code, "exit 1: Python could not run syncd" in status.out) == (78, True)
    assert _then(status.out) == ["syncd", "service", "install"]
    assert rig.service("install").code == 0

    moved = venv.with_name("moved")
    venv.rename(moved)
    try:
        assert rig.systemctl("restart", rig.unit).code != 0
        syncd = (f"{HOME}/{VENV}".replace("venv", "moved") + "/bin/python", "-m", "syncd", "service")
        status = rig.machine.run(*syncd, "status")
        assert (status.code, "exit 203: its program cannot be run" in status.out) == (78, True)
        assert "syncd service install, from where syncd is now" in status.out
        assert rig.machine.run(*syncd, "install").code == 0
        rig.converged()
    finally:
        moved.rename(venv)


def test_a_masked_or_disabled_unit(rig: ServiceRig) -> None:
    """It stays off, and the message has the command that enables it."""
    rig.set_up()
    rig.systemctl("mask", rig.unit)
    status = rig.service("status")
    assert (status.code, "systemctl --user unmask syncd" in status.out) == (78, True)
    done = rig.service("install")
    assert (done.code, "is not as syncd wrote it and is left alone" in done.err) == (78, True)
    assert "and stays" in rig.service("uninstall").out
    assert rig.machine.run("systemctl", "--user", "unmask", "syncd").code == 0
    assert rig.service("install").code == 0
    rig.systemctl("disable", rig.unit)
    status = rig.service("status")
    assert "to do       it will not start at the next login: systemctl --user enable syncd" in status.out
    rig.systemctl("enable", rig.unit)
    assert "to do" not in rig.service("status").out


def test_an_unreadable_journal(rig: ServiceRig) -> None:
    """The state is shown, with one line about the missing log and what to do."""
    rig.installed()
    journals = "/var/log/journal"
    rig.machine.run("chmod", "700", journals, as_root=True)
    try:
        status = rig.service("status")
        assert (status.code, "running as process" in status.out) == (0, True)
        assert "the journal cannot be read" in status.out
        logs = rig.service("logs")
        assert (logs.code, logs.out, logs.err.count("\n")) == (78, "", 1)
        assert "sudo usermod --append --groups systemd-journal dev" in logs.err
    finally:
        rig.machine.run("chmod", "755", journals, as_root=True)
    assert rig.service("logs").code == 0


def test_what_an_installation_advises(rig: ServiceRig) -> None:
    """Lingering and a proxy of the shell each have a command, which is not run."""
    rig.set_up({"sandbox.base_url": "https://api.invalid"})
    proxy = {"HTTPS_PROXY": "http://me:hush@proxy.invalid:3128"}
    (rig.root / LINGER).unlink()
    try:
        done = rig.syncd("service", "install", environ=proxy)
    finally:
        (rig.root / LINGER).touch()
    assert done.code == 0
    assert "to do       to keep it: sudo loginctl enable-linger dev\n" in done.out
    assert "HTTPS_PROXY is set in this shell, but not for the service" in done.out
    assert "hush" not in done.out
    rig.drop_in("Environment=https_proxy=http://proxy.invalid:3128")
    assert "note" not in rig.syncd("service", "install", environ=proxy).out  # the unit has it
    rig.configure()
    assert "note" not in rig.syncd("service", "install", environ=proxy).out  # the sandbox is on this machine


def test_a_missing_workspace(rig: ServiceRig) -> None:
    """It is refused at once, as the daemon would fail only after the installation."""
    rig.set_up({"workspace.path": f"{HOME}/nowhere"})
    done = rig.service("install")
    assert (done.code, done.err.count("\n")) == (78, 1)
    assert f"the workspace '{HOME}/nowhere' does not exist" in done.err
    assert not rig.at(f"{HOME}/{UNITS}/{rig.unit}").exists()


def test_a_key_from_the_managers_environment(rig: ServiceRig) -> None:
    """A key in environment.d needs no file. One that only the shell has is refused, by its name."""
    rig.set_up()
    rig.at(rig.key_file).unlink()
    refused = rig.syncd("service", "install", environ={"KLAVIS_API_KEY": KEY})
    assert (refused.code, "a service does not see $KLAVIS_API_KEY" in refused.err) == (78, True)
    rig.systemctl("set-environment", f"KLAVIS_API_KEY={KEY}")
    try:
        assert rig.service("install").code == 0
        rig.converged()
    finally:
        rig.systemctl("unset-environment", "KLAVIS_API_KEY")


def test_a_machine_that_systemd_does_not_run(rig: ServiceRig) -> None:
    """In a container with systemd's programs alone the message says so, and what works there."""
    here = rig.machine.line(*rig.command("service", "install"), environ={"XDG_RUNTIME_DIR": "/nowhere"})
    covered = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /run/systemd && exec "$@"', "sh")
    done = rig.machine.run(*covered, *here[here.index("setpriv") :], as_root=True)
    assert (done.code, done.out, done.err.count("\n")) == (78, "", 1)
    assert "systemd is not what runs this machine" in done.err
    assert "syncd run" in done.err


def test_on_a_terminal(rig: ServiceRig) -> None:
    """The state has a colour, which can be switched off; Ctrl-C ends `logs -f` with 0."""
    rig.installed()
    rig.configure({"workspace.path": "/"})
    rig.systemctl("restart", rig.unit)
    screen = _screen(rig, "status")
    text = screen.text
    assert "service     syncd.service: failed, and stays so" in text
    assert re.search(r"^log         \w{3} \d\d \d\d:\d\d:\d\d ", text, re.MULTILINE)
    assert "ended 78" in text
    assert _colours(screen) == {"default", "red"}
    assert _colours(_screen(rig, "status", "NO_COLOR=1")) == {"default"}

    rig.configure()
    rig.systemctl("restart", rig.unit)
    followed = _screen(rig, "logs", typed="\x03")
    assert "ended 0" in followed.text, followed.text


def _screen(rig: ServiceRig, verb: str, *settings: str, typed: str = "") -> Terminal:
    """Return the command's screen and exit code in a shell."""
    follow = ("-f",) if typed else ()
    shell = 'trap : INT; "$@"; echo ended $?'
    words = ("env", "TERM=xterm", *settings, *rig.command("service", verb, *follow))
    terminal = Terminal()
    line = rig.machine.line("setsid", "--ctty", "--wait", "sh", "-c", shell, "sh", *words)
    terminal.start(line, os.environ, rig.home)
    try:
        if typed:
            terminal.until(lambda text: "watching" in text, "what was logged so far")
            terminal.type(typed)
        terminal.until(lambda text: "ended " in text, "the command's end")
    finally:
        terminal.close()
    return terminal


def _colours(terminal: Terminal) -> set[str]:
    cells = terminal.screen.buffer.values()
    return {cell.fg for line in cells for cell in line.values() if cell.data.strip()}


def _then(text: str) -> list[str]:
    """Return the command at the end of the remedy."""
    found = re.search(r"then: (.+)$", text, re.MULTILINE)
    assert found, text
    return found[1].split()
