"""`syncd history`: its output for people and scripts, and what the daemon and a push record."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import timedelta
from typing import Any

import pytest

from syncd.core.clock import utc
from syncd.report.history import ArchiveRecord, ChangeCounts, ErrorRecord, PathRecord, SyncEnding, SyncRecord, encoded
from tests.system.command import SYNCD
from tests.system.rig import Rig
from tests.system.terminal import Terminal

# 2026-11-24T13:20:11Z
NOON = utc(1_795_526_411)


def records() -> list[SyncRecord]:
    """An afternoon, a night without a network, and a morning."""

    def record(hours: float, id_: str, why: str, outcome: str, **more: Any) -> SyncRecord:
        return SyncRecord(id=id_, at=NOON + timedelta(hours=hours), why=why, outcome=outcome, **more)

    def sent(path: str) -> tuple[ArchiveRecord, ...]:
        return (ArchiveRecord(NOON, "partial", (PathRecord("changed", path, 1, 7, "ab" * 32),)),)

    silence = ErrorRecord(
        "upload", "no answer from the bucket: the network may be down, or it wants a proxy: syncd check"
    )
    return [
        record(0, "aaaaaa", "start", SyncEnding.INITIALIZED, files=50_000, sent_bytes=690_000_000, seconds=312.5),
        record(
            1 / 60,
            "tq3k7a",
            "changes",
            SyncEnding.INITIALIZED,
            change=ChangeCounts(added=3, changed=2, removed=1),
            sent=sent("src/some/deep/module.py"),
            sent_bytes=5_123_456,
            seconds=0.84,
        ),
        record(9, "b2c4d6", "changes", SyncEnding.FAILED, sent_bytes=1_234, attempts=9, seconds=99.1, error=silence),
        record(
            11,
            "efghij",
            "another try after a failure",
            SyncEnding.INITIALIZED,
            change=ChangeCounts(changed=1),
            sent=sent("文書/計画/とても長い名前のファイル.txt"),
            sent_bytes=512,
            attempts=2,
            seconds=1.2,
            failures_before=116,
            error=silence,
        ),
        record(12, "ghijkl", "changes", SyncEnding.UNFINISHED, sent=sent("e\x1b[31m")),
    ]


TABLE = """\
Tue 2026-11-24
  14:20:11  aaaaaa  initialized  start, 658.0 MiB, 5 min, all 50,000 files
  14:21:11  tq3k7a  initialized  changes, 5,003 KiB, 0.84 s, +3 ~2 -1
            src/some/deep/module.py
! 23:20:11  b2c4d6  failed       changes, 1,234 bytes, 99.10 s, 9 attempts
            upload: no answer from the bucket: the network may be down, or it wants a
            proxy: syncd check
Wed 2026-11-25
  01:20:11  efghij  initialized  another try after a failure, 512 bytes, 1.20 s, 2
            attempts, after 116 failures, ~1 文書/計画/とても長い名前のファイル.txt
  02:20:11  ghijkl  unfinished   changes, 0.00 s
"""


@pytest.fixture
def written(rig: Rig) -> list[dict[str, Any]]:
    """The history that a daemon would have left, and its lines."""
    rig.state_folder.mkdir(parents=True)
    lines = b"".join(map(encoded, records()))
    (rig.state_folder / "history.jsonl").write_bytes(lines)
    rig.environ["TZ"] = "Europe/Berlin"
    return [json.loads(line) for line in lines.splitlines()]


def test_for_people(rig: Rig, written: list[dict[str, Any]]) -> None:
    """88 columns in local time where it is no terminal; on one red only where a sync failed, down to 60 columns."""
    assert rig.ok("history").out == TABLE
    assert [line[:9] for line in rig.ok("history", "--failed").out.splitlines()[1:]] == ["! 23:20:1", " " * 9, " " * 9]
    with_paths = rig.ok("history", "--paths", "1").out
    assert with_paths.splitlines()[-1] == r"~      7 bytes  abababababab  e\x1b[31m"
    terminal = Terminal(columns=60)
    terminal.start([*SYNCD, "history"], {**rig.environment(), "TERM": "xterm"}, rig.workspace)
    assert terminal.finish() == 0
    assert "failed       changes, 1,234 bytes, 99.10\n            s, 9 attempts" in terminal.text
    red = [letter.data for row in terminal.screen.buffer.values() for letter in row.values() if letter.fg == "red"]
    assert "".join(red).rstrip() == "!failed"
    rig.environ["PYTHONIOENCODING"] = "ascii"
    assert r"\u6587" in rig.ok("history").out


def test_for_scripts(rig: Rig, written: list[dict[str, Any]]) -> None:
    """`--json` prints the records; `-n` and `--failed` select among them, the newest last; a closed pipe is fine."""

    def printed(*args: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in rig.ok("history", "--json", *args).out.splitlines()]

    short = [{key: value for key, value in line.items() if key != "sent"} for line in written]
    assert printed() == short
    assert printed("-n", "2") == short[-2:]
    assert printed("--failed", "-n", "0") == [short[2]]
    assert printed("--paths", "2") == [written[3]]
    with open(rig.state_folder / "history.jsonl", "a") as file:
        file.writelines(json.dumps({**written[0], "id": f"{number}"}) + "\n" for number in range(1_000))
        file.write('{"torn')
    assert rig.ok("history").err == "syncd: 1 damaged line of the history skipped: nothing to do\n"
    script = '"$@" | head -n 1; exit "${PIPESTATUS[0]}"'
    command = ["bash", "-c", script, "bash", *SYNCD, "history", "--json", "-n", "0"]
    ended = subprocess.run(command, env=rig.environment(), cwd=rig.home, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout.count(b"\n"), ended.stderr.count(b"\n")) == (0, 1, 1)


def test_no_history(rig: Rig) -> None:
    """Without a record it says so, to people only, and makes no folder; something that is not a file is named."""
    finished = rig.ok("history")
    assert (finished.out, finished.err) == ("", "no sync of this workspace is recorded\n")
    assert not (rig.home / ".local").exists()
    rig.state_folder.mkdir(parents=True)
    os.mkfifo(rig.state_folder / "history.jsonl")
    finished = rig.run("history")
    assert (finished.code, finished.err.count("\n")) == (78, 1)
    assert "history.jsonl cannot be read (it is not a regular file)" in finished.err


def test_real_syncs(rig: Rig) -> None:
    """A daemon's day and a push without one: what was sent and why, each failure once, idle scans never."""
    rig.configure({"retry.first_delay_seconds": 0.05, "retry.give_up_after_seconds": 0.1, "sync.rescan_minutes": 1})
    rig.fill(5)
    daemon = rig.up()
    rig.write("folder0/new.txt")
    rig.until(lambda: rig.shown()["syncs"] == 2, "the second sync")
    rig.faults(*["upload: 503"] * 30)
    rig.write("folder0/new.txt", "changed\n")
    rig.until(lambda: rig.shown()["failures"] > 2, "failures in a row")
    rig.emulator.faults.clear()
    rig.until(lambda: rig.shown()["syncs"] == 3, "the third sync")
    rig.ok("push")
    os.utime(rig.workspace / "folder0/new.txt")
    rig.ok("flush")
    daemon.stop()
    (rig.workspace / "folder0/new.txt").unlink()
    rig.ok("push")
    first, second, failed, third, *asked = kept(rig)
    assert (first["why"], first["outcome"], first["files"]) == ("start", "initialized", 5)
    assert (first["sandbox"], first["sandbox_id"]) == ("main", "box")
    assert (second["why"], second["outcome"], second["attempts"]) == ("changes", "initialized", 1)
    assert (second["change"]["added"], _paths(second)) == (1, ["folder0/new.txt", None])
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
    read = rig.ok("history", "--json")
    assert (len(read.out.splitlines()), read.err) == (len(kept(rig)), "")
    assert (rig.state_folder / "history.jsonl").stat().st_mode & 0o777 == 0o600


def test_which_paths_left(rig: Rig) -> None:
    """`--paths` shows those of the last sync, the Nth last or one by its id."""
    rig.write("d/a.txt", "other\n")
    rig.ok("push")
    rig.write("n\udcff\n", "12345")
    rig.ok("push")
    rig.ok("push")  # sends nothing
    first, second, third = kept(rig)
    *_, archive, named, unnamed = rig.ok("history", "--paths").out.splitlines()
    assert archive.endswith("whole archive of 3 paths, 11 bytes, to box")
    assert named == r"+      5 bytes  5994471abb01  n\xff\n"
    assert unnamed == "       6 bytes                (2 paths without a name here)"
    assert rig.ok("history", "--paths", second["id"]).out == rig.ok("history", "--paths", "1").out
    shown = [json.loads(line) for line in rig.ok("history", "--json", "--paths", "0").out.splitlines()]
    assert [(sync["id"], _paths(sync)) for sync in shown] == [
        (first["id"], ["d", "d/a.txt"]),
        (second["id"], ["n\udcff\n", None]),
    ]
    assert "it sent nothing" in rig.ok("history", "--paths", third["id"]).err
    assert "no more than 2 syncs" in rig.ok("history", "--paths", "3").err
    unknown = rig.run("history", "--paths", "nosuch")
    assert (unknown.code, unknown.err.count("\n")) == (78, 1)
    assert rig.run("history", "--paths", "-n", "3").code == 2


def test_a_killed_sync(rig: Rig) -> None:
    """It is in the history, with the paths that were about to leave."""
    rig.write("a")
    killed = rig.once("upload", "mid-body", rig.kill)
    daemon = rig.start()
    assert killed.wait(60)
    daemon.wait()
    (sync,) = kept(rig)
    assert (sync["outcome"], _paths(sync)) == ("unfinished", ["a"])
    assert "unfinished" in rig.ok("history").out
    rig.ok("push")
    assert [sync["outcome"] for sync in kept(rig)] == ["unfinished", "initialized"]


def test_no_names_are_kept(rig: Rig) -> None:
    """With `sync.history_paths = false` the names of before go at the next start, and none are written."""
    rig.write("secret-name")
    rig.ok("push")
    assert "secret-name" in (rig.state_folder / "history.jsonl").read_text()
    rig.configure({"sync.history_paths": False})
    rig.write("secret-name", "again\n")
    rig.up().stop()
    first, second = kept(rig)
    assert (first["outcome"], second["outcome"], second["change"]["changed"]) == ("initialized", "initialized", 1)
    assert (_paths(first), _paths(second)) == ([], [None])
    assert "secret-name" not in (rig.state_folder / "history.jsonl").read_text()
    with open(rig.state_folder / "history.jsonl", "a") as damaged:
        damaged.write('{"torn secret-name\n')
    rig.start()
    rig.in_state("watching")
    rig.daemons[-1].stop()
    assert "secret-name" not in (rig.state_folder / "history.jsonl").read_text()


def _paths(sync: dict[str, Any]) -> list[str | None]:
    return [row["path"] for archive in sync["sent"] for row in archive["rows"]]


def kept(rig: Rig) -> list[dict[str, Any]]:
    """Return the syncs of the file, all archives in each."""
    found: dict[str, dict[str, Any]] = {}
    for line in (rig.state_folder / "history.jsonl").read_text().splitlines():
        sync = json.loads(line)
        before = found.get(sync["id"], {}).get("sent", [])
        found[sync["id"]] = {**sync, "sent": [*before, *sync["sent"]]}
    return list(found.values())


def test_an_id_may_be_short(rig: Rig) -> None:
    """The beginning of an id names its sync."""
    rig.write("a")
    rig.ok("push")
    (record,) = json.loads(f"[{rig.ok('history', '--json').out}]")
    short = record["id"][:-1]
    if not short.isdecimal():  # that is the Nth last
        assert rig.ok("history", "--paths", short).out == rig.ok("history", "--paths", record["id"]).out
