"""What is built of a checkout, and installed: a wheel, a folder of them, a release, and a Debian package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import syncd
from tests.emulator import Emulator
from tests.system.command import Finished
from tests.system.machine import HOME, Machine, missing
from tests.system.rig import KEY
from tests.system.service_rig import UNITS, ServiceRig, own

pytestmark = pytest.mark.long

_WHY_NOT = missing() or ("" if shutil.which("dpkg-deb") else "dpkg-deb is not on this machine")
_COMPLETIONS = (
    "bash-completion/completions/syncd",
    "zsh/vendor-completions/_syncd",
    "fish/vendor_completions.d/syncd.fish",
)
_PLACES = ("usr/bin/syncd", "usr/lib/syncd", "usr/share/doc/syncd", "usr/lib/systemd/user/syncd.service", "etc/syncd")


def test_a_machine_without_an_index(repo: Path, tmp_path: Path) -> None:
    """The line that the script prints installs syncd from the folder alone."""
    folder = tmp_path / "the wheels"
    line = _made(repo, "wheelhouse", folder)
    line = line.replace("/opt/syncd", str(tmp_path / "venv")).replace("python3 ", f"{sys.executable} ", 1)
    home = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(["sh", "-c", line], env=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = subprocess.run([tmp_path / "venv/bin/syncd", "--version"], capture_output=True, text=True, check=True)
    assert said.stdout.startswith(f"syncd, version {syncd.__version__}\n")


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not on this machine")
@pytest.mark.timeout(600)
def test_a_release(repo: Path, tmp_path: Path) -> None:
    """One command makes it, the same again; its checksums hold, its notes are the version's."""
    checkout = tmp_path / "checkout"
    ignore = shutil.ignore_patterns(".git", ".*_cache", ".venv*", "__pycache__", "dist", "mutants", ".hypothesis")
    shutil.copytree(repo, checkout, ignore=ignore)
    changelog, module = checkout / "CHANGELOG.md", checkout / "syncd/__init__.py"
    text = changelog.read_text("utf-8")
    changelog.write_text(f"# Changelog\n\n## Unreleased\n\n{text.partition('## ')[2]}", "utf-8")
    refused = _release(checkout, tmp_path / "none")
    assert refused.returncode == 1
    assert "CHANGELOG.md begins with '## Unreleased'" in refused.stderr

    changelog.write_text("# Changelog\n\n## 9.8.7 - 2026-01-02\n\n### New\n\n- A bell.\n\n## 0.1.0\n\nOld.\n")
    module.write_text(module.read_text("utf-8").replace(syncd.__version__, "9.8.7"), "utf-8")
    folder, made = tmp_path / "out/dist", []
    for _ in range(2):
        done = _release(checkout, folder)
        if "No matching distribution" in done.stderr:
            pytest.skip("pip reaches no index, so nothing can be built")
        assert done.returncode == 0, done.stderr
        subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=folder, check=True)
        made.append({file.name: file.read_bytes() for file in folder.iterdir()})
    assert made[0] == made[1]
    kinds = {re.sub(r"_[a-z0-9]+\.deb$", ".deb", name) for name in made[0]}
    assert kinds == {"SHA256SUMS"} | {
        f"syncd{end}" for end in ("-9.8.7.tar.gz", "-9.8.7-py3-none-any.whl", "_9.8.7.deb", "-9.8.7.md")
    }
    assert made[0]["syncd-9.8.7.md"] == b"### New\n\n- A bell.\n\n"


def _release(checkout: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [checkout / "packaging/release", folder]
    # Debian's package is for Debian's Python, and is built with it.
    environ = {**os.environ, "PYTHON": "/usr/bin/python3", "SOURCE_DATE_EPOCH": "1767312000"}
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=500)


class PackagedRig(ServiceRig):
    """A user of a machine on which the package is installed."""

    def command(self, *args: str) -> tuple[str, ...]:
        """Return the words of `syncd ARGS`."""
        return ("/usr/bin/syncd", *args)

    def as_root(self, *args: str) -> Finished:
        """Run a command as root, which must succeed."""
        done = self.machine.run("env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *args, as_root=True)
        assert done.code == 0, done
        return done


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[PackagedRig]:
    """A machine with a user, an emulated API, and no syncd yet."""
    (tmp_path / "home").mkdir()
    own(tmp_path / "home")
    machine = Machine(tmp_path)
    emulator = Emulator(tmp_path / "cloud", api_key=KEY)
    with machine.network():
        emulator.start()
    yield PackagedRig(machine, emulator)
    emulator.close()
    machine.close()


@pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT or "all is here")
@pytest.mark.timeout(600)
def test_the_debian_package(repo: Path, tmp_path: Path, rig: PackagedRig) -> None:
    """It is the same each time, serves a user by a unit that upgrades do not touch, and a purge leaves nothing."""
    first, again = (Path(_made(repo, "build-deb", tmp_path / name)) for name in ("1", "2"))
    assert first.read_bytes() == again.read_bytes()
    packages = [_put(rig, first, "old.deb"), _put(rig, _newer(first, tmp_path), "new.deb")]
    before = _files(rig)

    rig.as_root("dpkg", "-i", packages[0])
    assert rig.syncd("--version").out.startswith(f"syncd, version {syncd.__version__}\n")
    assert "/usr/share/man/man1/syncd.1" in rig.machine.run("man", "-w", "syncd").out
    assert {f"/usr/share/{place}" for place in _COMPLETIONS} <= set(_files(rig))
    rig.installed()
    assert rig.shown("ExecStart").count("path=/usr/bin/syncd ;") == 1
    unit = rig.at(f"{HOME}/{UNITS}/syncd.service").read_text()

    rig.as_root("dpkg", "-i", packages[1])
    pid = rig.shown("MainPID")
    rig.systemctl("restart", rig.unit)
    rig.active(other_than=pid)
    rig.write("after the upgrade.txt")
    rig.converged()
    assert rig.service("install").code == 0
    assert rig.at(f"{HOME}/{UNITS}/syncd.service").read_text() == unit

    assert rig.as_root("dpkg", "--verify", "syncd").out == ""
    assert rig.service("uninstall").code == 0
    rig.as_root("dpkg", "--purge", "syncd")
    assert _files(rig) == before


def _made(repo: Path, script: str, folder: Path) -> str:
    folder.mkdir()
    done = subprocess.run([repo / "packaging" / script, folder], capture_output=True, text=True, check=False)
    if "No matching distribution" in done.stderr:
        pytest.skip("pip reaches no index, so nothing can be packaged")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _newer(package: Path, folder: Path) -> Path:
    """Make the next version of the package."""
    subprocess.run(["dpkg-deb", "-R", package, folder / "unpacked"], check=True)
    control = folder / "unpacked/DEBIAN/control"
    control.write_text(control.read_text().replace(f"Version: {syncd.__version__}", "Version: 99"))
    newer = folder / "newer.deb"
    subprocess.run(["dpkg-deb", "-b", folder / "unpacked", newer], check=True, capture_output=True)
    return newer


def _put(rig: PackagedRig, package: Path, name: str) -> str:
    shutil.copy(package, rig.root / "root" / name)
    return f"/root/{name}"


def _files(rig: PackagedRig) -> list[str]:
    """Return the files of the package, and what it could have left in its places."""
    found = rig.machine.run("find", *(f"/{place}" for place in _PLACES), as_root=True).out.splitlines()
    return [*found, *rig.machine.run("find", "/usr/share", "-name", "*syncd*", as_root=True).out.splitlines()]


# -- by uv, into an empty home: a wheel that was made from the source archive


@pytest.mark.timeout(600)
def test_uv_brings_all_of_it(repo: Path, tmp_path: Path) -> None:
    """The wheel alone brings command, demo, example, completions and manual page; all are uninstalled."""
    home = tmp_path / "home"
    (home / "work").mkdir(parents=True)
    wheel = _wheel(repo, tmp_path)
    _needs_an_index(repo, tmp_path, home)
    tool = (sys.executable, "-m", "uv", "tool")
    _done(home, *tool, "install", "--constraints", repo / "constraints-dev.txt", "--python", sys.executable, wheel)
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
