"""The progress line fits every width, does not move its figures, and drops the least important first."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from syncd.cli.progress.line import Work, amount, duration, line, plain

MIB = 1 << 20
PACKING = Work("packaging", 431 * MIB, 690 * MIB, 31_200, 50_000, 5.0, 85.3 * MIB, 3.04)
UPLOADING = Work("uploading", 128 * MIB, 206 * MIB, seconds=31.0, bytes_per_s=4.13 * MIB, seconds_left=18.9)
WAITING = Work("initializing the sandbox", seconds=72.3)
COMING = Work("downloading", done_bytes=5 * MIB, seconds=3.0, bytes_per_s=1.5 * MIB)


def _text(work: Work, width: int = 79, *, ascii_only: bool = False) -> str:
    return "".join(text for text, _ in line(work, width, ascii_only=ascii_only))


@pytest.mark.parametrize(
    ("work", "width", "ascii_only", "shown"),
    [
        (PACKING, 79, False, "packaging  ━━━━━━────  31,200/50,000 files  431/690 MiB   85.3 MiB/s  0:03 left"),
        (PACKING, 65, False, "packaging  ━━━━━━─────   62%  431/690 MiB   85.3 MiB/s  0:03 left"),
        (UPLOADING, 79, False, "uploading  ━━━━━━━━━━━━━━━──────────   62%  128/206 MiB    4.1 MiB/s  0:19 left"),
        (UPLOADING, 79, True, "uploading  ###############----------   62%  128/206 MiB    4.1 MiB/s  0:19 left"),
        (UPLOADING, 40, False, "uploading  ━━━━━━━─────   62%  0:19 left"),
        (UPLOADING, 20, False, "uploading  62%"),
        (WAITING, 79, False, "⠸ initializing the sandbox  1:12"),
        (WAITING, 79, True, "\\ initializing the sandbox  1:12"),
        (COMING, 79, False, "⠋ downloading  5.0 MiB  1.5 MiB/s  0:03"),
    ],
)
def test_what_is_shown(work: Work, width: int, ascii_only: bool, shown: str) -> None:
    """Files, bytes, speed and time left are shown at 80 columns, less on fewer; a spinner if the total is unknown."""
    assert _text(work, width, ascii_only=ascii_only) == shown


@pytest.mark.parametrize("work", [PACKING, UPLOADING, WAITING, COMING, replace(PACKING, total_files=10**9)])
def test_it_never_wraps(work: Work) -> None:
    """The line fits any width with any figures."""
    for width in range(1, 200):
        for seconds in (None, 0.0, 59.0, 3_600.0, 1e9):
            assert len(_text(replace(work, seconds_left=seconds), width)) <= width


def test_figures_do_not_move() -> None:
    """The line has one length throughout, whether or not speed and time left are known."""
    for whole in (UPLOADING, PACKING):
        lengths = set()
        for percent in range(101):
            files, done = whole.total_files * percent // 100, whole.total_bytes * percent // 100
            known = replace(whole, done_files=files, done_bytes=done, seconds_left=100.0 - percent)
            unknown = replace(known, bytes_per_s=None, seconds_left=None)
            lengths |= {len(_text(known)), len(_text(unknown))}
        assert lengths == {79}


def test_the_bar_is_full_at_the_end_and_not_before() -> None:
    """The bar is full only when all is done, and more than all does not overfill it."""
    components = {role: text for text, role in line(replace(UPLOADING, done_bytes=206 * MIB - 1), 79)}
    assert components["rest"]
    assert "99%" in components["figure"]
    for done in (206 * MIB, 300 * MIB):
        components = {role: text for text, role in line(replace(UPLOADING, done_bytes=done), 79)}
        assert not components["rest"]
        assert "100%" in components["figure"]


def test_plain_lines() -> None:
    """A log gets the same figures without a bar, and nothing for an unknown one."""
    assert plain(PACKING) == "packaging: 431/690 MiB, 31,200/50,000 files, 85.3 MiB/s, 0:03 left"
    assert plain(replace(UPLOADING, bytes_per_s=None, seconds_left=None)) == "uploading: 128/206 MiB"
    assert plain(COMING) == "downloading: 5.0 MiB"
    assert plain(WAITING) == "initializing the sandbox: 1:12"


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 KiB"),
        (1_023_999, "1.0 MiB"),
        (1.5 * MIB, "1.5 MiB"),
        (2**40, "1.0 TiB"),
    ],
)
def test_amounts(size_bytes: float, shown: str) -> None:
    """An amount has at most three digits before the point."""
    assert amount(size_bytes) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0:00"), (59.6, "1:00"), (3_599, "59:59"), (3_661, "1:01:01"), (86_400, "1 d"), (1e12, "999 d")],
)
def test_durations(seconds: float, shown: str) -> None:
    """Durations are minutes and seconds, then hours, then days."""
    assert duration(seconds) == shown
