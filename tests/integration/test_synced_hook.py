"""The program of `sync.on_synced` ends in time, is heard, and is told of each change and of each sandbox once."""

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
from syncd.core.settings import check_config
from syncd.model.manifest import Difference
from syncd.remote.target import Target
from syncd.sync import synced_hook
from syncd.sync.synced_hook import SyncedHook
from tests.system.command import wait_until

TARGET = Target("https://host", "box", "us")
SERVERS = {"git": "https://host/git"}


class Runs:
    """A program that keeps a copy of what each run was told, run in real time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.copies = folder / "runs"
        self.script = folder / "program"
        self.state = folder / "state"
        self.state.mkdir()
        self.does("")
        self.restart()

    def does(self, what: str) -> None:
        """Let the program do this after it kept what it was told."""
        copy = '{ cat "$SYNCD_CHANGES"; stat -c %a "$SYNCD_CHANGES"; echo "$1|$2|$SYNCD_CONFIG|$KLAVIS_API_KEY"; }'
        self.script.write_text(f'#!/bin/sh\n{copy} >>"{self.copies}"\n{what}\n')
        self.script.chmod(0o755)

    def restart(self) -> None:
        """Have the next runs be those of another process."""
        keys: dict[str, dict[str, Any]] = {
            "workspace": {"path": str(self.folder)},
            "sandbox": {"id": "box"},
            "sync": {"on_synced": [str(self.script), "$HOME", "a b"]},
        }
        self.hook = SyncedHook({"PATH": os.environ["PATH"], "KLAVIS_API_KEY": "sk-never"}, SystemClock())
        self.hook.configure(check_config(keys, "/etc/of-the-test.toml"), str(self.state))

    def after_a_sync(self, *changed: str) -> list[dict[str, Any]]:
        """Have these changes arrive, wait until no program runs, and return what each run was told."""
        self.copies.write_text("")
        self.hook.arrived("main", TARGET, Difference(changed=[*changed]), SERVERS)
        while (due_s := self.hook.due_s) < inf:
            select.select(self.hook.filenos(), [], [], max(0.0, due_s - SystemClock().monotonic_s()))
            self.hook.poll()
        lines = self.copies.read_text().splitlines()
        assert set(lines[1::3]) <= {"600"}
        assert set(lines[2::3]) <= {"$HOME|a b|/etc/of-the-test.toml|"}
        return [json.loads(line) for line in lines[::3]]

    def warnings(self) -> str:
        """Return the warnings in `status`."""
        return "\n".join(map(str, self.hook.warnings("main")))


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    runs = Runs(tmp_path)
    yield runs
    runs.hook.close()


def test_it_ends_in_time(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute at most; its children too, though it does not listen to SIGTERM."""
    assert synced_hook.TIMEOUT_S == 60
    monkeypatch.setattr(synced_hook, "TIMEOUT_S", 0.3)
    pid = runs.folder / "pid"
    runs.does(f'trap "" TERM; sleep 600 & echo $! >"{pid}"; while :; do wait; sleep 1; done')

    def began() -> str:
        runs.after_a_sync("a")
        assert "took longer than 0 s and was ended" in runs.warnings()
        return pid.read_text() if pid.exists() else ""  # a busy machine may have ended it before that

    wait_until(began, lambda: "a program that came so far")
    wait_until(lambda: not _is_alive(int(pid.read_text())), lambda: "the end of the child")


def test_its_output_is_logged(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    """Line by line, without a server's URL, the last of it; a process that it leaves running stays."""
    caplog.set_level("INFO", "syncd.hook")
    pid = runs.folder / "pid"
    left = f'sleep 600 & echo $! >"{pid}"'
    runs.does(f'cat "$SYNCD_CHANGES"; printf "\\033[31mred\\n"; {left}; printf "no end"; echo loud >&2')
    runs.after_a_sync("a")
    said = "\n".join(caplog.messages)
    assert "https://host/git" not in said
    assert "[URL of git]" in said
    assert "on_synced: \\x1b[31mred\non_synced: no endloud" in said
    os.kill(int(pid.read_text()), signal.SIGKILL)
    caplog.clear()
    runs.does("head -c 3000000 /dev/zero | tr '\\0' x | fold -w 1000")
    runs.after_a_sync("a")
    assert (sum(map(len, caplog.messages)) < 20_000, runs.warnings()) == (True, "")


def test_output_without_end(runs: Runs, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not fill the disk, and its last lines are logged all the same."""
    caplog.set_level("INFO", "syncd.hook")
    monkeypatch.setattr(synced_hook, "_DROP_EVERY_S", 0.05)
    dropped, poll = runs.folder / "dropped", runs.hook.poll

    def taken() -> int:
        run = runs.hook._run
        return 0 if run is None else os.fstat(run.output.fileno()).st_blocks * 512

    def polled() -> bool:
        before_bytes, has_ended = taken(), poll()
        if before_bytes > 1 << 24 and taken() < before_bytes:
            dropped.touch()
        return has_ended

    monkeypatch.setattr(runs.hook, "poll", polled)
    runs.does(f'head -c 30000000 /dev/zero; until [ -e "{dropped}" ]; do sleep 0.02; done; echo the end')
    runs.after_a_sync("a")
    assert dropped.exists()
    assert caplog.messages[-1] == "on_synced: the end"


def test_changes_that_cannot_be_written(runs: Runs) -> None:
    """Nothing is run; the next run is told of them too."""
    blocker = runs.state / "synced-changes.json.new"
    blocker.mkdir()
    assert runs.after_a_sync("a") == []
    assert "is not run, as its file cannot be written (Is a directory)" in runs.warnings()
    blocker.rmdir()
    (told,) = runs.after_a_sync("b")
    assert told["changed"] == ["a", "b"]
    assert (told["sandbox"], told["sandbox_id"], told["mcp_servers"]) == ("main", "box", SERVERS)
    assert runs.warnings() == ""


def test_it_is_told_of_each_sandbox_once(runs: Runs) -> None:
    """Until a run has succeeded there, also over restarts; a damaged record tells it once more."""
    runs.does("exit 1")
    seen = []
    for number in range(6):
        seen += [told["sandbox_changed"] for told in runs.after_a_sync("a")]
        if number == 1:
            runs.does("")
        if number == 4:
            (runs.state / "agent").write_bytes(b"rubbish")
        if number % 2:
            runs.restart()
    assert seen == [True, True, True, False, False, True]


def _is_alive(pid: int) -> bool:
    """True if it runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
