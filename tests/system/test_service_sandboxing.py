"""The service's sandboxing under a real systemd: what it blocks, what it allows, and a machine without it."""

from __future__ import annotations

import json

import pytest

from tests.system.machine import HOME, REPO, UID, missing, shown
from tests.system.rig import KEY
from tests.system.service_rig import VENV, ServiceRig
from tests.system.test_service import emulator, machine, rig

__all__ = ["emulator", "machine", "rig"]  # fixtures

_WHY_NOT = missing()
pytestmark = pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT or "all is here")

PROBE = f"{shown(str(REPO))}/tests/system/service_probe.py"
SAME_KEY = f"{HOME}/same-key"  # for the comparison: the key file itself is hidden
# Each of these the same user can do outside.
REFUSED = {
    "write home": "EROFS",
    "write configuration": "EROFS",
    "write workspace": "EROFS",
    "write runtime folder": "EROFS",
    "read key file": "EACCES",
    "read another's temporary file": "ENOENT",
    "netlink socket": "EAFNOSUPPORT",
    "make a user namespace": "EPERM",
    "make a set-id file": "EPERM",
    "give a file away": "EPERM",
    "set a priority": "EPERM",
}
ALLOWED = ("write state", "write cache", "read workspace", "internet socket")
REFUSE = f"/run/systemd/system/user@{UID}.service.d/refuse.conf"


def test_the_units_sandboxing(rig: ServiceRig) -> None:
    """With the unit's settings a process can do what the daemon does, and nothing else that its user could."""
    rig.installed()
    rig.put(SAME_KEY, KEY + "\n")
    rig.machine.run("sh", "-c", "echo text >/tmp/of-another")
    python = '"' + f"{HOME}/{VENV}/bin/python".replace("%", "%%") + '"'
    rig.drop_in(
        *("Type=oneshot", "Restart=no", "WatchdogSec=0", "ExecStart="), f"ExecStart=:{python} {PROBE} {SAME_KEY}"
    )
    rig.systemctl("stop", rig.unit)
    assert rig.systemctl("start", rig.unit).code == 0, rig.log()
    # The journal may get a line after its process has ended, and then does not know its unit.
    journal = ("journalctl", "--user", "-o", "cat", "--no-pager")
    inside = rig.until(lambda: _probed(rig.machine.run(*journal).out), "the report in the journal")
    outside = _probed(rig.machine.run(f"{HOME}/{VENV}/bin/python", PROBE, SAME_KEY).out)
    assert {name: inside[name] for name in REFUSED} == REFUSED
    assert {name: outside[name] for name in REFUSED} == dict.fromkeys(REFUSED, "ok")
    assert {name: inside[name] for name in ALLOWED} == dict.fromkeys(ALLOWED, "ok")
    # From the kernel itself, or by the filter where the kernel is older than 6.3.
    assert inside["memory that is written and run"] in ("EACCES", "EPERM")
    assert outside["memory that is written and run"] == "ok"
    assert (inside["use the credential"], outside["use the credential"]) == ("ok", "none")


def _probed(text: str) -> dict[str, str]:
    """Return what the last probe reported, nothing without a report."""
    lines = [line for line in text.splitlines() if line.startswith("probe ")]
    found: dict[str, str] = json.loads(lines[-1].removeprefix("probe ")) if lines else {}
    return found


def test_the_daemon_is_sandboxed(rig: ServiceRig) -> None:
    """The kernel shows its process as filtered, without privileges, in a user namespace."""
    rig.installed()
    lines = (rig.root / f"proc/{rig.shown('MainPID')}/status").read_text().splitlines()
    reported = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert (reported["NoNewPrivs"], reported["Seccomp"]) == ("1", "2")
    assert {reported[name] for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")} == {"0" * 16}


def test_a_machine_without_user_namespaces(rig: ServiceRig) -> None:
    """The unit fails rather than run unprotected; `install` then says what it leaves out."""
    rig.installed()
    rig.restarts_after(10)
    _user_namespaces(rig, "RestrictNamespaces=~user")
    try:
        rig.until(lambda: rig.shown("ExecMainStatus") == "217", "the refusal")
        done = rig.service("install")
        assert done.code == 0, f"{done.out}{done.err}{rig.log()}"
        assert "without its sandbox" in done.out
        rig.write("unprotected.txt")
        rig.converged()
    finally:
        _user_namespaces(rig, "")
    rig.active()
    done = rig.service("install")
    assert (done.code, "without its sandbox" in done.out) == (0, False)
    assert rig.shown("PrivateUsers") == "yes"
    rig.write("protected.txt")
    rig.converged()


def _user_namespaces(rig: ServiceRig, setting: str) -> None:
    """Set the limit for the user's manager and all that it starts, and restart it."""
    conf = rig.root / REFUSE[1:]
    conf.parent.mkdir(parents=True, exist_ok=True)
    conf.write_text(f"[Service]\n{setting}\n")
    rig.machine.run("systemctl", "daemon-reload", as_root=True)
    done = rig.machine.run("systemctl", "restart", f"user@{UID}.service", as_root=True)
    assert done.code == 0, done.err
    rig.until((rig.root / f"run/user/{UID}/systemd/private").exists, "the user's service manager")
