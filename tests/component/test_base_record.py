"""The base on disk: a whole record and the changes after it, whatever ends the process."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syncd.core.change_log import ChangeLog
from syncd.core.durable_file import sealed
from syncd.model.entry import Entry, Kind
from syncd.model.manifest import Manifest
from syncd.remote.target import Target
from syncd.sync import base_record
from syncd.sync.base_record import Base, BaseRecord

TARGET = Target("https://api.example", "box", "us")
OTHER = Target("https://api.example", "other", "us")


def entry(number: int) -> Entry:
    return Entry(Kind.FILE, 0o644, number, number, digest=bytes([number % 256]) * 32)


def manifest(**numbers: int) -> Manifest:
    return Manifest({path: entry(number) for path, number in numbers.items()})


def base(found: Manifest, target: Target = TARGET, searched: str = "rules") -> Base:
    return Base(target, found, searched)


def loaded(folder: Path) -> Base | None:
    return BaseRecord(str(folder)).load()[0]


def changes_file(folder: Path) -> Path:
    return folder / "initialized-changes"


def test_a_change_costs_a_change(tmp_path: Path) -> None:
    """The whole is written once; a change of one path in thousands writes some hundred bytes."""
    record = BaseRecord(str(tmp_path))
    tree = Manifest({f"d/file{number}": entry(number) for number in range(5000)})
    record.save(base(tree))
    whole = (tmp_path / "initialized").read_bytes()
    tree = tree | {"d/file7": entry(9), "new": entry(3)}
    del tree["d/file8"]
    record.save(base(tree))
    assert (tmp_path / "initialized").read_bytes() == whole
    assert changes_file(tmp_path).stat().st_size < 500
    assert loaded(tmp_path) == base(tree)


def test_changes_of_another_record_do_not_count(tmp_path: Path) -> None:
    """A process that dies between a new whole record and the end of the old changes leaves the new one."""
    record = BaseRecord(str(tmp_path))
    record.save(base(manifest(a=1)))
    record.save(base(manifest(a=2)))
    kept = changes_file(tmp_path).read_bytes()
    record.save(base(manifest(a=3), OTHER))
    changes_file(tmp_path).write_bytes(kept)
    assert loaded(tmp_path) == base(manifest(a=3), OTHER)


@pytest.mark.parametrize("searched", ["rules", "others"])
def test_another_search_or_sandbox_is_a_whole_record(tmp_path: Path, searched: str) -> None:
    """A record names one sandbox, and one search that all its contents passed."""
    record = BaseRecord(str(tmp_path))
    record.save(base(manifest(a=1)))
    record.save(base(manifest(a=1, b=2), TARGET if searched == "others" else OTHER, searched))
    assert not changes_file(tmp_path).exists()
    assert loaded(tmp_path) == base(manifest(a=1, b=2), TARGET if searched == "others" else OTHER, searched)


def test_many_changes_become_a_whole_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The changes never grow beyond half of the record, or a little."""
    monkeypatch.setattr(base_record, "_LEAST_CHANGES_BYTES", 1000)
    record = BaseRecord(str(tmp_path))
    for number in range(100):
        record.save(base(manifest(a=number)))
        assert not changes_file(tmp_path).exists() or changes_file(tmp_path).stat().st_size < 1200
        assert loaded(tmp_path) == base(manifest(a=number))


def test_a_large_change_becomes_a_whole_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However small it is beside the record: it would take much memory."""
    monkeypatch.setattr(base_record, "_MOST_CHANGE_BYTES", 300)
    record = BaseRecord(str(tmp_path))
    before = {f"f{number}": 1 for number in range(50)}
    record.save(base(manifest(**before)))
    for changed, is_appended in ((1, True), (9, False)):
        now = before | {f"f{number}": changed + 1 for number in range(changed)}
        record.save(base(manifest(**now)))
        assert changes_file(tmp_path).exists() is is_appended
        assert loaded(tmp_path) == base(manifest(**now))


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_change_that_was_cut_short(tmp_path: Path, cut: int) -> None:
    """It did not happen; the next one is appended in its place."""
    record = BaseRecord(str(tmp_path))
    record.save(base(manifest(a=1)))
    record.save(base(manifest(a=1, b=2)))
    whole = changes_file(tmp_path).read_bytes()
    record.save(base(manifest(a=1, b=2, c=3)))
    torn = changes_file(tmp_path).read_bytes()[:-cut]
    changes_file(tmp_path).write_bytes(torn)
    if len(torn) >= len(whole):
        assert loaded(tmp_path) == base(manifest(a=1, b=2))
    again = BaseRecord(str(tmp_path))
    again.load()
    again.save(base(manifest(d=4)))
    assert loaded(tmp_path) == base(manifest(d=4))


@pytest.mark.parametrize("at", [0, 20, 90, 100])
def test_a_damaged_change(tmp_path: Path, at: int) -> None:
    """What follows a damaged byte does not count: the base before is one that the sandbox was known to hold."""
    record = BaseRecord(str(tmp_path))
    record.save(base(manifest(a=1)))
    for number in range(2, 6):
        record.save(base(manifest(a=number)))
    content = bytearray(changes_file(tmp_path).read_bytes())
    content[at] ^= 1
    changes_file(tmp_path).write_bytes(content)
    found = loaded(tmp_path)
    assert found is not None
    assert found.manifest in [manifest(a=number) for number in range(1, 6)]


def test_a_change_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record says the failure, and is as before; later it goes on."""
    record = BaseRecord(str(tmp_path))
    record.save(base(manifest(a=1)))
    record.save(base(manifest(a=2)))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            record.save(base(manifest(a=3)))
    assert loaded(tmp_path) == base(manifest(a=2))
    record.save(base(manifest(a=4)))
    assert loaded(tmp_path) == base(manifest(a=4))


NAMES = st.sampled_from(["a", "b", "c/d", "caf\udce9"])


@given(st.lists(st.dictionaries(NAMES, st.integers(0, 9)), max_size=12), st.lists(st.booleans(), max_size=12))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_any_history(tmp_path_factory: pytest.TempPathFactory, trees: list[dict[str, int]], dies: list[bool]) -> None:
    """Whatever was recorded last is what the next process finds."""
    folder = tmp_path_factory.mktemp("record")
    record = BaseRecord(str(folder))
    for number, tree in enumerate(trees):
        found = Manifest({path: entry(value) for path, value in tree.items()})
        record.save(base(found))
        assert loaded(folder) == base(found)
        if number < len(dies) and dies[number]:
            record = BaseRecord(str(folder))
            record.load()


def test_a_log_in_the_place_of_a_link(tmp_path: Path) -> None:
    """A link's target is not written to."""
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "log").symlink_to("mine")
    with pytest.raises(OSError, match=r"symbolic links"):
        ChangeLog(str(tmp_path), "log").append("x", b"change")
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("name", ["initialized", "initialized-changes"])
@pytest.mark.parametrize("damage", ["gone", "cut", "overwritten"])
def test_no_change_is_appended_to_a_damaged_record(tmp_path: Path, name: str, damage: str) -> None:
    """What is recorded after a file was damaged is not lost with it: the record is written whole."""
    record = BaseRecord(str(tmp_path))
    record.save(base(manifest(a=1)))
    record.save(base(manifest(a=2)))
    if damage == "gone":
        (tmp_path / name).unlink()
    elif damage == "cut":
        os.truncate(tmp_path / name, (tmp_path / name).stat().st_size - 1)
    else:
        (tmp_path / name).write_bytes(b"something else\n" * 20)
    record.save(base(manifest(a=2, b=3)))
    assert loaded(tmp_path) == base(manifest(a=2, b=3))


def test_a_record_of_unknown_content(tmp_path: Path) -> None:
    """A record that is whole, but holds something else than entries, is set aside with a warning."""
    rows = [[b"", b"a", msgspec.msgpack.encode("no entries")]]
    record = {"version": 1, "target": TARGET, "directories": rows}
    (tmp_path / "initialized").write_bytes(sealed(msgspec.msgpack.encode(record)))
    found, warning = BaseRecord(str(tmp_path)).load()
    assert found is None
    assert warning is not None
    assert "was damaged" in str(warning)
    assert {path.name for path in tmp_path.iterdir()} == {"initialized.damaged"}
