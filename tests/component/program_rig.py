"""Runs the program for the sandbox in a process of its own, in a real folder."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from syncd.archive.exported_files import ExtractedFiles
from syncd.core.clock import Moment
from syncd.model.entry import Entry
from syncd.remote.failure import ApiStep
from syncd.sandbox.executions import Purpose, Running, _new_files, _new_name, report_in
from syncd.sandbox.protocol import Bounds, Report, decoded

Read = TypeVar("Read")
PURPOSE = Purpose(ApiStep.EXECUTION, "the program")


def running(name: str, bounds: Bounds) -> Running:
    return Running(name, PURPOSE, bounds, Moment(0.0, 0.0, 0.0))


class ProgramRig:
    """A workspace there, and the program, which runs in a folder of its own each time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = folder / "workspace"
        self.workspace.mkdir()
        self.runs = 0

    def prepared(self, values: dict[str, Any]) -> tuple[str, Path]:
        """Put the program and its request into a folder, and return its name and the folder."""
        self.runs += 1
        name, folder = _new_name(), self.folder / f"run{self.runs}"
        folder.mkdir()
        for path, content in _new_files(name, values).items():
            (folder / path).write_bytes(content)
        return name, folder

    def output(self, folder: Path, prefix: Iterable[str] = ()) -> str:
        """Run the program in that folder, and return its output."""
        return output_of(folder, environment_of(self.workspace, self.folder / "agents-home"), prefix)


def environment_of(workspace: Path, home: Path) -> dict[str, str]:
    """Return the environment of the program."""
    return {"LC_ALL": "C", "PATH": os.environ["PATH"], "AGENT_WORKSPACE": str(workspace), "HOME": str(home)}


def output_of(folder: Path, environment: Mapping[str, str], prefix: Iterable[str] = ()) -> str:
    """Run the program in that folder, and return its output."""
    ran = subprocess.run(
        [*prefix, sys.executable, "-E", "-S", folder / "main.py"],
        env=environment,
        cwd="/",
        stdout=subprocess.PIPE,
        check=True,
        timeout=100,
    )
    return ran.stdout.decode("ascii")


def told(name: str, output: str, bounds: Bounds, folder: Path, read: Callable[[Report], Read]) -> Read:
    """Return what is read in the report; a long one is a file in that folder."""

    def extract(expected: Mapping[str, Entry]) -> ExtractedFiles:
        (entry,) = expected.values()
        content = (folder / "report.json").read_bytes()
        assert (len(content), hashlib.sha256(content).digest()) == (entry.size_bytes, entry.digest)
        (folder.parent / "long").write_bytes(content)
        return ExtractedFiles({"report.json": str(folder.parent / "long")})

    return read(decoded(report_in(running(name, bounds), output, extract), bounds))
