"""The table of a sandbox is added to a configuration and cut out of it: all else stays as a person wrote it."""

from __future__ import annotations

import os
import stat
import threading
import tomllib
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.cli.config import change_config, with_sandbox, without_sandbox
from syncd.cli.options import shipped
from syncd.core.errors import ConfigError

TEXT = """\
# mine
[workspace]
path = "/a b"   # where it is

[sandbox]
id = 'box'

# the blue one
[sandboxes.blue]  # its table
id = "b"
setup = [  # three
  "x", # ] no end
  '[y]',
]
on_synced = [\"\"\"a
# not a comment
b = 1\"\"\"]
# acquire.ttl_seconds = 60

  [sandboxes.blue.acquire]
ttl_seconds = 60

# the last words
[sandboxes.blue-2]
id = 'c'
# the end
"""
ADDED = '\n[sandboxes.red]\nid = "q\\"\\u007f"\n'


def test_a_sandbox_is_added() -> None:
    """Its table is behind all else, of which nothing changes."""
    assert with_sandbox(TEXT, "red", {"id": 'q"\x7f'}) == TEXT + ADDED
    assert with_sandbox("[sandbox]", "red", {"id": 'q"\x7f'}) == f"[sandbox]\n{ADDED}"
    acquired = with_sandbox(TEXT, "red", {"acquire": {"ttl_seconds": 60}})
    assert acquired == f"{TEXT}\n[sandboxes.red]\nacquire.ttl_seconds = 60\n"


def test_a_sandbox_is_removed() -> None:
    """With what is below it; comments before, between and after its tables stay."""
    begin, second, end = (TEXT.index(each) for each in ("[sandboxes.blue]", "\n  [sandboxes", "\n# the last"))
    between = "# acquire.ttl_seconds = 60\n"
    assert without_sandbox(TEXT, "blue") == TEXT[:begin] + between + TEXT[end:]
    assert second > TEXT.index(between)
    assert without_sandbox(TEXT, "blue-2") == TEXT.replace("[sandboxes.blue-2]\nid = 'c'\n", "")
    dotted = "sandboxes.red.id = 'x'\nsandboxes.red.acquire.ttl_seconds = 60\n"
    assert without_sandbox(dotted + TEXT, "red") == TEXT
    windows = without_sandbox(TEXT.replace("\n", "\r\n"), "blue")
    assert tomllib.loads(windows) == tomllib.loads(without_sandbox(TEXT, "blue"))


def test_what_was_added_is_removed_again() -> None:
    """A table among others leaves no trace."""
    for text in (TEXT, shipped("config.example.toml")):
        added = with_sandbox(with_sandbox(text, "one", {"id": "a"}), "two", {"acquire": {"ttl_seconds": 60}})
        assert without_sandbox(without_sandbox(added, "one"), "two") == text


@pytest.mark.parametrize(
    "text",
    [
        "sandboxes = {red = {id = 'x'}}",
        "[sandboxes]\nred.id = 'x'",
        '["sandboxes"."red"]\nid = "x"',
        "[sandboxes.red]\nsetup = [\n['x'],\n]",
        '[sandboxes.red]\nid = "x"\n[workspace]\npath = """\n[sandboxes.red]\n"""',
        '[sandboxes.red]\nid = "x"\n[workspace]\npath = """\nsandboxes.red.id\n"""',
        "[sandboxes.blue]\nid = 'x'",
        "sandboxes = 1",
        "[sandboxes.red",
    ],
)
def test_what_cannot_be_cut_out_is_refused(text: str) -> None:
    """A form that only a person can change, lines that look like the table, none, and what is no TOML."""
    with pytest.raises(ConfigError, match=r"cannot be cut out of the file as it is written: .*`syncd config edit`"):
        without_sandbox(text, "red")


@pytest.mark.parametrize(
    "text", ["[sandboxes.red]", "[sandboxes]\nred.id = 'x'", "sandboxes = {}", "sandboxes = 1", "[sandboxes"]
)
def test_what_cannot_be_added_is_refused(text: str) -> None:
    """A table that is there, a form to which none can be appended, and what is no TOML."""
    with pytest.raises(ConfigError, match=r"cannot be added to the file as it is written: .*`syncd config edit`"):
        with_sandbox(text, "red", {"id": "x"})


@given(st.text(max_size=12, alphabet="\"'\\\n#[]{}=a. \x7f"), st.sampled_from(["", "\n", "\n# the end", "\n\n"]))
def test_any_value_comes_back(value: str, end: str) -> None:
    """Whatever id is added is what a reader finds, and what is removed is gone."""
    text = f"[sandbox]\nid = 'x'{end}"
    added = with_sandbox(text, "red", {"id": value})
    assert tomllib.loads(added)["sandboxes"] == {"red": {"id": value}}
    assert without_sandbox(added, "red").rstrip("\n") == text.rstrip("\n")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration file behind a link."""
    real = tmp_path / "dotfiles" / "it.toml"
    real.parent.mkdir()
    real.write_text('[workspace]\npath = "/any/where"\n[sandbox]\nid = "x"\n')
    os.chmod(real, 0o640)
    (tmp_path / "config.toml").symlink_to(real)
    return tmp_path / "config.toml"


RED = partial(with_sandbox, name="red", keys={"id": "y"})


def test_the_file_keeps_its_mode_and_its_link(file: Path) -> None:
    """It is another file of the same name, with the old mode, and nothing is left beside it."""
    change_config(str(file), RED)
    assert file.is_symlink()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert file.read_text().endswith('\n[sandboxes.red]\nid = "y"\n')
    assert os.listdir(file.resolve().parent) == ["it.toml"]


def test_what_is_not_valid_is_not_written(file: Path) -> None:
    """The file is as before."""
    before = file.read_bytes()
    with pytest.raises(ConfigError, match="'main' has that sandbox"):
        change_config(str(file), partial(with_sandbox, name="red", keys={"id": "x"}))
    assert file.read_bytes() == before


def test_two_changes_at_once(file: Path) -> None:
    """The second one waits for the first one, and neither is lost."""
    second = threading.Thread(target=change_config, args=(str(file), RED))

    def first(text: str) -> str:
        second.start()
        second.join(0.5)  # it is to be waiting still
        assert second.is_alive()
        return with_sandbox(text, "blue", {"id": "z"})

    change_config(str(file), first)
    second.join()
    assert tomllib.loads(file.read_text())["sandboxes"] == {"blue": {"id": "z"}, "red": {"id": "y"}}
