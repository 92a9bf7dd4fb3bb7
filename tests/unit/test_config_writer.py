"""Keys and tables are set and removed in a configuration's text: all else stays as a person wrote it."""

from __future__ import annotations

import os
import stat
import threading
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.cli.config import change_config, with_value, without
from syncd.cli.options import shipped
from syncd.core.errors import ConfigError

TEXT = """\
# mine
[workspace]
path = "/a b"   # where it is
ignore = [  # three
  "x", # ] no end
  '[y]',
]

[sync]
# debounce_seconds = 1.0
on_synced = [\"\"\"a
[not.a.table]
b = 1\"\"\"]
# the last words
[sandbox]
id = 'box'
acquire.ttl_seconds = 60
"""


@pytest.mark.parametrize(
    ("key", "value", "before", "after"),
    [
        ("workspace.path", "/c", '"/a b"   #', '"/c"   #'),
        ("workspace.ignore", ("z",), TEXT[TEXT.index("[  #") : TEXT.index("\n\n")], '["z"]'),
        ("sync.debounce_seconds", 2.5, "_seconds = 1.0\n", "_seconds = 1.0\ndebounce_seconds = 2.5\n"),
        ("sync.rescan_minutes", 5, '1"""]\n', '1"""]\nrescan_minutes = 5\n'),
        ("sandbox.acquire.ttl_seconds", 90, "= 60", "= 90"),
        ("sandbox.acquire.servers", ["git"], "= 60\n", '= 60\nacquire.servers = ["git"]\n'),
        ("retry.first_delay_seconds", 1, "= 60\n", "= 60\n\n[retry]\nfirst_delay_seconds = 1\n"),
        ("sandboxes.a-b.id", 'q"\x7f', "= 60\n", '= 60\n\n[sandboxes.a-b]\nid = "q\\"\\u007f"\n'),
    ],
)
def test_a_key_is_set(key: str, value: Any, before: str, after: str) -> None:
    """In its place, behind a line that has it as a comment, at its table's end, or in a new table."""
    assert TEXT.count(before) == 1
    assert with_value(TEXT, key, value) == TEXT.replace(before, after)
    windows = with_value(TEXT.replace("\n", "\r\n"), key, value)
    assert "\n" not in windows.replace("\r\n", "")
    assert tomllib.loads(windows) == tomllib.loads(with_value(TEXT, key, value))


@pytest.mark.parametrize(
    ("key", "before", "after"),
    [
        ("workspace.ignore", TEXT[TEXT.index("ignore") : TEXT.index("\n[sync]")], ""),
        ("sync", TEXT[TEXT.index("[sync]") : TEXT.index("# the last")], ""),
        ("sandbox", TEXT[TEXT.index("[sandbox]") :], ""),
        ("sandbox.acquire", "acquire.ttl_seconds = 60\n", ""),
    ],
)
def test_a_key_or_a_table_is_removed(key: str, before: str, after: str) -> None:
    """With what is below it, and the comments in it; those after it stay."""
    assert without(TEXT, key) == TEXT.replace(before, after)


def test_what_was_added_is_removed_again() -> None:
    """A table among others leaves no trace."""
    for text in (TEXT, shipped("config.example.toml")):
        added = with_value(with_value(text, "sandboxes.one.id", "a"), "sandboxes.two.id", "b")
        assert without(without(added, "sandboxes.one"), "sandboxes.two") == text


@pytest.mark.parametrize(
    ("change", "text", "key"),
    [
        (without, "sandbox = {id = 'x', region = 'us'}", "sandbox.id"),
        (partial(with_value, value="y"), "sandbox = {id = 'x'}", "sandbox.region"),
        (partial(with_value, value="y"), "[sandbox]\nid = 'x'", "sandbox.id.more"),
        (partial(with_value, value="y"), "[a]", "a"),
        (partial(with_value, value="y"), "[a", "b.c"),
    ],
)
def test_what_cannot_be_changed_is_refused(change: Callable[[str, str], str], text: str, key: str) -> None:
    """A form that the writer does not know, a key where a value is, a key where a table is, and what is no TOML."""
    with pytest.raises(ConfigError, match="syncd config edit"):
        change(text, key)


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=3, alphabet="ab-\"'. é"),
        st.dictionaries(
            st.text(min_size=1, max_size=3, alphabet="xy\n#[="),
            st.one_of(st.text(max_size=8, alphabet="\"'\\\n#[]{}=a"), st.integers(0, 9), st.lists(st.text(max_size=2))),
            max_size=3,
        ),
        max_size=3,
    )
)
def test_any_value_comes_back(tables: dict[str, dict[str, Any]]) -> None:
    """Whatever is set is what a reader finds, and what is removed is gone."""
    text, wanted = "", {name: keys for name, keys in tables.items() if keys}
    quoted = {name: '"' + name.replace("\\", r"\\").replace('"', r"\"") + '"' for name in tables}
    for name, keys in wanted.items():
        for key, value in keys.items():
            text = with_value(text, f"{quoted[name]}.{as_key(key)}", value)
    assert tomllib.loads(text) == wanted
    for name in wanted:
        text = without(text, quoted[name])
    assert tomllib.loads(text) == {}


def as_key(name: str) -> str:
    """Return the name as a quoted key."""
    return '"' + name.replace("\n", r"\n") + '"'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration file behind a link."""
    real = tmp_path / "dotfiles" / "it.toml"
    real.parent.mkdir()
    real.write_text('[workspace]\npath = "/any/where"\n[sandbox]\nid = "x"\n')
    os.chmod(real, 0o640)
    (tmp_path / "config.toml").symlink_to(real)
    return tmp_path / "config.toml"


def test_the_file_keeps_its_mode_and_its_link(file: Path) -> None:
    """It is another file of the same name, with the old mode, and nothing is left beside it."""
    config = change_config(str(file), lambda text: with_value(text, "sync.rescan_minutes", 5))
    assert config.sync.rescan_minutes == 5
    assert file.is_symlink()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert file.read_text().endswith("\n[sync]\nrescan_minutes = 5\n")
    assert os.listdir(file.resolve().parent) == ["it.toml"]


def test_what_is_not_valid_is_not_written(file: Path) -> None:
    """The file is as before."""
    before = file.read_bytes()
    with pytest.raises(ConfigError, match="rescan_minutes"):
        change_config(str(file), lambda text: with_value(text, "sync.rescan_minutes", "often"))
    assert file.read_bytes() == before


def test_two_changes_at_once(file: Path) -> None:
    """The second one waits for the first one, and neither is lost."""
    second = threading.Thread(
        target=change_config, args=(str(file), partial(with_value, key="retry.max_delay_seconds", value=7))
    )

    def first(text: str) -> str:
        second.start()
        second.join(0.5)  # it is to be waiting still
        assert second.is_alive()
        return with_value(text, "retry.first_delay_seconds", 7)

    change_config(str(file), first)
    second.join()
    assert tomllib.loads(file.read_text())["retry"] == {"first_delay_seconds": 7, "max_delay_seconds": 7}
