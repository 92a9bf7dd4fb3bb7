"""The hook under a real systemd, in the hardened unit."""

from __future__ import annotations

import pytest

from tests.system.machine import HOME, missing
from tests.system.service_rig import VENV, ServiceRig
from tests.system.test_service import emulator, machine, rig

__all__ = ["emulator", "machine", "rig"]  # fixtures

_WHY_NOT = missing()
pytestmark = pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT or "all is here")

SCRIPT = f"{HOME}/bin/tell"
STATE = f"{HOME}/.local/state/syncd"


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
