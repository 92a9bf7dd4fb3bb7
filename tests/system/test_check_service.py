"""`syncd check` and its report on a machine with a real systemd: the unit, what it lacks, and its log."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.emulator import Emulator
from tests.system.machine import HOME, Machine, missing
from tests.system.rig import KEY
from tests.system.service_rig import ServiceRig, make_home

_WHY_NOT = missing()
pytestmark = pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT or "all is here")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[ServiceRig]:
    """A machine, the emulated API on its loopback, and nothing installed."""
    (tmp_path / "home").mkdir()
    make_home(tmp_path / "home")
    machine = Machine(tmp_path, {})
    emulator = Emulator(tmp_path / "cloud", api_key=KEY)
    try:
        with machine.network():
            emulator.start()
        yield ServiceRig(machine, emulator)
    finally:
        emulator.close()
        machine.close()


def test_a_real_unit_and_its_log(rig: ServiceRig) -> None:
    """Not installed, running, failed: each is shown; the report has it without a name."""
    rig.set_up()
    done = rig.syncd("check")
    assert re.search(r"note  service +syncd\.service is not installed\n +to do: .*syncd service install", done.out), (
        done
    )
    rig.installed()
    rig.drop_in("Environment=ZQNAME=zqvalue")
    rig.write("zqfolder/zqsecret.py", "x = 'sk_live_Ab3dE5fG7hJ9kA2bC4dE6fG8'\n")
    rig.until(lambda: "zqsecret" in rig.log(), "the warning")
    rig.in_state("watching")
    done = rig.syncd("check")
    assert done.code == 0, done
    assert re.search(r"pass  service +syncd\.service is active", done.out)
    assert re.search(r"warn  daemon +running as process \d+, watching; 'zqfolder/zqsecret.py' holds", done.out)
    report = rig.syncd("check", "--report").out
    assert "zq" not in report.lower()
    assert KEY not in report
    assert HOME not in report
    assert re.search(r"\nservice +(pass|warn)\n", report), report
    rig.at(rig.workspace).rename(rig.at(f"{HOME}/elsewhere"))
    rig.systemctl("restart", rig.unit)
    rig.until(lambda: rig.shown("ActiveState") == "failed", "a failure")
    done = rig.syncd("check")
    assert done.code == 78
    assert re.search(r"warn  service +syncd\.service is failed\n +to do: +syncd service status", done.out), done
