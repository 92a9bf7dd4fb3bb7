"""`syncd history`: its output for people and scripts, and what the daemon and a push record."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from syncd.core.clock import utc
from syncd.report.history import ChangeCounts, ErrorRecord, SyncEnding, SyncRecord, append
from syncd.store.state_db import StateDb
from tests.system.rig import Rig

# 2026-11-24T13:20:11Z
NOON = utc(1_795_526_411)


def records() -> list[SyncRecord]:
    """A sync in the afternoon, a night without a network, and another try."""

    def made(at: datetime, why: str, outcome: str, **more: Any) -> SyncRecord:
        return SyncRecord(at=at, why=why, outcome=outcome, **more)

    silence = ErrorRecord("upload", "no answer from Klavis: the network may be down, or it wants a proxy: syncd check")
    night, morning = NOON + timedelta(hours=9), NOON + timedelta(hours=11)
    return [
        made(NOON, "start", SyncEnding.INITIALIZED, files=50_000, sent_bytes=690_000_000, seconds=312.5),
        made(night, "changes", SyncEnding.FAILED, attempts=9, seconds=99.1, error=silence),
        made(morning, "another try", SyncEnding.INITIALIZED, change=ChangeCounts(changed=1), failures_before=116),
    ]


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
    """In local time, below each day; on a terminal red only where a sync failed."""
    whole, cut = rig.ok("history").out, rig.ok("history", "-n", "1")
    assert re.findall(r"^(\w+ 2026\S+|[! ] [\d:]{8}  \w+)", whole, re.MULTILINE) == [
        *("Tue 2026-11-24", "  14:20:11  synced", "! 23:20:11  failed"),
        *("Wed 2026-11-25", "  01:20:11  synced"),
    ]
    for words in ("658.0 MiB, 5 min, all 50,000 files", "9 attempts", "upload: no answer", "after 116 failures, ~1"):
        assert words in whole
    assert cut.err == "the newest 1 of 3: `syncd history -n 0` lists all\n"
    with rig.terminal("history", TERM="xterm") as terminal:
        assert terminal.finish() == 0
    red = [letter.data for row in terminal.screen.buffer.values() for letter in row.values() if letter.fg == "red"]
    assert "".join(red).rstrip() == "!failed"
    add(rig, [SyncRecord(at=NOON, why="changes", outcome=SyncEnding.SUPERSEDED)])
    assert "  14:20:11  gave way     changes, " in rig.ok("history").out


def test_for_scripts(rig: Rig, written: list[dict[str, Any]]) -> None:
    """`--json` prints the records; `-n` and `--failed` select among them, the newest last."""

    def printed(*args: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in rig.ok("history", "--json", *args).out.splitlines()]

    assert printed() == written
    assert printed("-n", "2") == written[-2:]
    assert printed("--failed", "-n", "0") == [written[1]]
    add(rig, records() * 300)
    assert len(printed("-n", "0")) == 903
    assert len(printed()) == 20


def test_no_history(rig: Rig) -> None:
    """Without a record it says so, to people only, and makes no folder; a damaged row counts as missing."""
    finished = rig.ok("history")
    assert (finished.out, finished.err) == ("", "no sync of this workspace is recorded\n")
    assert not (rig.home / ".local").exists()
    add(rig, records())
    with sqlite3.connect(rig.state_folder / "state.db") as db:
        db.execute("UPDATE history SET checksum = 1 WHERE number < 3")
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
