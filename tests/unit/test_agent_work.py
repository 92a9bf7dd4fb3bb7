"""All that differs in a sandbox, as values: what is new, left out, deleted on both sides, and beyond the most."""

from __future__ import annotations

from typing import cast

from syncd.sandbox.look_request import ABSENT, LookRequest, LookResult, RemoteEntry, RemoteKind
from syncd.sandbox.remote_changes import RemoteChanges
from syncd.scan.entry import Entry, Kind
from syncd.scan.manifest import Manifest
from syncd.sync.agent_work import find_agent_work
from syncd.sync.sync_plan import SandboxContent

FILE = RemoteEntry(RemoteKind.FILE, 0o644, 3, digest=b"theirs")
FOLDER = RemoteEntry(RemoteKind.DIRECTORY, 0o755)
SENT = Entry(Kind.FILE, 0o644, 1, 3, digest=b"ours")


class ScriptedLook:
    """In the place of `RemoteChanges`: it finds what it was told, and keeps the request."""

    def __init__(self, result: LookResult) -> None:
        self.result = result
        self.request = LookRequest({})

    def look(self, request: LookRequest) -> LookResult:
        """Return the result."""
        self.request = request
        return self.result


def test_what_is_found() -> None:
    """All paths are parted by the rules; what is gone on both sides, or holds only a `.git`, is no change.

    What was put there before the rule is saved with the rest.
    """
    result = LookResult(
        differing={"a": FILE, "gone-too": ABSENT, "old.log": FILE, "gone.log": ABSENT},
        new={"new": FILE, "out.log": FILE, "repo": FOLDER},
        pruned=("repo/.git", "node_modules"),
        unlisted=7,
    )
    look = ScriptedLook(result)
    content = SandboxContent(Manifest({"a": SENT, "gone.log": SENT}), ({"a": SENT, "late": SENT},))
    leftovers = {"gone-too": [SENT], "old.log": [SENT]}

    work = find_agent_work(cast(RemoteChanges, look), content, leftovers, lambda path, _is_dir: path.endswith(".log"))

    assert work.changed == {"a": FILE, "new": FILE}
    assert work.left_out == {"out.log": FILE, "old.log": FILE, "gone.log": ABSENT}
    assert work.to_save == {"a": FILE, "new": FILE, "old.log": FILE}
    assert (work.pruned, work.unlisted) == (("node_modules",), 7)
    assert (work.base_of("late"), work.base_of("new")) == (SENT, None)
    assert set(look.request.items) == {"a", "late", "gone-too", "old.log", "gone.log"}
    assert look.request.find_new
