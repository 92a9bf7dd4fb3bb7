"""The state's database: what was committed survives, what is damaged costs no more than itself, whatever ends whom."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from random import Random

import pytest

from syncd.model.entry import Entry, Kind
from syncd.model.manifest import Manifest
from syncd.sandbox.sandbox_state import SandboxState
from syncd.store.manifests import ManifestRows
from syncd.store.state_db import NAME, Record, StateDb
from tests.component.limits import in_own_mounts
from tests.component.sample_records import TARGET, arrived
from tests.component.test_state_files import KINDS
from tests.recorded import change, damage


def record(db: StateDb, owner: str = "") -> Record[str]:
    return Record(db, "thing", str, "nothing is lost", owner)


def again(folder: Path) -> str | None:
    """Return the record as another process reads it."""
    with closing(StateDb(str(folder))) as db:
        return record(db).load()


def tree(number: int, files: int = 5, directories: int = 40) -> Manifest:
    entry = Entry(Kind.FILE, 0o644, number, number, digest=bytes([number % 256]) * 32)
    return Manifest({f"d{each}/f{name}": entry for each in range(directories) for name in range(files)})


def test_a_record(tmp_path: Path, db: StateDb) -> None:
    """It is read by the next process, by each owner apart, and gone once removed; reading makes no file."""
    assert record(db).load() is None
    record(db).remove()
    assert not (tmp_path / NAME).exists()
    record(db).save("a")
    record(db, "somebody").save("b")
    assert (again(tmp_path), record(db, "somebody").load()) == ("a", "b")
    record(db).remove()
    assert again(tmp_path) is None
    assert {path.stat().st_mode & 0o077 for path in tmp_path.iterdir()} == {0}


def test_a_folder_of_any_name(tmp_path: Path) -> None:
    """One that is not UTF-8, or that means something in a URI, has the file like any other."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9 %20?#\n"))
    folder.mkdir()
    with closing(StateDb(str(folder))) as db:
        record(db).save("a")
    assert again(folder) == "a"
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def _change_and_fail(db: StateDb) -> None:
    with db.transaction():
        record(db).save("after")
        ManifestRows(db, "box").save(0, tree(1), None)
        raise ZeroDivisionError


def test_a_transaction_is_all_or_nothing(tmp_path: Path, db: StateDb) -> None:
    """One that fails half-way leaves all as it was, in this process too; one within another is part of it."""
    record(db).save("before")
    with pytest.raises(ZeroDivisionError):
        _change_and_fail(db)
    assert (record(db).load(), again(tmp_path)) == ("before", "before")
    with db.transaction():
        record(db).save("after")
        assert again(tmp_path) == "before"
    assert again(tmp_path) == "after"


@pytest.mark.parametrize("directories", [1, 40])
def test_a_manifest(db: StateDb, directories: int) -> None:
    """What is read is what was last written, whether the rows that were there are known or not."""
    rows, chance = ManifestRows(db, "box"), Random(directories)
    before = None
    for number in range(20):
        now = tree(chance.randrange(3), chance.randrange(6), chance.randrange(1, directories + 1))
        rows.save(0, now, before)
        rows.save(1, tree(number), None)
        assert rows.load(0) == (now, [])
        before = now.copy() if chance.random() < 0.7 else None
    rows.forget(1)
    assert rows.load(1) == (Manifest(), [])
    assert rows.load(0)[0] == now


# -- damage


def test_a_file_that_is_taken_away_within_a_transaction(tmp_path: Path, db: StateDb) -> None:
    """Nothing was recorded, and that is told."""
    record(db).save("a")

    def remove_it_and_change() -> None:
        with db.transaction():
            for path in tmp_path.iterdir():
                path.unlink()
            record(db).load()

    with pytest.raises(OSError):
        remove_it_and_change()
    record(db).save("b")
    assert again(tmp_path) == "b"


def test_two_processes_that_find_it_damaged(tmp_path: Path, db: StateDb) -> None:
    """The second one does not set aside what the first one put in its place."""
    record(db).save("a")
    with closing(StateDb(str(tmp_path))) as other:
        assert record(other).load() == "a"
        db._set_aside("it is damaged")
        record(db).save("b")
        other._set_aside("it is damaged")
        assert record(other).load() == "b"
        assert other.warning is None


RUINS: dict[str, Callable[[Path], object]] = {
    "garbage": lambda path: path.write_bytes(b"something else\n" * 2000),
    "newer": lambda path: change(path.parent, "PRAGMA user_version = 9"),
    "without tables": lambda path: change(path.parent, "DROP TABLE records"),
    **KINDS,
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("ruin", RUINS.values(), ids=RUINS)
def test_a_file_that_is_no_database(tmp_path: Path, ruin: Callable[[Path], object]) -> None:
    """It is set aside with one warning, without a wait, and the next one works; nothing is written to its target."""
    with closing(StateDb(str(tmp_path))) as db:
        record(db).save("1")
    if ruin in KINDS.values():
        (tmp_path / NAME).unlink()
    ruin(tmp_path / NAME)
    with closing(StateDb(str(tmp_path))) as db:
        assert record(db).load() is None
        assert db.warning is not None
        assert "state.db.damaged" in str(db.warning)
        record(db).save("2")
        assert record(db).load() == "2"
    assert os.path.lexists(tmp_path / "state.db.damaged")
    if (tmp_path / "victim").exists():
        assert (tmp_path / "victim").read_text() == "not ours"


def _overwrite(found: Record[str]) -> None:
    with found._db.transaction():
        found._db.change("DELETE FROM records")


@pytest.mark.parametrize("left", [0, 300, 20_000])
@pytest.mark.parametrize("act", [Record.read, _overwrite])
def test_a_log_that_is_cut_while_it_is_open(
    tmp_path: Path, db: StateDb, act: Callable[[Record[str]], None], left: int
) -> None:
    """What was in it is lost; the file is set aside, whether it is read or written, and the next one works."""
    record(db).save("1" * 2_000_000)  # more than is kept in memory
    with open(tmp_path / f"{NAME}-wal", "r+b") as log:
        log.truncate(left)
    with suppress(OSError):
        act(record(db))
    assert "state.db.damaged" in str(db.warning)
    record(db).save("3")
    assert again(tmp_path) == "3"


def test_a_damaged_record(tmp_path: Path, db: StateDb, caplog: pytest.LogCaptureFixture) -> None:
    """It reads as none, the log says what that costs, and no other is lost."""
    record(db).save("1")
    record(db, "somebody").save("2")
    change(tmp_path, "UPDATE records SET value = x'a132' WHERE owner = 1")
    assert record(db).load() is None
    assert "'thing' in the state was damaged: nothing is lost" in caplog.text
    assert record(db, "somebody").load() == "2"
    damage(tmp_path, "thing")


def test_flipped_bits(tmp_path: Path) -> None:
    """Whatever bit of the file flips: each directory that is read is as it was written, or is not read at all."""
    with closing(StateDb(str(tmp_path))) as db:
        arrived(db, tree(7))
    content, chance = (tmp_path / NAME).read_bytes(), Random(11)
    whole = lost = 0
    for _ in range(150):
        for path in tmp_path.iterdir():
            path.unlink()
        flipped = bytearray(content)
        flipped[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        (tmp_path / NAME).write_bytes(flipped)
        with closing(StateDb(str(tmp_path))) as db:
            base = SandboxState(db, TARGET).content.base
        whole += base == tree(7)
        lost += not base
        assert base.items() <= tree(7).items()
    assert 0 < lost < 75
    assert whole > 20


def test_a_damaged_directory(tmp_path: Path) -> None:
    """It costs its entries alone, with a warning; the next record writes all of them."""
    with closing(StateDb(str(tmp_path))) as db:
        arrived(db, tree(7))
        db.close()
        change(tmp_path, "UPDATE directories SET encoded = zeroblob(9) WHERE path = x'6433'")
        state = SandboxState(db, TARGET)
        base, (warning,) = state.content.base, state.warnings
        assert set(tree(7)) - set(base) == {f"d3/f{number}" for number in range(5)}
        assert "was damaged" in str(warning)
        arrived(db, base)
        again = SandboxState(db, TARGET)
        assert (again.content.base, again.warnings) == (base, [])


# -- a disk that refuses


def test_a_full_and_a_read_only_disk(tmp_path: Path) -> None:
    """Each is an error of the system, nothing is half written, and it goes on when there is room."""
    assert in_own_mounts(small_disk, tmp_path) == "the state cannot be read (Read-only file system): nothing is lost\n"


def small_disk(folder: str) -> None:
    """Write to a small disk that is filled, and then is read-only; run in a mount namespace."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], check=True)
    filler = Path(folder, "filler")
    with closing(StateDb(folder)) as db:
        record(db).save("1")
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass
        with pytest.raises(OSError, match="No space left on device"):
            record(db).save("x" * 300_000)
        assert record(db).load() == "1"
        filler.unlink()
        record(db).save("2")
        assert record(db).load() == "2"
        db.close()
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        with pytest.raises(OSError, match="Read-only file system"):
            record(db).save("3")
        assert record(db).load() is None
        subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
        assert record(db).load() == "2"


def test_a_lock_that_another_process_keeps(tmp_path: Path, db: StateDb, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write fails after a while with an error of the system, and goes on when the lock is gone."""
    record(db).save("1")
    monkeypatch.setattr("syncd.store.state_db._BUSY_S", 0.05)
    db.close()
    with closing(sqlite3.connect(tmp_path / NAME, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OSError, match="temporarily unavailable") as caught:
            record(db).save("2")
        assert caught.value.errno == errno.EAGAIN
        other.execute("ROLLBACK")
    record(db).save("2")
    assert again(tmp_path) == "2"
