"""The service's sandboxing under a real systemd: what it blocks, what it allows, and a machine without it."""

from __future__ import annotations

import json

from tests.system.machine import HOME, REPO, UID, needs_machine, shown
from tests.system.rig import KEY
from tests.system.service_rig import VENV, ServiceRig
from tests.system.test_service import emulator, rig

__all__ = ["emulator", "rig"]  # fixtures

pytestmark = needs_machine

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
SCRIPT = f"{HOME}/bin/tell"
STATE = f"{HOME}/.local/state/syncd"
REFUSE = f"/run/systemd/system/user@{UID}.service.d/refuse.conf"


def test_the_units_sandboxing(rig: ServiceRig) -> None:
    """With the unit's settings a process can do what the daemon does, and nothing else that its user could. The kernel
    shows the daemon as filtered, without privileges, in a user namespace.
    """
    rig.installed()
    lines = (rig.root / f"proc/{rig.shown('MainPID')}/status").read_text().splitlines()
    reported = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert (reported["NoNewPrivs"], reported["Seccomp"]) == ("1", "2")
    assert {reported[name] for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")} == {"0" * 16}
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


def test_the_hook_in_the_hardened_unit(rig: ServiceRig) -> None:
    """It writes to the state folder and uses the network, without the key; it cannot write elsewhere."""
    ask = f'"{HOME}/{VENV}/bin/python"'.replace("$", "\\$")
    rig.put(
        SCRIPT,
        "#!/bin/sh\n"
        f'echo no >"{HOME}/elsewhere" || echo "elsewhere refused"\n'
        f"{ask} -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1])' {rig.emulator.base_url} 2>&1 |"
        " grep -c 'HTTP Error'\n"
        f'{{ env; cat "$SYNCD_CHANGES"; }} >"{STATE}/told"\n',
        0o755,
    )
    rig.installed({"sync.on_synced": ["~/bin/tell"]})
    reported = rig.at(f"{STATE}/told")
    rig.until(lambda: reported.exists() and "sandbox_changed" in reported.read_text(), "the hook")
    assert f'"sandbox_id": "{rig.sandbox.id}", "sandbox_changed": true' in reported.read_text()
    assert not {"CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET"} & {
        line.partition("=")[0] for line in reported.read_text().split("\n")
    }
    rig.until(lambda: "on_synced: 1\n" in rig.log(), "an answer from the network")
    assert "elsewhere refused" in rig.log()
    assert not rig.at(f"{HOME}/elsewhere").exists()
    assert rig.status()["warnings"] == []


def test_the_agents_work_is_committed_at_home(rig: ServiceRig) -> None:
    """The unit may write what following adds to the repository around the workspace, and no more of it.

    Where nothing was followed at the installation, a warning says what to do.
    """
    rig.set_up({"sandbox.follow_seconds": 0})
    git = ("git", "-C", rig.workspace, "-c", "user.name=me", "-c", "user.email=me@localhost")
    for line in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "one")):
        assert rig.machine.run(*git, *line).code == 0
    assert rig.service("install").code == 0
    rig.until((rig.sandbox.workspace / "first.txt").exists, "the first sync")
    (rig.sandbox.workspace / "made.txt").write_text("by the agent\n")
    rig.configure()
    rig.systemctl("reload", rig.unit)
    (warning,) = rig.until(lambda: rig.status()["warnings"], "the warning")
    assert "until `syncd service install` is run again" in warning
    assert rig.service("install").code == 0
    rig.until(rig.at(f"{rig.workspace}/.git/refs/syncd/main").exists, "the commit")
    inside = ("nsenter", "-t", rig.shown("MainPID"), "-U", "-m", "--preserve-credentials")
    tries = f"cd {rig.workspace}/.git; for each in objects refs hooks config; do test -w $each; echo $?; done"
    assert rig.machine.run(*inside, "sh", "-c", tries).out.split() == ["0", "0", "1", "1"]
