"""A file with a secret in it is excluded, whatever happened before and whenever the secret was added.

The secret is put together at run time, so that this file holds none. All that was uploaded is checked as bytes: every
archive, and the content of the sandbox.
"""

from __future__ import annotations

import gzip
import os
import random
from collections.abc import Iterator

import pytest

from syncd.archive.snapshotter import SyncMode
from syncd.core.errors import SyncWarning
from syncd.scan.file_reader import ContentReader
from syncd.selection.secret_scanner import SEARCHED_BYTES, SecretSearch
from tests.clock import LATER_S
from tests.integration.sync_rig import KEY, DamagingObserver, Rig

VALUE = "ghp_" + "".join(random.Random(7).choices("ABCDEFGHJKabcdefghjk23456789", k=36))
SECRET = f"user = me\ntoken = {VALUE}\n"


@pytest.fixture
def rig(bare: Rig) -> Iterator[Rig]:
    """A workspace that is in the sandbox; at the end no archive and no log line holds the secret."""
    bare.clock.wall = LATER_S
    bare.send({"a.txt": "hello"})
    archives: list[bytes] = []

    def keep(_: object) -> None:
        archives.append(gzip.decompress(bare.emulator.archive().read_bytes()))

    bare.emulator.faults.on("initialize", "before", keep)
    yield bare
    assert not [number for number, archive in enumerate(archives) if VALUE.encode() in archive]
    assert not any(VALUE in content for content in bare.arrived().values())


def warnings(rig: Rig) -> dict[str, str]:
    """The warnings about secrets by path; none shows the secret."""
    warnings: list[SyncWarning] = rig.cycle.warnings
    assert not any(VALUE in str(warning) for warning in warnings)
    return {warning.key.partition(":")[2]: str(warning) for warning in warnings if warning.key.startswith("secret:")}


def test_a_forced_push_excludes_it_too(rig: Rig) -> None:
    """`--force` changes what is sent again, not what may be uploaded."""
    rig.write("only.txt", SECRET)
    rig.sync(SyncMode.FORCED)
    assert rig.arrived() == {"a.txt": "hello"}


MAY_BE_THERE = "may still be in the sandbox"


@pytest.mark.parametrize("restarts", [False, True])
def test_the_warning_about_an_uploaded_version(rig: Rig, *, restarts: bool) -> None:
    """Neither the next sync nor another version with a secret ends it; an overwritten version does."""

    def goes_on() -> None:
        if restarts:
            rig.restart()
        rig.sync()

    rig.send({"a.txt": "hello\n" + SECRET})
    for number in range(3):
        rig.write("b.txt", str(number))
        goes_on()
        assert MAY_BE_THERE in warnings(rig)["a.txt"]
        rig.write("a.txt", f"{number}\n" + SECRET)
        goes_on()
        assert MAY_BE_THERE in warnings(rig)["a.txt"]
    rig.write("a.txt", "no more")
    goes_on()
    assert warnings(rig) == {}
    assert rig.arrived()["a.txt"] == "no more"


@pytest.mark.parametrize("how", ["deleted", "left out"])
def test_with_keep_the_warning_outlives_the_file(rig: Rig, how: str) -> None:
    """It stays, in the next process too, until the file is removed there, or the sandbox is another one."""
    rig.send({"a.txt": SECRET, "b.txt": "more"})
    if how == "deleted":
        rig.delete("a.txt")
    else:
        rig.write(".gitignore", "a.txt\n")
    for number in range(2):
        rig.send({"b.txt": str(number)})
        assert MAY_BE_THERE in warnings(rig)["a.txt"]
        rig.restart()
        assert MAY_BE_THERE in warnings(rig)["a.txt"]
    there = rig.keys["sandbox"]
    rig.emulator.create_sandbox("another")
    rig.keys["sandbox"] = there | {"id": "another"}
    rig.restart()
    rig.sync()
    assert warnings(rig) == {}


def test_with_mirror_the_warning_ends_with_the_file(rig: Rig) -> None:
    """Deleted here, it is removed there; a version that someone changed there stays, and so does the warning."""
    rig.keys["sandbox"] |= {"deletions": "mirror", "agent_changes": "save"}
    rig.wait_for_programs()
    rig.restart()
    rig.send({"z.txt": "hello"})
    for path in ("a.txt", "z.txt"):
        rig.write(path, SECRET)
    rig.sync()
    assert warnings(rig).keys() == {"a.txt", "z.txt"}
    (rig.sandbox.workspace / "z.txt").write_text("changed there")
    rig.delete("a.txt", "z.txt")
    rig.sync()
    rig.sync()
    assert "a.txt" not in rig.arrived()
    assert warnings(rig).keys() == {"z.txt"}


@pytest.mark.parametrize("young", [False, True], ids=["believed", "young"])
def test_the_result_survives_a_restart(rig: Rig, monkeypatch: pytest.MonkeyPatch, *, young: bool) -> None:
    """Nothing is uploaded, the warning is there again, and only files not known to be clean are read."""
    if young:
        rig.clock.wall = os.stat(rig.workspace).st_ctime
    for number in range(20):
        rig.write(f"d{number}/f.txt", f"{number}")
    rig.send({"d3/secret.txt": SECRET})
    before = rig.uploads
    rig.clock.wall = LATER_S
    rig.restart()
    searched: list[str] = []
    search = SecretSearch.in_file

    def spy(self: SecretSearch, path: str, content: bytes | memoryview) -> object:
        searched.append(path)
        return search(self, path, content)

    monkeypatch.setattr(SecretSearch, "in_file", spy)
    outcome, _ = rig.sync()
    assert outcome.sync is None
    assert rig.uploads == before
    assert "d3/secret.txt" in warnings(rig)
    searched.clear()
    rig.sync()
    assert searched == []  # by now its stamp is old enough


def test_a_recent_file_is_searched_again(rig: Rig) -> None:
    """Within the clock's granularity a secret may be replaced by as many harmless bytes, which must be synced."""
    rig.clock.wall = os.stat(rig.workspace).st_ctime
    rig.send({"f.txt": SECRET})
    assert "f.txt" in warnings(rig)
    status = os.stat(rig.workspace / "f.txt")
    rig.write("f.txt", SECRET.replace(VALUE, "x" * len(VALUE)))
    os.utime(rig.workspace / "f.txt", ns=(status.st_atime_ns, status.st_mtime_ns))
    rig.sync()
    assert "f.txt" in rig.arrived()


def test_a_secret_added_between_scan_and_read(rig: Rig) -> None:
    """The bytes that are searched are those that are packed."""
    rig.write("f.txt", "x" * len(SECRET))
    steps = 0

    def meanwhile() -> None:
        nonlocal steps
        steps += 1
        if steps == at:
            rig.write("f.txt", SECRET)

    for at in range(1, 12):
        steps = 0
        rig.write("f.txt", f"{at:02}".ljust(len(SECRET), "x"))
        rig.meanwhile = meanwhile
        rig.sync()
        rig.meanwhile = lambda: None
        rig.sync()
        assert ("f.txt" in warnings(rig)) is (steps >= at)


@pytest.mark.parametrize("before", [{"allow_secrets": ["*.txt"]}, {"upload_secrets": True}], ids=str)
def test_rules_that_become_stricter(rig: Rig, before: dict[str, object]) -> None:
    """A file that was allowed and uploaded is found at the next start, though unchanged, and is no longer sent."""
    held = rig.keys["workspace"]
    rig.keys["workspace"] = held | before
    rig.restart()
    rig.write("f.txt", SECRET.replace(VALUE, VALUE[:-1] + "Z"))  # not the value that must not be seen
    rig.sync()
    assert "f.txt" in rig.arrived()
    assert warnings(rig) == {}
    rig.keys["workspace"] = held
    rig.restart()
    rig.sync()
    assert "may still be in the sandbox" in warnings(rig)["f.txt"]
    rig.send({"g.txt": "more"})
    assert VALUE[:-1].encode() not in gzip.decompress(rig.emulator.archive().read_bytes())


def test_rules_that_change_cost_no_upload(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under other rules everything is searched once; clean files are not sent again, and not searched again."""
    rig.send({"big.bin": "x" * (SEARCHED_BYTES + 1)})
    before = rig.uploads
    rig.set("workspace", allow_secrets=["never/"])
    assert rig.sync()[0].sync is None
    rig.restart()
    monkeypatch.setattr(SecretSearch, "in_file", lambda *_: pytest.fail("searched again"))
    assert rig.sync()[0].sync is None
    assert rig.uploads == before


def test_partial_archives(rig: Rig) -> None:
    """An archive of only the changes is searched as well."""
    rig.set("sync", archive="auto")
    rig.send({"b.txt": SECRET, "c.txt": "more"})
    rig.send({"a.txt": SECRET, "c.txt": "still more"})
    assert rig.arrived() == {"a.txt": "hello", "c.txt": "still more"}
    assert warnings(rig).keys() == {"a.txt", "b.txt"}


def test_a_spool_that_must_be_made_again(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Packed again because a chunk was damaged, the file is excluded again."""
    rig.write("b.txt", SECRET)
    rig.write("c.txt", "more")
    rig.sync(observer=DamagingObserver(rig.clock, folder=rig.folder))
    assert "it is made again" in caplog.text
    assert set(rig.arrived()) == {"a.txt", "c.txt"}


def test_a_larger_file_is_not_searched(rig: Rig) -> None:
    """The documented limit, tested on both sides."""
    text = SECRET.replace(VALUE, VALUE[:-1] + "Z")
    rig.send({"at.txt": text.rjust(SEARCHED_BYTES), "over.txt": text.rjust(SEARCHED_BYTES + 1)})
    assert set(rig.arrived()) == {"a.txt", "over.txt"}


@pytest.mark.parametrize("archive", ["full", "auto"])
def test_syncds_own_key_in_a_larger_file(rig: Rig, archive: str) -> None:
    """It is found wherever it is: in a new file, a longer one, one with another stamp, and where two pieces meet."""
    rig.set("sync", archive=archive)
    rig.sync()
    size_bytes = 3 * SEARCHED_BYTES + 7
    places = {"begin": 0, "border": SEARCHED_BYTES - 5, "second": 2 * SEARCHED_BYTES - len(KEY), "end": size_bytes}
    for path, at in places.items():
        text = "x" * size_bytes
        rig.write(path, f"{text[:at]}{KEY}{text[at:]}")
    rig.send({"without": "x" * size_bytes})
    assert set(rig.arrived()) == {"a.txt", "without"}
    found = warnings(rig)
    assert found.keys() == places.keys()
    assert all("holds syncd's own API key and is excluded: " in text for text in found.values())
    rig.write("without", "y" * size_bytes + KEY)
    os.utime(rig.workspace / "end")
    rig.sync()
    assert warnings(rig).keys() == {*places, "without"}
    assert rig.arrived()["without"] == "x" * size_bytes
    for path in (*places, "without"):
        rig.write(path, "z" * size_bytes)
    rig.sync()
    assert warnings(rig) == {}
    assert set(rig.arrived()) == {"a.txt", "without", *places}


def test_a_larger_file_that_may_hold_the_key(rig: Rig) -> None:
    """As a smaller one, it is sent if the path is allowed to hold a secret."""
    rig.set("workspace", allow_secrets=["fixtures/"])
    rig.send({"fixtures/large": "x" * SEARCHED_BYTES + KEY})
    assert rig.arrived()["fixtures/large"].endswith(KEY)
    assert warnings(rig) == {}


def test_commands_see_the_key_in_a_larger_file(rig: Rig) -> None:
    """What `ls`, `explain` and `apply` read tells the same as a sync, and nothing is kept of its content."""
    rig.write("large", "x" * SEARCHED_BYTES + KEY + "x" * SEARCHED_BYTES)
    rig.write("other", "x" * (SEARCHED_BYTES + 1))
    paths = ["a.txt", "large", "other", "gone"]
    reader = ContentReader(str(rig.workspace), rig.clock, search=SecretSearch((), KEY))
    assert {path: str(secret) for path, secret in reader.secrets(paths).items()} == {"large": "syncd's own API key"}
    assert [path for path, _ in reader.digests(paths)] == ["a.txt", "other"]
    assert ContentReader(str(rig.workspace), rig.clock, search=SecretSearch()).secrets(paths) == {}
