"""The service manager accepts the units, and the template is the plain unit with a name."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = ("syncd.service", "syncd@.service")
COMMAND = "%h/.local/bin/syncd"
# What the contract of the daemon's process needs from the manager, whatever else a unit says.
NEEDED = {
    "Type": "notify-reload",
    "NotifyAccess": "main",
    "Restart": "on-failure",
    "RestartPreventExitStatus": "78",
    "StartLimitIntervalSec": "0",
    "KillSignal": "SIGTERM",
    "WantedBy": "default.target",
}
# As `systemd-analyze security` counts it, in tenths; an unhardened user service has more than 90.
EXPOSURE = 17

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine"
)


@needs_systemd
@pytest.mark.parametrize("unit", UNITS)
def test_systemd_accepts_it(repo: Path, tmp_path: Path, unit: str) -> None:
    """The manager's own check has nothing to say about the unit."""
    assert _complaints((repo / "systemd" / unit).read_text("utf-8"), unit, tmp_path) == "", (
        f"systemd/{unit}: mend what systemd-analyze verify says"
    )


@needs_systemd
@pytest.mark.parametrize("unit", UNITS)
def test_it_is_hardened(repo: Path, tmp_path: Path, unit: str) -> None:
    """Its exposure is low, and without one of its restrictions it would be too high: the check can fail."""
    text = (repo / "systemd" / unit).read_text("utf-8")
    assert _is_hardened(text, unit, tmp_path), (
        f"systemd/{unit}: restrict it as before: systemd-analyze --user security --offline=yes systemd/{unit}"
    )
    assert not _is_hardened(text.replace("PrivateUsers=yes", ""), unit, tmp_path)


@pytest.mark.parametrize("unit", UNITS)
def test_it_keeps_the_daemon_s_contract(repo: Path, unit: str) -> None:
    """Readiness, restarts and exit codes are what `syncd run` promises."""
    settings = dict(line.split("=", 1) for line in _settings(repo / "systemd" / unit) if "=" in line)
    assert {name: settings.get(name) for name in NEEDED} == NEEDED, f"systemd/{unit}: set these"


def test_the_template_differs_in_its_name_alone(repo: Path) -> None:
    """A line mended in one unit is mended in the other."""
    plain, template = (_settings(repo / "systemd" / unit) for unit in UNITS)
    named = [line.replace(" --config %E/syncd/%i.toml", "").replace(" (%i)", "") for line in template]
    remedy = "systemd/syncd@.service: the lines of syncd.service, with --config %E/syncd/%i.toml and (%i)"
    assert named != template, remedy
    assert sorted(named) == sorted(plain), remedy


def _settings(file: Path) -> list[str]:
    return [line for line in file.read_text("utf-8").splitlines() if line and not line.startswith("#")]


def _is_hardened(text: str, unit: str, folder: Path) -> bool:
    (folder / unit).write_text(text, "utf-8")
    return _analyze(folder, "security", "--offline=yes", f"--threshold={EXPOSURE}", str(folder / unit)).returncode == 0


def _complaints(text: str, unit: str, folder: Path) -> str:
    """The output of `systemd-analyze verify`; its command exists, since it complains of a missing one."""
    assert COMMAND in text
    file = folder / unit
    file.write_text(text.replace(COMMAND, shutil.which("true") or "/bin/true"), "utf-8")
    run = _analyze(folder, "verify", "--recursive-errors=no", str(file))
    return run.stderr or ("" if run.returncode == 0 else f"exit {run.returncode}")


def _analyze(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    runtime = folder / "runtime"
    runtime.mkdir(mode=0o700, exist_ok=True)
    return subprocess.run(
        ["systemd-analyze", "--user", *words],
        env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
