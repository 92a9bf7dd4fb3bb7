"""The rule of desktop notices: failing that lasts, once; and what the texts hold."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from msgspec.structs import replace

from syncd.report.notices import (
    NEEDED_AFTER_S,
    Told,
    Trouble,
    after_failure,
    agent_notice,
    due_s,
    in_sync_notice,
    trouble_notice,
)

AFTER_S = 900.0
ZONE = timezone(timedelta(hours=1))
SINCE = datetime(2026, 11, 24, 14, 5, tzinfo=ZONE)
FAILING = Trouble("no network", 100.0, 0.0, None)
NEEDED = Trouble("the key is refused", 100.0, 0.0, 400.0)


@pytest.mark.parametrize(
    ("trouble", "told", "after_s", "at_s"),
    [
        (FAILING, Told.NOTHING, AFTER_S, 1_000.0),
        (FAILING, Told.FAILING, AFTER_S, None),
        (FAILING, Told.NEEDED, AFTER_S, None),
        (NEEDED, Told.NOTHING, AFTER_S, 400.0 + NEEDED_AFTER_S),
        (NEEDED, Told.FAILING, AFTER_S, 400.0 + NEEDED_AFTER_S),
        (NEEDED, Told.NEEDED, AFTER_S, None),
        (NEEDED, Told.NOTHING, 5.0, 405.0),
    ],
)
def test_when_trouble_is_told(trouble: Trouble, told: Told, after_s: float, at_s: float | None) -> None:
    """Once it has lasted, and once; that a person is needed soon, and also after failing was told."""
    assert due_s(trouble, told, after_s) == at_s


def test_a_trouble_keeps_its_beginning() -> None:
    """Later failures change its words; whether a person is needed counts from the first that needs one."""
    first = after_failure(None, "no network", 10.0, 5_000.0, needs_person=False)
    later = after_failure(first, "the key is refused", 20.0, 5_010.0, needs_person=True)
    again = after_failure(later, "the key is refused", 30.0, 5_020.0, needs_person=True)
    passing = after_failure(again, "no network", 40.0, 5_030.0, needs_person=False)
    assert first == Trouble("no network", 10.0, 5_000.0, None)
    assert again == Trouble("the key is refused", 10.0, 5_000.0, 20.0)
    assert passing == first


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no answer from https://user:pw@api.example/put?X-Goog-Signature=ab: try later", "api.example try later"),
        ("a\nb\x1b[2Jc", "a"),
        ("Authorization: Bearer kl_live_secret", "Authorization"),
        ("x" * 5_000, "x" * 100),
    ],
)
def test_no_secret_and_no_control_character_is_shown(text: str, shown: str) -> None:
    """Of a URL only the host, one line, and never much."""
    body = trouble_notice(after_failure(None, text, 0, 0, needs_person=True), "work", SINCE, SINCE).body
    assert shown in body
    assert not any(bad in body for bad in ("://", "X-Goog", "pw", "kl_live", "\n", "\x1b"))
    assert len(body) < 500


@pytest.mark.parametrize(
    ("trouble", "now", "summary", "begins"),
    [
        (FAILING, SINCE, "work is not synced", "Since 14:05: no network\nIt goes on"),
        (FAILING, SINCE + timedelta(days=1), "work is not synced", "Since 2026-11-24 14:05: "),
        (NEEDED, SINCE, "work is not synced: you are needed", "Since 14:05: the key is refused"),
    ],
)
def test_the_notice_of_a_trouble(trouble: Trouble, now: datetime, summary: str, begins: str) -> None:
    """It says since when, with the date if that is another day, what is wrong, and if a person is needed."""
    notice = trouble_notice(trouble, "work", SINCE, now)
    assert notice.summary == summary
    assert notice.body.startswith(begins)
    assert ("goes on by itself" in notice.body) == (trouble.needed_since_s is None)


def test_the_other_notices() -> None:
    """Success, and what happened to the agent's work; what could not be saved comes first."""
    assert in_sync_notice("work").summary == "work is in sync again"
    one, two = agent_notice(1, "", "work"), agent_notice(2, "", "work")
    assert one.body.startswith("1 file of the agent was saved before it was overwritten.")
    assert two.body.startswith("2 files of the agent were saved before they were overwritten.")
    unsaved = agent_notice(2, "1 file could not be saved", "work")
    assert (unsaved.summary, unsaved.body.splitlines()[0]) == (
        "work: the agent's work is not saved",
        "1 file could not be saved",
    )
    assert replace(unsaved, body="") != replace(one, body="")
