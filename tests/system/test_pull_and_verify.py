"""`syncd pull` and `syncd verify`, over the real API."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import tarfile

import pytest

from tests.system.rig import Rig
from tests.system.trees import tree


def test_pull(rig: Rig) -> None:
    """It brings the agent's files, too; into a new folder or an empty one, never into another."""
    rig.write("a/b", "1")
    rig.write(os.fsdecode(b"caf\xe9"), "latin-1 name")
    (rig.workspace / "ln").symlink_to("a/b")
    (rig.workspace / "empty").mkdir()
    rig.ok("push")
    (rig.sandbox.workspace / "by-the-agent").write_text("new")
    said = rig.ok("pull", str(rig.home / "new" / "dest")).out
    assert tree(rig.home / "new" / "dest") == tree(rig.sandbox.workspace)
    assert said.startswith("pulled 4 files")
    again = rig.run("pull", str(rig.home / "new" / "dest"))
    assert again.code == 78
    assert "nothing is overwritten" in again.err
    assert rig.count("dump") == 1
    assert os.listdir(rig.home / "new") == ["dest"]


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


@pytest.mark.parametrize("command", ["pull", "verify"])
def test_an_archive_that_ends_between_two_files(rig: Rig, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """The program that packed it was killed there: what it lacks is neither left out nor missing."""
    rig.write("a", "1")
    rig.write("b", "2")
    rig.ok("push")
    rig.configure({"retry.give_up_after_seconds": 1})
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
        tar.add(rig.sandbox.workspace / "a", "./a")
        end = packed.tell()
    cut = gzip.compress(packed.getvalue()[:end])
    monkeypatch.setattr(rig.sandbox, "dump", lambda file: file.write(cut))
    failed = rig.run(command, *([str(rig.home / "dest")] if command == "pull" else []))
    assert (failed.code, failed.out) == (75, "")
    assert "cannot be read (the archive is cut short)" in failed.err
    assert not (rig.home / "dest").exists()


def test_verify(rig: Rig) -> None:
    """Missing, different and extra paths are named; it changes nothing and works beside a daemon."""
    for name in ("same", "gone", "other", "d/e"):
        rig.write(name, name)
    rig.write(".gitignore", "*.log\n")
    rig.write("x.log", "stays home")
    rig.up()
    rig.converged(without=lambda path: path == "x.log")
    assert rig.ok("verify").out.startswith("in sync")
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
        "1 missing, 1 different, 2 only there",
    ]
    listed = json.loads(rig.run("verify", "--json").out)
    assert listed["equal"] is False
    assert (listed["missing"], listed["different"]) == (["gone"], ["other"])
    assert listed["only_there"] == ["agent", "agent/\033[31mred"]
    assert (rig.count("upload"), rig.count("initialize"), rig.count("execute")) == syncs


def test_verify_names_paths_deleted_here(rig: Rig) -> None:
    """They are kept there by the configuration; excluded paths are counted, on stderr."""
    for name in ("a", "gone"):
        rig.write(name)
    rig.ok("push")
    (rig.workspace / "gone").unlink()
    rig.write(".gitignore", "*.log\n")
    rig.write("x.log")
    rig.ok("push")
    (rig.sandbox.workspace / "agent").write_text("x")
    found = rig.run("verify")
    assert found.code == 1
    assert found.out.splitlines()[2:] == [
        "0 missing, 0 different, 2 only there",
        'deleted here, and still there: 1 path (sandbox.deletions is "keep")',
    ]
    assert "not compared, as they are excluded: 1 (see" in found.err
    listed = json.loads(rig.run("verify", "--json").out)
    assert (listed["only_there"], listed["deleted_here"]) == (["agent", "gone"], ["gone"])
    assert list(listed) == ["equal", "files", "missing", "different", "only_there", "unnamed", "deleted_here"]


def test_nothing_is_pulled_into_the_workspace(rig: Rig) -> None:
    """It would be sent; through a link, too."""
    rig.write("a")
    rig.ok("push")
    (rig.home / "link").symlink_to(rig.workspace)
    for place in (rig.workspace / "new", rig.home / "link" / "new"):
        refused = rig.run("pull", str(place))
        assert refused.code == 78
        assert "is in the workspace" in refused.err
    empty = rig.run("pull", "")  # the unset variable of a script: no wish for this directory
    assert (empty.code, "It is empty." in empty.err) == (2, True)
    assert rig.count("dump") == 0


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
