"""What cannot be read, has no place there, takes long, or may have been sent: it is told, and all else goes on."""

from __future__ import annotations

import os
import signal

from tests.system.command import AS_ANYONE, as_anyone
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


def test_a_reload_begins_an_upload_anew(rig: Rig) -> None:
    """One that would take minutes gets the new limit; nothing is lost, and nothing is sent twice."""
    limit = "sync.upload_limit_kib_per_second"
    rig.write("noise", os.urandom(600_000))
    rig.configure({limit: 1})
    daemon = rig.start()
    rig.until(lambda: (rig.shown().get("progress") or {}).get("done_bytes", 0), "the upload to go on")
    rig.configure({limit: 0})
    daemon.send(signal.SIGHUP)
    rig.converged()
    rig.until(lambda: "configuration read anew" in daemon.err, "the reload itself")
    rig.in_state("watching")
    rig.ok("flush")
    assert rig.shown()["syncs"] == 1


def test_a_place_that_another_kind_of_file_has(rig: Rig) -> None:
    """It is named with 75 and what to do, with and without a daemon; 0 once the place is free."""
    rig.write("d/ours", "here")
    rig.ok("push")
    (rig.sandbox.workspace / "d/theirs").write_text("the agent's")
    (rig.workspace / "d/ours").unlink()
    (rig.workspace / "d").rmdir()
    rig.write("d", "a file by now")
    rig.write("other", "here")
    for command in ("push", "flush"):
        ended = rig.run(command)
        assert ended.code == 75
        assert ended.err.splitlines()[-1].startswith("syncd: 'd' is not in the sandbox, where something else has")
        if command == "push":
            rig.watch()
    assert (rig.sandbox.workspace / "other").read_text() == "here"
    assert (rig.sandbox.workspace / "d/theirs").read_text() == "the agent's"
    assert any("'d' is not sent: in the sandbox a directory" in warning for warning in rig.status()["warnings"])
    (rig.sandbox.workspace / "d/theirs").unlink()
    rig.ok("push", "--force")
    rig.ok("flush")
    assert (rig.sandbox.workspace / "d").read_text() == "a file by now"
