"""When a sandbox is set up, and what is shown of the output."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from syncd.model.entry import Entry, Kind
from syncd.model.manifest import Manifest
from syncd.sandbox.setup import _shown, brings_one_of
from syncd.sandbox.setup_rules import SetupRecord, SetupState, SetupStatus, begun, ended_with, setup_due, shown_command
from syncd.selection.selection import PathPatterns

NPM = ("npm", "ci")
BEGUN_AT = "2026-12-01T06:00:00Z"
RUNNING, DONE, FAILED = (
    SetupRecord(NPM, SetupStatus(state, BEGUN_AT, exit_code, seconds, "npm ci", why))
    for state, exit_code, seconds, why in (
        (SetupState.RUNNING, None, None, ""),
        (SetupState.DONE, 0, 1.0, ""),
        (SetupState.FAILED, 3, 2.5, "ended with 3"),
    )
)


@pytest.mark.parametrize(
    ("command", "last", "is_due"),
    [
        ((), DONE, False),
        (NPM, None, True),
        (NPM, DONE, False),
        (("npm ci",), DONE, True),
        (NPM, FAILED, False),
        (NPM, replace(DONE, is_due=True), True),
        (NPM, replace(FAILED, is_due=True), True),
        (NPM, RUNNING, False),
    ],
)
def test_when_it_is_due(command: tuple[str, ...], last: SetupRecord | None, is_due: bool) -> None:
    """Once for each command, and whenever what it depends on has changed; a failure waits for that."""
    assert setup_due(command, last) is is_due


def test_its_begin_and_its_end() -> None:
    """A reason is a failure; it keeps what was known at its begin."""
    assert begun(NPM, BEGUN_AT) == RUNNING
    assert RUNNING.ended("", 0, 1.04) == DONE
    assert RUNNING.ended("ended with 3", 3, 2.46) == FAILED
    assert replace(FAILED, is_due=True).ended("") == SetupRecord(
        NPM, SetupStatus(SetupState.DONE, BEGUN_AT, command="npm ci"), is_due=True
    )


def _file(content: str, mode: int = 0o644) -> Entry:
    return Entry(Kind.FILE, mode=mode, size_bytes=len(content), digest=content.encode().ljust(32, b"."))


BASE = Manifest({"d": Entry(Kind.DIRECTORY), "d/x.lock": _file("1"), "lock": _file("1"), "other": _file("1")})


@pytest.mark.parametrize(
    ("patterns", "changes", "brings"),
    [
        (["lock"], {"lock": _file("2")}, True),
        (["lock"], {"lock": None}, True),
        (["lock"], {"lock": Entry(Kind.SYMLINK, target="other")}, True),
        (["lock"], {"lock": _file("1", 0o755)}, True),
        (["lock"], {"lock": replace(_file("1"), mtime_s=9)}, False),
        (["lock"], {"other": _file("2")}, False),
        (["*.lock"], {"d/x.lock": None}, True),
        (["/x.lock"], {"d/x.lock": None}, False),
        (["d/"], {"d/new": _file("2")}, True),
        (["*", "!other"], {"other": _file("2")}, False),
        ([], {"lock": _file("2")}, False),
    ],
)
def test_what_it_depends_on(patterns: list[str], changes: dict[str, Entry | None], brings: bool) -> None:
    """Another content, kind or mode of a path that matches, or its removal; neither its time nor another path."""
    now = Manifest({path: entry for path, entry in {**BASE, **changes}.items() if entry is not None})
    assert brings_one_of(PathPatterns(patterns), BASE, now) is brings


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("plain\ttext", "plain\ttext"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("10 %\r50 %\r100 %\r", "100 %"),
        ("\x1b]0;title\x07x\x1b]8;;http://a\x1b\\y", "xy"),
        ("bell\x07 \x9b31m", "bell\\x07 \\x9b31m"),
    ],
)
def test_what_a_terminal_would_obey_is_not_shown(line: str, shown: str) -> None:
    """Colours and movements are dropped, what was drawn over too; any other control character is escaped."""
    assert _shown(line) == shown


def test_a_command_in_one_line() -> None:
    """It is as a shell takes it, on one line, cut."""
    assert shown_command(("sh", "-c", "a && b\nc")) == "sh -c 'a && b c'"
    assert len(shown_command(("x" * 100,))) == 60


def test_one_that_empties_the_sandbox() -> None:
    """It failed, by its own report, or as a look saw while it ran; but one that was ended may be gone with the rest."""
    killed = RUNNING.ended("was ended by the service after 7 s")
    emptied = replace(RUNNING, has_emptied=True)
    for running, ended in ((RUNNING, replace(DONE, has_emptied=True)), (emptied, DONE), (emptied, FAILED)):
        record = ended_with(running, ended)
        assert (record.status.state, record.has_emptied, record.is_due) == (SetupState.FAILED, True, False)
        assert record.status.why == "removed nearly all that was sent"
        assert (record.status.exit_code, record.status.seconds) == (ended.status.exit_code, ended.status.seconds)
        assert ended_with(replace(running, is_due=True), ended).is_due
    assert ended_with(emptied, killed) == replace(killed, is_due=True)
    for ended in (DONE, FAILED, killed):
        assert ended_with(RUNNING, ended) == ended
        assert ended_with(replace(RUNNING, is_due=True), ended).is_due
