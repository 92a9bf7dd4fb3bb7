"""`syncd pull` and `syncd verify`, over the real API."""

from __future__ import annotations

import gzip
import json
import os
import signal
import sys
import tarfile
from collections.abc import Callable, Iterator
from typing import BinaryIO

import pytest

from tests.system.rig import DEFAULTS, Rig
from tests.system.trees import tree


def test_pull(rig: Rig) -> None:
    """It brings the agent's files, too; into a new folder or an empty one, never into another, nor into the workspace,
    from where it would be sent.
    """
    rig.write("a/b", "1")
    rig.write(os.fsdecode(b"caf\xe9"), "latin-1 name")
    (rig.workspace / "ln").symlink_to("a/b")
    (rig.workspace / "empty").mkdir()
    rig.ok("push")
    (rig.sandbox.workspace / "by-the-agent").write_text("new")
    (rig.home / "link").symlink_to(rig.workspace)
    for place in (rig.workspace / "new", rig.home / "link" / "new"):
        refused = rig.run("pull", str(place))
        assert (refused.code, "is in the workspace" in refused.err) == (78, True)
    empty = rig.run("pull", "")  # the unset variable of a script: no wish for this directory
    assert (empty.code, "It is empty" in empty.err) == (2, True)
    assert rig.count("dump") == 0
    said = rig.ok("pull", str(rig.home / "new" / "dest")).out
    assert tree(rig.home / "new" / "dest") == tree(rig.sandbox.workspace)
    assert said.startswith("pulled 4 files")
    again = rig.run("pull", str(rig.home / "new" / "dest"))
    assert again.code == 78
    assert "nothing is overwritten" in again.err
    assert rig.count("dump") == 1
    assert os.listdir(rig.home / "new") == ["dest"]
    current = rig.home / "new" / "current"
    current.mkdir()
    inode = current.stat().st_ino
    assert rig.run("pull", ".", "--config", str(rig.config_file), place=current).code == 0
    assert (current.stat().st_ino, tree(current)) == (inode, tree(rig.sandbox.workspace))


def test_pull_outlasts_a_bad_network(rig: Rig) -> None:
    """Broken downloads and busy servers are tried again with a fresh archive; a lasting failure ends with 75."""
    rig.write("a", os.urandom(300_000))
    rig.ok("push")
    rig.faults("dump: 503", "download: cut", "download: 403", "download: corrupt", "download: reset mid-body")
    rig.ok("pull", str(rig.home / "dest"))
    assert tree(rig.home / "dest") == tree(rig.workspace)
    assert rig.count("dump") == 6
    rig.configure({"retry.give_up_after_seconds": 1})
    rig.faults("download: reset always")
    failed = rig.run("pull", str(rig.home / "other"))
    assert failed.code == 75
    assert not (rig.home / "other").exists()


def test_verify(rig: Rig) -> None:
    """Missing, different and extra paths are named, also those deleted here that are kept there; excluded ones are
    counted, on stderr. It changes nothing and works beside a daemon.
    """
    for name in ("same", "gone", "other", "d/e", "deleted"):
        rig.write(name, name)
    rig.write(".gitignore", "*.log\n")
    rig.write("x.log", "stays home")
    rig.up()
    rig.converged(without=lambda path: path == "x.log")
    assert rig.ok("verify").out.startswith("in sync")
    (rig.workspace / "deleted").unlink()
    rig.ok("flush")
    syncs = rig.count("upload"), rig.count("initialize"), rig.count("execute")
    (rig.sandbox.workspace / "gone").unlink()
    (rig.sandbox.workspace / "other").write_text("OTHER")
    (rig.sandbox.workspace / "agent").mkdir()
    (rig.sandbox.workspace / "agent" / "\033[31mred").write_text("x")
    found = rig.run("verify")
    assert found.code == 1
    assert found.out.splitlines() == [
        "missing     gone",
        "different   other",
        "only there  agent",
        "only there  agent/\\x1b[31mred",
        "only there  deleted",
        "1 missing, 1 different, 3 only there",
        'deleted here, and still there: 1 path (sandbox.deletions is "keep")',
    ]
    assert "not compared, as they are excluded: 1 (see" in found.err
    listed = json.loads(rig.run("verify", "--json").out)
    assert list(listed) == ["equal", "files", "missing", "different", "only_there", "unnamed", "deleted_here"]
    assert (listed["equal"], listed["missing"], listed["different"]) == (False, ["gone"], ["other"])
    assert listed["only_there"] == ["agent", "agent/\033[31mred", "deleted"]
    assert listed["deleted_here"] == ["deleted"]
    assert (rig.count("upload"), rig.count("initialize"), rig.count("execute")) == syncs


def test_a_signal_ends_a_download(rig: Rig) -> None:
    """75, with a fitting message, and nothing is left."""
    rig.write("a")
    rig.ok("push")
    for verb, word in ((["verify"], "nothing was changed"), (["pull", str(rig.home / "dest")], "nothing was pulled")):
        rig.faults("download: hang 60")
        before = rig.count("download")
        running = rig.background(*verb)
        rig.until(lambda before=before: rig.count("download") > before, "its download")
        assert running.stop(signal.SIGINT) == 75
        assert word in running.err
    assert not [name for name in os.listdir(rig.home) if "dest" in name]


# -- archives that are made to fill memory

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
