"""The paths that stay in a sandbox, in memory and for the next process."""

from __future__ import annotations

import pytest

from syncd.core.text import MOST_NAMED
from syncd.model.entry import ABSENT, Entry, Kind, SeenEntry
from syncd.model.manifest import Manifest
from syncd.model.reconcile import PathOutcome, Plan, PlannedPath
from syncd.sandbox.look_request import Obstacle
from syncd.sandbox.seen_paths import SeenPaths
from syncd.store.state_db import StateDb

FILE, FOLDER = Entry(Kind.FILE, 0o644, 1, 5, digest=b"d"), Entry(Kind.DIRECTORY, 0o755, 1)
HERE = Manifest(
    {
        "a": FILE,
        "\udcff": FILE,
        "ln": Entry(Kind.SYMLINK, 0o777, 1, target="lnk/x"),
        "lnk": FOLDER,
        "other": Entry(Kind.SYMLINK, 0o777, 1, target="a"),
    }
)
UNREAD = SeenEntry(Kind.UNREAD)


def note(seen: SeenPaths, outcomes: dict[str, PathOutcome], here: Manifest = HERE, now_s: float = 0.0) -> None:
    """Note what a look at these paths saw, all of which could not be read there."""
    plan = Plan(tuple(PlannedPath(path, outcome, ABSENT, FILE, UNREAD) for path, outcome in outcomes.items()))
    seen.note(plan, outcomes.__contains__, here=here, written=(), now_s=now_s, why_unsaved=lambda _: "no room")


def test_the_next_process_knows_them(db: StateDb) -> None:
    """From the look on, names of any bytes too; of another sandbox it knows nothing."""
    seen = SeenPaths(db, "box")
    note(seen, {"a": PathOutcome.KEEP, "\udcff": PathOutcome.HOLD})
    seen.note_obstacles({"lnk": Obstacle.DIRECTORY}, HERE)
    again = SeenPaths(db, "box")
    assert (again.kept, again.both_changed, again.obstacles) == (
        {"a"},
        ("\udcff",),
        {"lnk": Obstacle.DIRECTORY},
    )
    assert not again.wants_look(HERE, 0.0)
    assert again.wants_look(Manifest({**HERE, "lnk/new": FILE}), 0.0)
    assert SeenPaths(db, "another").kept == set()


def test_a_link_that_leads_through_one_there(db: StateDb) -> None:
    """It is held with what it leads through: an extractor that follows it may refuse the whole archive."""
    seen = SeenPaths(db, "box")
    seen.note_obstacles({"lnk": Obstacle.SYMLINK}, HERE)
    assert seen.obstacles == {"ln": Obstacle.LINK_ON_ITS_WAY, "lnk": Obstacle.SYMLINK}
    seen.note_obstacles({}, HERE)
    assert (seen.obstacles, seen.released) == ({}, ["ln", "lnk"])


def test_what_cannot_be_saved_is_tried_again(db: StateDb) -> None:
    """Later each time, also by the next process; a file that can be saved by then is held no more."""
    seen = SeenPaths(db, "box")
    note(seen, {"a": PathOutcome.HOLD})
    first_s = seen.look_again_at_s
    assert not seen.wants_look(HERE, first_s - 0.1)
    assert seen.wants_look(HERE, first_s)
    note(seen, {"a": PathOutcome.HOLD}, now_s=first_s)
    assert seen.look_again_at_s - first_s > first_s
    again = SeenPaths(db, "box")
    again.try_again_after_start(100.0)
    assert 100.0 < again.look_again_at_s < 200.0
    note(seen, {"a": PathOutcome.SAME}, now_s=first_s)
    assert (seen.both_changed, seen.released, seen.look_again_at_s) == ((), ["a"], float("inf"))


def test_what_was_deleted_here(db: StateDb) -> None:
    """A kept path of ours stays known, so that no process takes what is there for its own."""
    seen = SeenPaths(db, "box")
    note(seen, {"a": PathOutcome.KEEP, "b": PathOutcome.KEEP, "ln": PathOutcome.HOLD}, Manifest({**HERE, "b": FILE}))
    seen.forget_deleted(Manifest({"lnk": FOLDER}), {"a"}.__contains__)
    again = SeenPaths(db, "box")
    assert (again.kept, again.both_changed) == ({"a"}, ())


def test_what_another_process_saw(db: StateDb) -> None:
    """A look at everything by a command is known to the next sync, which does not forget what stays."""
    seen, command = SeenPaths(db, "box"), SeenPaths(db, "box")
    note(seen, {"a": PathOutcome.KEEP})
    command.looked_at = "2026-11-24T13:20:00Z"
    command.note_all(["a", "new"])
    seen.recall()
    assert (seen.changed, seen.looked_at, seen.kept) == ({"a", "new"}, "2026-11-24T13:20:00Z", {"a"})
    seen.note_written(["a"])
    seen.save()
    assert SeenPaths(db, "box").changed == {"new"}


def test_where_nobody_looks_any_more(db: StateDb) -> None:
    """What was changed there is written from now on, and what is written is changed no more; an obstacle stays one."""
    seen = SeenPaths(db, "box")
    note(seen, {"a": PathOutcome.KEEP, "other": PathOutcome.HOLD})
    seen.note_obstacles({"lnk": Obstacle.DIRECTORY}, HERE)
    seen.release_changed()
    for each in (seen, SeenPaths(db, "box")):
        assert (each.kept, each.both_changed, [*each.obstacles]) == (set(), (), ["lnk"])
    assert seen.changed == {"a", "other"}
    seen.note_written(["a"])
    assert seen.changed == {"other"}


def test_of_many_paths_the_log_has_the_first(db: StateDb, caplog: pytest.LogCaptureFixture) -> None:
    """Thousands that could not be looked at in time are no thousands of lines."""
    seen = SeenPaths(db, "box")
    here = Manifest({f"f{number:03}": FILE for number in range(200)})
    note(seen, dict.fromkeys(here, PathOutcome.HOLD), here)
    seen.note_obstacles(dict.fromkeys(here, Obstacle.DIRECTORY), here)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[:2] == [f"'f00{number}' was changed here and in the sandbox: it is held" for number in (0, 1)]
    assert len(lines) == 2 * (MOST_NAMED + 1)
    assert lines[-1] == f"and {200 - MOST_NAMED} more paths"
