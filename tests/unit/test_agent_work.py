"""All that differs in a sandbox, as values: what is new, left out, deleted on both sides, and beyond the most."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import cast

from syncd.model.entry import ABSENT, Entry, Kind, SeenEntry
from syncd.model.manifest import Manifest
from syncd.sandbox.look_request import LookRequest, LookResult
from syncd.sandbox.remote_changes import RemoteChanges
from syncd.sandbox.sandbox_state import SandboxContent
from syncd.sandbox.saved_versions import Why
from syncd.sync.agent_work import AgentWork, find_agent_work
from syncd.sync.work_saver import save_work

FILE = SeenEntry(Kind.FILE, 0o644, size_bytes=3, digest=b"theirs")
FOLDER = SeenEntry(Kind.DIRECTORY, 0o755)
SENT = Entry(Kind.FILE, 0o644, 1, 3, digest=b"ours")


class ScriptedLook:
    """In the place of `RemoteChanges`: it finds what it was told, keeps the request, and has no room for `full`."""

    def __init__(self, result: LookResult) -> None:
        self.result = result
        self.request = LookRequest({})
        self.saved: list[str] = []
        self.noted: list[str] = []
        self.seen = self

    def save(self, _why: Why, versions: Mapping[str, SeenEntry], _base_of: Callable[[str], object]) -> frozenset[str]:
        """Note the paths."""
        self.saved = [path for path in versions if path != "full"]
        return frozenset(versions) & {"full"}

    def drop_copies(self) -> None:
        """Do nothing: it fetched nothing."""

    def why_unsaved(self, there: SeenEntry) -> str:
        """Return its kind."""
        return there.kind.name

    def look(self, request: LookRequest, _left_s: float) -> LookResult:
        """Return the result."""
        self.request = request
        return self.result

    def note_all(self, changed: Iterable[str]) -> None:
        """Keep what is to be remembered."""
        self.noted = sorted(changed)


def test_what_is_found() -> None:
    """All paths are parted by the rules; what is gone on both sides, or holds only a `.git`, is no change.

    What was put there before the rule is saved with the rest.
    """
    result = LookResult(
        differing={"a": FILE, "gone-too": ABSENT, "old.log": FILE, "gone.log": ABSENT},
        new={"new": FILE, "out.log": FILE, "repo": FOLDER},
        pruned=("repo/.git", "node_modules", "closed"),
        unlisted=7,
    )
    look = ScriptedLook(result)
    left = {"gone-too": SENT, "old.log": SENT}
    content = SandboxContent(Manifest({"a": SENT, "gone.log": SENT}), ({"a": SENT, "late": SENT},), True, left)

    work = find_agent_work(cast(RemoteChanges, look), content, lambda path, _: path.endswith((".log", "modules")))

    assert work.changed == {"a": FILE, "new": FILE}
    assert look.noted == ["a", "new"]
    assert work.excluded == {"out.log": FILE, "old.log": FILE, "gone.log": ABSENT}
    assert work.to_save == {"a": FILE, "new": FILE, "old.log": FILE}
    assert (work.pruned, work.unsearched, work.unlisted) == (("node_modules",), ("closed",), 7)
    assert (work.base_of("late"), work.base_of("new")) == (SENT, None)
    assert set(look.request.items) == {"a", "late", "gone-too", "old.log", "gone.log"}
    assert look.request.find_new


def test_what_could_not_be_saved() -> None:
    """A folder that cannot be listed counts, unless the rules leave it out; what has no content does not."""
    result = LookResult(
        new={
            "full": SeenEntry(Kind.FILE, copy="copy"),
            "ok": SeenEntry(Kind.FILE, copy="copy"),
            "fifo": SeenEntry(Kind.OTHER),
            "mine": SeenEntry(Kind.UNREAD),
            "secret": FOLDER,
            "large": FILE,
        },
        pruned=("secret", "out.log", "node_modules", "d/.git"),
        unlisted=7,
    )
    look = cast(RemoteChanges, ScriptedLook(result))
    content = SandboxContent(Manifest())

    def is_excluded(path: str, _is_dir: bool) -> bool:
        return path.endswith((".log", "node_modules"))

    unsaved = save_work(look, lambda _: find_agent_work(look, content, is_excluded), Why.RELEASED, {})

    assert unsaved.paths == {
        "secret": "its files cannot be listed there, or not in time",
        "full": "FILE",
        "large": "FILE",
        "mine": "UNREAD",
    }
    assert unsaved.count == "11 paths"
    assert str(unsaved) == (
        "'secret' (its files cannot be listed there, or not in time), 'full' (FILE), 'large' (FILE), "
        "'mine' (UNREAD), and 7 more"
    )
    assert cast(ScriptedLook, look).saved == ["ok", "secret"]
    assert not save_work(look, lambda _: AgentWork({}, {}), Why.RELEASED, {})
