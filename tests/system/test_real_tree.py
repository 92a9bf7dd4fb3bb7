"""The main job on real files: thousands of files of published packages, with the changes of a working day.

The tree is what the development packages ship. It holds two versions of some of them, since pip brings its own: going
from one to the other is a real change of version, on top of made-up moves and edits.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.command import Running
from tests.system.rig import KEY, Rig
from tests.system.trees import Tree, lacking, names_in, tree

PACKAGES = (
    "mypy",
    "mypyc",
    "pip",
    "pygments",
    "hypothesis",
    "rich",
    "setuptools",
    "_pytest",
    "openapi_core",
    "pydantic",
)
FEWEST_FILES = 2000
SYNC_S = 60.0


class EmulatorProcess:
    """`syncd emulator` as a process."""

    def __init__(self, rig: Rig, folder: Path) -> None:
        self._data = folder / "data"
        self._data.mkdir(mode=0o700)
        (self._data / "api-key").write_text(KEY)
        self.process = Running(
            ("emulator", "--data", str(self._data)), rig.environment(), rig.home, folder / "emulator"
        )
        rig.until(lambda: "api_key_file" in self.process.out, "the emulator's introduction")
        reported = dict(
            line.split(maxsplit=1) for line in self.process.out.splitlines() if len(line.split(maxsplit=1)) == 2
        )
        self.workspace = Path(reported["workspace"])
        rig.configure(
            {
                "sandbox.id": reported["sandbox"],
                "sandbox.base_url": self.process.out.split("base URL", 1)[1].split()[0],
                "sandbox.api_key_file": str(self._data / "api-key"),
            }
        )

    def archived(self) -> list[str]:
        """Return the names in the last archive."""
        (newest,) = (self._data / "bucket").rglob("workspace.tar.gz")
        return names_in(newest)

    def uploads(self) -> int:
        """Return the number of archives, by the emulator's own log."""
        return sum(line.startswith("upload PUT") and line.endswith(": 200") for line in self.process.err.splitlines())


@pytest.fixture
def emulator(rig: Rig, tmp_path: Path) -> Iterator[EmulatorProcess]:
    """The emulator's process; SIGTERM must end it with 0."""
    folder = tmp_path / "process"
    folder.mkdir()
    emulator = EmulatorProcess(rig, folder)
    yield emulator
    assert emulator.process.stop() == 0
    assert "Traceback" not in emulator.process.err


def _packages() -> dict[str, Path]:
    found = {}
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            found[name] = Path(spec.origin).parent
    return found


def _copy_packages(workspace: Path) -> None:
    for name, source in _packages().items():
        shutil.copytree(source, workspace / name, ignore=shutil.ignore_patterns("__pycache__"))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _edit(workspace: Path) -> None:
    """Edit many files: some in place, some by a new file that replaces the old one, as editors do."""
    for number, path in enumerate(_files(workspace)[::20]):
        content = path.read_bytes() + b"\n# edited\n"
        if number % 2:
            draft = path.with_name(f"{path.name}.new")
            draft.write_bytes(content)
            draft.replace(path)
        else:
            path.write_bytes(content)


def _check_out(workspace: Path) -> None:
    """Change to another version, as `git checkout` does: files are removed, added, changed and become folders."""
    for name in ("pygments", "rich"):
        other = workspace / "pip/_vendor" / name
        if other.is_dir() and (workspace / name).is_dir():
            shutil.rmtree(workspace / name)
            shutil.copytree(other, workspace / name)
    for number, path in enumerate(_files(workspace / "mypy")):
        if number % 7 == 0:
            path.unlink()
        elif number % 5 == 0:
            content = path.read_bytes()
            path.unlink()
            path.write_bytes(b"# of another version\n" + content)
        elif number % 11 == 0:
            path.rename(path.with_name(f"{path.stem}_moved{path.suffix}"))
        elif number % 13 == 0:
            path.unlink()
            path.mkdir()
            (path / "inside").write_text("a folder where a file was\n")
    if (workspace / "hypothesis").is_dir():
        (workspace / "hypothesis").rename(workspace / "conjecture")


def _delete(workspace: Path) -> None:
    """Delete a package and every tenth file of the others."""
    shutil.rmtree(workspace / "mypyc")
    for path in _files(workspace)[::10]:
        path.unlink()


def _rename(workspace: Path) -> None:
    """Rename whole trees, one of them into another."""
    (workspace / "mypy").rename(workspace / "checker")
    (workspace / "_pytest").rename(workspace / "checker/_pytest")


def _converged(rig: Rig, emulator: EmulatorProcess, left_out: set[str], uploads: int) -> Tree:
    """Wait for a newer archive and an equal sandbox, and return the files."""
    wanted = {path: what for path, what in tree(rig.workspace).items() if path not in left_out}
    missing: list[str] = []

    def equal() -> bool:
        shown = rig.shown()
        if emulator.uploads() == uploads or shown["pending"] or shown["state"] != "watching":
            return False
        # A path that a folder replaced is left over only if both can exist.
        missing[:] = lacking(wanted, tree(emulator.workspace))
        return not missing

    rig.until(equal, f"the sandbox to hold the real tree; it lacks {missing[:5]}", SYNC_S)
    return wanted


@pytest.mark.long
def test_a_working_day_on_a_real_tree(rig: Rig, emulator: EmulatorProcess) -> None:
    """After each edit, checkout, deletion and rename the sandbox is equal, and the archive exact."""
    _copy_packages(rig.workspace)
    if len(_files(rig.workspace)) < FEWEST_FILES:
        pytest.skip(f"the development packages here have only {len(_files(rig.workspace))} files")
    daemon = rig.start()
    uploads = 0
    for step in (None, _edit, _check_out, _delete, _rename):
        if step is not None:
            step(rig.workspace)
        left_out = {os.fsdecode(path) for path in _left_out(rig)}
        wanted = _converged(rig, emulator, left_out, uploads)
        assert sorted(emulator.archived()) == sorted(wanted), step
        uploads = emulator.uploads()
    assert daemon.code is None
    assert rig.status()["warnings"] == []


def _left_out(rig: Rig) -> list[str]:
    """Return the excluded paths, as `ls --ignored` prints them: of these packages only certificates."""
    lines = rig.ok("ls", "--ignored").out.splitlines()
    paths = [line.partition("\t")[0] for line in lines]
    assert all(path.endswith((".pem", ".key")) for path in paths), lines
    return paths
