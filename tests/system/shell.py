"""A shell in which a document's commands are typed, and its output."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.system.command import CLOCK, STOP_S, wait_until
from tests.system.rig import Rig

_READ_AGAIN_S = 0.05
# A path that is longer than the screen is cut where the line ends; a test's own paths are.
_FULL = re.compile(r"^(.{79})\n +", re.MULTILINE)
# Said on the way to what is shown; a terminal draws it as a bar that goes away.
_PASSING = re.compile(r".* …|-- done \d+")


class Shell:
    """A shell to type into, with its output."""

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
        """Type the lines and wait for their end; a failing one fails the test."""
        assert self._process.stdin is not None
        self._from = self._output.stat().st_size
        self._count += 1
        mark = f"-- done {self._count}\n"
        self._process.stdin.write(f"{lines}\necho '{mark.strip()}'\n".encode())
        self._process.stdin.flush()
        wait_until(lambda: mark in self._raw() or self._process.poll() is not None, lambda: f"{lines}\n{self._raw()}")
        assert mark in self._raw(), f"{lines}\nfailed:\n{self._raw()}"

    @property
    def printed(self) -> str:
        """Return the output since the last typed lines, without what a terminal would have overwritten."""
        whole = _FULL.sub(r"\1", self._raw())
        lines = whole.replace(str(self._home), "/home/you").splitlines(keepends=True)
        return "".join(line for line in lines if not _PASSING.fullmatch(line.rstrip()))

    def close(self) -> None:
        """End it and what it left running."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.communicate(timeout=60)
            deadline_s = CLOCK.monotonic_s() + STOP_S
            while CLOCK.monotonic_s() < deadline_s:
                os.killpg(self._process.pid, 0)  # raises once no process is left
                CLOCK.sleep(_READ_AGAIN_S)

    def _raw(self) -> str:
        return self._output.read_bytes()[self._from :].decode(errors="replace")


@contextmanager
def fresh_shell(rig: Rig, folder: Path) -> Iterator[Shell]:
    """Give a shell in the rig's empty home, with `syncd` on the path."""
    rig.bare()
    programs = folder / "bin"
    programs.mkdir()
    program = programs / "syncd"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m syncd "$@"\n')
    program.chmod(0o755)
    rig.environ |= {
        "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    }
    shell = Shell(rig.home, rig.environment(), folder / "shell.out")
    try:
        yield shell
    finally:
        shell.close()
