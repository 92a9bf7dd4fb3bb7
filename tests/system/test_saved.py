"""`syncd saved`: lists, shows, restores and drops the agent's versions, without any request."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from contextlib import closing

import pytest

from syncd.model.entry import Kind, SeenEntry
from syncd.sandbox.saved_versions import SavedVersions, Why
from syncd.store.state_db import StateDb
from tests.clock import ScriptedClock
from tests.looks import file_of
from tests.system.rig import Rig

LATIN = os.fsdecode(b"caf\xe9")
FIRST, SECOND = "20261124-132011-00", "20261124-132012-00"


@pytest.fixture
def saved(rig: Rig) -> Rig:
    """Return a workspace with two saved versions, and no daemon; the time zone is UTC."""
    rig.environ["TZ"] = "UTC"
    rig.state_folder.mkdir(parents=True)
    clock = ScriptedClock()
    entries = {
        "d": SeenEntry(Kind.DIRECTORY, 0o755),
        "d/\033[31mred": file_of(b"x" * 20_000, 0o755),
        LATIN: file_of(b"1234"),
        "ln": SeenEntry(Kind.SYMLINK, 0o777, target="d"),
        "out": SeenEntry(Kind.SYMLINK, 0o777, target="/etc"),
    }
    with closing(StateDb(str(rig.state_folder))) as db:
        store = SavedVersions(db, clock)
        store.save(Why.SANDBOX_ENDED, "box-1", entries)
        clock.go_on(1)
        store.save(Why.OVERWRITTEN, "box-2", {f"file{number}": file_of(b"%d" % number) for number in range(8)})
    return rig


def test_list(saved: Rig) -> None:
    """The newest first, with its first paths; with --json the same for scripts."""
    said = saved.ok("saved")
    assert [line for line in said.out.splitlines() if not line.startswith(" ")] == [
        f"{SECOND}  overwritten  8 paths, 8 bytes",
        f"{FIRST}  sandbox-ended  5 paths, 20 KiB",
    ]
    assert {"    file4", f"    and 3 more: syncd saved show {SECOND}", "    d/\\x1b[31mred"} <= set(
        said.out.splitlines()
    )
    assert said.err == ""
    assert saved.ok("saved", "--json", "show", FIRST).out == saved.ok("saved", "show", FIRST, "--json").out
    assert json.loads(saved.ok("saved", "--json").out) == {
        "saved": [
            {
                "id": SECOND,
                "at": "2026-11-24T13:20:12Z",
                "why": "overwritten",
                "sandbox": "main",
                "sandbox_id": "box-2",
                "paths": [f"file{number}" for number in range(8)],
                "bytes": 8,
            },
            {
                "id": FIRST,
                "at": "2026-11-24T13:20:11Z",
                "why": "sandbox-ended",
                "sandbox": "main",
                "sandbox_id": "box-1",
                "paths": sorted([LATIN, "d", "d/\033[31mred", "ln", "out"]),
                "bytes": 20_004,
            },
        ]
    }


def test_show(saved: Rig) -> None:
    """Each path with kind, mode and size."""
    shown = saved.ok("saved", "show", FIRST).out.splitlines()
    assert {"file       644  4 bytes  caf\\xe9", "symlink    777           out -> /etc"} <= set(shown)
    document = json.loads(saved.ok("saved", "show", FIRST, "--json").out)
    assert list(document) == ["id", "at", "why", "sandbox", "sandbox_id", "paths", "bytes", "entries"]
    assert document["entries"][0] == {
        "path": LATIN,
        "kind": "file",
        "mode": "644",
        "bytes": 4,
        "mtime": 1_700_000_000,
    }
    assert document["entries"][3]["target"] == "d"


def test_restore(saved: Rig) -> None:
    """Into a new folder, all but a link that leads out; never over anything, and not into the workspace."""
    top = saved.home / "new/dest"
    said = saved.ok("saved", "restore", FIRST, str(top))
    assert said.out == f"restored 3 files, 20,004 bytes, into {top}\n"
    assert said.err == "not restored: out: the link leads outside\n"
    assert (top / LATIN).read_bytes() == b"1234"
    assert (top / "d/\033[31mred").stat().st_mode & 0o777 == 0o755
    assert (top / "ln").readlink().name == "d"
    again = saved.run("saved", "restore", FIRST, str(top))
    assert (again.code, "nothing is overwritten" in again.err) == (78, True)
    (saved.home / "link").symlink_to(saved.workspace)
    for place in (saved.workspace / "x", saved.home / "link/x"):
        refused = saved.run("saved", "restore", FIRST, str(place))
        assert (refused.code, "is in the workspace" in refused.err) == (78, True)
        assert not place.exists()
    shutil.rmtree(top)
    document = json.loads(saved.ok("saved", "restore", FIRST, str(top), "--json").out)
    assert document == {
        "id": FIRST,
        "files": 3,
        "bytes": 20_004,
        "left_out": ["out: the link leads outside"],
        "unnamed": 0,
    }
    assert len(saved.saved()) == 2


def test_a_damaged_content(saved: Rig) -> None:
    """It is named and left out, wherever it would be shown or restored."""
    content = saved.state_folder / "blobs" / hashlib.sha256(b"3").hexdigest()
    content.write_bytes(b"!")
    shown = saved.run("saved", "show", SECOND)
    assert (shown.code, shown.err) == (0, "damaged on this disk, and cannot be restored: file3\n")
    entries = json.loads(saved.ok("saved", "show", SECOND, "--json").out)["entries"]
    assert [entry["path"] for entry in entries if "damaged" in entry] == ["file3"]
    restored = saved.run("saved", "restore", SECOND, str(saved.home / "dest"))
    assert (restored.code, "not restored: file3: its saved content was damaged" in restored.err) == (1, True)
    assert not (saved.home / "dest/file3").exists()
    here = saved.run("saved", "restore", SECOND, "--here")
    assert (here.code, "not restored: file3: its saved content was damaged" in here.err) == (1, True)
    assert sorted(path.name for path in saved.workspace.iterdir()) == [f"file{n}" for n in (0, 1, 2, 4, 5, 6, 7)]


def test_drop(saved: Rig) -> None:
    """The version is gone, the others stay; once nothing is saved, that is said on stderr."""
    assert saved.ok("saved", "drop", FIRST).out == f"dropped {FIRST}\n"
    assert [row["id"] for row in saved.saved()] == [SECOND]
    assert json.loads(saved.ok("saved", "drop", SECOND, "--json").out) == {"dropped": SECOND}
    assert json.loads(saved.ok("saved", "--json").out) == {"saved": []}
    empty = saved.ok("saved")
    assert (empty.out, empty.err) == ("", "no version of the agent's is saved\n")
    assert os.listdir(saved.state_folder / "blobs") == []


@pytest.mark.parametrize(("args", "typed", "left"), [((), "n", 2), ((), "y", 1), (("--yes",), "", 1)])
def test_drop_asks_on_a_terminal(saved: Rig, args: tuple[str, ...], typed: str, left: int) -> None:
    """It shows what would be gone; a script is not asked."""
    with saved.terminal("saved", "drop", FIRST, *args) as terminal:
        if typed:
            terminal.answer("Remove it for good? [y/N]:", typed)
        assert terminal.finish() == 0
        assert ("sandbox-ended  5 paths" in terminal.text) is bool(typed)
    assert len(saved.saved()) == left


def test_nothing_was_ever_saved(rig: Rig) -> None:
    """It makes no folder."""
    assert json.loads(rig.ok("saved", "--json").out) == {"saved": []}
    assert not rig.state_folder.exists()


def test_wrong_usage(saved: Rig) -> None:
    """2, and nothing is done; an unknown id is 78, in one line that says how to list them."""
    restored = ("restore", FIRST)
    for args in (("show",), ("drop",), restored, (*restored, ""), ("nonsense",), ("list", "x"), ("--nonsense",)):
        assert saved.run("saved", *args).code == 2, args
    for args in (("show", "20200101-000000-00"), ("drop", "x"), ("restore", "..", "dest"), ("show", "\033[31m")):
        failed = saved.run("saved", *args)
        assert (failed.code, failed.out) == (78, "")
        assert re.fullmatch(r"syncd: there is no saved version [^\n\033]*: `syncd saved` lists .*\n", failed.err)
    assert not (saved.home / "dest").exists()
    assert len(saved.saved()) == 2


def test_beside_a_daemon(saved: Rig) -> None:
    """A running daemon does not keep it from anything, and no request is sent."""
    saved.write("a")
    saved.up()
    before = len(saved.emulator.request_log.ops())
    saved.ok("saved", "restore", SECOND, str(saved.home / "dest"))
    saved.ok("saved", "drop", SECOND)
    assert [row["id"] for row in saved.saved()] == [FIRST]
    assert len(saved.emulator.request_log.ops()) == before
