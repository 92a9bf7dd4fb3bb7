"""The program of `sync.on_synced`, run by the daemon and by commands."""

from __future__ import annotations

import json
import os
import shlex
import signal
from pathlib import Path

import pytest

from tests.system.rig import KEY, Rig


class Program:
    """A program that keeps what it is told, and waits where it is told to."""

    def __init__(self, rig: Rig, folder: Path) -> None:
        self.rig = rig
        self.told, self.pids = folder / "told", folder / "pids"
        rig.write("a.txt", "1")

    def command(self, then: str = "") -> dict[str, object]:
        """The key, with what the program does then."""
        copy = f'echo $$ >>{shlex.quote(str(self.pids))}; cat "$SYNCD_CHANGES" >>{shlex.quote(str(self.told))}'
        return {"sync.on_synced": ["sh", "-c", f"{copy}; {then}"]}

    def runs(self, number: int) -> list[dict[str, list[str]]]:
        """What each of so many runs was told."""
        self.rig.until(lambda: self._lines() == number, f"run {number} of the program")
        return [json.loads(line) for line in self.told.read_text().splitlines()]

    def ended(self) -> bool:
        """True if no run is left."""
        return not [pid for pid in self.pids.read_text().split() if Path(f"/proc/{pid}").exists()]

    def _lines(self) -> int:
        return self.told.read_text().count("\n") if self.told.exists() else 0


@pytest.fixture
def program(rig: Rig, tmp_path: Path) -> Program:
    return Program(rig, tmp_path)


def test_the_daemon_runs_it(rig: Rig, program: Program) -> None:
    """After each sync that arrived, with its output in the log; a reload changes it."""
    rig.configure(program.command('echo "$SYNCD_CONFIG ${KLAVIS_API_KEY-none}"; exit 4'))
    daemon = rig.up()
    assert program.runs(1)[0]["added"] == ["a.txt"]
    rig.until(lambda: f"on_synced: {rig.config_file} none" in daemon.err, "its output")
    rig.until(lambda: "sync.on_synced ended with 4" in "".join(rig.shown()["warnings"]), "the warning")
    rig.configure(program.command())
    daemon.send(signal.SIGHUP)
    rig.until(lambda: "configuration read anew" in daemon.err, "the reload")
    rig.write("a.txt", "2")
    assert program.runs(2)[1]["changed"] == ["a.txt"]
    rig.until(lambda: not rig.shown()["warnings"], "no warning")
    assert daemon.stop() == 0
    assert daemon.out == ""
    assert KEY not in program.told.read_text()


def test_it_delays_nothing(rig: Rig, program: Program) -> None:
    """Syncs go on beside it, `flush` too; a stop ends it; the next daemon removes what a killed one left."""
    rig.configure(program.command("exec sleep 600"))
    daemon = rig.up()
    program.runs(1)
    rig.write("b.txt")
    rig.ok("flush")
    assert (rig.sandbox.workspace / "b.txt").exists()
    (file,) = rig.state_folder.glob("synced-changes.json")
    assert daemon.stop() == 0
    assert program.ended()
    assert not file.exists()
    file.write_text("{}")
    rig.configure({"sync.on_synced": []})
    rig.watch()
    assert not file.exists()


def test_servers_that_nobody_tells(rig: Rig, program: Program) -> None:
    """An API that does not answer the question for them delays no sync; the program is run without them."""
    rig.configure(program.command())
    rig.faults("get: hang 100 always")
    daemon = rig.start()
    rig.until(lambda: rig.count("get") == 1, "the question")
    rig.write("b.txt")
    rig.until((rig.sandbox.workspace / "b.txt").exists, "the sync")
    assert "servers are not known" not in daemon.err  # it was not waited for to the end
    assert program.runs(1)[0]["mcp_servers"] == {}


def test_a_reload_ends_no_run(rig: Rig, program: Program, tmp_path: Path) -> None:
    """It comes to its end; what waits for the next run is told to that, which is the new configuration's."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    rig.configure(program.command(f"read -r _ <{shlex.quote(str(gate))}; echo was at its end"))
    daemon = rig.up()
    program.runs(1)
    for name in ("b.txt", "c.txt"):
        rig.write(name)
        rig.ok("flush")
    rig.configure(program.command())
    daemon.send(signal.SIGHUP)
    rig.until(lambda: "configuration read anew" in daemon.err, "the reload")
    rig.write("d.txt")
    rig.ok("flush")
    rig.ok("flush")  # the program is told of a sync right after the one who waited for it
    _open(gate)
    assert sorted(program.runs(2)[1]["added"]) == ["b.txt", "c.txt", "d.txt"]
    assert "on_synced: was at its end" in daemon.err
    assert daemon.stop() == 0


def _open(gate: Path) -> None:
    """Let the program go on that waits there; fails if none does."""
    with open(os.open(gate, os.O_WRONLY | os.O_NONBLOCK), "w") as file:
        file.write("\n")


def test_one_after_the_other_for_several_sandboxes(rig: Rig, program: Program) -> None:
    """Two sandboxes that a sync arrived in have it run for each, never at a time; so with `push` alone."""
    rig.emulator.create_sandbox("blue")
    held = "mkdir here || exit 9; until [ -e go ]; do sleep 0.05; done; rmdir here"
    rig.configure({**program.command(held), "sandboxes.blue.id": "blue"})
    pushed = rig.background("push")
    rig.until(lambda: "waiting for sync.on_synced to end …" in pushed.err, "the push to wait")
    assert len(program.runs(1)) == 1
    (rig.home / "go").touch()
    assert pushed.wait() == 0
    assert {str(run["sandbox"]) for run in program.runs(2)} == {"main", "blue"}
    assert "ended with 9" not in pushed.err
    assert pushed.err.rindex("waiting for sync.on_synced to end …") > pushed.err.rindex("unpacking …")
    rig.write("a.txt", "2")
    daemon = rig.up()
    assert [run["changed"] for run in program.runs(4)[2:]] == [["a.txt"]] * 2
    rig.until(program.ended, "the end")
    assert daemon.stop() == 0
    assert "ended with 9" not in daemon.err


def test_push_waits_for_it(rig: Rig, program: Program) -> None:
    """Without a daemon; a failure is a warning, and no failure of the push."""
    rig.configure(program.command("exit 5"))
    pushed = rig.ok("push")
    assert program.runs(1)[0]["added"] == ["a.txt"]
    assert "sync.on_synced ended with 5" in pushed.err
    assert "sync.on_synced ended with 5" in "".join(rig.shown()["warnings"])
    rig.ok("push")
    program.runs(1)
    rig.write("a.txt", "2")
    rig.ok("flush")
    assert program.runs(2)[1]["changed"] == ["a.txt"]
    rig.configure({"sync.on_synced": ["/no/such/program"]})
    rig.write("a.txt", "3")
    assert "on_synced cannot be started (/no/such/program: No such file or directory)" in rig.ok("push").err


def test_a_signal_ends_only_the_program(rig: Rig, program: Program) -> None:
    """The push itself is done."""
    rig.configure(program.command("exec sleep 600"))
    pushing = rig.background("push")
    program.runs(1)
    rig.until(lambda: not rig.shown()["pending"], "the status to say that all is sent")
    assert pushing.stop(signal.SIGINT) == 0
    assert "stopped before sync.on_synced was done" in pushing.err
    assert program.ended()
