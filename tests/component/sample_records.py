"""Sample records for the tests of files on disk."""

from __future__ import annotations

from syncd.model.manifest import Manifest
from syncd.remote.target import Target
from syncd.sandbox.sandbox_state import SandboxState
from syncd.store.state_db import StateDb

TARGET = Target("https://api.example.com", "box", "us")


def arrived(
    db: StateDb, manifest: Manifest, target: Target = TARGET, searched: str = "", name: str = "main"
) -> SandboxState:
    """Return the state after a process recorded that the sandbox holds the manifest."""
    state = SandboxState(db, target, searched, name=name)
    state.note_arrived(manifest)
    state.record()
    return state
