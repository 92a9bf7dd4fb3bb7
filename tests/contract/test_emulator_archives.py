"""`initialize` extracts an archive whole and inside the workspace, or refuses it with a reason."""

from __future__ import annotations

import gzip
import io
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from syncd.emulator.extract import ArchiveRefused, extract
from tests.archives import archive, member
from tests.contract.emulator_rig import PATH, EmulatorRig, files

SOUND = archive(member("d", type=b"5"), member("d/a", b"1" * 5000), member("d/l", type=b"2", linkname="a"))


def _outside(rig: EmulatorRig) -> set[str]:
    """Return every path of the emulator's folder outside the workspace and the bucket."""
    ours = (rig.sandbox.workspace, rig.emulator.data_dir / "bucket")
    paths = rig.emulator.data_dir.rglob("*")
    return {str(path) for path in paths if not any(path.is_relative_to(place) for place in ours)}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(SOUND[:-1], id="cut by a byte"),
        pytest.param(SOUND[:-1] + bytes([SOUND[-1] ^ 1]), id="wrong length"),
        pytest.param(archive(member("../out", b"1")), id="parent"),
        pytest.param(archive(member("l", type=b"2", linkname="/etc")), id="absolute link"),
        pytest.param(archive(member("l", type=b"2", linkname="../../x")), id="escaping link"),
        pytest.param(archive(member("l", type=b"1", linkname="../out")), id="escaping hard link"),
        pytest.param(archive(member("l", type=b"1", linkname="nowhere")), id="hard link to nothing"),
        pytest.param(archive(member("p", type=b"6")), id="FIFO"),
    ],
)
def test_bad_archives(rig: EmulatorRig, content: bytes) -> None:
    """A bad archive gives 500 with a reason and status error, writes nothing outside; a valid one repairs it."""
    context = _outside(rig)
    refused = rig.initialize(content)
    assert refused.status_code == 500
    assert refused.json()["detail"].startswith("Failed to initialize the sandbox: ")
    assert rig.api.get(PATH).json()["status"] == "error"
    assert _outside(rig) == context
    assert rig.initialize(SOUND).json()["status"] == "occupied"
    assert rig.api.get(PATH).json()["status"] == "occupied"


def test_a_link_is_never_followed(rig: EmulatorRig, tmp_path: Path) -> None:
    """A link that a program in the sandbox made does not lead an archive outside, where GNU tar would write."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (rig.sandbox.workspace / "d").symlink_to(outside)
    (rig.sandbox.workspace / "f").symlink_to(outside / "f")
    refused = rig.initialize(files(d__a=b"1", f=b"2"))
    assert refused.status_code == 500
    assert "'d/a': 'd' is a link that leads out of the folder" in refused.json()["detail"]
    assert list(outside.iterdir()) == []
    assert rig.tree() == {"d": str(outside), "f": b"2"}


@settings(max_examples=60, deadline=None)
@example(flips=[(136, 128)])  # a directory's time beyond any clock
@given(flips=st.lists(st.tuples(st.integers(0, 1535), st.integers(0, 255)), min_size=1, max_size=4))
def test_changed_headers(tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]]) -> None:
    """A tar with any changed bytes is extracted or refused; no other error, nothing outside the folder."""
    plain = bytearray(gzip.decompress(SOUND))
    for place, value in flips:
        plain[place] = value
    # With a right checksum, the change is not refused by the checksum alone.
    for start in (0, 512):
        total = sum(plain[start : start + 148]) + 8 * 32 + sum(plain[start + 156 : start + 512])
        plain[start + 148 : start + 156] = b"%06o\0 " % total
    context = tmp_path_factory.mktemp("odd")
    inside = context / "inside"
    inside.mkdir()
    with suppress(ArchiveRefused, OSError):
        extract(io.BytesIO(gzip.compress(bytes(plain), 1)), str(inside))
    assert [path.name for path in context.iterdir()] == ["inside"]
