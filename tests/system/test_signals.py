"""Signals to the daemon: a prompt end at any moment, a safe reload, a sync at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.system.rig import Rig


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_daemon_ends_at_once(rig: Rig, number: signal.Signals) -> None:
    """With 0, nothing pending, state `stopped`, and no socket left; SIGUSR1 does not wait for the quiet period."""
    rig.configure({"sync.debounce_seconds": 3600, "sync.max_wait_seconds": 3600})
    rig.write("a")
    daemon = rig.up()
    rig.write("b")
    rig.in_state("debouncing")
    daemon.send(signal.SIGUSR1)
    rig.converged()
    rig.in_state("watching")
    assert daemon.stop(number) == 0
    status = rig.status()
    assert (status["running"], status["state"], status["pending"]) == (False, "stopped", False)
    assert not (rig.state_folder / "control.sock").exists()


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        ("upload-url: hang 60", "uploading"),
        ("upload: slow 20000", "uploading"),
        pytest.param("upload: hang 60", "uploading", marks=pytest.mark.long),
        ("upload: 503 retry-after=60", "retrying"),
        ("initialize: hang 60", "initializing"),
        pytest.param("initialize: 503 retry-after=60", "retrying", marks=pytest.mark.long),
    ],
)
def test_a_busy_daemon_ends_within_five_seconds(rig: Rig, fault: str, state: str) -> None:
    """In the middle of any wait: exit 0, the change still pending, and sent by the next process. Further signals change
    nothing.
    """
    rig.write("random", os.urandom(2_000_000))
    rig.faults(fault)
    daemon = rig.start()
    rig.until(
        lambda: rig.shown()["state"] == state and fault.partition(":")[0] in rig.emulator.request_log.ops(), state
    )
    for _ in range(5 if "slow" in fault else 0):
        daemon.send(signal.SIGINT)
    assert daemon.stop() == 0
    status = rig.status()
    assert (status["running"], status["state"], status["pending"]) == (False, "stopped", True)
    rig.emulator.faults.clear()
    rig.up()
    rig.converged()
    assert rig.status()["pending"] is False


def test_a_signal_to_a_daemon_that_begins() -> None:
    """A reload or a sync that is asked for while the program loads does not end it."""
    main = (
        "import os, signal, sys; from syncd.cli import commands, main; sys.argv = ['syncd', 'run'];"
        "commands.run_command = lambda: [os.kill(os.getpid(), each) for each in (signal.SIGHUP, signal.SIGUSR1)] and 0;"
        "main()"
    )
    assert subprocess.run([sys.executable, "-c", main], check=False).returncode == 0


def test_a_new_configuration_that_no_daemon_could_start_with_is_refused(rig: Rig) -> None:
    """A workspace that holds the daemon's state, or that another instance has: the old one stays."""
    rig.write("a")
    other = rig.home / "other"
    other.mkdir()
    rig.emulator.create_sandbox("another")
    rig.configure({"workspace.path": str(other), "sandbox.id": "another"})
    another = rig.start()
    rig.until(lambda: "watching" in another.err, "the other instance")
    rig.configure()
    daemon = rig.up()
    for number, path in enumerate((rig.home / ".local", other), 1):
        rig.configure({"workspace.path": str(path)})
        daemon.send(signal.SIGHUP)
        rig.until(lambda wanted=number: daemon.err.count("the old one stays") == wanted, "the refusal")  # type: ignore[misc]
        # Until it watches again, another configuration makes it read that one.
        rig.until(lambda wanted=number: daemon.err.count("watching /") == wanted + 1, "the end of it")  # type: ignore[misc]
    rig.configure()
    rig.write("b")
    rig.ok("flush")
    assert daemon.code is None


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


def test_a_reload_while_the_storage_does_not_answer(rig: Rig) -> None:
    """The upload is given up after some seconds, although all of it was sent; what is here arrives all the same."""
    rig.write("a")
    daemon = rig.up()
    answer = rig.held("upload")
    try:
        rig.write("b")
        rig.in_state("uploading")
        daemon.send(signal.SIGHUP)
        rig.until(lambda: "configuration read anew" in daemon.err, "the reload")
    finally:
        answer.set()
    rig.converged()
