"""What is said of held paths: the warning's remedy, and the line at the end of a push, are true."""

from __future__ import annotations

from syncd.cli.push import PushResult, summary
from syncd.sandbox.look_request import RemoteEntry, RemoteKind
from syncd.sandbox.remote_changes import held_warning


def test_the_remedy_works() -> None:
    """What could not be saved is not overwritten by force either, so that is not advised before it is moved away."""
    assert "`syncd push --force` overwrites" in str(held_warning("a", None))
    unsaved = str(held_warning("a", RemoteEntry(RemoteKind.DIRECTORY)))
    assert "could not be saved" in unsaved
    assert "move it away there, then `syncd push --force`" in unsaved
    assert "overwrites" not in unsaved


def test_a_push_that_sent_nothing() -> None:
    """It does not say that the sandbox holds everything while a path is held."""
    unchanged = {"outcome": "unchanged", "files": 3, "sync": None, "change": None}
    assert summary(PushResult({**unchanged, "held": []})) == "nothing to do: the sandbox holds all 3 files"
    held = summary(PushResult({**unchanged, "held": ["a"]}))
    assert held == "nothing was sent: the sandbox holds all but what is held"
