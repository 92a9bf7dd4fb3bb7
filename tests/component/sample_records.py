"""Sample records for the tests of files on disk."""

from __future__ import annotations

from syncd.model.entry import Entry, Kind, Stamp
from syncd.model.manifest import Manifest
from syncd.remote.target import Target
from syncd.sandbox.sandbox_state import SandboxState
from syncd.store.state_db import StateDb
from syncd.sync.status_document import SandboxStatus, State, Status

TARGET = Target("https://api.example.com", "box", "us")
MANIFEST = Manifest(
    {
        "d": Entry(Kind.DIRECTORY, 0o1755, -1),
        "d/n\udcff\nü": Entry(
            Kind.FILE,
            0o644,
            2**40,
            2**50,
            stamp=Stamp(-5, 2**62, 2**64 - 1, 2**33),
            digest=bytes(range(32)),
        ),
        "l": Entry(Kind.SYMLINK, 0o777, 0, target="t\udc80"),
    }
)

_BOX = SandboxStatus(name="main", id="box", base_url="u", region="us", state=State.STOPPED)
NOTHING = Status(running=False, pid=None, workspace="/w", sandboxes=(_BOX,))


def arrived(
    db: StateDb, manifest: Manifest, target: Target = TARGET, searched: str = "", name: str = "main"
) -> SandboxState:
    """Return the state after a process recorded that the sandbox holds the manifest."""
    state = SandboxState(db, target, searched, name=name)
    state.note_arrived(manifest)
    state.record()
    return state
