"""A status never claims a sync to another workspace or sandbox, and does not end before its process."""

from __future__ import annotations

import os
import shutil
import signal

import pytest

from tests.system.rig import Rig


@pytest.mark.parametrize("moves", ["sandbox", "workspace"])
def test_a_reload_to_another_workspace_resets_the_status(rig: Rig, moves: str) -> None:
    """Counts, last sync, last error and warnings begin anew for the new workspace or sandbox."""
    rig.emulator.create_sandbox("other")
    (rig.home / "elsewhere").mkdir()
    (rig.home / "elsewhere" / "b").write_text("text")
    rig.write("a")
    (rig.workspace / "outside").symlink_to("/etc/passwd")
    daemon = rig.up()
    before = rig.status_in("watching")
    assert (before["syncs"], len(before["warnings"])) == (1, 1)
    assert before["last_sync"]["files"] == 1
    rig.faults("upload-url: 503 always")
    where = {"sandbox.id": "other"} if moves == "sandbox" else {"workspace.path": str(rig.home / "elsewhere")}
    rig.configure(where)
    daemon.send(signal.SIGHUP)
    status = rig.until(lambda: (now := rig.status())["state"] == "retrying" and now, "the failure")
    assert (status["syncs"], status["last_sync"], status["uploaded_bytes"]) == (0, None, 0)
    assert status["started_at"] == before["started_at"]
    if moves == "sandbox":
        assert status["sandbox"]["id"] == "other"
    rig.emulator.faults.clear()
    rig.until(lambda: rig.status()["last_sync"], "the sync")
    assert rig.status()["syncs"] == 1


def test_a_configuration_that_names_another_sandbox(rig: Rig) -> None:
    """With no syncd since, nothing of the former one is shown; with one that is to be acquired, that of its address."""
    rig.write("a")
    rig.ok("push")
    for key, value in (("sandbox.id", "other"), ("sandbox.base_url", "http://127.0.0.1:9"), ("sandbox.region", "asia")):
        rig.configure({key: value})
        assert (rig.status()["last_sync"] is None) == (key != "sandbox.region"), key


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not on this machine")
def test_a_starting_daemon(rig: Rig) -> None:
    """It shows its state as soon as it has the lock, however long its start takes."""
    for number in range(3):
        rig.write(f"a{number}")
    rig.up()
    rig.daemons[-1].stop()
    # The first thing after the lock that can be made to take long from outside: opening the watch.
    daemon = rig.start(
        prefix=("strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=inotify_init,inotify_init1:delay_enter=3000000")
    )
    status = rig.until(lambda: (now := rig.status())["running"] and now, "the status")
    try:
        assert status["state"] == "starting"
        assert status["last_sync"]["files"] == 3
        shown = rig.ok("status").out
        assert shown.startswith("● starting\n")
        assert "kill" not in shown
        assert daemon.code is None
        rig.in_state("watching")
    finally:
        os.kill(status["pid"], signal.SIGKILL)  # a tracer that is killed lets go of it
        daemon.wait()
