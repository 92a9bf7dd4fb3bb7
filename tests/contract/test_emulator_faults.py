"""Every fault of the language acts as its table says, at the moment that it says."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.contract.emulator_rig import GZIP, PATH, EmulatorRig, files, started_rig
from tests.emulator import BadFault, RequestRecord

CONTENT = files(a=b"1" * 1000)


@pytest.mark.parametrize(
    "line", ["503", "uplaod: 503", "upload: nonsense", "upload: hang", "upload: 503 sometimes", "upload: reset instead"]
)
def test_invalid_lines(rig: EmulatorRig, line: str) -> None:
    """They are refused with the line in the message."""
    with pytest.raises(BadFault) as refused:
        rig.emulator.faults.script(line)
    assert repr(line) in str(refused.value)


def test_counting(rig: EmulatorRig) -> None:
    """Faults act in the order of adding; `skip` lets requests pass, `xN` counts, `always` stays until cleared."""
    rig.emulator.faults.script("list: 500 x2", "list: 502 skip=1", "any: 503 skip=1 always")
    statuses = [rig.api.get("/local-sandbox").status_code for _ in range(6)]
    assert statuses == [500, 500, 200, 502, 503, 503]
    assert rig.api.get(PATH).status_code == 503
    rig.emulator.faults.clear()
    assert rig.api.get(PATH).status_code == 200


def put(rig: EmulatorRig, *lines: str, content: bytes = CONTENT) -> httpx.Response:
    """An upload with these faults."""
    url = rig.upload_url()
    rig.emulator.faults.script(*lines)
    return rig.bucket.put(url, content=content, headers=GZIP)


def stored(rig: EmulatorRig) -> bool:
    """True if the upload's content is in the bucket."""
    rig.emulator.faults.clear()
    return rig.api.post(f"{PATH}/initialize").status_code == 200


@pytest.mark.parametrize(
    ("line", "stores"),
    [
        ("upload: 503 before", False),
        ("upload: 503 mid-body", False),
        ("upload: 503", False),
        ("upload: 503 after", True),
        ("upload: reset", False),
        ("upload: reset mid-body", False),
        ("upload: reset after", True),
        ("upload: close", False),
        ("upload: close mid-body", False),
        ("upload: lost", True),
        ("upload: hang 0.05", False),
        ("upload: hang 0.05 after", True),
        ("upload: wrong-hash", True),
    ],
)
def test_the_moment_of_a_fault(rig: EmulatorRig, line: str, stores: bool) -> None:
    """The object is stored only if the work is done first. What the client gets is in the table of the integration."""
    with suppress(httpx.TransportError):
        put(rig, line)
    assert stored(rig) is stores


def test_a_failing_hook_is_not_lost(tmp_path: Path) -> None:
    """An error of a hook in a server thread is raised again when the emulator is closed."""

    def fail(_: RequestRecord) -> None:
        raise LookupError("in the hook")

    with pytest.raises(LookupError, match="in the hook"), started_rig(tmp_path) as rig:  # noqa: PT012 - raised at its end
        rig.emulator.faults.on("list", "before", fail)
        assert rig.api.get("/local-sandbox").status_code == 500


def test_nothing_secret_is_kept(rig: EmulatorRig) -> None:
    """Neither the request log nor its lines hold a key or a signature."""
    put(rig)
    rig.api.get(f"{PATH}?api_key=key-of-the-test")
    shown = repr(rig.emulator.request_log.entries()) + "".join(map(str, rig.emulator.request_log))
    assert "key-of-the-test" not in shown
    assert "Goog" not in shown
    assert "workspace.tar.gz?…" in shown
    assert rig.emulator.request_log.ops() == ["upload-url", "upload", "get"]
    assert rig.emulator.request_log.count("upload", 200) == 1
