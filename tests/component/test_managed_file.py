"""The managed file on disk: who may write it, and that it counts for each configuration file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from syncd.core.config_file import load_config, read_managed
from syncd.core.errors import ConfigError
from syncd.daemon.build import selection_of
from syncd.scan.explain import explain
from syncd.scan.scanner import Scanner

ME = os.getuid()


@pytest.fixture
def managed(tmp_path: Path) -> Path:
    """A managed file in its own folder."""
    path = tmp_path / "etc/managed.toml"
    path.parent.mkdir(mode=0o755)
    path.write_text('[ceiling]\nignore = [\n  "/customers/",\n  "*.dump",\n]\n')
    path.chmod(0o644)
    return path


def test_it_is_read(managed: Path) -> None:
    """The owner's file that only the owner can write is read, by way of a link too."""
    link = managed.with_name("link.toml")
    link.symlink_to(managed)
    for path in (managed, link):
        found = read_managed(str(path), ME)
        assert found is not None
        assert found.path == str(path)


@pytest.mark.parametrize("path", ["etc/none.toml", "none/managed.toml", "etc/managed.toml/below"])
def test_there_is_none(managed: Path, tmp_path: Path, path: str) -> None:
    """A machine without the file is not managed."""
    assert read_managed(str(tmp_path / path), ME) is None


@pytest.mark.parametrize(
    ("file", "folder", "words"),
    [
        (0o664, 0o755, "etc/managed.toml can be written by others than root (mode 0664)"),
        (0o646, 0o755, "sudo chmod go-w"),
        (0o644, 0o777, "etc can be written by others"),
    ],
)
def test_others_may_write_it(managed: Path, file: int, folder: int, words: str) -> None:
    """A file or a folder that others can write to is refused, and so is everything: it may hold anything."""
    managed.chmod(file)
    managed.parent.chmod(folder)
    with pytest.raises(ConfigError) as caught:
        read_managed(str(managed), ME)
    assert words in str(caught.value)
    assert caught.value.exit_code == 78


def test_someone_elses_file(managed: Path) -> None:
    """A file that belongs to another user than the owner is refused."""
    with pytest.raises(ConfigError, match=f"belongs to user {ME}, not to root: as this machine's administrator, sudo"):
        read_managed(str(managed), ME + 1)


def test_it_cannot_be_read(managed: Path) -> None:
    """What is there and cannot be read is an error, and not taken for a machine without one."""
    managed.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        read_managed(str(managed), ME)
    managed.unlink()
    managed.symlink_to(managed)
    with pytest.raises(ConfigError, match=r"cannot be read \(Too many levels"):
        read_managed(str(managed), ME)
    managed.unlink()
    os.mkfifo(managed, 0o644)
    with pytest.raises(ConfigError, match="is no regular file"):
        read_managed(str(managed), ME)


@pytest.mark.skipif(ME != 0, reason="the file has to be root's")
def test_it_counts_for_each_file(managed: Path, tmp_path: Path) -> None:
    """Wherever a configuration is, its choices are held to the ceiling; the error names both files."""
    config = tmp_path / "anywhere.toml"
    config.write_text('[workspace]\npath = "work"\n[sandbox]\nid = "box"\nagent_changes = "overwrite"\n')
    managed.write_text('[ceiling]\nagent_changes = ["save"]\n')
    with pytest.raises(ConfigError) as caught:
        load_config(str(config), str(managed))
    assert str(caught.value).startswith(f'{config}: sandbox.agent_changes = "overwrite": the ceiling of {managed}')


@pytest.mark.skipif(ME != 0, reason="the file has to be root's")
def test_nothing_lifts_its_patterns(managed: Path, tmp_path: Path) -> None:
    """Neither .syncdignore nor a key brings back what the ceiling keeps home; `explain` names its file and line."""
    work = tmp_path / "work"
    for path in ("customers/a", "b.dump", "c.txt"):
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_text("x")
    (work / ".syncdignore").write_text("!/customers/\n!*.dump\n")
    config = tmp_path / "config.toml"
    config.write_text('[workspace]\npath = "work"\nignore = ["!*.dump"]\n[sandbox]\nid = "box"\n')
    selection = selection_of(load_config(str(config), str(managed)), {})
    scan = Scanner(str(work), selection).scan()
    assert set(scan.manifest) == {".syncdignore", "c.txt"}
    assert str(explain(str(work), selection, "b.dump").rule) == f"{managed}:4: *.dump"
    assert str(explain(str(work), selection, "customers/a").rule) == f"{managed}:3: /customers/"
