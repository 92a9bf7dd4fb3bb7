"""inotifywait, from its start to `Watches established` and on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

NAME = "inotifywait -r"
EVENTS = "create,delete,modify,attrib,move,close_write"
_ESTABLISHED = b"Watches established"


def await_established(stderr: IO[bytes]) -> None:
    """Read its output until it watches. Raises `RuntimeError` with its last words if it ends before."""
    last = b""
    for line in stderr:
        if _ESTABLISHED in line:
            return
        last = line
    raise RuntimeError(f"inotifywait ended: {os.fsdecode(last).strip()}")


@contextmanager
def watching(tree: Path, without: Sequence[Path] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """Give an established one that keeps watching."""
    words = ("inotifywait", "-m", "-r", "-e", EVENTS, *(f"@{path}" for path in without), str(tree))
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            await_established(process.stderr)
            yield process
        finally:
            process.terminate()
