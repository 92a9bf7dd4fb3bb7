"""The upload URL on disk: kept over restarts until it expires, for one sandbox and region."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.remote.target import Target
from syncd.remote.upload_url import UploadUrl
from syncd.remote.upload_url_store import UploadUrlStore
from tests.clock import ScriptedClock
from tests.component.sample_records import TARGET


def test_an_upload_url_survives_a_restart(tmp_path: Path) -> None:
    """Also a reboot, after which boottime starts again: its end is kept by the wall clock."""
    clock = ScriptedClock()
    UploadUrlStore(str(tmp_path), clock).save(TARGET, UploadUrl("https://h/o", clock.boottime + 1000, 1800))
    clock.go_on(400)
    clock.boottime = 10.0
    upload_url = UploadUrlStore(str(tmp_path), clock).load(TARGET)
    assert upload_url is not None
    assert upload_url.url == "https://h/o"
    assert upload_url.ends_s == pytest.approx(610, abs=0.01)


@pytest.mark.parametrize("moved_s", [1001, 100_000, -900, -100_000])
def test_an_upload_url_beyond_its_life_is_not_used(tmp_path: Path, moved_s: float) -> None:
    """It has expired, or a clock that was set back makes it longer than its life."""
    clock = ScriptedClock()
    UploadUrlStore(str(tmp_path), clock).save(TARGET, UploadUrl("https://h/o", clock.boottime + 1000, 1800))
    clock.wall += moved_s
    assert UploadUrlStore(str(tmp_path), clock).load(TARGET) is None


def test_an_upload_url_is_of_one_region(tmp_path: Path) -> None:
    """The URL of one region or sandbox is not used for another; a refused one is forgotten."""
    clock = ScriptedClock()
    file = UploadUrlStore(str(tmp_path), clock)
    file.save(TARGET, UploadUrl("https://h/o", clock.boottime + 1000, 1800))
    assert file.load(Target(TARGET.base_url, "box", "asia")) is None
    assert file.load(TARGET) is not None
    file.forget()
    assert file.load(TARGET) is None
