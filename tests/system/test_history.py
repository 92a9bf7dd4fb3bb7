"""`syncd history`: its output for people and scripts, and what the daemon and a push record."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections.abc import Iterable
from contextlib import closing
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from syncd.core.clock import utc
from syncd.report.history import ChangeCounts, ErrorRecord, SyncEnding, SyncRecord, append
from syncd.store.state_db import StateDb
from tests.system.command import SYNCD
from tests.system.rig import Rig

# 2026-11-24T13:20:11Z
NOON = utc(1_795_526_411)


def records() -> list[SyncRecord]:
    """An afternoon, a night without a network, and a morning."""

    def record(hours: float, why: str, outcome: str, **more: Any) -> SyncRecord:
        return SyncRecord(at=NOON + timedelta(hours=hours), why=why, outcome=outcome, **more)

    silence = ErrorRecord("upload", "no answer from Klavis: the network may be down, or it wants a proxy: syncd check")
    return [
        record(0, "start", SyncEnding.INITIALIZED, files=50_000, sent_bytes=690_000_000, seconds=312.5),
        record(
            1 / 60,
            "changes",
            SyncEnding.INITIALIZED,
            change=ChangeCounts(added=3, changed=2, removed=1),
            sandbox="blue",
            sandbox_id="box-2",
            sent_bytes=5_123_456,
            seconds=0.84,
        ),
        record(9, "changes", SyncEnding.FAILED, sent_bytes=1_234, attempts=9, seconds=99.1, error=silence),
        record(
            11,
            "another try after a failure",
            SyncEnding.INITIALIZED,
            change=ChangeCounts(changed=1),
            sent_bytes=512,
            attempts=2,
            seconds=1.2,
            failures_before=116,
            error=silence,
        ),
    ]


TABLE = """\
Tue 2026-11-24
  14:20:11  synced       start, 658.0 MiB, 5 min, all 50,000 files
  14:21:11  synced       blue, changes, 5,003 KiB, 0.84 s, +3 ~2 -1
! 23:20:11  failed       changes, 1,234 bytes, 99.10 s, 9 attempts
            upload: no answer from Klavis: the network may be down, or it wants a proxy:
            syncd check
Wed 2026-11-25
  01:20:11  synced       another try after a failure, 512 bytes, 1.20 s, 2 attempts,
            after 116 failures, ~1
"""


@pytest.fixture
def written(rig: Rig) -> list[dict[str, Any]]:
    """The history that a daemon would have left, as JSON."""
    add(rig, records())
    rig.environ["TZ"] = "Europe/Berlin"
    return [msgspec.to_builtins(record) for record in records()]


def add(rig: Rig, found: Iterable[SyncRecord]) -> None:
    rig.state_folder.mkdir(parents=True, exist_ok=True)
    with closing(StateDb(str(rig.state_folder))) as db, db.transaction():
        for record in found:
            append(db, record)


def test_for_people(rig: Rig, written: list[dict[str, Any]]) -> None:
    """88 columns in local time where it is no terminal; on one red only where a sync failed, down to 60 columns."""
    whole, cut = rig.ok("history"), rig.ok("history", "-n", "1")
    assert (whole.out, whole.err) == (TABLE, "")
    assert cut.err == "the newest 1 of 4: `syncd history -n 0` lists all\n"
    assert [line[:9] for line in rig.ok("history", "--failed").out.splitlines()[1:]] == ["! 23:20:1", " " * 9, " " * 9]
    with rig.terminal("history", columns=60, TERM="xterm") as terminal:
        assert terminal.finish() == 0
    assert "failed       changes, 1,234 bytes, 99.10 s, 9\n            attempts" in terminal.text
    red = [letter.data for row in terminal.screen.buffer.values() for letter in row.values() if letter.fg == "red"]
    assert "".join(red).rstrip() == "!failed"


def test_for_scripts(rig: Rig, written: list[dict[str, Any]]) -> None:
    """`--json` prints the records; `-n` and `--failed` select among them, the newest last; a closed pipe is fine."""

    def printed(*args: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in rig.ok("history", "--json", *args).out.splitlines()]

    assert printed() == written
    assert printed("-n", "2") == written[-2:]
    assert printed("--failed", "-n", "0") == [written[2]]
    add(rig, records() * 250)
    assert len(printed("-n", "0")) == 1004
    assert len(printed()) == 20
    script = '"$@" | head -n 1; exit "${PIPESTATUS[0]}"'
    command = ["bash", "-c", script, "bash", *SYNCD, "history", "--json", "-n", "0"]
    ended = subprocess.run(command, env=rig.environment(), cwd=rig.home, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout.count(b"\n"), ended.stderr) == (0, 1, b"")


def test_no_history(rig: Rig) -> None:
    """Without a record it says so, to people only, and makes no folder; a damaged row counts as missing."""
    finished = rig.ok("history")
    assert (finished.out, finished.err) == ("", "no sync of this workspace is recorded\n")
    assert not (rig.home / ".local").exists()
    add(rig, records())
    with sqlite3.connect(rig.state_folder / "state.db") as db:
        db.execute("UPDATE history SET checksum = 1 WHERE number < 4")
    assert len(rig.ok("history", "--json").out.splitlines()) == 1


def test_real_syncs(rig: Rig) -> None:
    """A daemon's day and a push without one: what was sent and why, each failure once, idle scans never."""
    rig.configure({"retry.first_delay_seconds": 0.05, "retry.give_up_after_seconds": 0.1, "sync.rescan_minutes": 1})
    rig.fill(5)
    daemon = rig.up()
    rig.write("folder0/new.txt")
    rig.until(lambda: rig.shown()["syncs"] == 2, "the second sync")
    rig.faults(*["upload: 503"] * 30)
    rig.write("folder0/new.txt", "changed\n")
    rig.until(lambda: rig.shown()["failures"] > 8, "failures in a row")
    rig.emulator.faults.clear()
    rig.until(lambda: rig.shown()["syncs"] == 3, "the third sync")
    rig.ok("push")
    os.utime(rig.workspace / "folder0/new.txt")
    rig.ok("flush")
    daemon.stop()
    (rig.workspace / "folder0/new.txt").unlink()
    rig.ok("push")
    first, second, failed, third, *asked = [json.loads(line) for line in rig.ok("history", "--json").out.splitlines()]
    assert (first["why"], first["outcome"], first["files"]) == ("start", "initialized", 5)
    assert (first["sandbox"], first["sandbox_id"]) == ("main", "box")
    assert (second["why"], second["outcome"], second["attempts"]) == ("changes", "initialized", 1)
    assert second["change"]["added"] == 1
    assert second["sent_bytes"] > 0
    assert (failed["outcome"], failed["error"]["step"], failed["change"]) == ("failed", "upload", None)
    assert (third["outcome"], third["change"]["changed"]) == ("initialized", 1)
    assert third["failures_before"] >= 2
    assert [(line["why"], line["outcome"]) for line in asked] == [
        ("asked for", "unchanged"),
        ("asked for", "unchanged"),
        ("asked for", "initialized"),
    ]
    assert asked[-1]["change"]["removed"] == 0  # with deletions = "keep"
