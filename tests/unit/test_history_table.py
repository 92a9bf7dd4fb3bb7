"""The table of `syncd history` at any width from 60 columns."""

from __future__ import annotations

import pytest

from syncd.cli.history import table
from syncd.cli.status.text import columns, plain
from syncd.report.history import SyncEnding
from syncd.sync.sync_reason import SyncReason
from tests.unit.test_history import record

RECORD = record(SyncEnding.INITIALIZED, SyncReason.ORDER.value, sent_bytes=281)


@pytest.mark.parametrize(("width", "has_numbers"), [(60, False), (73, False), (74, True), (80, True), (120, True)])
def test_a_narrow_table_has_no_numbers(width: int, has_numbers: bool) -> None:
    """Each row fits; the numbers give way before the row does."""
    head, _, row = [plain(line) for line in table([RECORD], width)]
    assert columns(head.rstrip()) <= width
    assert columns(row.rstrip()) == width
    assert ("took" in head, "281 bytes" in row) == (has_numbers, has_numbers)
