"""`syncd history`: its output for people and scripts, and what the daemon and a push record."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import termios
from datetime import datetime, timedelta
from typing import Any

import pyte

from syncd.cli.history import table
from syncd.core.clock import utc
from syncd.report.history import ChangeCounts, ErrorRecord, SyncEnding, SyncRecord
from syncd.report.history_store import HistoryStore, encoded
from tests.system.command import SYNCD
from tests.system.rig import Rig

# 2026-11-24T13:20:11Z
NOON = utc(1_795_526_411)


def records() -> list[SyncRecord]:
    """An afternoon, a night without a network, and a morning."""

    def record(hours: float, why: str, outcome: str, **more: Any) -> SyncRecord:
        at = NOON + timedelta(hours=hours)
        return SyncRecord(at=at, began=at, why=why, outcome=outcome, **more)

    silence = ErrorRecord(
        "upload", "no answer from the bucket: the network may be down, or it wants a proxy: syncd check"
    )
    return [
        record(0, "start", SyncEnding.INITIALIZED, files=50_000, archive_bytes=690_000_000, attempts=1, seconds=312.5),
        record(
            1 / 60,
            "changes",
            SyncEnding.INITIALIZED,
            id="tq3k7a",
            change=ChangeCounts(added=3, changed=2, removed=1, first_added="src/some/deep/folder/with/module.py"),
            archive_bytes=5_123_456,
            attempts=1,
            seconds=0.84,
        ),
        record(9, "changes", SyncEnding.FAILED, id="b2c4d6", sent_bytes=1_234, attempts=9, seconds=99.1, error=silence),
        record(
            11,
            "another try after a failure",
            SyncEnding.INITIALIZED,
            id="efghij",
            change=ChangeCounts(changed=1, first_changed="文書/計画/とても長い名前のファイル.txt"),
            archive_bytes=512,
            attempts=2,
            seconds=1.2,
            failures_before=116,
            error=silence,
        ),
        record(11, "asked for", SyncEnding.UNCHANGED, files=812, seconds=0.01),
        record(
            12,
            "a periodic look",
            SyncEnding.INITIALIZED,
            change=ChangeCounts(added=50_000, changed=1_000, removed=12_345, first_added="a"),
            archive_bytes=9_512_000_000,
        ),
        record(12, "changes", SyncEnding.SUPERSEDED, sent_bytes=99_000, attempts=1, seconds=1.2),
    ]


TABLE = """\
  time      id      why        changed                        size     took  outcome
Tue 2026-11-24
  14:20:11          start      all 50,000 files          658.0 MiB    5 min  initialized
  14:21:11  tq3k7a  changes    +3 ~2 -1  …h/module.py    5,003 KiB   0.84 s  initialized
! 23:20:11  b2c4d6  changes                            1,234 bytes  99.10 s  failed
            upload: no answer from the bucket: the network may be down, or it wants a
            proxy: syncd check
            9 attempts
Wed 2026-11-25
  01:20:11  efghij  retry      ~1  …前のファイル.txt     512 bytes   1.20 s  initialized
            after 116 failures, 2 attempts
  01:20:11          asked for                                        0.01 s  unchanged
  02:20:11          rescan     +50,000 ~1,000 -12,345  9,071.4 MiB   0.00 s  initialized
  02:20:11          changes                                 97 KiB   1.20 s  superseded
"""


def written(rig: Rig) -> HistoryStore:
    """The history that a daemon would have left."""
    rig.state_folder.mkdir(parents=True)
    file = HistoryStore(str(rig.state_folder))
    for record in records():
        file.append(record)
    return file


def on_a_terminal(rig: Rig, **environ: str) -> pyte.Screen:
    """Return the screen of `syncd history` on a terminal of 88 columns."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 88, 0, 0))
    with subprocess.Popen(
        [*SYNCD, "history"], env={**rig.environment(), **environ}, stdin=its, stdout=its, stderr=its, cwd=rig.home
    ) as process:
        os.close(its)
        screen = pyte.Screen(88, 40)
        stream = pyte.ByteStream(screen)
        while piece := _read(ours):
            stream.feed(piece)
    os.close(ours)
    assert process.returncode == 0
    return screen


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # the other end is closed
        return b""


def coloured(screen: pyte.Screen) -> set[str]:
    """Return the coloured words with their colour's name."""
    found = set()
    for row in screen.buffer.values():
        for colour in {row[column].fg for column in range(88)} - {"default"}:
            found.add(f"{colour}: {''.join(row[column].data for column in range(88) if row[column].fg == colour)}")
    return found


def test_for_people(rig: Rig) -> None:
    """A table of 88 columns in local time, red only where a sync failed; the same words without colour."""
    written(rig)
    rig.environ["TZ"] = "Europe/Berlin"
    assert rig.ok("history").out == TABLE
    screen = on_a_terminal(rig, TERM="xterm")
    assert "".join(line.rstrip() + "\n" for line in screen.display).rstrip() == TABLE.rstrip()
    assert coloured(screen) == {"red: ! failed"}
    assert coloured(on_a_terminal(rig, TERM="xterm", NO_COLOR="1")) == set()
    rig.environ["PYTHONIOENCODING"] = "ascii"
    assert "~1  ..." in rig.ok("history").out


def test_a_narrow_terminal() -> None:
    """Where the numbers of a large change have no room, their sum has."""
    lines = ["".join(text for text, _ in line) for line in table(records(), 80)]
    assert max(len(line) for line in lines) <= 80
    assert any("  63,345 paths    9,071.4 MiB" in line for line in lines)


def test_for_scripts(rig: Rig) -> None:
    """`--json` prints the lines of the file; `-n` and `--failed` select among them, the newest last."""
    file = written(rig)
    lines = [encoded(record).decode() for record in records()]
    assert rig.ok("history", "--json").out.splitlines() == lines
    assert rig.ok("history", "--json", "-n", "2").out.splitlines() == lines[-2:]
    assert rig.ok("history", "--json", "--failed", "-n", "0").out.splitlines() == [lines[2]]
    with open(file.path, "a") as damaged:
        damaged.write('{"torn')
    finished = rig.ok("history", "--json")
    assert (finished.out.splitlines(), finished.err.count("damaged")) == (lines, 1)
    for _ in range(500):  # more than fits into a pipe
        file.append(records()[0])
    script = '"$@" | head -n 1; exit "${PIPESTATUS[0]}"'
    command = ["bash", "-c", script, "bash", *SYNCD, "history", "--json", "-n", "0"]
    ended = subprocess.run(command, env=rig.environment(), cwd=rig.home, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout.count(b"\n"), ended.stderr.count(b"\n")) == (0, 1, 1)


def test_no_history(rig: Rig) -> None:
    """Without a record it says so, to people only, and makes no folder; something that is not a file is named."""
    finished = rig.ok("history")
    assert (finished.out, finished.err) == ("", "no sync of this workspace is recorded yet: `syncd push` makes one\n")
    assert not (rig.home / ".local").exists()
    rig.state_folder.mkdir(parents=True)
    os.mkfifo(rig.state_folder / "history.jsonl")
    finished = rig.run("history")
    assert (finished.code, finished.err.count("\n")) == (78, 1)
    assert "history.jsonl cannot be read (it is not a file)" in finished.err


def test_real_syncs(rig: Rig) -> None:
    """A daemon's day and a push without one: what was sent and why, each failure once, idle scans never."""
    rig.configure({"retry.first_delay_seconds": 0.05, "retry.give_up_after_seconds": 0.1, "sync.rescan_minutes": 1})
    rig.fill(5)
    daemon = rig.up()
    rig.write("folder0/new.txt")
    rig.until(lambda: len(kept(rig)) == 2, "the second line")
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
    assert (first["why"], first["outcome"], first["files"], first["sandbox"]) == ("start", "initialized", 5, "box")
    assert (second["why"], second["outcome"], second["attempts"]) == ("changes", "initialized", 1)
    assert second["change"]["first_added"] == "folder0/new.txt"
    assert second["archive_bytes"] == second["sent_bytes"] > 0
    assert sum(second["stages"].values()) <= second["seconds"] + 0.01
    assert second["stages"]["uploading"] > 0
    assert (failed["outcome"], failed["error"]["step"], failed["change"]) == ("failed", "upload", None)
    assert (third["outcome"], third["change"]["changed"]) == ("initialized", 1)
    assert third["failures_before"] >= 1
    assert [(line["why"], line["outcome"]) for line in asked] == [
        ("asked for", "unchanged"),
        ("asked for", "unchanged"),
        ("asked for", "initialized"),
    ]
    assert asked[-1]["change"]["first_removed"] == "folder0/new.txt"
    assert (rig.state_folder / "history.jsonl").stat().st_mode & 0o777 == 0o600


PATHS = """\
{day}  sync {sync}  initialized
whole archive of 3 paths, 11 bytes, to the sandbox box
+      5 bytes  5994471abb01  n\\xff\\n
=      6 bytes                (2 paths without a name here)
"""


def test_which_paths_left(rig: Rig) -> None:
    """`--paths` shows those of the last sync, the Nth last or one by its id; `--json` prints a line for each."""
    rig.write("d/a.txt", "other\n")
    rig.ok("push")
    rig.write("n\udcff\n", "12345")
    rig.ok("push")
    rig.ok("push")  # sends nothing
    first, second, third = kept(rig)
    rig.environ["TZ"] = "UTC"
    lines = [json.loads(line) for line in rig.ok("history", "--paths", "0", "--json").out.splitlines()]
    assert [(line["sync"], line["change"], line["path"]) for line in lines] == [
        (first["id"], "added", "d"),
        (first["id"], "added", "d/a.txt"),
        (second["id"], "added", "n\udcff\n"),
        (second["id"], "unchanged", None),
    ]
    assert {(line["outcome"], line["archive"], line["sandbox"]) for line in lines} == {("initialized", "whole", "box")}
    day = f"{datetime.fromisoformat(lines[-1]['at']):%a %Y-%m-%d %H:%M:%S}"
    assert rig.ok("history", "--paths").out == PATHS.format(day=day, sync=second["id"])
    assert rig.ok("history", "--paths", second["id"]).out == rig.ok("history", "--paths", "1").out
    assert [json.loads(line) for line in rig.ok("history", "--json", "--paths", "2").out.splitlines()] == lines[:2]
    assert (rig.state_folder / "sent-paths.jsonl").stat().st_mode & 0o777 == 0o600
    assert "it sent nothing" in rig.ok("history", "--paths", third["id"]).err
    assert "no more than 2 syncs" in rig.ok("history", "--paths", "3").err
    unknown = rig.run("history", "--paths", "nosuch")
    assert (unknown.code, unknown.err.count("\n")) == (78, 1)
    assert rig.run("history", "--paths", "-n", "3").code == 2
    with open(rig.state_folder / "sent-paths.jsonl", "a") as damaged:
        damaged.write('{"torn')
    assert "1 damaged line" in rig.ok("history", "--paths").err


def test_no_names_are_kept(rig: Rig) -> None:
    """With `sync.history_paths = false` the names of before go at the next start, and none are written."""
    rig.ok("push", "--force")
    rig.write("secret-name")
    rig.ok("push")
    assert "secret-name" in (rig.state_folder / "history.jsonl").read_text()
    rig.configure({"sync.history_paths": False})
    rig.write("secret-name", "again\n")
    rig.up().stop()
    assert [record["outcome"] for record in kept(rig)] == ["initialized"] * 3
    assert kept(rig)[-1]["change"] == {
        "added": 0,
        "changed": 1,
        "removed": 0,
        "first_added": None,
        "first_changed": None,
        "first_removed": None,
    }
    assert "secret-name" not in (rig.state_folder / "history.jsonl").read_text()
    assert not (rig.state_folder / "sent-paths.jsonl").exists()
    finished = rig.ok("history", "--paths")
    assert (finished.out, finished.err) == ("", "no paths are kept, as sync.history_paths is false\n")


def kept(rig: Rig) -> list[dict[str, Any]]:
    """Return the file's records."""
    try:
        return [json.loads(line) for line in (rig.state_folder / "history.jsonl").read_text().splitlines()]
    except FileNotFoundError:
        return []
