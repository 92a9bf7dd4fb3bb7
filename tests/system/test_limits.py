"""What cannot be read, has no place there, takes long, or may have been sent: it is told, and all else goes on."""

from __future__ import annotations

import os
import signal

import pytest

from tests.system.command import AS_ANYONE, Running, as_anyone
from tests.system.rig import Rig


@as_anyone
def test_an_unreadable_file(rig: Rig) -> None:
    """The others are sent, a warning names it, and it does not count as deleted; readable again it is sent."""
    rig.write("a", "readable")
    rig.write("closed", "at first readable")
    rig.up(prefix=AS_ANYONE)
    rig.write("closed", "changed, and not to be read")
    closed = rig.workspace / "closed"
    closed.chmod(0)
    rig.write("b", "readable")
    rig.until(lambda: "b" in rig.there(), "the others")
    rig.until(lambda: any("'closed'" in warning for warning in rig.status()["warnings"]), "the warning")
    rig.in_state("watching")
    closed.chmod(0o600)
    rig.converged()
    rig.until(lambda: rig.status()["warnings"] == [], "the end of the warning")
    rig.ok("flush")


def test_an_uncertain_sandbox_is_pending(rig: Rig) -> None:
    """A paused daemon reports changes as pending that a killed one may have sent."""
    rig.write("a", "first")
    first = rig.up()
    killed = rig.once("initialize", "after", first.kill)
    rig.write("a", "other")
    assert killed.wait(60), rig.report()
    rig.write("a", "first")
    rig.ok("pause")
    rig.start()
    assert rig.status_in("paused")["pending"] is True
    rig.ok("resume")
    rig.converged()
    rig.ok("flush")
    assert rig.status()["pending"] is False


# -- an upload that takes long

KEY = "sync.upload_limit_kib_per_second"
SIZE_BYTES = 600_000


@pytest.fixture
def uploading(rig: Rig) -> Running:
    """A daemon during an upload that takes minutes."""
    rig.write("noise", os.urandom(SIZE_BYTES))
    rig.write("a.txt")
    rig.configure({KEY: 1})
    daemon = rig.start()
    rig.until(lambda: sent(rig) > 0, "the upload to go on")
    return daemon


def sent(rig: Rig) -> int:
    """Wait until so much of the archive is sent."""
    progress = rig.shown().get("progress") or {}
    return int(progress.get("done_bytes", 0)) if rig.shown()["state"] == "uploading" else 0


def test_a_reload_begins_an_upload_anew(rig: Rig, uploading: Running) -> None:
    """With the new limit, whatever else of the configuration is as before."""
    rig.configure({KEY: 0})
    uploading.send(signal.SIGHUP)
    rig.converged()
    rig.until(lambda: "configuration read anew" in uploading.err, "the reload itself")
    rig.in_state("watching")
    assert rig.shown()["syncs"] == 1


# -- a place that another kind of file has


@pytest.mark.parametrize(("command", "by_daemon"), [("push", False), ("flush", True)])
def test_it_is_named(rig: Rig, command: str, *, by_daemon: bool) -> None:
    """The exit code is 75 with the path and what to do, and 0 once its place is free."""
    rig.write("d/ours", "here")
    rig.ok("push")
    (rig.sandbox.workspace / "d/theirs").write_text("the agent's")
    (rig.workspace / "d/ours").unlink()
    (rig.workspace / "d").rmdir()
    rig.write("d", "a file by now")
    rig.write("other", "here")
    if by_daemon:
        rig.up()
    ended = rig.run(command)
    assert ended.code == 75
    assert ended.err.splitlines()[-1].startswith("syncd: 'd' is not in the sandbox, where something else has")
    assert (rig.sandbox.workspace / "other").read_text() == "here"
    assert (rig.sandbox.workspace / "d/theirs").read_text() == "the agent's"
    assert any("'d' is not sent: in the sandbox a directory" in warning for warning in rig.status()["warnings"])
    (rig.sandbox.workspace / "d/theirs").unlink()
    rig.ok("push", "--force")
    rig.ok("flush")
    assert (rig.sandbox.workspace / "d").read_text() == "a file by now"
