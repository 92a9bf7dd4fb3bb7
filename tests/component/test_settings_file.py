"""The configuration as a file: if it cannot be read or parsed, the error is one line that names the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.core.config_file import load_config
from syncd.core.errors import ConfigError

GOOD = '[workspace]\npath = "work"\n[sandbox]\nid = "box"\n'


def test_a_good_file(tmp_path: Path) -> None:
    """Relative paths are relative to its folder; a workspace that is a link is the directory behind it."""
    (tmp_path / "real").mkdir()
    (tmp_path / "work").symlink_to("real")
    path = tmp_path / "config.toml"
    path.write_text(GOOD)
    config = load_config(str(path))
    assert config.workspace.path == str((tmp_path / "real").resolve())
    assert config.file == str(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[workspace\n", "is not valid TOML"),
        (b"a = 1\na = 2\n", "is not valid TOML"),
        (b'[workspace]\npath = "\xff"\n', "is not valid TOML"),
        (b"\xff\xfe[\x00", "is not valid TOML"),
        (b"", "workspace.path is missing"),
        # By a RecursionError, a ValueError, and a RecursionError wherever it is looked through.
        (b"a = " + b"[" * 900 + b"]" * 900, "is not valid TOML: brackets"),
        (b"a = " + b"9" * 5000, "is not valid TOML: a number"),
        (b"a." * 1500 + b"b = 1", "is not valid TOML: tables"),
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
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\)"):
        load_config(str(tmp_path))


def test_a_workspace_by_way_of_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link to the home directory counts as the home directory."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    (tmp_path / "work").symlink_to("home")
    path = tmp_path / "config.toml"
    path.write_text(GOOD)
    with pytest.raises(ConfigError, match="home directory itself"):
        load_config(str(path))
