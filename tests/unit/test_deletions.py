"""What looks removed of what is gone here, and what still has a wanted path's place."""

import pytest

from syncd.model.entry import ABSENT, Entry, Kind, SeenEntry
from syncd.model.manifest import Manifest
from syncd.sandbox.deletions import NOBODY, Removed, removed_by
from syncd.sandbox.look_request import LookResult, Obstacle

FILE, FOLDER = Entry(Kind.FILE), Entry(Kind.DIRECTORY)
THEIRS = SeenEntry(Kind.FILE)
TO_DELETE = {"d": [FOLDER], "d/f": [FILE]}


@pytest.mark.parametrize(
    ("looks", "wanted", "removed"),
    [
        ([LookResult(removed=["d", "d/f"])], {}, Removed(frozenset(TO_DELETE), {}, {})),
        (
            [LookResult(differing={"d": ABSENT, "d/f": ABSENT})],
            {},
            Removed(frozenset(TO_DELETE), {}, {}),
        ),
        # Someone there changed it: its directory is left, too.
        (
            [LookResult(differing={"d/f": THEIRS}, holding_more=["d"])],
            {},
            Removed(frozenset(), {}, {}),
        ),
        # What else is in the directory is theirs, and so is the directory by now, but where a file is to be.
        ([LookResult(removed=["d/f"], holding_more=["d"])], {}, Removed(frozenset(TO_DELETE), {}, {})),
        (
            [LookResult(removed=["d/f"], holding_more=["d"])],
            {"d": FILE},
            Removed(frozenset({"d/f"}), {}, {"d": Obstacle.DIRECTORY}),
        ),
        # The later of two looks counts.
        (
            [LookResult(holding_more=["d"], removed=["d/f"]), LookResult(removed=["d"])],
            {"d": FILE},
            Removed(frozenset(TO_DELETE), {}, {}),
        ),
        # What could not be removed, or looked at, is as it was put there.
        (
            [LookResult(failed={"d": "denied"}, removed=["d/f"])],
            {"d": FILE},
            Removed(frozenset({"d/f"}), {"d": "denied"}, {"d": Obstacle.DIRECTORY}),
        ),
        (
            [LookResult(failed=dict.fromkeys(TO_DELETE, NOBODY))],
            {"d": FILE},
            Removed(frozenset(), dict.fromkeys(TO_DELETE, NOBODY), {"d": Obstacle.UNKNOWN}),
        ),
    ],
)
def test_what_looks_removed(looks: list[LookResult], wanted: dict[str, Entry], removed: Removed) -> None:
    """A place is free, taken by what someone else has there, or nobody knows."""
    assert removed_by(looks, TO_DELETE, Manifest(wanted)) == removed
