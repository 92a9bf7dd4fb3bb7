"""What is said of held paths: the warning's remedy, and the line at the end of a push, are true."""

from __future__ import annotations

import pytest

from syncd.cli.options import keeper
from syncd.cli.push import summary
from syncd.model.entry import Kind, SeenEntry
from syncd.sandbox.saved_versions import why_unsaved
from syncd.sandbox.seen_paths import held_warning


def test_the_remedy_works() -> None:
    """What could not be saved is not overwritten by force either, so that is not advised before it is moved away."""
    assert "`syncd resolve` decides" in str(held_warning("a", None))
    unsaved = str(held_warning("a", "it is too large"))
    assert "could not be saved (it is too large)" in unsaved
    assert "move it away there" in unsaved
    assert "overwrites" not in unsaved


@pytest.mark.parametrize(("booted", "command"), [("/", "syncd service install"), ("/nowhere", "syncd run")])
def test_the_next_step(monkeypatch: pytest.MonkeyPatch, booted: str, command: str) -> None:
    """Where systemd does not run, no service is proposed."""
    monkeypatch.setattr("syncd.cli.options.BOOTED_BY_SYSTEMD", booted)
    assert keeper(" --config a") == f"{command} --config a"


@pytest.mark.parametrize(
    ("there", "why"),
    [
        (SeenEntry(Kind.FILE, unstable=True), "it is still being written"),
        (SeenEntry(Kind.FILE, size_bytes=3 << 30), "it is too large"),
        (SeenEntry(Kind.FILE), "no room here"),
        (SeenEntry(Kind.SYMLINK), "no room here"),
        (SeenEntry(Kind.UNREAD), "it cannot be read there, or not in time"),
        (SeenEntry(Kind.DIRECTORY), "a directory has its place"),
    ],
)
def test_the_reason(there: SeenEntry, why: str) -> None:
    """What lies in the version itself comes before what this machine lacks."""
    assert why_unsaved(there, "no room here") == why


def test_a_push_that_sent_nothing() -> None:
    """It does not say that the sandbox holds everything while a path is held."""
    unchanged = {"outcome": "unchanged", "files": 3, "sync": None, "change": None}
    assert summary({**unchanged, "held": []}) == "nothing to do: the sandbox holds all 3 files"
    held = summary({**unchanged, "held": ["a"]})
    assert held == "nothing was sent: the sandbox holds all but what is held"
