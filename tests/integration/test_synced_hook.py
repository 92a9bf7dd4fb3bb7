"""The program of `sync.on_synced` runs after each sync that arrived, and is told what changed in the sandbox."""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

import pytest

from syncd.core.clock import SystemClock
from syncd.core.directories import directories_for
from syncd.core.settings import check_config
from syncd.daemon.build import folders_of
from syncd.sync import synced_hook
from syncd.sync.synced_hook import SyncedHook
from tests.integration.sync_rig import SANDBOX, Rig

Lists = dict[str, list[str]]
SERVERS = {"git": "https://host/git"}


class Runs:
    """A program that keeps a copy of what each run was told."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.copies = rig.folder / "runs"
        self.script = rig.folder / "program"
        self.does("")
        rig.keys["sync"]["on_synced"] = [str(self.script), "$HOME", "a b"]
        self.environ = {**rig.environ, "PATH": os.environ["PATH"], "KLAVIS_API_KEY": "sk-never"}
        self.sandbox_changed: list[bool] = []  # of the runs that were told last
        self._hook: SyncedHook | None = None

    def does(self, what: str) -> None:
        """Let the program do this after it kept what it was told."""
        copy = '{ cat "$SYNCD_CHANGES"; stat -c %a "$SYNCD_CHANGES"; echo "$1|$2|$SYNCD_CONFIG|$KLAVIS_API_KEY"; }'
        self.script.write_text(f'#!/bin/sh\n{copy} >>"{self.copies}"\n{what}\n')
        self.script.chmod(0o755)

    @property
    def hook(self) -> SyncedHook:
        """The hook of the present process, in real time, as programs need."""
        if self._hook is None:
            config = check_config(self.rig.keys, "/etc/of-the-test.toml")
            folders = folders_of(config, self.rig.environ)
            self._hook = SyncedHook(self.environ, SystemClock())
            self._hook.configure(config, folders.state)
        return self._hook

    def restart(self) -> None:
        """End the process, and begin another one."""
        self.hook.close()
        self._hook = None
        self.rig.restart()

    def sync(self) -> list[Lists]:
        """Sync, wait until no program runs, and return what each run since the last call was told."""
        outcome, _ = self.rig.sync()
        target = self.rig.cycle.target
        if target is not None and outcome.arrived is not None:
            self.hook.arrived("main", target, outcome.arrived, SERVERS)
        while (due_s := self.hook.due_s) < inf:
            select.select(self.hook.filenos(), [], [], max(0.0, due_s - SystemClock().monotonic_s()))
            self.hook.poll()
        return self._told()

    def _told(self) -> list[Lists]:
        """Return what the runs were told; lists that are empty are left out."""
        lines = self.copies.read_text().splitlines() if self.copies.exists() else []
        self.copies.unlink(missing_ok=True)
        documents: list[dict[str, Any]] = [json.loads(line) for line in lines[::3]]
        assert set(lines[1::3]) <= {"600"}
        assert set(lines[2::3]) <= {"$HOME|a b|/etc/of-the-test.toml|"}
        assert {document.pop("sandbox") for document in documents} <= {"main"}
        assert {document.pop("sandbox_id") for document in documents} <= {SANDBOX}
        assert all(document.pop("mcp_servers") == SERVERS for document in documents)
        self.sandbox_changed = [document.pop("sandbox_changed") for document in documents]
        return [{name: sorted(paths) for name, paths in each.items() if paths} for each in documents]

    def warnings(self) -> str:
        """Return the warnings in `status`."""
        return "\n".join(map(str, self.hook.warnings("main")))

    @property
    def state(self) -> Path:
        """The state folder."""
        return Path(directories_for(str(self.rig.workspace), self.rig.environ).state)


@pytest.fixture
def runs(bare: Rig) -> Iterator[Runs]:
    bare.use_defaults()
    for number in range(25):
        bare.write(f"stays/{number}", "1")
    bare.write("a", "1")
    bare.write("b", "1")
    runs = Runs(bare)
    yield runs
    runs.hook.close()


def test_it_ends_in_time(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute at most; its children too, though it does not listen to SIGTERM."""
    assert synced_hook.TIMEOUT_S == 60
    monkeypatch.setattr(synced_hook, "TIMEOUT_S", 0.3)
    pid = runs.rig.folder / "pid"
    runs.does(f'trap "" TERM; sleep 600 & echo $! >"{pid}"; while :; do wait; sleep 1; done')
    runs.sync()
    assert "took longer than 0 s and was ended" in runs.warnings()
    assert _ends(int(pid.read_text()))


def test_its_output_is_logged(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    """Line by line, without a server's URL, the last of it; a process that it leaves running stays."""
    caplog.set_level("INFO", "syncd.hook")
    pid = runs.rig.folder / "pid"
    left = f'sleep 600 & echo $! >"{pid}"'
    runs.does(f'cat "$SYNCD_CHANGES"; printf "\\033[31mred\\n"; {left}; printf "no end"; echo loud >&2')
    runs.sync()
    said = "\n".join(caplog.messages)
    assert "https://host/git" not in said
    assert "[URL of git]" in said
    assert "on_synced: \\x1b[31mred\non_synced: no endloud" in said
    os.kill(int(pid.read_text()), signal.SIGKILL)
    caplog.clear()
    runs.does("head -c 3000000 /dev/zero | tr '\\0' x | fold -w 1000")
    runs.rig.write("a", "2")
    runs.sync()
    assert (sum(map(len, caplog.messages)) < 20_000, runs.warnings()) == (True, "")


def test_changes_that_cannot_be_written(runs: Runs) -> None:
    """Nothing is run; the next run is told of them too."""
    runs.sync()
    blocker = runs.state / "synced-changes.json.new"
    blocker.mkdir()
    runs.rig.write("a", "2")
    assert runs.sync() == []
    assert "is not run, as its file cannot be written (Is a directory)" in runs.warnings()
    blocker.rmdir()
    runs.rig.write("b", "2")
    assert runs.sync() == [{"changed": ["a", "b"]}]
    assert runs.warnings() == ""


def test_it_is_told_of_each_sandbox_once(runs: Runs) -> None:
    """Until a run has succeeded there, also over restarts; a damaged record tells it once more."""
    runs.does("exit 1")
    seen = []
    for number in range(6):
        runs.rig.write("a", f"{number}")
        runs.sync()
        seen += runs.sandbox_changed
        if number == 1:
            runs.does("")
            runs.restart()
        if number == 3:
            runs.restart()
        if number == 4:
            (runs.state / "agent").write_bytes(b"rubbish")
            runs.restart()
    assert seen == [True, True, True, False, False, True]


def _ends(pid: int) -> bool:
    """True if it ends: a killed process takes a moment on a busy machine."""
    clock = SystemClock()
    ends_s = clock.monotonic_s() + 60
    while _is_alive(pid) and clock.monotonic_s() < ends_s:
        clock.sleep(0.01)
    return not _is_alive(pid)


def _is_alive(pid: int) -> bool:
    """True if it runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
