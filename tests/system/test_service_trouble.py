"""`syncd service` with failures under a real systemd: its messages, and their remedies."""

from __future__ import annotations

import os

from tests.system.machine import HOME, UID, needs_machine
from tests.system.rig import KEY
from tests.system.service_rig import UNITS, VENV, ServiceRig
from tests.system.test_service import emulator, rig

__all__ = ["emulator", "rig"]  # fixtures

pytestmark = needs_machine

LINGER = "var/lib/systemd/linger/dev"


def test_a_key_file_that_systemd_cannot_read(rig: ServiceRig) -> None:
    """The unit fails before the daemon's first line: `status` shows that, and it is over once the file is readable."""
    rig.installed()
    rig.restarts_after(10)
    os.chown(rig.at(rig.key_file), 0, 0)
    assert rig.systemctl("restart", rig.unit).code != 0
    assert "243/CREDENTIALS" in rig.service("status").out
    refused = rig.service("install")
    assert (refused.code, refused.err.count("\n")) == (78, 1)
    os.chown(rig.at(rig.key_file), UID, UID)
    rig.active()


def test_folders_that_cannot_be_created(rig: ServiceRig) -> None:
    """A file in the place of its state folder fails the unit, too."""
    rig.set_up()
    rig.put(f"{HOME}/.local/state/syncd", "a file")
    rig.restarts_after(100)
    done = rig.service("install")
    assert (done.code, done.err.count("\n")) == (75, 1)
    assert "`syncd service logs`" in done.err
    assert "mkdir" in rig.service("logs").out
    rig.at(f"{HOME}/.local/state/syncd").unlink()
    assert rig.service("restart").code == 0
    rig.converged()


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


def test_a_masked_or_disabled_unit(rig: ServiceRig) -> None:
    """A masked one stays off; a disabled one is enabled again by an installation."""
    rig.set_up()
    rig.systemctl("mask", rig.unit)
    done = rig.service("install")
    assert (done.code, "is not as syncd wrote it and is left alone" in done.err) == (78, True)
    assert "and stays" in rig.service("uninstall").out
    assert rig.machine.run("systemctl", "--user", "unmask", "syncd").code == 0
    assert rig.service("install").code == 0
    rig.systemctl("disable", rig.unit)
    assert rig.service("install").code == 0
    assert rig.shown("UnitFileState") == "enabled"


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
    assert "systemd is not what runs this machine" in done.err
    assert "syncd run" in done.err
