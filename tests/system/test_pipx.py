"""The README's installation: a wheel, pipx, and an empty home."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import syncd

_UNIT = """\
import sys
from syncd.cli.options import shipped
from syncd.cli.service.unit import fitted
print(*(fitted(shipped(unit), sys.executable, 257) for unit in ("syncd.service", "syncd@.service")))
"""


@pytest.mark.long
def test_pipx_installs_all_of_it(repo: Path, tmp_path: Path) -> None:
    """The wheel alone brings command, example, units, completions and manual page; all are uninstalled."""
    home = tmp_path / "home"
    (home / "work").mkdir(parents=True)
    wheel = _wheel(repo, tmp_path)
    _needs_an_index(repo, tmp_path, home)
    locked = f"--pip-args=-c {repo}/constraints-dev.txt"
    _done(home, sys.executable, "-m", "pipx", "install", "--python", sys.executable, locked, str(wheel))
    command, venv = home / ".local/bin/syncd", home / ".local/share/pipx/venvs/syncd"

    assert _done(home, command, "--version") == f"syncd, version {syncd.__version__}\n"
    assert _done(home, command, "service", "install", "--help").startswith("Usage: syncd service install ")
    _done(home, command, "init", "--path", "work", "--id", "box")
    said = _sentences((repo / "config.example.toml").read_text("utf-8"))
    assert said
    assert said <= _sentences((home / ".config/syncd/config.toml").read_text("utf-8"))

    python = venv / "bin/python"
    units = _done(home, python, "-c", _UNIT)
    assert units.count(f'\nExecStart=:"{python}" -P -m syncd run') == 2
    assert _wrong_use(home, command) == _wrong_use(home, python, "-m", "syncd")
    assert "Usage: syncd push" in _wrong_use(home, command)

    share = repo / "syncd/share"
    files = [str(file.relative_to(share)) for file in share.rglob("*") if file.is_file()]
    assert [name for name in files if (venv / "share" / name).read_bytes() != (share / name).read_bytes()] == []
    assert (home / ".local/share/man/man1/syncd.1").read_bytes() == (share / "man/man1/syncd.1").read_bytes()
    if shutil.which("man"):
        assert "SYNCD(1)" in _done(home, "man", "-M", str(home / ".local/share/man"), "syncd")

    _done(home, sys.executable, "-m", "pipx", "uninstall", "syncd")
    assert [path for path in (command, venv, home / ".local/share/man/man1/syncd.1") if os.path.lexists(path)] == []


def _sentences(text: str) -> set[str]:
    """Return the comments of a configuration that are not examples."""
    return {line for line in text.splitlines() if line.startswith("# ") and line.endswith((".", ":"))}


def _wheel(repo: Path, folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder), "-t", "wheel"]
    subprocess.run(command, cwd=repo, capture_output=True, check=True, timeout=60)
    return next(folder.glob("*.whl"))


def _needs_an_index(repo: Path, folder: Path, home: Path) -> None:
    words = ("download", "-q", "--no-deps", "-c", f"{repo}/constraints-dev.txt", "-d", str(folder), "click")
    if _run(home, sys.executable, "-m", "pip", "--retries", "0", *words).returncode:
        pytest.skip("pip reaches no index, so nothing can be installed")


def _wrong_use(home: Path, *command: object) -> str:
    ended = _run(home, *command, "push", "--no-such-option")
    assert ended.returncode == 2
    return ended.stderr


def _done(home: Path, *command: object) -> str:
    ended = _run(home, *command)
    assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def _run(home: Path, *command: object) -> subprocess.CompletedProcess[str]:
    """Run with pip's settings from the environment, and all folders below this home."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PIPX_", "XDG_", "PYTHON"))}
    environ |= {"HOME": str(home), "LANG": "C.UTF-8", "MANPAGER": "cat", "MANWIDTH": "80"}
    words = [str(word) for word in command]
    return subprocess.run(
        words, cwd=home, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=110
    )
