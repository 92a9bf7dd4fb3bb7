"""An edit costs what was edited: a sync reads the directories of the change, and flushes to the disk what it must."""

from __future__ import annotations

from pathlib import Path

import pytest

from syncd.model.directory import Entries
from syncd.model.entry import Entry
from tests.integration.sync_rig import RecordingObserver, rigged

_DIRECTORIES = 400
_MOST_READ = 20


@pytest.mark.parametrize("agent_changes", ["save", "overwrite"])
def test_an_edit_reads_few_directories(tmp_path: Path, agent_changes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With hundreds of directories, a sync of one file decodes some, whatever it compares and records."""
    read: list[Entries] = []
    decoded = Entries.decoded

    def counted(self: Entries) -> dict[str, Entry]:
        read.append(self)
        return decoded(self)

    with rigged(tmp_path) as rig:
        rig.use_defaults()
        rig.keys["sandbox"]["agent_changes"] = agent_changes
        rig.restart()
        for number in range(_DIRECTORIES):
            rig.write(f"d{number}/f", str(number))  # no two directories are equal
        rig.sync()
        for text in ("x", "y"):
            rig.write("d7/f", text)
            monkeypatch.setattr(Entries, "decoded", counted)
            read.clear()
            outcome, _ = rig.sync(observer=RecordingObserver(rig.clock, only={"d7"}))
            monkeypatch.undo()
            assert outcome.word == "initialized"
        assert rig.arrived()["d7/f"] == "y"
    assert len(read) <= _MOST_READ, f"{len(read)} of {_DIRECTORIES} directories were read"
