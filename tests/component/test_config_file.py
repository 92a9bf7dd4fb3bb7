"""Configuration files are found by their names and workspaces; what cannot be read is one line that names it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from syncd.core.config_file import FoundConfig, config_files, find_config, load_config, named_config
from syncd.core.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The configuration folder, with config.toml for the workspace `one`."""
    folder = tmp_path / "config/syncd"
    folder.mkdir(parents=True)
    _add(folder, "config", tmp_path / "one")
    return folder


@pytest.fixture
def environ(folder: Path) -> Mapping[str, str]:
    """The environment that names the folder."""
    return {"XDG_CONFIG_HOME": str(folder.parent)}


def _add(folder: Path, name: str, workspace: Path, more: str = "") -> Path:
    file = folder / f"{name}.toml"
    file.write_text(f'[workspace]\npath = "{workspace}"\n{more}')
    return file


def test_a_single_one_is_taken_everywhere(folder: Path, environ: Mapping[str, str], tmp_path: Path) -> None:
    """It says if its workspace holds the directory; one that is broken or missing holds none."""
    default = folder / "config.toml"
    inside = str(tmp_path.resolve() / "one/deep")
    assert find_config(inside, environ) == FoundConfig(str(default), holds_it=True)
    elsewhere = FoundConfig(str(default), holds_it=False)
    assert find_config("/", environ) == elsewhere
    default.write_text("no TOML")
    assert find_config(inside, environ) == elsewhere
    default.unlink()
    assert find_config(inside, environ) == elsewhere


def test_the_workspace_of_the_directory_decides(folder: Path, environ: Mapping[str, str], tmp_path: Path) -> None:
    """A workspace may be named through a link or relative to the folder; elsewhere it is config.toml."""
    real = tmp_path.resolve()
    (real / "two/deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "two")
    two, three = _add(folder, "two", tmp_path / "link", "[nonsense]\n"), _add(folder, "three", Path("../../three"))
    found = {
        place: find_config(str(real / place), environ).file for place in ("two", "two/deep", "two-not", "three", "")
    }
    default = str(folder / "config.toml")
    assert found == {"two": str(two), "two/deep": str(two), "two-not": default, "three": str(three), "": default}


@pytest.mark.parametrize(
    "content",
    ["no TOML", "", "workspace = 1\n", '[workspace]\npath = ""\n', '[workspace]\npath = "/"\n', f"a = {'[' * 900}"],
)
def test_a_broken_one_stops_no_other(folder: Path, environ: Mapping[str, str], tmp_path: Path, content: str) -> None:
    """It is named only where no workspace matches; config.toml itself is left to the one who loads it."""
    (folder / "broken.toml").write_text(content)
    two = _add(folder, "two", tmp_path / "two")
    found = find_config(str(tmp_path.resolve() / "two"), environ)
    assert (found.file, found.unread) == (str(two), ())
    (folder / "config.toml").write_text("no TOML")
    (failure,) = find_config("/", environ).unread
    assert str(folder / "broken.toml") in str(failure)


def test_what_is_no_configuration(folder: Path, environ: Mapping[str, str]) -> None:
    """Other files are not looked at, and a FIFO does not block."""
    (folder / ".hidden.toml").touch()
    (folder / "api-key").touch()
    os.mkfifo(folder / "pipe.toml")
    assert config_files(environ) == [str(folder / "config.toml"), str(folder / "pipe.toml")]
    assert len(find_config("/", environ).unread) == 1


def test_names(folder: Path, environ: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path has a slash, or ends in .toml and exists; all else is a name in the configuration folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.toml").touch()
    (tmp_path / "site").touch()
    names = ("site", "site.toml", "here.toml", "./site", "/a/b.toml")
    assert [named_config(name, environ) for name in names] == [
        str(folder / "site.toml"),
        str(folder / "site.toml"),
        str(tmp_path / "here.toml"),
        str(tmp_path / "site"),
        "/a/b.toml",
    ]


# -- how one is read

GOOD = '[workspace]\npath = "work"\n[sandbox]\nid = "box"\n'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_good_file(tmp_path: Path, encoding: str) -> None:
    """Relative paths are relative to its folder; a workspace that is a link is the directory behind it."""
    (tmp_path / "real").mkdir()
    (tmp_path / "work").symlink_to("real")
    (tmp_path / "config.toml").write_text(GOOD, encoding)
    config = load_config(f"{tmp_path}/config.toml")
    assert (config.workspace.path, config.file) == (f"{tmp_path.resolve()}/real", f"{tmp_path}/config.toml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[workspace\n", "is not valid TOML"),
        (b"a = 1\na = 2\n", "is not valid TOML"),
        (b'[workspace]\npath = "\xff"\n', "is not valid TOML: line 2 is not UTF-8; `syncd"),
        (b"\xff\xfe[\x00", "is not valid TOML"),
        (b"", "workspace.path is missing"),
        # By a RecursionError, a ValueError, and, in some Pythons, a RecursionError wherever it is shown.
        (b"a = " + b"[" * 900 + b"]" * 900, "is not valid TOML: brackets"),
        (b"a = " + b"9" * 5000, "is not valid TOML: a number"),
        (b"a." * 1500 + b"b = 1", ""),
        (b"a = 0x" + b"f" * 5000, "is not valid TOML: a number"),
        (GOOD.encode() + b"colour = 1\n", "sandbox.colour: unknown key"),
        (GOOD.encode() + b"[sync]\ndebounce_seconds = nan\n", "sync.debounce_seconds = nan"),
        (GOOD.encode() + b"[sync]\nrescan_minutes = 1979-05-27\n", "sync.rescan_minutes = 1979-05-27"),
    ],
)
def test_a_bad_file(tmp_path: Path, content: bytes, message: str) -> None:
    """The error is one line with the file's name and the reason."""
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(str(path))
    text = str(caught.value)
    assert message in text
    assert text.startswith(str(path))
    assert "\n" not in text
    assert len(text) < 500


def test_a_folder_in_the_files_place(tmp_path: Path) -> None:
    """The error says why a folder cannot be read."""
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\): put a file in its place"):
        load_config(str(tmp_path))


def test_a_workspace_by_way_of_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link to the home directory counts as the home directory."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    (tmp_path / "work").symlink_to("home")
    (tmp_path / "config.toml").write_text(GOOD)
    with pytest.raises(ConfigError, match="home directory itself"):
        load_config(f"{tmp_path}/config.toml")
