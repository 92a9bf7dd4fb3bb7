"""Looking at the sandbox's workspace by executions that really run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from syncd.core.clock import Clock, SystemClock
from syncd.core.interrupt import Interrupt
from syncd.core.waiter import Waiter
from syncd.remote.api import Api
from syncd.remote.artifacts import Artifacts
from syncd.remote.remote_job import JobRunner
from syncd.remote.target import Target
from syncd.sandbox.look import Looker
from syncd.sandbox.look_request import ABSENT, LookAction, LookItem, LookRequest, LookResult, RemoteKind
from syncd.sandbox.pending_removals import PendingRemovals
from syncd.scan.manifest import Entry, Kind
from tests.integration.sync_rig import Rig, rigged

COMPARE, FETCH, REMOVE, EXISTS = LookAction.COMPARE, LookAction.FETCH, LookAction.REMOVE, LookAction.EXISTS
ODD = os.fsdecode(b"caf\xe9 \n-rf")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with rigged(tmp_path) as it:
        yield it


def a_file(content: str, mode: int = 0o644) -> Entry:
    return Entry(Kind.FILE, mode, 1, len(content), digest=hashlib.sha256(content.encode()).digest())


def item(action: LookAction, *versions: Entry) -> LookItem:
    return LookItem(versions, action)


def place(rig: Rig, path: str, content: str = "ours") -> Path:
    """Write a file in the sandbox."""
    file = rig.sandbox.workspace / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return file


def target(rig: Rig) -> Target:
    return Target(rig.emulator.base_url, rig.sandbox.id, "us")


def looker(rig: Rig, clock: Clock | None = None) -> Looker:
    """Return a looker; by the machine's own clock, as the program really runs."""
    clock = clock or SystemClock()
    (state := rig.folder / "state").mkdir(exist_ok=True)
    waiter = Waiter(Interrupt(), clock)
    api = Api(target(rig), rig.key, rig.client, clock)
    artifacts = Artifacts(api, rig.client, clock)
    return Looker(JobRunner(api, rig.client, waiter), artifacts, PendingRemovals(str(state), target(rig)), waiter)


def copies(rig: Rig) -> Path:
    (folder := rig.folder / "copies").mkdir(mode=0o700, exist_ok=True)
    return folder


def look(rig: Rig, items: Mapping[str, LookItem], **more: object) -> LookResult:
    return looker(rig).look(LookRequest(items, **more), str(copies(rig)))  # type: ignore[arg-type]


def fetched(result: LookResult) -> dict[str, str]:
    """Return the content of each copy."""
    found = {**result.differing, **result.new}
    return {path: Path(entry.copy).read_text() for path, entry in found.items() if entry.copy}


def test_what_differs_is_fetched(rig: Rig) -> None:
    """Content, kinds and names of any kind; what is as a version is not mentioned, and nothing else stays here."""
    for path in ("same", "d/changed", ODD, "only compared"):
        place(rig, path)
    (rig.sandbox.workspace / "ln").symlink_to("same")
    asked = {
        "same": item(FETCH, a_file("other"), a_file("ours")),
        "d/changed": item(FETCH, a_file("OURS")),
        ODD: item(FETCH, a_file("longer")),
        "only compared": item(COMPARE, a_file("OURS")),
        "gone": item(FETCH, a_file("ours")),
        "ln": item(FETCH, a_file("ours")),
        "never there": item(FETCH),
    }
    result = look(rig, asked)
    assert fetched(result) == {"d/changed": "ours", ODD: "ours"}
    assert set(result.differing) == {"d/changed", ODD, "only compared", "gone", "ln"}
    assert result.differing["gone"] == ABSENT
    assert (result.differing["ln"].kind, result.differing["ln"].target) == (RemoteKind.SYMLINK, "same")
    assert result.differing[ODD].digest == hashlib.sha256(b"ours").digest()
    names = {os.path.basename(entry.copy) for entry in result.differing.values() if entry.copy}
    assert set(os.listdir(copies(rig))) == names
    assert rig.asked().count("export-artifacts") == 1
