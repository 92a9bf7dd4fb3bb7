"""The wheel and the source archive hold everything that the program needs, and nothing else."""

from __future__ import annotations

import email.policy
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from pathlib import Path

import pytest

import syncd
from tests.repo.sources import REPO

# The place in the wheel, below the package, and the file that it is a copy of.
INSIDE = {
    "syncd/config.example.toml": "config.example.toml",
    "syncd/units/syncd.service": "systemd/syncd.service",
    "syncd/units/syncd@.service": "systemd/syncd@.service",
    "syncd/py.typed": "syncd/py.typed",
    "syncd/selection/defaults.rules": "syncd/selection/defaults.rules",
    "syncd/selection/secret_forms.toml": "syncd/selection/secret_forms.toml",
    "syncd/selection/secrets.rules": "syncd/selection/secrets.rules",
}
# Needed to run the tests from the source archive.
FOLDERS = (".ci", ".github", "packaging", "tests", "tools")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the source archive of this checkout."""
    folder = tmp_path_factory.mktemp("built")
    _build(REPO, folder, "wheel", "sdist")
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


def test_the_wheel_has_every_module_and_file(repo: Path, built: tuple[Path, Path]) -> None:
    """Each module, unit and example is in it as it is here, and no test is."""
    content = _content(built[0])
    wanted = {str(file.relative_to(repo)): file.read_bytes() for file in repo.glob("syncd/**/*.py")}
    wanted |= {inside: (repo / origin).read_bytes() for inside, origin in INSIDE.items()}
    assert {name: data for name, data in content.items() if name.startswith("syncd/")} == wanted, (
        "pyproject.toml, [tool.hatch.build.targets.wheel]: include each file of the program, and name it in INSIDE here"
    )
    assert {name.split("/")[0] for name in content} == {
        "syncd",
        f"syncd-{syncd.__version__}.data",
        f"syncd-{syncd.__version__}.dist-info",
    }, "pyproject.toml, [tool.hatch.build.targets.wheel]: keep what is no part of the program out of the wheel"


def test_the_wheel_puts_files_where_other_programs_search(repo: Path, built: tuple[Path, Path]) -> None:
    """Man and the shells find the manual page and the completions below the environment's prefix."""
    content = _content(built[0])
    top = f"syncd-{syncd.__version__}.data/data/share/"
    installed = {name.removeprefix(top): data for name, data in content.items() if name.startswith(top)}
    share = repo / "syncd/share"
    assert installed == {
        str(file.relative_to(share)): file.read_bytes() for file in share.rglob("*") if file.is_file()
    }, "pyproject.toml, shared-data: install all of syncd/share"
    assert set(installed) == {
        "bash-completion/completions/syncd",
        "zsh/site-functions/_syncd",
        "fish/vendor_completions.d/syncd.fish",
        "man/man1/syncd.1",
    }, "syncd/share: keep these files, or name here what else is installed"


def test_the_source_archive_makes_the_same_wheel(built: tuple[Path, Path], tmp_path: Path) -> None:
    """A build from the source archive gives the same files, byte for byte, and the tests can be run from it."""
    with tarfile.open(built[1]) as archive:
        archive.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (checkout,) = tmp_path.iterdir()
    remedy = "pyproject.toml, [tool.hatch.build.targets.sdist]: include"
    needed = [path for folder in FOLDERS for path in (REPO / folder).rglob("*") if path.suffix != ".pyc"]
    names = [path.relative_to(REPO) for path in needed if path.is_file()]
    assert [name for name in names if not (checkout / name).is_file()] == [], f"{remedy} what tests need"
    _build(checkout, tmp_path / "again", "wheel")
    again = _content(next((tmp_path / "again").glob("*.whl")))
    assert again == _content(built[0]), f"{remedy} what the wheel is built from"


def test_the_metadata_is_the_project_s(repo: Path, built: tuple[Path, Path]) -> None:
    """Name, version, licence, the oldest Python, the dependencies and the command are what pyproject.toml says."""
    content = _content(built[0])
    folder = f"syncd-{syncd.__version__}.dist-info"
    said = _message(content[f"{folder}/METADATA"])
    project = tomllib.loads((repo / "pyproject.toml").read_text("utf-8"))["project"]
    remedy = "pyproject.toml, [project]: bring back what is said there, or change it in this test"
    assert (said["Name"], said["Version"]) == (project["name"], syncd.__version__), remedy
    assert (said["License-Expression"], said["License-File"]) == ("MIT", "LICENSE"), remedy
    assert f"{folder}/licenses/LICENSE" in content, remedy
    assert said["Requires-Python"] == project["requires-python"] == ">=3.11", remedy
    needed = [line for line in said.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert len(needed) == len(project["dependencies"]), remedy
    assert content[f"{folder}/entry_points.txt"].decode().split() == [
        "[console_scripts]",
        "syncd",
        "=",
        "syncd.cli:main",
    ], remedy


def test_a_published_build_has_addresses(repo: Path, tmp_path: Path) -> None:
    """Each link of its README leads to the repository that publishes it, and to a file that is there."""
    place = "https://git.example.com/us/syncd"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("REPOSITORY", place)
        _build(repo, tmp_path, "wheel")
    content = _content(next(tmp_path.glob("*.whl")))
    said = _message(content[f"syncd-{syncd.__version__}.dist-info/METADATA"])
    assert {line.partition(", ")[0] for line in said.get_all("Project-URL", [])} >= {"Repository", "Issues"}
    readme = said.get_payload()
    assert isinstance(readme, str)
    for link in re.findall(r"\]\(([^)\s]+)\)", readme):
        if link.startswith(place):
            path = link.removeprefix(f"{place}/blob/v{syncd.__version__}/").removeprefix(
                f"{place}/raw/v{syncd.__version__}/"
            )
            assert (repo / path.partition("#")[0]).exists(), link
        else:
            assert re.match(r"https://|#", link), f"packaging/metadata.py: {link} leads nowhere on an index"


def test_the_image_is_built_from_what_is_there(repo: Path) -> None:
    """Each file that its steps copy is there, and what the wheel is built from is among them."""
    text = (repo / "packaging/Containerfile").read_text("utf-8")
    copied = [name for line in re.findall(r"^COPY (?!--)(.+) \S+$", text, re.MULTILINE) for name in line.split()]
    assert [name for name in copied if not (repo / name).exists()] == []
    tables = tomllib.loads((repo / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]
    assert {*tables["build"]["targets"]["wheel"]["force-include"], "packaging", "syncd"} <= set(copied)


def _build(checkout: Path, folder: Path, *targets: str) -> None:
    words = [word for target in targets for word in ("-t", target)]
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder), *words]
    subprocess.run(command, cwd=checkout, capture_output=True, check=True, timeout=60)


def _content(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")}


def _message(data: bytes) -> Message:
    return email.message_from_bytes(data, policy=email.policy.compat32)
