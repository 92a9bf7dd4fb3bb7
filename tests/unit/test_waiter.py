"""Waits in scripted time: events that are handled meanwhile, and work that is superseded."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from math import inf

import pytest

from syncd.core.clock import Moment, SystemClock
from syncd.core.directories import directories_for
from syncd.core.errors import Stop
from syncd.core.signals import Interrupt, interrupting
from syncd.core.waiter import REAL, Event, Superseded, Tasks, TimeIsUp, Waiter, Work
from tests.clock import ScriptedClock


class RecordingEvents:
    """What a process hears; it records what was ready."""

    def __init__(self, *descriptors: int) -> None:
        self.descriptors = descriptors
        self.deadline = inf
        self.handled: list[set[int]] = []

    def wake_fds(self) -> list[tuple[int, int]]:
        return [(each, select.POLLIN) for each in self.descriptors]

    def deadline_s(self) -> float:
        return self.deadline

    def handle(self, ready: set[int]) -> bool:
        self.handled.append(ready)
        self.deadline = inf
        return True


@pytest.fixture
def waiter(clock: ScriptedClock) -> Waiter:
    return Waiter(Interrupt(), clock)


def test_a_sleep_lasts_its_full_time(waiter: Waiter, clock: ScriptedClock) -> None:
    """A deadline within the sleep is handled in time."""
    waiter.tasks.events = events = RecordingEvents()
    before = clock.monotonic
    events.deadline = before + 2
    waiter.sleep(5)
    assert clock.monotonic == before + 5
    assert clock.slept == [2, 3]
    assert len(events.handled) == 2


ENDS = {
    Work.EFFECT: "",
    Work.UPLOAD: "suspend reload save",
    Work.READ: "reload save change request pause",
    Work.RETRY: "reload save request pause writer",
}


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("work", Work)
def test_what_ends_which_work(waiter: Waiter, clock: ScriptedClock, work: Work, event: Event) -> None:
    """Such work ends when such an event comes, and no other does; outside of the context nothing ends a wait."""
    before, ends = clock.monotonic, event.name.lower() in ENDS[work].split()
    with waiter.superseded_by(lambda: {event: before + 3}):
        if ends:
            with pytest.raises(Superseded), waiter.doing(work):
                waiter.sleep(5)
        else:
            with waiter.doing(work):
                waiter.sleep(5)
        assert clock.monotonic == before + (3 if ends else 5)
        waiter.sleep(5)


def test_work_that_is_patient(waiter: Waiter, clock: ScriptedClock) -> None:
    """It ends so long after the event, and other work at once."""

    def upload(patience_s: float) -> None:
        with waiter.doing(Work.UPLOAD):
            waiter.be_patient(patience_s)
            waiter.sleep(10)

    before = clock.monotonic
    with waiter.superseded_by(lambda: {Event.RELOAD: before + 3}):
        with pytest.raises(Superseded):
            upload(4)
        assert clock.monotonic == before + 7
        with pytest.raises(Superseded):
            upload(0)
    assert clock.monotonic == before + 7


def test_work_that_is_patient_with_what_has_come(waiter: Waiter, clock: ScriptedClock) -> None:
    """An event that is told as one of now counts from when it was told first; one that is gone again ends nothing."""
    before, gone = clock.monotonic, False

    def newer() -> dict[Event, float]:
        return {Event.RELOAD: clock.monotonic} if clock.monotonic >= before + 3 and not gone else {}

    def upload() -> None:
        with waiter.doing(Work.UPLOAD):
            waiter.be_patient(4)
            for _ in range(10):
                waiter.sleep(1)

    with waiter.superseded_by(newer):
        with pytest.raises(Superseded):
            upload()
        assert clock.monotonic == before + 7
        with waiter.doing(Work.UPLOAD):
            waiter.be_patient(4)
            waiter.sleep(1)
            gone = True
            waiter.sleep(10)


def test_an_event_that_comes_with_an_answer_is_handled(waiter: Waiter) -> None:
    """Each event is handled, also one that is reported once only, together with what is waited for."""
    ours, answer = os.pipe()
    theirs, event = os.pipe()
    waiter.tasks.events = events = RecordingEvents(theirs)
    try:
        os.write(answer, b"x")
        os.write(event, b"x")
        assert waiter.wait_ready(ours, select.POLLIN, SystemClock().monotonic_s() + 60)
        assert events.handled == [{ours, theirs}]
    finally:
        for descriptor in (ours, answer, theirs, event):
            os.close(descriptor)


def test_work_that_has_so_much_time(waiter: Waiter, clock: ScriptedClock) -> None:
    """All its waits together take no longer, an inner context makes it no more, and later ones are not ended."""

    def work() -> None:
        waiter.sleep(3)
        with waiter.within(60):
            waiter.sleep(3)

    before = clock.monotonic
    with pytest.raises(TimeIsUp), waiter.within(5):
        work()
    assert clock.monotonic == before + 5
    work()
    assert clock.monotonic == before + 11


def test_a_time_that_is_over_at_the_end_of_a_sleep(waiter: Waiter, clock: ScriptedClock) -> None:
    """What follows a sleep to the end of the time is not begun."""
    with pytest.raises(TimeIsUp), waiter.within(5):
        waiter.sleep(5)


def test_an_event_of_now_has_come() -> None:
    """However long it takes to tell of it."""

    class RunningClock(ScriptedClock):
        def monotonic_s(self) -> float:
            self.go_on(1e-3)
            return self.monotonic

    clock = RunningClock()
    waiter = Waiter(Interrupt(), clock)
    with (
        pytest.raises(Superseded),
        waiter.superseded_by(lambda: {Event.SUSPEND: clock.monotonic_s()}),
        waiter.doing(Work.UPLOAD),
    ):
        waiter.sleep(5)


# -- how old a moment is


@pytest.mark.parametrize(
    ("monotonic_s", "boottime_s", "wall_s", "age_s"),
    [
        (3.0, 3.0, 3.0, 3.0),
        (1.0, 61.0, 61.0, 61.0),  # a suspend
        (1.0, 1.0, 61.0, 61.0),  # a pause of the virtual machine
        (1.0, 1.0, -3600.0, 1.0),  # the wall clock was set back
        (1.0, 61.0, -3600.0, 61.0),
    ],
)
def test_the_clock_that_counted_most_counts(monotonic_s: float, boottime_s: float, wall_s: float, age_s: float) -> None:
    """Nothing that a clock does makes it newer."""
    moment = Moment(1_000.0, 5_000.0, 1_700_000_000.0)
    now = Moment(1_000.0 + monotonic_s, 5_000.0 + boottime_s, 1_700_000_000.0 + wall_s)
    assert moment.age_s(now) == age_s


# -- several pieces of work in one thread


@pytest.fixture
def tasks(clock: ScriptedClock) -> Tasks:
    return Tasks(Interrupt(), clock)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ours, theirs = os.pipe()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def waiter_of(tasks: Tasks, clock: ScriptedClock) -> Waiter:
    return Waiter(tasks._interrupt, clock, tasks)


def test_one_goes_on_while_another_waits(tasks: Tasks, clock: ScriptedClock) -> None:
    """Each sleeps its own time, and all together no longer than the longest."""
    began_s, done = clock.monotonic, []

    def sleeper(seconds: float) -> None:
        for _ in range(2):
            waiter_of(tasks, clock).sleep(seconds)
            done.append((seconds, clock.monotonic - began_s))

    tasks.run([lambda: sleeper(60), lambda: sleeper(1)])
    assert done == [(1, 1), (1, 2), (60, 60), (60, 120)]


def test_an_answer_is_given_to_the_one_that_waits_for_it(
    tasks: Tasks, clock: ScriptedClock, pipe: tuple[int, int]
) -> None:
    """Another one that waits for a time is not woken by it."""
    woken: list[str] = []

    def reads() -> None:
        assert tasks.wait(REAL, 60, (pipe[0], select.POLLIN))
        woken.append("reader")

    def writes() -> None:
        os.write(pipe[1], b"x")
        tasks.wait(clock, 5)
        woken.append("writer")

    tasks.run([reads, writes])
    assert woken == ["reader", "writer"]


@pytest.mark.parametrize("failure", [ValueError("broken"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_what_one_raises_ends_all(tasks: Tasks, clock: ScriptedClock, failure: BaseException) -> None:
    """The others clean up, and the failure is the caller's; a task may be added meanwhile."""
    ended: list[type[BaseException]] = []

    def waits() -> None:
        try:
            waiter_of(tasks, clock).wait(inf)
        except BaseException as error:
            ended.append(type(error))
            raise

    def fails() -> None:
        tasks.add(waits)
        waiter_of(tasks, clock).sleep(1)
        raise failure

    with pytest.raises(type(failure)):
        tasks.run([waits, fails])
    assert ended == [Stop if isinstance(failure, Exception) else KeyboardInterrupt] * 2


def test_what_goes_on_beside_ends_with_the_others(tasks: Tasks, clock: ScriptedClock) -> None:
    """It acts whenever that is due, and gets `Stop` in its wait then."""
    began_s, acted = clock.monotonic, list[float]()

    def act() -> None:
        acted.append(clock.monotonic - began_s)
        if len(acted) == 1:
            raise Superseded

    def due_s() -> float:
        return began_s + 10 * len(acted)

    tasks.run([lambda: waiter_of(tasks, clock).sleep(25)], beside=[lambda: waiter_of(tasks, clock).repeat(act, due_s)])
    assert (acted, clock.monotonic - began_s) == ([0, 10, 20], 25)


def test_a_stop_ends_all(tasks: Tasks, clock: ScriptedClock) -> None:
    """Each gets it in its wait, whichever polls."""
    ended: list[str] = []

    def waits(name: str) -> None:
        try:
            waiter_of(tasks, clock).sleep(100)
        finally:
            ended.append(name)

    def stops() -> None:
        waiter_of(tasks, clock).sleep(1)
        tasks._interrupt.request()
        waiter_of(tasks, clock).sleep(1)

    with pytest.raises(Stop):
        tasks.run([lambda: waits("a"), lambda: waits("b"), stops])
    assert sorted(ended) == ["a", "b"]


# -- signals


@pytest.fixture(autouse=True)
def sigint_enabled() -> Iterator[None]:
    """Enable SIGINT: a shell starts background jobs, and so these tests, with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class SignalledClock(SystemClock):
    """A clock by which a signal comes after a wait's last look at what was requested, and before the wait itself."""

    def __init__(self, signalled: Callable[[], None]) -> None:
        self.signalled = signalled

    def poll(self, poll: select.poll, seconds: float | None) -> list[tuple[int, int]]:
        self.signalled()
        return super().poll(poll, seconds)


def to_another_thread() -> None:
    """Have another thread receive the signal, as the kernel may, once this one waits."""
    threading.Timer(0.05, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT)).start()


@pytest.mark.parametrize("signalled", [lambda: signal.raise_signal(signal.SIGINT), to_another_thread])
def test_a_signal_that_interrupts_no_call_ends_the_wait(signalled: Callable[[], None]) -> None:
    """It comes in the instant before the wait, or in another thread."""
    clock, interrupt = SignalledClock(signalled), Interrupt()
    started_s = clock.monotonic_s()
    with pytest.raises(Stop), interrupting(interrupt):
        Waiter(interrupt, clock).sleep(20)
    assert clock.monotonic_s() - started_s < 10


def test_a_signal_that_is_ignored_stays_so() -> None:
    """A shell starts background jobs with SIGINT ignored: Ctrl-C is meant for others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupt = Interrupt()
    with interrupting(interrupt):
        signal.raise_signal(signal.SIGINT)
    assert not interrupt.requested
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_signal_outside_of_a_wait_raises_at_the_next_one() -> None:
    """Two signals during a file's update raise nothing; the next check does, and no wait begins."""
    clock, interrupt = ScriptedClock(), Interrupt()
    with interrupting(interrupt):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        for _ in range(2):  # the clean-up waits for nothing either
            with pytest.raises(Stop):
                Waiter(interrupt, clock).sleep(5)
        with pytest.raises(Stop):
            interrupt.check()
    assert clock.slept == []


@pytest.mark.parametrize(
    ("environ", "state", "spool"),
    [
        ({}, "~/.local/state/syncd", "~/.cache/syncd"),
        ({"XDG_STATE_HOME": "/s", "XDG_CACHE_HOME": "/c"}, "/s/syncd", "/c/syncd"),
        ({"XDG_STATE_HOME": "s", "XDG_CACHE_HOME": ""}, "~/.local/state/syncd", "~/.cache/syncd"),
        ({"STATE_DIRECTORY": "/var/lib/x", "CACHE_DIRECTORY": "/var/cache/x"}, "/var/lib/x", "/var/cache/x"),
        ({"STATE_DIRECTORY": "/var/lib/x:/var/lib/y", "XDG_STATE_HOME": "/s"}, "/var/lib/x", "~/.cache/syncd"),
    ],
)
def test_folders(environ: dict[str, str], state: str, spool: str) -> None:
    """A service's folders come first, then the user's; a relative path is ignored."""
    folders = directories_for("/srv/my project", environ)
    assert os.path.dirname(folders.state) == os.path.expanduser(state)
    assert os.path.dirname(folders.spool) == os.path.expanduser(spool)
