"""While a request hangs, the daemon answers commands, notes changes, and gives up work that may be given up."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from syncd.core.signals import Interrupt
from syncd.core.waiter import Waiter
from syncd.daemon.control import ask
from tests.emulator import When
from tests.system.command import CLOCK
from tests.system.rig import Rig

# Longer than any test waits.
HANGS_S = 100
# What is promised is a second; the rest is for a machine with other things to do.
AT_ONCE_S = 60.0
STAGES = {
    "a URL is asked for": "upload-url",
    "the bucket takes the upload": "upload",
    "the sandbox initializes": "initialize",
    "a removal is asked for": "execute",
    "a removal's log is read": "execution-logs",
    "a proof is asked for": "dump",
    "a proof is downloaded": "download",
}


def hang(rig: Rig, op: str) -> threading.Event:
    """Let the next request of that kind hang; the event is set when it has come."""
    rig.faults(f"{op}: hang {HANGS_S}")
    return rig.once(op, When.BEFORE, lambda: None)


def hanging_in(rig: Rig, op: str) -> None:
    """A daemon that waits for this response."""
    proves, removes = op in ("dump", "download"), op.startswith("exec")
    rig.configure(
        {
            "sync.archive": "auto" if proves else "full",
            "sandbox.deletions": "mirror" if removes else "keep",
        }
    )
    rig.fill(5)
    rig.write("to-delete")
    if proves:
        rig.faults("execute: 404 always")  # where no program runs, the first archive is proved by a dump
        came = hang(rig, op)
        rig.start()
        assert came.wait(60), rig.report()
        return
    rig.up()
    rig.ok("flush")
    came = hang(rig, op)
    if op == "upload-url":
        rig.faults("upload: expired")
    if removes:
        os.unlink(rig.workspace / "to-delete")
    else:
        rig.write("a", "first")
    assert came.wait(60), rig.report()


def answered(rig: Rig, word: str) -> tuple[dict[str, Any], float]:
    """Return the daemon's answer to a command, and how long it took."""
    began_s = CLOCK.monotonic_s()
    *_, last = ask(str(rig.state_folder), {"do": word}, Waiter(Interrupt(), CLOCK), 60)
    return last, CLOCK.monotonic_s() - began_s


@pytest.mark.parametrize("op", STAGES.values(), ids=STAGES)
def test_commands_are_answered_at_once(rig: Rig, op: str) -> None:
    """Whichever request hangs; the signal that ends the daemon, too."""
    hanging_in(rig, op)
    for word in ("hello", "pause", "resume", "pause"):
        last, took_s = answered(rig, word)
        assert last["exit"] == 0
        assert took_s < AT_ONCE_S, word
        if word == "pause":
            assert rig.shown()["state"] == "paused"
        else:
            rig.until(lambda: rig.shown()["state"] != "paused", "the state of what goes on")
    status = rig.status()
    assert status["running"]
    assert status["responding"]
    assert rig.daemons[0].stop() == 0


def test_a_change_is_pending_at_once(rig: Rig) -> None:
    """Also while a request hangs of which the status shows nothing: that does not go on to say "in sync"."""
    rig.configure({"sync.on_synced": ["true"], "sync.debounce_seconds": HANGS_S, "sync.max_wait_seconds": HANGS_S})
    came = hang(rig, "get")  # for the servers that the program is told of
    rig.start()
    assert came.wait(60), rig.report()
    rig.in_state("watching")
    rig.write("a")
    rig.until(lambda: rig.shown()["pending"], "the change to be pending")
    assert "servers are not known" not in rig.daemons[0].err  # it hangs still
    assert rig.run("status", "--check").code == 1


def test_commands_are_answered_while_a_large_file_is_packed(rig: Rig) -> None:
    """Work that never waits checks for commands, too."""
    rig.configure({"sync.max_snapshot_mib": 1 << 14})
    rig.write("large", b"")
    os.truncate(rig.workspace / "large", 4 << 30)
    rig.start()
    rig.until(lambda: rig.shown()["state"] == "snapshotting", "packaging")
    last, took_s = answered(rig, "pause")
    assert (last["exit"], took_s < AT_ONCE_S, rig.shown()["state"]) == (0, True, "paused")


@pytest.mark.parametrize("op", ["dump", "download"])
def test_a_change_is_not_delayed_by_a_check(rig: Rig, op: str) -> None:
    """A check only reads: a change made meanwhile is synced without waiting for its end."""
    hanging_in(rig, op)
    rig.write("b", "second")
    rig.converged()
    assert rig.daemons[0].code is None


def test_progress_counts_what_has_arrived(rig: Rig) -> None:
    """The kernel takes a short archive at once; on a slow line the progress shows the real time."""
    rig.write("noise", os.urandom(1_500_000))
    rig.faults("upload: slow 30000")
    rig.start()
    seen: list[float] = []

    def shares() -> bool:
        shown = rig.shown()
        if shown["state"] == "uploading" and (progress := shown.get("progress")):
            seen.append(progress["done_bytes"] / progress["total_bytes"])
        return len({*seen}) > 3

    rig.until(shares, "progress")
    assert seen == sorted(seen)
    assert seen[-1] < 0.9
