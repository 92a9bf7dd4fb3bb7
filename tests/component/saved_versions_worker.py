"""Processes that save or drop a version of the agent's and are killed at any step."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from syncd.model.entry import Kind, SeenEntry
from syncd.sandbox.saved_versions import SavedVersions, Why
from syncd.store.state_db import StateDb
from tests.clock import NOON_S, ScriptedClock
from tests.component.crash_worker import StepKiller, arm, arm_commits
from tests.component.forks import Order, serve


def contents(number: int) -> dict[str, bytes]:
    """Return the files of the version with that number; one content is in all of them."""
    return {
        "all/same": b"the same in all versions",
        "new": f"version {number}".encode() * 100,
        "copy of new": f"version {number}".encode() * 100,
        os.fsdecode(b"caf\xe9"): f"latin-1 {number}".encode(),
    }


def entries(number: int, copies: Path) -> dict[str, SeenEntry]:
    """Write the copies of that version, and return its entries."""
    found = {
        "empty folder": SeenEntry(Kind.DIRECTORY, 0o750, mtime_s=5),
        "link": SeenEntry(Kind.SYMLINK, target=f"{number}"),
    }
    copies.mkdir(exist_ok=True)
    for position, (path, content) in enumerate(contents(number).items()):
        copy = copies / f"{number}-{position}"
        copy.write_bytes(content)
        found[path] = SeenEntry(
            Kind.FILE, 0o640, 1_700_000_000, len(content), digest=hashlib.sha256(content).digest(), copy=str(copy)
        )
    return found


def store(folder: str, number: float) -> SavedVersions:
    """Return the store, at the time of that version."""
    return SavedVersions(StateDb(folder), ScriptedClock(wall=NOON_S + number))


def _one_process(order: Order) -> None:
    folder, number = order["folder"], order["number"]
    wanted = entries(number, Path(order["copies"]))
    trip = StepKiller(order["at"], torn=order["torn"], folders=[folder], report=order["report"])
    arm(trip)
    arm_commits(trip)
    if order["do"] == "save":
        store(folder, number).save(Why.OVERWRITTEN, "box", wanted)
    else:
        store(folder, number).drop(order["id"])
    trip.tell(("done", ""))


if __name__ == "__main__":
    serve(_one_process)
