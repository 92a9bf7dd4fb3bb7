"""Links of every kind arrive unchanged, with any extractor."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.archive.snapshotter import SyncMode
from tests.integration.sync_rig import Rig, rigged

STAY = {
    "a": "b",
    "b": "a",
    "to-circle": "a",
    "x": "x",
    "y": "y/z",
    "nowhere": "not/there",
    "d/here": ".",
    "d/top": "..",
    "d/e/top": "../..",
    "round": "d/../d/file",
    "through": "d/top/d/file",
    "to-outside": "outside",
    "behind-outside": "outside/secret",
}
GO_NOT = {
    "up": "..",
    "outside": "../elsewhere",
    "absolute": "/etc/passwd",
    "and-back": "./d/../../workspace/d",
    "d/for-both": "e/top/../elsewhere",
}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with rigged(tmp_path) as it:
        (it.workspace / "d/e").mkdir(parents=True)
        it.write("d/file", "1")
        for path, target in (STAY | GO_NOT).items():
            (it.workspace / path).symlink_to(target)
        yield it


def links_in(top: Path) -> dict[str, str]:
    return {str(path.relative_to(top)): os.readlink(path) for path in top.rglob("*") if path.is_symlink()}


def test_every_kind_of_link(rig: Rig) -> None:
    """They arrive also over existing ones; links that lead outside are named."""
    for content in ("2", "3"):
        rig.write("d/file", content)
        rig.sync()
        assert links_in(rig.sandbox.workspace) == STAY
        assert (rig.sandbox.workspace / "d/file").read_text() == content
        assert {warning.key for warning in rig.cycle.warnings} == {f"link:{path}" for path in GO_NOT}


def test_a_link_through_another_link(rig: Rig) -> None:
    """A link that leads outside through another one is sent once that changes, and excluded again with it."""
    rig.emulator.faults.on("execution-logs", "before", lambda _: rig.sandbox.wait())
    rig.sync()
    (rig.workspace / "d/e/top").unlink()
    (rig.workspace / "d/e/top").mkdir()
    rig.sync()
    arrived = rig.sandbox.workspace / "d/for-both"
    assert os.readlink(arrived) == GO_NOT["d/for-both"]
    assert "link:d/for-both" not in {warning.key for warning in rig.cycle.warnings}
    (rig.workspace / "d/e/top").rmdir()
    (rig.workspace / "d/e/top").symlink_to("../..")
    assert "d/for-both" not in rig.cycle.snapshotter.scan(None, SyncMode.CHANGED).manifest


@pytest.mark.parametrize("tool", ["tar", "bsdtar", "python"])
def test_other_extractors(rig: Rig, tmp_path: Path, tool: str) -> None:
    """GNU tar, bsdtar and Python's `data` filter extract all of it."""
    rig.sync()
    sent = (rig.emulator.data_dir / "bucket").rglob("*")
    packed = max((path.read_bytes() for path in sent if path.is_file()), key=len)
    into = tmp_path / "into"
    into.mkdir()
    if tool == "python":
        if not hasattr(tarfile, "data_filter"):
            pytest.skip("this Python's tarfile has no filters")
        with tarfile.open(fileobj=io.BytesIO(packed), errors="surrogateescape") as tar:
            members = [member for member in tar if member.name != "to-circle"]  # refused since 3.13.4, as a circle is
            tar.extractall(into, members=members, filter="data")
        (into / "to-circle").symlink_to(STAY["to-circle"])
        assert set(links_in(into)) == set(STAY)
        return
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    subprocess.run([tool, "-xzf", "-", "-C", into], input=packed, check=True, capture_output=True)
    assert links_in(into) == STAY
