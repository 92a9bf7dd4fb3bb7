"""Text is laid out in columns of a terminal: nothing is wider than it, and nothing moves without need."""

from __future__ import annotations

import click
import pytest
from msgspec.structs import replace

from syncd.cli.layout import ASCII, UNICODE, aligned, bar, columns, figures, wrapped
from syncd.sync.status_document import Progress

MIB = 1 << 20
PACKING = Progress(431 * MIB, 690 * MIB, 31_200, 50_000, 85.3 * MIB, 3.04)
UPLOADING = Progress(128 * MIB, 206 * MIB, bytes_per_second=14.13 * MIB, seconds_left=18.9)


@pytest.mark.parametrize(
    ("text", "width"), [("ab", 2), ("é…█", 3), ("e\u0301", 1), ("長い", 4), ("🙂", 2), ("\u200b", 0)]
)
def test_columns(text: str, width: int) -> None:
    """Letters of East Asia and emoji take two, what is drawn on another letter none."""
    assert columns(text) == width


def test_a_command_stays_on_its_line() -> None:
    """A command to copy is not wrapped, unless it is longer than a line."""
    assert wrapped("run `syncd status --json` now", 24, "", 0) == ["run", "`syncd status --json`", "now"]
    assert wrapped("`aaa bbb ccc ddd`", 8, "", 0) == ["`aaa bbb", "ccc ddd`"]


def test_blanks_stay() -> None:
    """Blanks that align columns are kept, also the first ones."""
    assert wrapped(" 5%   1 KiB  /a", 79, "- ", 2) == ["-  5%   1 KiB  /a"]


def test_a_table() -> None:
    """A column is as wide as its widest cell, also in letters that take two columns; the last one is free."""
    assert aligned([("A", "文字", "x"), ("long", "b", "")]) == ["A     文字  x", "long  b"]


@pytest.mark.parametrize(
    ("progress", "width", "shown"),
    [
        (
            PACKING,
            99,
            "━━━━━━━━━━━━━────────   62%  0:03 left  431.0 MiB of 690.0 MiB   85.3 MiB/s  31,200 of 50,000 files",
        ),
        (PACKING, 60, "━━━───   62%  0:03 left  431.0 MiB of 690.0 MiB   85.3 MiB/s"),
        (UPLOADING, 68, "━━━━━━━━──────   62%  0:19 left  128.0 MiB of 206.0 MiB   14.1 MiB/s"),
        (UPLOADING, 29, "━━━━━━━─────   62%  0:19 left"),
        (UPLOADING, 12, "━━━───   62%"),
        (UPLOADING, 9, "━━━━━────"),
    ],
)
def test_what_a_bar_shows(progress: Progress, width: int, shown: str) -> None:
    """Share, time left, bytes, speed and files, as many of them as fit, and a bar for the rest of the width."""
    assert click.unstyle(bar(progress, width, UNICODE)) == shown


@pytest.mark.parametrize("progress", [PACKING, UPLOADING, replace(PACKING, total_files=10**9)])
def test_a_bar_fits(progress: Progress) -> None:
    """It fits any width with any figures."""
    for width in range(1, 200):
        for seconds in (None, 0.0, 59.0, 3_600.0, 1e9):
            assert columns(click.unstyle(bar(replace(progress, seconds_left=seconds), width, ASCII))) <= width


def test_figures_do_not_move() -> None:
    """The figures begin in the same column throughout, whether or not speed and time left are known."""
    for whole in (UPLOADING, PACKING):
        known = [replace(whole, done_bytes=whole.total_bytes * percent // 100) for percent in range(1, 101)]
        both = [*known, *(replace(each, bytes_per_second=None, seconds_left=None) for each in known)]
        assert len({sum(map(bar(each, 79, UNICODE).count, "━─")) for each in both}) == 1


def test_the_bar_is_full_at_the_end_and_not_before() -> None:
    """The bar is full only when all is done, and more than all does not overfill it."""
    for done, share, is_full in ((206 * MIB - 1, "99%", False), (206 * MIB, "100%", True), (300 * MIB, "100%", True)):
        shown = bar(replace(UPLOADING, done_bytes=done), 79, UNICODE)
        assert ("─" not in shown, share in shown) == (is_full, True)


def test_figures_of_a_log() -> None:
    """A log gets the same figures without a bar, and nothing for an unknown one."""
    assert figures(PACKING) == "62%, 0:03 left, 431.0 MiB of 690.0 MiB, 85.3 MiB/s, 31,200 of 50,000 files"
    assert figures(replace(UPLOADING, bytes_per_second=None, seconds_left=None)) == "62%, 128.0 MiB of 206.0 MiB"
    assert figures(Progress(50 * MIB, 0, bytes_per_second=15 * MIB)) == "50.0 MiB, 15.0 MiB/s"
