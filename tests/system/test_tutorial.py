"""The tutorial, typed as it stands: every command works, and shows what is printed under it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from command import CLOCK, STOP_S
from rig import Rig

_BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PORT = "8765"
_PATIENCE_S = 30.0
_READ_AGAIN_S = 0.05
# Said on the way to what is shown; a terminal draws it as a bar that goes away.
_PASSING = re.compile(r".* …|-- done \d+")


class Shell:
    """A shell that is typed into, and what came out of it."""

    def __init__(self, home: Path, env: dict[str, str], output: Path) -> None:
        self._output = output
        self._home = home
        self._from = 0
        self._count = 0
        with output.open("wb") as out:
            self._process = subprocess.Popen(
                ["bash", "--norc", "-e"],
                env=env,
                cwd=home,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def types(self, lines: str) -> None:
        """Returns when the lines are done; one that fails fails the test."""
        assert self._process.stdin is not None
        self._from = self._output.stat().st_size
        self._count += 1
        mark = f"-- done {self._count}\n"
        self._process.stdin.write(f"{lines}\necho '{mark.strip()}'\n".encode())
        self._process.stdin.flush()
        deadline_s = CLOCK.monotonic_s() + _PATIENCE_S
        while mark not in self._raw():
            assert self._process.poll() is None, f"{lines}\nfailed:\n{self._raw()}"
            assert CLOCK.monotonic_s() < deadline_s, f"{lines}\nis not done:\n{self._raw()}"
            CLOCK.sleep(_READ_AGAIN_S)

    @property
    def printed(self) -> str:
        """What was printed since the last lines were typed, without what a terminal would have wiped away."""
        lines = self._raw().replace(str(self._home), "/home/you").splitlines(keepends=True)
        return "".join(line for line in lines if not _PASSING.fullmatch(line.rstrip()))

    def close(self) -> None:
        """Ends it and whatever it left running."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.communicate(timeout=10)
            deadline_s = CLOCK.monotonic_s() + STOP_S
            while CLOCK.monotonic_s() < deadline_s:
                os.killpg(self._process.pid, 0)  # someone is left: it raises once nobody is
                CLOCK.sleep(_READ_AGAIN_S)

    def _raw(self) -> str:
        return self._output.read_bytes()[self._from :].decode(errors="replace")


@pytest.fixture
def shell(rig: Rig, tmp_path: Path) -> Iterator[Shell]:
    """In a home where nothing was set up, with `syncd` on the path."""
    rig.config_file.unlink()
    rig.key_file.unlink()
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "syncd"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m syncd "$@"\n')
    program.chmod(0o755)
    rig.environ |= {
        "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    }
    shell = Shell(rig.home, rig.environment(), tmp_path / "shell.out")
    try:
        yield shell
    finally:
        shell.close()


def test_the_tutorial(rig: Rig, shell: Shell, repo: Path) -> None:
    """From an empty home to the agent's files and back; the real sandbox of the end is another emulator."""
    free = str(_free_port())
    blocks = _BLOCK.findall((repo / "docs/tutorial.md").read_text("utf-8"))
    assert len(blocks) > 20
    for (kind, text), (next_kind, shown) in pairwise([*blocks, ("", "")]):
        if kind == "text":
            continue
        typed = text.replace(_PORT, free).replace("syncd verify\n", "syncd verify || test $? = 1\n")
        if "YOUR-SANDBOX-ID" in typed:
            typed = typed.replace("YOUR-SANDBOX-ID", f"{rig.sandbox.id} --sandbox-base-url {rig.emulator.base_url}")
        shell.types(typed)
        if typed.startswith("syncd run"):  # a person reads on meanwhile
            rig.until(lambda: "watching" in (rig.home / "syncd.log").read_text(), "the daemon")
        if "install -m 600" in typed:
            rig.write_key(rig.emulator.api_key)  # what the person does with an editor
        if next_kind == "text":
            _expect(shell, typed, shown.replace(_PORT, free))
    assert (rig.sandbox.workspace / "src/brew.py").read_text() == 'print("three minutes")\n'
    assert not (rig.sandbox.workspace / ".env").exists()


def _expect(shell: Shell, typed: str, shown: str) -> None:
    """What runs in the background prints when it likes, so it is waited for."""
    pattern = _pattern(shown)
    deadline_s = CLOCK.monotonic_s() + (_PATIENCE_S if "&\n" in typed else 0.0)
    while not pattern.fullmatch(printed := shell.printed):
        assert CLOCK.monotonic_s() < deadline_s, f"$ {typed}\nshows\n{printed}\nand not\n{shown}"
        CLOCK.sleep(_READ_AGAIN_S)


def _pattern(shown: str) -> re.Pattern[str]:
    """A line `…` is any number of lines, `…` in a line any text, and a number any number."""
    return re.compile("".join(r"(?:.*\n)*" if line == "…" else _line(line) + r"\n" for line in shown.splitlines()))


def _line(line: str) -> str:
    return re.sub(r"[0-9][0-9.,]*", r"[0-9][0-9.,]*", re.escape(line).replace("…", ".*"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
