"""The messages of a waiting `syncd flush`, and when it stops waiting."""

from __future__ import annotations

import json
import os
import shutil
import signal
from contextlib import suppress

import pytest

from syncd.core.signals import Interrupt
from syncd.core.waiter import Waiter
from syncd.daemon.control import ask
from tests.system.command import CLOCK
from tests.system.rig import DEFAULTS, Rig, emptied

# As a background job of a script is started.
NO_INTERRUPT = ("sh", "-c", 'trap "" INT; exec "$@"', "sh")


@pytest.mark.parametrize("daemon", ["with a daemon", "in a script's background"])
def test_it_gives_up_during_an_upload(rig: Rig, daemon: str) -> None:
    """It exits with 75 after the timeout, and says what it waited for."""
    rig.write("a")
    if daemon == "with a daemon":
        rig.up()
        rig.write("a", "changed")
    rig.faults("upload: hang 100 always")
    prefix = NO_INTERRUPT if daemon == "in a script's background" else ()

    def is_uploading() -> bool:
        flushed = rig.run("flush", "--timeout", "1", prefix=prefix)
        assert (flushed.code, flushed.out, flushed.seconds < 60) == (75, "", True)
        last = flushed.err.splitlines()[-1]
        assert "give it more time" in last
        return last.startswith("syncd: not done after 1 s (uploading")  # a busy machine begins late

    rig.until(is_uploading, "a flush that waits for the upload")


@pytest.mark.parametrize("word", ["nan", "0", "-1", "soon"])
def test_a_time_out_is_a_time(rig: Rig, word: str) -> None:
    """Anything else is a wrong usage."""
    refused = rig.run("flush", "--timeout", word)
    assert (refused.code, "--timeout" in refused.err, "internal" in refused.err) == (2, True, False)


def test_a_pause_ends_the_wait(rig: Rig) -> None:
    """A flush does not wait for a resume."""
    rig.configure({"retry.give_up_after_seconds": 0.2, "retry.max_delay_seconds": 30, "retry.first_delay_seconds": 30})
    rig.write("a")
    rig.up()
    rig.faults("upload-url: 503 always", "upload: 503 always")
    rig.write("a", "changed")
    rig.in_state("retrying")
    failures = rig.status()["failures"]
    waiting = rig.background("flush")
    rig.until(lambda: rig.status()["failures"] > failures, "its own try")
    rig.ok("pause")
    assert waiting.wait() == 75
    assert "paused" in waiting.err


@pytest.mark.parametrize(
    ("request_", "when"), [({"do": "push", "force": True}, "in a sync"), ({"do": "flush"}, "at rest")]
)
def test_a_killed_flush_is_dropped(rig: Rig, request_: dict[str, object], when: str) -> None:
    """If it was killed before its sync began, nothing is scanned or sent for it."""
    rig.write("a")
    rig.up()
    folder = str(rig.state_folder)

    def ask_and_die() -> None:
        with suppress(TimeoutError):
            next(ask(folder, request_, Waiter(Interrupt(), CLOCK), 0.3))

    if when == "in a sync":
        asked = rig.once("upload", "mid-body", ask_and_die)
        rig.write("a", "changed")
        assert asked.wait(60)
    else:
        os.kill(rig.daemons[-1].pid, signal.SIGSTOP)
        ask_and_die()
        os.kill(rig.daemons[-1].pid, signal.SIGCONT)
    rig.ok("flush")
    rig.converged()
    assert rig.count("upload") == (2 if when == "in a sync" else 1)
    reasons = [json.loads(line)["why"] for line in rig.ok("history", "--json").out.splitlines()]
    assert reasons.count("asked for") == 1


@pytest.mark.parametrize(
    ("by", "policy"),
    [
        ("flush", "save"),
        ("push", "hold"),
        ("SIGUSR1", "overwrite"),
        ("a start", "overwrite"),
        ("alone: flush", "hold"),
        ("alone: push", "save"),
    ],
)
def test_a_sandbox_that_was_emptied_is_filled(rig: Rig, by: str, policy: str) -> None:
    """A request, and a process at its start, ask it, though nothing is to be sent; where all is there, none sends."""
    for number in range(12):
        rig.write(f"d/f{number}")
    rig.configure({**DEFAULTS, "sandbox.agent_changes": policy})
    if not by.startswith("alone"):
        rig.up()
    rig.ok("flush")
    uploads, executions = rig.count("upload"), rig.count("execute")
    rig.ok("flush")
    assert (rig.count("upload"), rig.count("execute")) == (uploads, executions + 1)
    emptied(rig.sandbox.workspace)
    match by:
        case "SIGUSR1":
            rig.daemons[0].send(signal.SIGUSR1)
        case "a start":
            rig.restart()
        case _:
            rig.ok(by.removeprefix("alone: "))
    rig.converged()
    if by in ("flush", "push"):
        rig.ok("status", "--check")


def test_a_sandbox_whose_workspace_was_removed_is_filled(rig: Rig) -> None:
    """As one that was emptied: the folder itself is gone, which a set-up may do."""
    for number in range(12):
        rig.write(f"d/f{number}")
    rig.configure(DEFAULTS)
    rig.ok("push")
    shutil.rmtree(rig.sandbox.workspace)
    rig.ok("push")
    rig.converged()
    assert "nobody could look" not in rig.ok("status").out
    assert rig.count("initialize") == rig.count("initialize", 200)
