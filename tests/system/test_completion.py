"""Completion in the shells, from the installed scripts to the completed line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from syncd.cli.commands import COMMANDS
from tests.system.terminal import Terminal

# What is typed before a TAB, and the line that must be there after it.
LINES = (
    ("syncd expl", "syncd explain "),
    ("syncd help expl", "syncd help explain "),
    ("syncd service unin", "syncd service uninstall "),
    ("syncd run --log-form", "syncd run --log-format "),
    ("syncd run --log-level warn", "syncd run --log-level warning "),
    ("syncd push --config oth", "syncd push --config other.toml "),
    ("syncd explain a\\ na", "syncd explain a\\ name "),
    ("syncd demo fol", "syncd demo folder/"),
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with an invalid configuration: a completion that reads it would print an error."""
    (tmp_path / ".config/syncd").mkdir(parents=True)
    (tmp_path / ".config/syncd/config.toml").write_text("no configuration")
    (tmp_path / "other.toml").touch()
    (tmp_path / "a name").touch()
    (tmp_path / "folder").mkdir()
    return tmp_path


def test_bash(repo: Path, home: Path) -> None:
    """Bash completes commands, their subcommands, options, choices, files and folders, with the installed script."""
    script = repo / "syncd/share/bash-completion/completions/syncd"
    setup = f"bind 'set enable-bracketed-paste off'; bind 'set mark-directories on'; . {script}"
    _assert_completes(["bash", "--norc", "--noprofile", "-i"], setup, home)


def test_zsh(repo: Path, home: Path) -> None:
    """Zsh does, too, and finds the script by its first line."""
    setup = (
        "unsetopt prompt_sp; unset zle_bracketed_paste; bindkey -e;"
        f" fpath=({repo}/syncd/share/zsh/site-functions $fpath); autoload -Uz compinit; compinit -u -D"
    )
    _assert_completes(["zsh", "-f", "-i"], setup, home)


def test_fish(repo: Path, home: Path) -> None:
    """Fish does, too, and shows the whole help of each command."""
    _needs("fish")
    script = repo / "syncd/share/fish/vendor_completions.d/syncd.fish"
    asked = "".join(f"complete -C '{typed}'\n" for typed, _ in LINES if "\\" not in typed)
    run = subprocess.run(
        ["fish", "--no-config", "-c", f"source {script}\n{asked}"],
        cwd=home,
        env=_environ(home),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    words = [line.split("\t")[0] for line in run.stdout.splitlines()]
    assert words == [wanted.split()[-1] for typed, wanted in LINES if "\\" not in typed]
    assert f"explain\t{COMMANDS['explain']}\n" in run.stdout


def _assert_completes(shell: list[str], setup: str, home: Path) -> None:
    _needs(shell[0])
    # Typed ahead: the shell reads on only once a completion is done. ^A and ^E: the line is printed, not run.
    typed = [f"{line}\t\x01printf '[%s]\\n' \"\x05\"\r" for line, _ in LINES]
    with closing(Terminal(columns=200)) as terminal:
        terminal.start(["setsid", "--ctty", "--wait", *shell], _environ(home), home)
        terminal.type(f"{setup}\r{''.join(typed)}exit\r")
        terminal.finish()
    shown = terminal.written.decode(errors="replace")
    # A blank or a slash that zsh put in by itself goes as soon as the cursor does.
    words = [line.rstrip(" /") for line in re.findall(r"^\[(.*)\]\r?$", shown, re.MULTILINE)]
    assert words == [wanted.rstrip(" /") for _, wanted in LINES], shown


def _environ(home: Path) -> dict[str, str]:
    """Return an environment whose PATH begins with this interpreter's commands."""
    path = os.pathsep.join((os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)))
    return {"PATH": path, "HOME": str(home), "LANG": "C.UTF-8", "TERM": "dumb", "PS1": "$ ", "HISTFILE": ""}


def _needs(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not on this machine")
