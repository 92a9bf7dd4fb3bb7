"""A closed pipe ends a command quietly: `syncd ls | head`."""

from __future__ import annotations

import subprocess

import pytest

from tests.system.command import SYNCD
from tests.system.rig import Rig


@pytest.mark.parametrize(("files", "lines"), [(3000, 1), (1, 0)], ids=["more than fits into a pipe", "all buffered"])
def test_a_closed_pipe_is_no_failure(rig: Rig, files: int, lines: int) -> None:
    """A command whose output is not read any more ends with 0 and prints nothing."""
    for number in range(files):
        rig.write(f"a-file-with-quite-a-long-name-{number}", b"")
    with subprocess.Popen(
        [*SYNCD, "ls"],
        env=rig.environment(),
        cwd=rig.home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for _ in range(lines):
            process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 0
