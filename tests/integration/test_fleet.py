"""The simulated fleet: its laptops ask as the real program does, and what it shows of a company's outage holds."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import pytest

from syncd.core.settings import check_config
from syncd.daemon import sandbox_loop
from syncd.remote import retry
from tests.component.repository_rig import git as plain_git
from tests.emulator import RequestRecord, When
from tests.fleet import report
from tests.fleet.api_model import Reply, Sent
from tests.fleet.events import Timeline
from tests.fleet.laptop import Arrivals, Laptop, Settings
from tests.fleet.scenarios import IDLE, LONG_OUTAGE, OUTAGE, RULES_CHANGE, WORKING
from tests.fleet.working_day import Act
from tests.integration.sync_rig import RecordingObserver, Rig, rigged
from tests.integration.test_daemon_waits import DaemonRig

pytestmark = pytest.mark.long  # of the simulation, not of the product

_CHANCE = 0.5


class _Middle(Random):
    """Chance without chance: always the middle."""

    def random(self) -> float:
        return _CHANCE


@dataclass
class _PlainApi:
    """Answers at once, and notes what it was asked for; `fault` answers in its place."""

    fault: Callable[[str, float], Reply | None] = lambda op, now_s: None
    asked: list[str] = field(default_factory=list)
    at_s: list[float] = field(default_factory=list)

    def request(self, op: str, now_s: float, sent: Sent) -> Reply:
        self.asked.append(op)
        self.at_s.append(now_s)
        return self.fault(op, now_s) or Reply(now_s, 200)

    def was_cut(self, since_s: float, now_s: float) -> bool:
        return False


class _Simulated:
    """One simulated laptop, and how it asked."""

    def __init__(self, settings: Settings) -> None:
        self.timeline = Timeline()
        self.api = _PlainApi()
        settings = replace(settings, program_s=(0.0, 0.0))
        self.laptop = Laptop(0, self.timeline, self.api, _Middle(0), settings, Arrivals())
        self.laptop.start(0.0)

    def after(self, act: Act | None, seconds: float = 30.0) -> list[str]:
        """Return what is asked for after the person did that."""
        del self.api.asked[:], self.api.at_s[:]
        if act is not None:
            self.laptop.act(act)
        self.timeline.run(self.timeline.now_s + seconds)
        return [*self.api.asked]


@pytest.fixture(autouse=True)
def _no_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (retry, sandbox_loop):
        monkeypatch.setattr(module.random, "random", lambda: _CHANCE)


def _asked(rig: Rig, observer: RecordingObserver | None = None) -> list[str]:
    """Return what a real sync asks for, with that of the repository after it."""
    before = len(rig.asked())
    rig.sync(observer=observer)
    rig.cycle.follow_in_repository()
    return rig.asked()[before:]


@pytest.mark.parametrize("follows", [False, True], ids=["without git", "with git"])
def test_a_simulated_laptop_asks_as_a_real_one(tmp_path: Path, *, follows: bool) -> None:
    """A first start, edits, a deletion, an expired URL, a look at everything, and an outage with a kept URL."""
    simulated = _Simulated(Settings(follows=follows))
    with rigged(tmp_path) as rig:
        rig.use_defaults()
        if follows:
            plain_git(rig.workspace, "init", "-q")
        for number in range(20):
            rig.write(f"d{number % 3}/{number}", str(number))
        assert simulated.after(None) == _asked(rig)
        rig.write("d0/0", "edited")
        assert simulated.after(Act.EDIT) == _asked(rig)
        (rig.workspace / "d0/3").unlink()
        assert simulated.after(Act.DELETE) == _asked(rig)
        assert simulated.after(None, 700.0) == _asked(rig) == []
        rig.clock.go_on(1900)
        rig.write("d0/0", "the URL is too old by now")
        simulated.timeline.run(simulated.timeline.now_s + 1900)
        assert simulated.after(Act.EDIT) == _asked(rig)
        rig.write("d0/0", "the bucket says that it is")
        rig.emulator.faults.script("upload: expired")
        refusals = iter([Reply(simulated.timeline.now_s + 1, 400, code="ExpiredToken")])
        simulated.api.fault = lambda op, now_s: next(refusals, None) if op == "upload" else None
        assert simulated.after(Act.EDIT) == _asked(rig)
        rig.write("d0/0", "the API is down")
        _script_outage(rig, simulated)
        observer = _ObserverOfOutage(rig.clock, rig=rig)
        assert simulated.after(Act.EDIT) == _asked(rig, observer)
        assert observer.waits == [0.75, 0.75, 1.5, 3.0]


_API_OPS = ("upload-url", "execution-upload-url", "execute", "execution-logs", "dump", "initialize")
# It ends in the fourth wait. The first attempt comes a second after the edit; those that begin with an upload URL have
# a count of their own.
_OUTAGE_S = 1.0 + 0.75 + 0.75 + 1.5 + 0.1


def _script_outage(rig: Rig, simulated: _Simulated) -> None:
    for op in _API_OPS:
        rig.emulator.faults.script(f"{op}: 503 always")
    ends_s = simulated.timeline.now_s + _OUTAGE_S
    simulated.api.fault = lambda op, now_s: Reply(now_s, 503) if op in _API_OPS and now_s < ends_s else None


@dataclass
class _ObserverOfOutage(RecordingObserver):
    """Ends the outage in the fourth wait."""

    rig: Rig | None = None

    def retrying(self, *arguments: object) -> None:
        super().retrying(*arguments)  # type: ignore[arg-type]
        if len(self.waits) == 4 and self.rig is not None:
            self.rig.emulator.faults.clear()


@pytest.mark.parametrize("status", [503, None], ids=["errors", "no answer"])
def test_a_simulated_laptop_waits_as_a_real_one(tmp_path: Path, status: int | None) -> None:
    """Through an outage of forty minutes: each attempt at the same second."""
    lasts_s, tried = 2400.0, list[float]()
    with rigged(tmp_path) as rig:
        rig.write()
        loop = DaemonRig(rig)
        rig.keys["retry"] = {}
        loop.config = check_config(rig.keys)
        loop.use(rig.clock)
        rig.emulator.faults.script(f"upload-url: {status or 'reset'} always")
        began_s = rig.clock.monotonic

        def hook(_: RequestRecord) -> None:
            tried.append(rig.clock.monotonic - began_s)
            if tried[-1] > lasts_s:
                loop.send(signal.SIGHUP)

        rig.emulator.faults.on("upload-url", When.BEFORE, hook)
        with loop.signals.installed():
            loop.run()
    simulated = _Simulated(Settings())
    simulated.api.fault = lambda op, now_s: Reply(now_s, status)
    simulated.after(None, lasts_s)
    assert tried[: len(simulated.api.at_s)] == pytest.approx(simulated.api.at_s, abs=0.5)
    assert len(tried) == len(simulated.api.at_s) + 1


_JUDGED = (WORKING, OUTAGE, LONG_OUTAGE, RULES_CHANGE, IDLE)


def test_a_hundred_laptops_return_gently_from_an_outage() -> None:
    """The goals of docs/fleet.md hold: after minutes without the API, and after hours."""
    found = {scenario.name: each for scenario, each in report.run_fleet(100, 1, _JUDGED)}
    summary = report.summary(found)
    assert summary["recovery_peak_over_working_peak"] <= 2
    assert summary["wait_beyond_outage_max_s"] <= 180
    assert summary["idle_requests"] == 0
    assert 10 <= summary["requests_a_sync"] <= 12
    for scenario in (OUTAGE, LONG_OUTAGE):
        assert found[scenario.name]["syncs_without_look"] == 0
        assert found[scenario.name]["whole_archives"] <= 30
    assert found[RULES_CHANGE.name]["api_requests"] <= 3 * found[WORKING.name]["api_requests"]


def test_the_same_seed_gives_the_same_figures() -> None:
    """And another one others."""
    runs = [dict(report.run_fleet(10, seed, (WORKING, OUTAGE))) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
