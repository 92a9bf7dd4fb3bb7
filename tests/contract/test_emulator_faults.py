"""The emulator as tests use it: no error of theirs is lost, and its log holds nothing secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.emulator_rig import PATH, EmulatorRig, files, started_rig
from tests.emulator import RequestRecord


def test_a_failing_hook_is_not_lost(tmp_path: Path) -> None:
    """An error of a hook in a server thread is raised again when the emulator is closed."""

    def fail(_: RequestRecord) -> None:
        raise LookupError("in the hook")

    with pytest.raises(LookupError, match="in the hook"), started_rig(tmp_path) as rig:  # noqa: PT012 - raised at its end
        rig.emulator.faults.on("list", "before", fail)
        assert rig.api.get("/local-sandbox").status_code == 500


def test_nothing_secret_is_kept(rig: EmulatorRig) -> None:
    """Neither the request log nor its lines hold a key or a signature."""
    rig.upload(files(a=b"1"))
    rig.api.get(f"{PATH}?api_key=key-of-the-test")
    shown = repr(rig.emulator.request_log.entries()) + "".join(map(str, rig.emulator.request_log))
    assert "key-of-the-test" not in shown
    assert "Goog" not in shown
    assert "workspace.tar.gz?…" in shown
    assert rig.emulator.request_log.ops() == ["upload-url", "upload", "get"]
    assert rig.emulator.request_log.count("upload", 200) == 1
