"""The rigs of most tests."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.remote import api, bucket, http_client
from tests.integration.fault_checks import leaks
from tests.integration.sync_rig import Rig, rigged


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Rig]:
    """An empty workspace, and its sandbox."""
    with rigged(tmp_path) as rig:
        yield rig


@pytest.fixture
def rig(bare: Rig) -> Rig:
    """A workspace with one file."""
    bare.write()
    return bare


@pytest.fixture
def recorded(rig: Rig, caplog: pytest.LogCaptureFixture) -> Iterator[Rig]:
    """The same; at the end no message may hold a secret."""
    caplog.set_level(logging.DEBUG, "syncd")
    caplog.set_level(logging.INFO, "httpx")
    logging.getLogger("httpx").addFilter(_drop)
    yield rig
    assert leaks(rig, caplog) == []
    logging.getLogger("httpx").removeFilter(_drop)


def _drop(_: logging.LogRecord) -> bool:
    """Drop httpx's log lines, which hold URLs, as the process does."""
    return False


@pytest.fixture
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the real timeouts of the HTTP client short."""
    for module, name in ((api, "_READ_S"), (api, "INITIALIZE_S"), (bucket, "_READ_S")):
        monkeypatch.setattr(module, name, 3.0)  # a server on a busy machine answers later than at once
    monkeypatch.setattr(http_client, "WRITE_S", 2.0)
