"""The uplink's estimate on disk: private, kept over restarts, and ignored if invalid."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from syncd.archive.chunking import Codec
from syncd.remote.uplink import Uplink, UplinkStore

KNOWN = Uplink((2.5e6, 2.6e6, 1e9), Codec.DENSE, 1_795_526_411.0)
SOUND = {"version": 1, "rates": [1.0, 2.0, 3.0], "codec": "dense", "measured_at_s": 1.0}


def test_it_outlives_its_process(tmp_path: Path) -> None:
    """Another process reads what this one saved; the file is readable by this user alone."""
    UplinkStore(str(tmp_path)).save(KNOWN)
    assert UplinkStore(str(tmp_path)).load() == KNOWN
    assert [path.name for path in tmp_path.iterdir()] == ["uplink"]
    assert stat.S_IMODE((tmp_path / "uplink").stat().st_mode) == 0o600


def test_an_invalid_record(tmp_path: Path) -> None:
    """A newer version, impossible rates, an unknown codec and any other content are ignored and overwritten."""
    wrong: list[dict[str, object]] = [
        {"version": 2},
        {"codec": "dens"},
        {"measured_at_s": None},
        {"measured_at_s": "now"},
    ]
    wrong += [{"rates": rates} for rates in ([], [1.0, 2.0], [1.0] * 4)]
    wrong += [{"rates": [1.0, 2.0, rate]} for rate in (0.0, -3.0, "3", float("inf"), float("nan"))]
    garbage = [b"", b"{", b"\0" * 90, b"\xff", b"[]", b"null", b"[" * 5000, b"9" * 5000]
    (tmp_path / "uplink").write_text(json.dumps(SOUND))
    assert UplinkStore(str(tmp_path)).load() == Uplink((1.0, 2.0, 3.0), Codec.DENSE, 1.0)
    for content in (*(json.dumps(SOUND | each).encode() for each in wrong), *garbage, None):
        if content is None:
            (tmp_path / "uplink").mkdir()
        else:
            (tmp_path / "uplink").write_bytes(content)
        assert UplinkStore(str(tmp_path)).load() == Uplink(), content
        UplinkStore(str(tmp_path)).save(KNOWN)
        assert UplinkStore(str(tmp_path)).load() == KNOWN
        (tmp_path / "uplink").unlink()
