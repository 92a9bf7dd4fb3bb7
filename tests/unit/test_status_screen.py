"""Each screen of `syncd status` at a fixed time; none is wider than its terminal."""

from __future__ import annotations

import re
from textwrap import dedent
from typing import Any

import click
import pytest
from msgspec import structs

from syncd import __version__
from syncd.cli.output import Tone, bar, styled
from syncd.cli.status.screen import StatusContext, WorkspaceRow, screen, table
from syncd.core.text import ago, countdown, duration, split_remedy
from syncd.remote.target import Target
from syncd.sandbox.setup_rules import SetupState, SetupStatus
from syncd.sync.status_document import AgentStatus, LastError, LastSync, Progress, SandboxStatus, State, Status
from tests.clock import NOON_S

NOTHING = Status(
    running=False,
    pid=None,
    workspace="/home/dev/code",
    sandboxes=(
        SandboxStatus(name="main", id="box", base_url="https://api.klavis.ai", region="us", state=State.STOPPED),
    ),
)


def replace(value: Any, **changes: Any) -> Any:
    """The value with these changes; those of a status may be changes of its sandbox."""
    if isinstance(value, Status):
        own = {name: changes.pop(name) for name in SandboxStatus.__struct_fields__ if name in changes}
        changes["sandboxes"] = (structs.replace(value.main, **own),)
    return structs.replace(value, **changes)


WATCHING = replace(
    NOTHING,
    running=True,
    pid=4242,
    state=State.WATCHING,
    syncs=12,
    last_sync=LastSync("2026-11-24T13:20:01Z", 812, 5_123_456, "ab", 0.84),
    state_since="2026-11-24T13:18:11Z",
    started_at="2026-11-24T12:00:00Z",
    daemon_version=__version__,
    responding=True,
    uploaded_bytes=61_000_000,
    left_out={"secrets": 2, "built-in": 1100, ".gitignore": 102},
    sandbox_expires_at="2026-11-24T15:20:11Z",
)
MISSING = LastError("2026-11-24T13:20:09Z", "watch", "the workspace '/a: b' is missing: bring it back")
BUSY = LastError("2026-11-24T13:20:09Z", "upload", "Klavis' storage answered 503")
LIMIT = "31 directories cannot be watched: all 8,192 watches of this user are taken: sudo sysctl fs.inotify.max=9"
BESIDE = StatusContext(NOON_S - 300)

# Bold, and four of the eight colours that are seen on light and on dark; 0 ends them.
SHADES = {"0", "1", "31", "32", "33", "36"}

REST = """
  workspace   /home/dev/code
  sandbox     box at https://api.klavis.ai, region us; ends in 2 h
  last sync   10 s ago: 5,003 KiB sent, 812 files in all, took 0.84 s
  excluded    1,204 paths: built-in 1,100, .gitignore 102, secrets 2; see
              `syncd ls --excluded`
  this run    process 4242 for 1 h 20 min: 12 syncs, 0 failures, 58.2 MiB sent"""


def shown(status: Status) -> str:
    """Return the screen as a pipe gets it."""
    return "\n".join(click.unstyle(line) for line in screen(status, BESIDE, NOON_S, 79))


def test_an_agent_that_is_not_followed() -> None:
    """It says how old the last look is, also if nothing is known to be changed; else only beside what is changed."""
    looked = AgentStatus(looked_at="2026-11-24T13:15:11Z")
    assert "  agent       last look 5 min ago" in shown(replace(WATCHING, agent=looked))
    changed = replace(looked, changed=2)
    assert "`syncd diff`; last look 5 min ago" in " ".join(shown(replace(WATCHING, agent=changed)).split())
    followed = replace(changed, followed_at="2026-11-24T13:15:11Z")
    assert "; last look 5 min ago" in " ".join(shown(replace(WATCHING, agent=followed)).split())
    assert "look" not in shown(replace(WATCHING, agent=replace(followed, changed=0)))


def test_in_sync() -> None:
    """The state is the first line, and a row that does not apply is left out."""
    assert shown(WATCHING) == "● in sync\n" + REST


def test_warnings() -> None:
    """Each has its remedy below it, a path is wrapped at the line's end, and many are counted."""
    long = f"'{'deep/' * 20}' is too deep: make it shorter"
    screen_text = shown(replace(WATCHING, warnings=(LIMIT, long, "'a: b' is not sent", "four", "five")))
    assert screen_text.startswith("● in sync, with 5 warnings\n")
    assert screen_text.split("58.2 MiB sent\n")[1] == dedent("""\
        ! warning     31 directories cannot be watched: all 8,192 watches of this user
                      are taken
                        sudo sysctl fs.inotify.max=9
        ! warning     'deep/deep/deep/deep/deep/deep/deep/deep/deep/deep/deep/deep/deep
                      /deep/deep/deep/deep/deep/deep/deep/' is too deep
                        make it shorter
        ! warning     'a: b' is not sent
                      and 2 more: `syncd status --json` has all""")


RETRYING = replace(WATCHING, state=State.RETRYING, last_error=BUSY, failures_in_row=5, retry_at="2026-11-24T13:20:20Z")
UPLOADING = replace(WATCHING, state=State.UPLOADING)


@pytest.mark.parametrize(
    ("status", "lines"),
    [
        (replace(WATCHING, pending=True), "not all changes are in the sandbox yet"),
        (replace(WATCHING, state=State.DEBOUNCING), "changes seen: waiting until the workspace is quiet"),
        (
            replace(WATCHING, state=State.SNAPSHOTTING, progress=Progress(1000, 4000, 3, 1200, None, 3725)),
            "packing\n  ━━━━────────────   25%  1:02:05 left  1,000 bytes of 4,000 bytes",
        ),
        (replace(UPLOADING, progress=Progress(0, 0)), "uploading"),
        (
            replace(UPLOADING, progress=Progress(9, 6)),
            f"uploading\n  {'━' * 25}  100%               9 bytes of 6 bytes",
        ),
        (replace(WATCHING, state=State.INITIALIZING), "unpacking for 2 min"),
        (RETRYING, "retrying: attempt 6 in 9 s"),
        (replace(RETRYING, retry_at="2026-11-24T13:20:11Z"), "retrying: attempt 6 now"),
        (replace(WATCHING, state=State.PAUSED), "paused for 2 min\n  go on: `syncd resume`"),
        (
            replace(WATCHING, state=State.HELD, last_error=MISSING),
            "held for 2 min: the workspace '/a: b' is missing\n  bring it back",
        ),
        (replace(WATCHING, state=State.HELD, state_since="?"), "held: see the log"),
    ],
)
def test_the_first_line_of_a_daemon(status: Status, lines: str) -> None:
    """Each state is shown in words, with its progress, reason and remedy if known."""
    assert shown(status).split("\n\n")[0] == f"● {lines}"


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("width", [40, 60, 79])
def test_it_fits(state: State, width: int) -> None:
    """No line is wider than the terminal, in any state; the words do not depend on colour."""
    status = replace(
        WATCHING,
        state=state,
        running=state is not State.STOPPED,
        workspace="/home/dev/" + "long-name/" * 30,
        last_error=LastError("never", "step-of-tomorrow", "x" * 500 + ": y"),
        progress=Progress(1, 3, 2, 4, 5.0, 6.0),
        warnings=("é" * 200, LIMIT) * 3,
        daemon_version="9",
    )
    for line in screen(status, BESIDE, NOON_S, width):
        assert len(click.unstyle(line)) <= width
        assert set(re.findall(r"\d+", "".join(re.findall(r"\x1b\[[\d;]+m", line)))) <= SHADES


@pytest.mark.parametrize(
    ("seconds", "long", "since", "clock"),
    [
        (-5, "0 s", "just now", "0:00"),
        (1.9, "1 s", "just now", "0:02"),
        (2, "2 s", "2 s ago", "0:02"),
        (119, "119 s", "119 s ago", "1:59"),
        (120, "2 min", "2 min ago", "2:00"),
        (3600, "1 h", "1 h ago", "1:00:00"),
        (4320, "1 h 12 min", "1 h 12 min ago", "1:12:00"),
        (86_400, "1 day", "1 day ago", "24:00:00"),
        (200_000, "2 days", "2 days ago", "55:33:20"),
    ],
)
def test_times_in_words(seconds: float, long: str, since: str, clock: str) -> None:
    """A duration has one or two units."""
    assert (duration(seconds), ago(seconds), countdown(seconds)) == (long, since, clock)


@pytest.mark.parametrize(
    ("message", "what", "remedy"),
    [
        ("a: b: c", "a: b", "c"),
        ("no remedy", "no remedy", ""),
        ("'x: y' stays", "'x: y' stays", ""),
        ("run `a: b`", "run `a: b`", ""),
        ('"x: y" stays', '"x: y" stays', ""),
        ("`a: b` stays, `c: d` too: e", "`a: b` stays, `c: d` too", "e"),
        ('"a: b" stays, "c: d" too: e', '"a: b" stays, "c: d" too', "e"),
        ("'a: b' stays, 'c: d' too: e", "'a: b' stays, 'c: d' too", "e"),
    ],
)
def test_a_message_is_split_into_error_and_remedy(message: str, what: str, remedy: str) -> None:
    """The remedy follows the last colon outside of quotes."""
    assert split_remedy(message) == (what, remedy)


# -- `status --all`

HELD = replace(WATCHING, state=State.HELD, pending=True, agent=AgentStatus(held=("a", "b"), held_count=2, changed=3))
ROWS = (
    WorkspaceRow("/c/config.toml", "config", WATCHING),
    WorkspaceRow("/c/site.toml", "site", replace(NOTHING, workspace="/home/dev/web/site")),
    WorkspaceRow("/c/held.toml", "held", replace(HELD, workspace="/srv/文字")),
    WorkspaceRow("/c/bad.toml", "bad", None, "/c/bad.toml is not valid TOML: line 1"),
)
TABLE = """
  NAME    STATE              LAST SYNC  WAITING                           WORKSPACE
● config  watching, in sync  10 s ago   -                                 ~/code
● site    not running        never      -                                 ~/web/site
● held    held for 2 min     10 s ago   changes, 2 held, 3 changed there  /srv/文字
● bad     broken                                                          /c/bad.toml
! /c/bad.toml is not valid TOML: line 1"""


@pytest.mark.parametrize("width", [40, 60, 79, 100])
def test_no_line_of_the_table_is_too_wide(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line's end gives way; a problem is wrapped."""
    monkeypatch.setenv("HOME", "/home/dev")
    lines = [click.unstyle(line) for line in table(ROWS, NOON_S, width)]
    assert max(map(len, lines)) <= width
    assert all(name in line for name, line in zip(("config", "site", "held", "bad"), lines[1:], strict=False))
    assert " ".join(" ".join(lines[5:]).split()) == "! /c/bad.toml is not valid TOML: line 1"
    if width == 100:
        assert "\n".join(("", *lines)) == TABLE


@pytest.mark.parametrize(
    ("status", "tone"),
    [
        (WATCHING, Tone.GOOD),
        (replace(WATCHING, warnings=("x",)), Tone.ATTENTION),
        (replace(WATCHING, pending=True), Tone.BUSY),
        (replace(WATCHING, state=State.PAUSED), Tone.ATTENTION),
        (replace(WATCHING, responding=False), Tone.BAD),
        (HELD, Tone.BAD),
        (NOTHING, Tone.ATTENTION),
        (None, Tone.BAD),
    ],
)
def test_the_mark_shows_how_it_is(status: Status | None, tone: Tone) -> None:
    """The colour is that of the state."""
    line = table([WorkspaceRow("/c/a.toml", "a", status)], NOON_S)[1]
    assert line.startswith(styled("● ", tone))


# -- progress


MIB_BYTES = 1 << 20
PACKED = Progress(431 * MIB_BYTES, 690 * MIB_BYTES, 31_200, 50_000, 85.3 * MIB_BYTES, 3.04)
UPLOADED = Progress(128 * MIB_BYTES, 206 * MIB_BYTES, bytes_per_second=14.13 * MIB_BYTES, seconds_left=18.9)


@pytest.mark.parametrize(
    ("progress", "width", "shown"),
    [
        (
            PACKED,
            99,
            "━━━━━━━━━━━━━────────   62%  0:03 left  431.0 MiB of 690.0 MiB   85.3 MiB/s  31,200 of 50,000 files",
        ),
        (PACKED, 60, "━━━───   62%  0:03 left  431.0 MiB of 690.0 MiB   85.3 MiB/s"),
        (UPLOADED, 68, "━━━━━━━━──────   62%  0:19 left  128.0 MiB of 206.0 MiB   14.1 MiB/s"),
        (UPLOADED, 12, "━━━───   62%"),
        (UPLOADED, 9, "━━━━━────"),
    ],
)
def test_what_a_bar_shows(progress: Progress, width: int, shown: str) -> None:
    """Share, time left, bytes, speed and files, as many of them as fit, and a bar for the rest of the width."""
    assert click.unstyle(bar(progress, width)) == shown


# -- the document


def test_the_speed_of_a_stage() -> None:
    """None in its first second; then what is left at that speed, if it has one."""
    begun = Progress(50, 200)
    assert (begun.is_upload, Progress(1, 2, 3, 4).is_upload) == (True, False)
    assert begun.after(0.5) is begun
    assert (begun.after(2.0).bytes_per_second, begun.after(2.0).seconds_left) == (25.0, 6.0)
    assert (Progress(0, 200).after(2.0).bytes_per_second, Progress(0, 200).after(2.0).seconds_left) == (0.0, None)


def test_the_status_of_another_sandbox() -> None:
    """Its last sync and last error are not those of the one before; one that is to be acquired has no id yet."""
    box = replace(WATCHING, last_error=BUSY).main
    there, elsewhere = Target("https://api.klavis.ai", "box", "asia"), Target("https://api.klavis.ai", "new", "us")
    assert (box.at(there).last_error, box.at(there).region) == (BUSY, "asia")
    assert (box.at(elsewhere).last_sync, box.at(elsewhere).last_error, box.at(elsewhere).id) == (None, None, "new")
    assert replace(box, id="").at(elsewhere).last_error == BUSY
    assert [each.may_be(box) for each in (box, replace(box, id=""), box.at(elsewhere))] == [True, True, False]


def test_the_status_after_the_process() -> None:
    """Its plans ended with it, and a set-up that ran is none; when a killed one ended, nobody knows."""
    running = SetupStatus(SetupState.RUNNING)
    ended = replace(WATCHING, retry_at="2026-11-24T13:21:00Z", failures_in_row=3, setup=running).main.stopped()
    assert (ended.state, ended.state_since, ended.retry_at, ended.failures_in_row) == (State.STOPPED, None, None, 0)
    assert (ended.setup, ended.syncs) == (SetupStatus(), 12)
    again = replace(ended, state_since="2026-11-24T13:20:00Z", setup=SetupStatus(SetupState.FAILED)).stopped()
    assert (again.state_since, again.setup.state) == ("2026-11-24T13:20:00Z", SetupState.FAILED)


def test_the_document() -> None:
    """At its top is the whole's state, the most urgent one's retry, main's last sync; and all sandboxes follow."""
    blue = replace(WATCHING.main, name="blue", state=State.RETRYING, retry_at="2026-11-24T13:21:00Z", syncs=3)
    document = structs.replace(WATCHING, sandboxes=(WATCHING.main, blue)).document()
    assert document["sandbox"] == {"id": "box", "base_url": "https://api.klavis.ai", "region": "us"}
    top = [document[name] for name in ("version", "state", "retry_at", "syncs", "pending")]
    assert top == [1, "retrying", "2026-11-24T13:21:00Z", 15, False]
    assert (document["last_sync"]["files"], document["last_error"], document["warnings"]) == (812, None, ())
    assert [each["name"] for each in document["sandboxes"]] == ["main", "blue"]
