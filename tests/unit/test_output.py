"""Text is laid out in columns of a terminal: nothing is wider than it, and nothing moves without need."""

from __future__ import annotations

import click
import pytest

from syncd.cli.output import bar
from syncd.sync.status_document import Progress

MIB = 1 << 20
PACKING = Progress(431 * MIB, 690 * MIB, 31_200, 50_000, 85.3 * MIB, 3.04)
UPLOADING = Progress(128 * MIB, 206 * MIB, bytes_per_second=14.13 * MIB, seconds_left=18.9)


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
    assert click.unstyle(bar(progress, width)) == shown
