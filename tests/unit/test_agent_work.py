"""All that differs in a sandbox, as values: what is new, left out, deleted on both sides, and beyond the most."""

from __future__ import annotations

from types import SimpleNamespace

from syncd.model.entry import ABSENT, Entry, Kind, SeenEntry
from syncd.model.manifest import Manifest
from syncd.sandbox.sandbox_content import UNKNOWN, SandboxContent
from syncd.sandbox.saved_versions import Why
from syncd.sync.agent_work import FoundWork, agent_work
from syncd.sync.work_saver import Unsaved, save_work

FILE = SeenEntry(Kind.FILE, 0o644, size_bytes=3, digest=b"theirs")
COPY = SeenEntry(Kind.FILE, copy="copy")
FOLDER = SeenEntry(Kind.DIRECTORY, 0o755)
SENT = Entry(Kind.FILE, 0o644, 1, 3, digest=b"ours")
AS_SENT = SeenEntry(Kind.FILE, 0o600, 9, 3, digest=b"ours")


def _is_excluded(path: str, _is_dir: bool) -> bool:
    return path.endswith((".log", "modules"))


def test_what_is_found() -> None:
    """All paths are parted by the rules; what is gone on both sides, or holds only a `.git`, is no change.

    What was put there before the rule is saved with the rest.
    """
    ours = {"a": FILE, "gone-too": ABSENT, "old.log": FILE, "gone.log": ABSENT, "b": AS_SENT}
    new = {"new": FILE, "out.log": COPY, "repo": FOLDER, "was-new": ABSENT}
    pruned = ("repo/.git", "node_modules", "closed")
    left = {"gone-too": SENT, "old.log": SENT}
    base = Manifest({"a": SENT, "gone.log": SENT, "b": SENT})
    content = SandboxContent(base, ({"a": SENT, "late": SENT},), True, left)
    work = agent_work(FoundWork(0.0, {**ours, **new}, pruned, 7), content, _is_excluded)
    assert work.changed == {"a": FILE, "new": FILE}
    assert work.seen_paths == {"a", "new"}
    assert work.excluded == {"out.log": SeenEntry(Kind.FILE), "old.log": FILE, "gone.log": ABSENT}
    assert work.to_save == {"a": FILE, "new": FILE, "old.log": FILE}
    assert (work.pruned, work.unsearched, work.unlisted) == (("node_modules",), ("closed",), 7)
    assert (work.base_of("late"), work.base_of("new")) == (SENT, None)


def test_what_could_not_be_saved() -> None:
    """A folder that cannot be listed counts, unless the rules leave it out; what has no content does not.

    What is saved is known then, and not saved again.
    """
    there = {
        "full": COPY,
        "ok": COPY,
        "fifo": SeenEntry(Kind.OTHER),
        "mine": SeenEntry(Kind.UNREAD),
        "secret": FOLDER,
        "large": FILE,
    }
    pruned = ("secret", "out.log", "node_modules", "d/.git")
    work = agent_work(FoundWork(0.0, there, pruned, 7), SandboxContent(Manifest()), _is_excluded)
    saved: list[list[str]] = []
    save_some = lambda _why, versions, _base_of: saved.append([*versions]) or versions.keys() & {"full"}  # noqa: E731
    sandbox = SimpleNamespace(
        saver=SimpleNamespace(save=save_some),
        looks=SimpleNamespace(drop_copies=lambda: None),
        why_unsaved=lambda there: there.kind.name,
    )
    known: dict[str, SeenEntry] = {}

    def save() -> Unsaved:
        return save_work(sandbox, lambda _: work, Why.RELEASED, known)  # type: ignore[arg-type]

    unsaved = save()
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
    assert save().paths == unsaved.paths
    assert (saved, known.keys()) == ([["full", "ok", "secret"], ["full", "secret"]], {"ok", "fifo"})
    work = agent_work(FoundWork(0.0, {}), UNKNOWN, _is_excluded)
    assert not save()
