"""The uplink's estimate on disk: private, kept over restarts, and ignored if invalid."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from syncd.archive.codec import Codec
from syncd.remote.uplink import Uplink
from syncd.remote.uplink_store import UplinkStore

KNOWN = Uplink((2.5e6, 2.6e6, 1e9), Codec.DENSE, 1_795_526_411.0)
SOUND = {"version": 1, "rates": [1.0, 2.0, 3.0], "codec": "dense", "measured_at_s": 1.0}


def test_it_outlives_its_process(tmp_path: Path) -> None:
    """Another process reads what this one saved; the file is readable by this user alone."""
    assert UplinkStore(str(tmp_path)).load() == Uplink()
    UplinkStore(str(tmp_path)).save(KNOWN)
    assert UplinkStore(str(tmp_path)).load() == KNOWN
    assert [path.name for path in tmp_path.iterdir()] == ["uplink"]
    assert stat.S_IMODE((tmp_path / "uplink").stat().st_mode) == 0o600


def test_a_valid_record(tmp_path: Path) -> None:
    """The saved record has the form that the invalid ones below differ from."""
    (tmp_path / "uplink").write_text(json.dumps(SOUND))
    assert UplinkStore(str(tmp_path)).load() == Uplink((1.0, 2.0, 3.0), Codec.DENSE, 1.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"version": 2},
        {"rates": []},
        {"rates": [1.0, 2.0]},
        {"rates": [1.0, 2.0, 3.0, 4.0]},
        {"rates": [1.0, 2.0, 0.0]},
        {"rates": [1.0, 2.0, -3.0]},
        {"rates": [1.0, 2.0, "3"]},
        {"rates": [1.0, 2.0, float("inf")]},
        {"rates": [1.0, 2.0, float("nan")]},
        {"codec": "dens"},
        {"measured_at_s": None},
        {"measured_at_s": "now"},
    ],
)
def test_an_invalid_record(tmp_path: Path, wrong: dict[str, object]) -> None:
    """A newer version, impossible rates or an unknown codec are ignored."""
    (tmp_path / "uplink").write_text(json.dumps(SOUND | wrong))
    assert UplinkStore(str(tmp_path)).load() == Uplink()


@pytest.mark.parametrize("content", [b"", b"{", b"\0" * 90, b"\xff", b"[]", b"null", b"[" * 5000, b"9" * 5000])
def test_garbage(tmp_path: Path, content: bytes) -> None:
    """Any other content is ignored and overwritten."""
    (tmp_path / "uplink").write_bytes(content)
    assert UplinkStore(str(tmp_path)).load() == Uplink()
    UplinkStore(str(tmp_path)).save(KNOWN)
    assert UplinkStore(str(tmp_path)).load() == KNOWN


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    """A file that cannot be read is ignored, and hinders nothing."""
    (tmp_path / "uplink").mkdir()
    assert UplinkStore(str(tmp_path)).load() == Uplink()
    UplinkStore(str(tmp_path)).save(KNOWN)
    assert UplinkStore(str(tmp_path)).load() == KNOWN
