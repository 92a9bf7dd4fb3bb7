"""Links of every kind arrive unchanged, with any extractor."""

from __future__ import annotations

import os
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
