"""The decision by three sides: its table, and what holds for every input."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncd.core.choices import AgentChanges
from syncd.sandbox.look_request import ABSENT, RemoteEntry, RemoteKind
from syncd.sandbox.three_way import Forced, LocalState, PathAction, action_for, decide, was_emptied, withheld

FILE = RemoteEntry(RemoteKind.FILE, size_bytes=3, digest=b"d", copy="/copies/0")
NOT_COPIED = RemoteEntry(RemoteKind.FILE, size_bytes=3)
UNSTABLE = RemoteEntry(RemoteKind.FILE, size_bytes=3, unstable=True)
DIRECTORY = RemoteEntry(RemoteKind.DIRECTORY)
LINK = RemoteEntry(RemoteKind.SYMLINK, target="x")
OTHER = RemoteEntry(RemoteKind.OTHER)

W, K, H, S = PathAction.WRITE, PathAction.KEEP, PathAction.HOLD, PathAction.SAVE
COLUMNS = (AgentChanges.SAVE, AgentChanges.HOLD, Forced.FORCE, AgentChanges.OVERWRITE)
TABLE = {
    (LocalState.AS_BASE, ABSENT): (W, W, W, W),
    (LocalState.AS_BASE, FILE): (K, K, S, W),
    (LocalState.AS_BASE, NOT_COPIED): (K, K, K, W),
    (LocalState.AS_BASE, UNSTABLE): (K, K, K, W),
    (LocalState.AS_BASE, LINK): (K, K, S, W),
    (LocalState.AS_BASE, DIRECTORY): (K, K, K, W),
    (LocalState.CHANGED, ABSENT): (W, W, W, W),
    (LocalState.CHANGED, FILE): (S, H, S, W),
    (LocalState.CHANGED, NOT_COPIED): (H, H, H, W),
    (LocalState.CHANGED, UNSTABLE): (H, H, H, W),
    (LocalState.CHANGED, LINK): (S, H, S, W),
    (LocalState.CHANGED, DIRECTORY): (H, H, H, W),
    (LocalState.CHANGED, OTHER): (H, H, H, W),
    (LocalState.DELETED, ABSENT): (W, W, W, W),
    (LocalState.DELETED, FILE): (K, K, S, W),
    (LocalState.DELETED, NOT_COPIED): (K, K, K, W),
    (LocalState.DELETED, DIRECTORY): (K, K, K, W),
}


@pytest.mark.parametrize(("local", "remote"), TABLE)
def test_the_table(local: LocalState, remote: RemoteEntry) -> None:
    """Each state of the two sides has one action for each setting."""
    assert tuple(action_for(local, remote, setting) for setting in COLUMNS) == TABLE[local, remote]


def test_what_is_below_a_path_that_stays_is_not_written() -> None:
    """A directory that the agent replaced by a file or a link takes all that we have below it with it."""
    decision = decide({"d": FILE, "d/a": ABSENT, "d/b/c": ABSENT, "e": ABSENT}, ["d", "d/a"], (), AgentChanges.SAVE)
    assert decision.kept == {"d": FILE}
    assert withheld(["a", "d", "d/a", "d/b", "d/b/c", "dd", "e"], decision) == {"d", "d/a", "d/b", "d/b/c"}


def test_nothing_stays_where_nothing_differs() -> None:
    """An empty finding withholds nothing."""
    assert withheld(["a"], decide({}, (), (), AgentChanges.HOLD)) == frozenset()


REMOTES = st.sampled_from([ABSENT, FILE, NOT_COPIED, UNSTABLE, DIRECTORY, LINK, OTHER])
PATHS = st.sampled_from(["a", "b", "b/c", "b/c/d", "e"])


@given(st.dictionaries(PATHS, REMOTES), st.sets(PATHS), st.sets(PATHS), st.sampled_from(COLUMNS[:3]))
def test_no_version_is_overwritten_unsaved(
    differing: dict[str, RemoteEntry], as_base: set[str], deleted: set[str], setting: AgentChanges
) -> None:
    """Whatever is found: it is missing, stays as it is, or is saved."""
    decision = decide(differing, as_base, deleted, setting)
    stays = withheld(differing, decision)
    for path, remote in differing.items():
        assert remote == ABSENT or path in stays or path in decision.saved or path in decision.kept


@pytest.mark.parametrize(
    ("missing", "looked_at", "emptied"),
    [(0, 0, False), (0, 200, False), (1, 1, True), (1, 2, False), (180, 200, False), (181, 200, True), (2, 2, True)],
)
def test_an_emptied_sandbox(missing: int, looked_at: int, emptied: bool) -> None:
    """A sandbox with less than a tenth left of what was put there was emptied; fewer losses are the agent's."""
    assert was_emptied(missing, looked_at) is emptied
