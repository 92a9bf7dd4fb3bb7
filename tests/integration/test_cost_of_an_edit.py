"""An edit costs what was edited: a sync reads the directories of the change, and flushes to the disk what it must."""

from __future__ import annotations

import pytest

from syncd.model.directory import Entries
from syncd.model.entry import Entry
from tests.integration.sync_rig import RecordingObserver, Rig

_DIRECTORIES = 400
_MOST_READ = 20


@pytest.mark.parametrize("agent_changes", ["save", "overwrite"])
def test_an_edit_reads_few_directories(bare: Rig, agent_changes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With hundreds of directories, a sync of one file decodes some, whatever it compares and records."""
    read: list[Entries] = []
    decoded = Entries.decoded

    def counted(self: Entries) -> dict[str, Entry]:
        read.append(self)
        return decoded(self)

    bare.use_defaults()
    bare.set(agent_changes=agent_changes)
    for number in range(_DIRECTORIES):
        bare.write(f"d{number}/f", str(number))  # no two directories are equal
    bare.sync()
    for text in ("x", "y"):
        bare.write("d7/f", text)
        monkeypatch.setattr(Entries, "decoded", counted)
        read.clear()
        outcome, _ = bare.sync(observer=RecordingObserver(bare.clock, only={"d7"}))
        monkeypatch.undo()
        assert outcome.word == "initialized"
    assert bare.arrived()["d7/f"] == "y"
    assert len(read) <= _MOST_READ, f"{len(read)} of {_DIRECTORIES} directories were read"
