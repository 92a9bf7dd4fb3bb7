"""The README's installation by uv, into an empty home: a wheel that was made from the source archive.

That by pipx is in `test_fresh_machine`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import syncd
from tests.repo.sources import REPO

_LOCKED = REPO / "constraints-dev.txt"


@pytest.mark.long
@pytest.mark.timeout(600)
def test_uv_brings_all_of_it(repo: Path, tmp_path: Path) -> None:
    """The wheel alone brings command, demo, example, completions and manual page; all are uninstalled."""
    home = tmp_path / "home"
    (home / "work").mkdir(parents=True)
    wheel = _wheel(repo, tmp_path)
    _needs_an_index(repo, tmp_path, home)
    tool = (sys.executable, "-m", "uv", "tool")
    _done(home, *tool, "install", "--constraints", _LOCKED, "--python", sys.executable, wheel)
    command, venv = home / ".local/bin/syncd", home / ".local/share/uv/tools/syncd"

    assert _done(home, command, "--version").startswith(f"syncd, version {syncd.__version__}\n")
    assert _done(home, command, "service", "install", "--help").startswith("Usage: syncd service install ")
    _done(home, command, "init", "--path", "work", "--id", "box")
    share = repo / "syncd/share"
    files = [str(file.relative_to(share)) for file in share.rglob("*") if file.is_file()]
    assert [name for name in files if (venv / "share" / name).read_bytes() != (share / name).read_bytes()] == []
    for shell in ("bash", "zsh", "fish"):
        assert "syncd" in _done(home, command, "completion", shell)
    assert "\nDone\n" in _done(home, command, "demo")

    _done(home, *tool, "uninstall", "syncd")
    assert [path for path in (command, venv) if os.path.lexists(path)] == []


def _wheel(repo: Path, folder: Path) -> Path:
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(folder), "-t"]
    subprocess.run([*build, "sdist"], cwd=repo, capture_output=True, check=True, timeout=60)
    (archive,) = folder.glob("*.tar.gz")
    subprocess.run(["tar", "-xzf", archive, "-C", folder], check=True)
    unpacked = folder / archive.name.removesuffix(".tar.gz")
    subprocess.run([*build, "wheel"], cwd=unpacked, capture_output=True, check=True, timeout=60)
    return next(folder.glob("*.whl"))


def _needs_an_index(repo: Path, folder: Path, home: Path) -> None:
    words = ("download", "-q", "--no-deps", "-c", f"{repo}/constraints-dev.txt", "-d", str(folder), "click")
    if _run(home, sys.executable, "-m", "pip", "--retries", "0", *words).returncode:
        pytest.skip("pip reaches no index, so nothing can be installed")


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
        words, cwd=home, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=280
    )
