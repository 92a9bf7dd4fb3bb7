"""Archives of the sandbox that are made to fill memory: the real command, and the most that it took."""

from __future__ import annotations

import gzip
import sys
import tarfile
from collections.abc import Callable, Iterator
from typing import BinaryIO

import pytest

from tests.system.rig import DEFAULTS, Rig

_MIB = 1 << 20
_MOST_KIB = 150 << 10
_MEASURED = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(f"peak {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss}", file=sys.stderr)
sys.exit(code)
"""


def _header(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode = kind, size, 0o644
    return info.tobuf(tarfile.GNU_FORMAT)


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def _record(key: str, value: str) -> bytes:
    length = len(key) + len(value) + 3
    while len(f"{length} {key}={value}\n") != length:
        length += 1
    return f"{length} {key}={value}\n".encode()


def long_names() -> Iterator[bytes]:
    """Each member has a path of nearly a MiB, in half as many folders."""
    tail = "/n" * (_MIB // 2 - 100)
    for number in range(150):
        record = _record("path", f"{number:08}{tail}")
        yield _header("x", tarfile.XHDTYPE, len(record)) + _padded(record) + _header("short")


def headers_for_all() -> Iterator[bytes]:
    """Values that count for all later members."""
    for number in range(150):
        record = _record(f"comment{number}", "c" * (_MIB - 100))
        yield _header("x", tarfile.XGLTYPE, len(record)) + _padded(record) + _header("short")


@pytest.mark.parametrize(
    ("command", "made"),
    [
        pytest.param("verify", long_names, marks=pytest.mark.long),
        pytest.param("pull", long_names, marks=pytest.mark.long),
        ("verify", headers_for_all),
    ],
)
def test_memory_is_bounded(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, command: str, made: Callable[[], Iterator[bytes]]
) -> None:
    """It takes 150 MiB at most, and ends with an exit code of the table."""
    rig.configure({**DEFAULTS, "retry.give_up_after_seconds": 0})
    rig.write("f", "as sent")

    def dump(file: BinaryIO) -> None:
        with gzip.open(file, "wb", compresslevel=1) as packed:
            for piece in (*made(), bytes(1024)):
                packed.write(piece)

    monkeypatch.setattr(rig.sandbox, "dump", dump)
    arguments = [command, *([str(rig.home / "pulled")] if command == "pull" else [])]
    finished = rig.run(*arguments, prefix=(sys.executable, "-c", _MEASURED))
    assert finished.code in (0, 1, 75), finished
    assert int(finished.err.rpartition("peak ")[2]) < _MOST_KIB
