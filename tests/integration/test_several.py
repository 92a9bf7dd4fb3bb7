"""Several sandboxes of one workspace: one daemon, real requests, real time."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from syncd.core.durable_file import file_stamp
from syncd.core.errors import NeedsPerson
from syncd.core.settings import check_config
from syncd.daemon import loop
from syncd.report.status_store import read_document
from tests.emulator import RequestRecord, When
from tests.integration.sync_rig import SANDBOX, Rig
from tests.integration.test_daemon_waits import DaemonRig


class SeveralRig(DaemonRig):
    """A daemon for the sandboxes of these names, which have ids of their own."""

    def add(self, *names: str, **keys: object) -> None:
        """Add sandboxes to the configuration, and to the emulator."""
        for name in names:
            if "base_url" not in keys:
                self.rig.emulator.create_sandbox(f"box-{name}", ["filesystem"])
            self.rig.keys.setdefault("sandboxes", {})[name] = {"id": f"box-{name}", **keys}
        self.config = check_config(self.rig.keys)

    def content(self, name: str, path: str = "a") -> str:
        """Return what a sandbox holds; empty if there is no such file."""
        sandbox = self.rig.emulator.sandbox(SANDBOX if name == "main" else f"box-{name}")
        file = sandbox.workspace / path
        return file.read_text() if file.exists() else ""

    def end_when(self, *names: str, path: str, text: str) -> None:
        """End the daemon once all of these hold that text."""

        def look(_: RequestRecord) -> None:
            if all(self.content(name, path) == text for name in names):
                self.send(signal.SIGHUP)

        self.rig.emulator.faults.on("any", When.AFTER, look)


@pytest.fixture
def several(bare: Rig) -> Iterator[SeveralRig]:
    bare.write("a", "1")
    several = SeveralRig(bare)
    with several.signals.installed():
        yield several


def test_one_that_is_dead_for_ever(several: SeveralRig) -> None:
    """Two others get an edit at once; the dead one costs few requests an hour, and the status names it."""
    several.rig.keys["retry"] = {}
    several.add("blue", "dead")
    several.use(clock := several.rig.clock)
    began_s, asked = clock.monotonic_s(), list[tuple[float, str | None, set[str]]]()

    def note(entry: RequestRecord) -> None:
        held = {several.content(name) for name in ("main", "blue")}
        asked.append((clock.monotonic_s() - began_s, entry.sandbox, held))
        if held == {"1"}:
            several.rig.write("a", "22")
        if asked[-1][0] > 2 * 3600:
            several.send(signal.SIGHUP)

    several.rig.emulator.faults.script("any@box-dead: 503 always")
    several.rig.emulator.faults.on("any", When.BEFORE, note)
    several.run()
    assert min(now_s for now_s, _, held in asked if held == {"22"}) < 30
    # For an hour after their last sync the agents of the others are followed.
    later = [sandbox for now_s, sandbox, _ in asked if 3900 < now_s <= 2 * 3600]
    assert later == ["box-dead"] * len(later)
    assert 0 < len(later) <= 120
    status = read_document(several.folders.state)
    assert [each.name for each in status.sandboxes if "503" in str(each.last_error)] == ["dead"]


def test_a_request_sends_an_edit_to_one_that_is_proved_meanwhile(several: SeveralRig) -> None:
    """The archive of the proof is packed from an older snapshot, which does not hide the edit from the next scan."""
    several.rig.write("b", "")
    several.rig.use_defaults()
    several.add("blue")
    main_has_it = threading.Event()

    def edit(entry: RequestRecord) -> None:
        if entry.sandbox == "box-blue" and not main_has_it.is_set():
            several.rig.write("a", "22")
            several.send(signal.SIGUSR1)
            assert main_has_it.wait(30)

    def look(_: RequestRecord) -> None:
        if several.content("main") == "22":
            main_has_it.set()

    several.rig.emulator.faults.on("initialize", When.BEFORE, edit)
    several.rig.emulator.faults.on("initialize", When.AFTER, look)
    several.end_when("main", "blue", path="a", text="22")
    several.run()


def test_one_that_is_refused_is_held(several: SeveralRig) -> None:
    """The others are synced; where all are refused, a new daemon ends."""
    several.rig.keys["sandboxes"] = {"gone": {"id": "never-made"}}
    several.config = check_config(several.rig.keys)
    asked: set[str] = set()

    def look(entry: RequestRecord) -> None:
        asked.add(entry.sandbox)
        if several.config.sandbox.id == SANDBOX and "never-made" in asked and several.content("main") == "1":
            several.send(signal.SIGHUP)

    for when in (When.BEFORE, When.AFTER):
        several.rig.emulator.faults.on("any", when, look)
    several.run()
    status = read_document(several.folders.state)
    assert "never-made" in str(status.sandboxes[1].last_error)
    several.rig.keys["sandbox"]["id"] = "neither"
    several.config = check_config(several.rig.keys)
    with pytest.raises(NeedsPerson):
        several.run()


def test_one_that_was_refused_and_answers_otherwise(several: SeveralRig) -> None:
    """It counts as refused no more once it is asked anew: another one that is refused then does not end the daemon."""
    several.rig.keys["retry"] = {}
    several.add("blue")
    faults = several.rig.emulator.faults
    faults.script(f"upload-url@{SANDBOX}: 404", f"any@{SANDBOX}: 503 always", "upload-url@box-blue: 503 always")

    def refuse_blue() -> None:
        faults.clear()
        faults.script(f"any@{SANDBOX}: 503 always", "any@box-blue: 404 always")

    several.at(150, refuse_blue)  # main is asked anew after a minute
    several.run_for(300)
    status = read_document(several.folders.state)
    assert ["404" in str(each.last_error) for each in status.sandboxes] == [False, True]
    faults.clear()
    faults.script("any: 404 always")
    with pytest.raises(NeedsPerson):
        several.run()


def test_a_reload_is_asked_for_in_any_instant(several: SeveralRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SIGHUP that comes while the loop looks if there was one counts."""
    several.rig.keys["sandboxes"] = {"gone": {"id": "never-made"}}
    several.config = check_config(several.rig.keys)
    looks = itertools.count(1)

    def look_at_key(file: str) -> object:
        number = next(looks)
        if number == 1:
            several.send(signal.SIGHUP)
        assert number < 5, "the SIGHUP was lost"
        return file_stamp(file)

    monkeypatch.setattr(loop, "file_stamp", look_at_key)
    several.run()


def test_what_only_a_rescan_finds(several: SeveralRig) -> None:
    """A write by another name has no event here: the scan for one sandbox, which finds it, is for all of them."""
    several.add("blue")
    several.use(clock := several.rig.clock)
    other = several.rig.workspace.with_name("another name")
    os.link(several.rig.workspace / "a", other)
    began_s, had_s = clock.monotonic_s(), dict[str, float]()

    def note(_: RequestRecord) -> None:
        held = {name: several.content(name) for name in ("main", "blue")}
        if {*held.values()} == {"1"}:
            other.write_text("22")
        had_s.update((name, clock.monotonic_s() - began_s) for name in held if held[name] == "22" and name not in had_s)
        if len(had_s) == 2:
            several.send(signal.SIGHUP)

    several.rig.emulator.faults.on("any", When.AFTER, note)
    several.run()
    assert 599 < min(had_s.values()) <= max(had_s.values()) < 660
