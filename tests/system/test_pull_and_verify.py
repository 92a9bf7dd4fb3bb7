"""`syncd pull` and `syncd verify`, over the real API."""

from __future__ import annotations

import json
import os
import signal

from tests.system.rig import Rig
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
    assert (empty.code, "It is empty." in empty.err) == (2, True)
    assert rig.count("dump") == 0
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
