"""Commands beside the daemon or without one: `apply`, its undo and `--branch`, `saved restore --here`, and so on.

A command runs in this process, by the functions that the real one calls, in a thread that takes turns with the
daemon's: it begins wherever a step may happen, and goes on until it may write, which it may only while no sync is under
way. Then the daemon goes on, and the command after its sync.

A command that dies does nothing more, whatever its clean-up tries: each further effect of its thread is refused. The
trouble of a command is `(KIND, PHASE, POINT)`: in the phase after it was so many times let write, from so many effects
on, it `dies`, or meets a `full` disk until its end, or `full once`. A point that is a text, `open .syncd-`, is the
first effect of that kind on a path with that in it: it dies right after it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sqlite3
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click
import pytest
from typing_extensions import override

from syncd.cli import agent_side, apply, diff, ls, options, resolve, sandbox, saved
from syncd.cli.agent_side import is_named
from syncd.cli.apply import branch
from syncd.core.api_key import ApiKey
from syncd.core.errors import ExitCode, SyncdError
from syncd.core.settings import SandboxKeys
from syncd.daemon import build
from syncd.report import logs
from syncd.store.state_db import StateDb
from tests.fuzz.account import drafts_in
from tests.fuzz.checker import SELECTION
from tests.fuzz.operations import tree
from tests.fuzz.repositories import HomeRepository
from tests.fuzz.scenario import READING, Step
from tests.fuzz.wire import SimulatedClient
from tests.system.trees import Tree

if TYPE_CHECKING:
    from tests.fuzz.simulation import Simulation

# Beyond the largest that Linux gives: no process has one of these numbers.
_FIRST_PID = 5_000_000
_MODULES = (agent_side, diff, ls, saved, apply, resolve, branch, sandbox, options)
_MORE_EFFECTS = frozenset({"os.link", "os.symlink", "os.chmod", "os.utime", "os.truncate", "commit"})
_GIT_STARTS = "subprocess.Popen"
_CREATES = frozenset({"os.mkdir", "os.link", "os.symlink", "commit", _GIT_STARTS})

# `sandbox.follow_seconds` of a story that follows: the default.
FOLLOW_S = SandboxKeys().follow_seconds
# What the agent wrote so late before a sandbox's end need not be saved any more.
LATE_S = 75.0

Trouble = tuple[()] | tuple[str, int, int | str]


class CommandKilled(BaseException):
    """The command was killed."""


class Commands:
    """The command of a simulation that is under way, at most one."""

    def __init__(self, simulation: Simulation, effects: frozenset[str]) -> None:
        self._simulation = simulation
        self._effects = effects | _MORE_EFFECTS
        self._thread: threading.Thread | None = None
        self._command_turn = threading.Semaphore(0)
        self._daemon_turn = threading.Semaphore(0)
        self._beside: list[tuple[Any, ...]] = []
        self._step = Step("diff")
        self._trouble: Trouble = ()
        self._is_dead = self._is_full = False
        self._phase = self._points = self.count = 0
        self.printed: list[str] = []
        self._changed_at = 0
        self._wrote = "", ""  # the last command that changed the workspace, but for an undo, and its sandbox
        self.has_turn = False
        self.was_killed = False  # one was, and none has taken it back since
        self.last: tuple[int | None, dict[str, Any]] = (None, {})

    @property
    def is_waiting(self) -> bool:
        """True if a command waits for the end of a sync."""
        return self._thread is not None and not self.has_turn

    @property
    def is_daemon_killed(self) -> bool:
        """True while a killed daemon cleans up, which is undone."""
        return self._simulation.is_killed

    # -- turns

    def run(self, step: Step) -> None:
        """Run the command until its end, or until it waits for the end of a sync. One beside another does nothing."""
        if self._thread is not None:
            return
        self._step, self._trouble = step, step.args[-1] if step.args else ()
        self._is_dead = self._is_full = False
        self._phase = self._points = 0
        self.count += 1
        self._thread = threading.Thread(target=self._run, name="command", daemon=True)
        self._thread.start()
        self._hand_over()

    def go_on(self) -> None:
        """Let a command that waits for the end of a sync go on to its end."""
        if self.is_waiting:
            self._hand_over()

    def _hand_over(self) -> None:
        thread = self._thread
        self.has_turn = self._simulation.checker.is_aside = True
        self._command_turn.release()
        self._daemon_turn.acquire()
        self.has_turn = self._simulation.checker.is_aside = False
        if self._thread is None and thread is not None:
            thread.join()

    @contextlib.contextmanager
    def no_sync_begins(self, *_: Any) -> Iterator[None]:
        """Wait until no sync is under way."""
        self._phase, self._points = self._phase + 1, 0
        daemon = self._simulation.daemon
        if daemon is not None:
            daemon.let_write_later(_Writer(self))  # one that rests notices the end of the command, too
            if not daemon.is_resting:
                self._daemon_turn.release()
                self._command_turn.acquire()
        yield

    # -- a command

    def _run(self) -> None:
        self._command_turn.acquire()
        try:
            self._run_and_check()
        except Exception as failure:
            self._simulation.checker.lose(f"internal error of the check of a command: {failure!r}")
        finally:
            self._thread = None
            self._daemon_turn.release()

    def _run_and_check(self) -> None:
        simulation, checker, step = self._simulation, self._simulation.checker, self._step
        self.printed.clear()
        simulation.note(f"{step}")
        disturbed = checker.operations, self._changed_at
        code: int | None = None
        try:
            code = self._carry_out(step)
        except CommandKilled:
            simulation.figures["commands killed"] += 1
            self.was_killed = True
        except SyncdError as error:
            code = error.exit_code
            self.printed.append(f"{error}")
        except click.ClickException as failure:
            code = failure.exit_code
            self.printed.append(failure.format_message())
        except OSError as failure:
            code = ExitCode.TRY_LATER
            self.printed.append(f"this machine refused something: {failure}")
        except Exception:
            checker.lose(f"internal error of a command: {traceback.format_exc()}")
        self._is_dead = self._is_full = False
        self._trouble = ()
        told = self._told() if code in (0, 1, 75) else {}
        self.last = code, told
        simulation.figures[f"{step.name} {code}"] += 1
        simulation.note(f"{step.name} ends with {code}: {' | '.join(self.printed)[:600]}")
        home, there = checker.account.home, self._sandbox()
        checker.lost += checker.account.command_changed(there, self._sent(), told.get("merged", ()))
        live = checker.live
        if live is not None:
            # Of what was merged the agent's version counts as sent, and so does what both sides made alike.
            alike = live.model.agent.items() & checker.account.home.items() if step.name == "apply" and told else ()
            arrived = {path for path, _ in alike if is_named(path, step.args[1])}
            taken = (*told.get("merged", ()), *told.get("deleted", ()))
            live.model.came_home(arrived.union(checker.account.brought(home, there), taken))
        # Any command that writes here takes back one that was killed, first.
        takes_back = step.name == "undo" or any(line.startswith("took back") for line in self.printed)
        wrote, sandbox_id = self._wrote
        # Another sandbox than the one it came from has what was sent from here.
        if live is not None and live.sandbox.id == sandbox_id and takes_back and wrote in ("apply", "resolve"):
            agents = checker.account.agents(home, checker.account.home, there)
            live.model.taken_back(agents, there, checker.account.undone(home))
        if home != checker.account.home and step.name in READING:
            checker.lose(f"{step.name} changed the workspace")
        if home != checker.account.home:
            self._wrote = (step.name, checker.sandbox_id) if step.name != "undo" else self._wrote
        if step.name == "restore":  # the same there counts as sent: to take it back here removes it there
            now = checker.account.home
            checker.decided |= {(path, now[path]) for path in told.get("taken", ()) if path in now}
        alone = disturbed == (checker.operations, self._changed_at)
        if code == ExitCode.DONE and step.name == "apply" and alone:
            self._check_all_came(step, told)
        simulation.way_home.repository.check(step, self.last, self.printed, alone=alone)

    def _check_all_came(self, step: Step, told: dict[str, Any]) -> None:
        """Check that an `apply` of all that took everything left nothing of the agent's unnamed."""
        checker = self._simulation.checker
        if checker.live is None or step.args[1]:
            return
        if any("as of " in line for line in self.printed):
            return  # what the agent did since a look that followed it comes with the next one
        if any(path.endswith("ignore") for name in ("taken", "merged", "deleted") for path in told.get(name, ())):
            return  # it went by the rules of before
        named = {path for name in ("never", "stays", "conflicts") for path in told.get(name, ())}
        is_excluded, there = checker.is_excluded(), self._sandbox()
        for path, line in checker.account.differing(checker.live.model.agent, there, named):
            if not is_excluded(path, False) and (path, there[path]) not in checker.decided:
                checker.lose(f"apply ended with 0, and {line}")

    def _told(self) -> dict[str, Any]:
        for line in reversed(self.printed):
            with contextlib.suppress(ValueError):
                told = json.loads(line)
                if isinstance(told, dict):
                    return told
        return {}

    def _carry_out(self, step: Step) -> int:
        workspace = self._simulation.workspace
        match step.name:
            case "apply":
                paths = [str(workspace / path) for path in step.args[1]]
                return _exit(apply.command, [*step.args[0], "--yes", "--json", "--", *paths])
            case "resolve":
                choice, named = step.args[0], step.args[1]
                self._simulation.checker.note_choice(choice, named)
                paths = [str(workspace / path) for path in named]
                code = _exit(resolve.command, [f"--{choice}", "--json", "--", *paths])
                self._simulation.checker.note_choice(choice, named)  # the agent may have gone on before the look
                return code
            case "undo":
                return _exit(apply.command, ["--undo", "--json"])
            case "diff":
                return _exit(diff.command, ["--json"])
            case "branch":
                paths = [str(workspace / path) for path in step.args[1]]
                return _exit(apply.command, ["--branch", step.args[0], "--json", "--", *paths])
            case "restore":
                versions = self._simulation.checker.saved.versions()
                if not versions:
                    return 0
                version = versions[step.args[0] % len(versions)]
                return _exit(saved.command, ["restore", version.id, "--here", "--json"])
            case _:
                if self._simulation.settings.current.sandbox.id is not None:
                    return 0
                return _exit(sandbox.command, ["release", "--yes"])

    def _sandbox(self) -> Tree:
        live = self._simulation.checker.live
        return tree(live.sandbox.workspace) if live is not None else {}

    def _sent(self) -> Tree:
        live = self._simulation.checker.live
        return dict(live.model.synced) if live is not None else {}

    # -- what happens beside it, and to it

    def end_beside(self) -> None:
        """Forget what was to happen beside a command."""
        self._beside.clear()

    def beside(self, op: str, when: str, name: str, args: tuple[Any, ...]) -> None:
        """Run a step before or after the next such request of a command."""
        self._beside.append((op, when, name, args))

    def at_request(self, op: str, when: str) -> None:
        """Run the steps for this request, and count it as an effect."""
        self._point("request", ())
        for each in [each for each in self._beside if each[:2] == (op, when)]:
            self._beside.remove(each)
            self._changed_at += 1
            trouble, self._trouble = self._trouble, ()  # it is not the command that does this
            self._simulation.do(Step(each[2], each[3]))
            self._trouble = trouble

    def effect(self, event: str, args: tuple[Any, ...]) -> bool:
        """Count an effect of the command's thread, of which the audit hook tells; false: it is another's.

        Raises `CommandKilled`, and `OSError` where the disk is full.
        """
        if not self.has_turn or self._thread is None or threading.get_ident() != self._thread.ident:
            return False
        if event in self._effects and self._simulation.is_own(args):
            self._point(event, args)
        elif event == _GIT_STARTS and self._step.name == "branch":
            self._point(event, (" ".join(map(os.fsdecode, args[1])),))
        return True

    def _point(self, event: str, args: tuple[Any, ...]) -> None:
        if self._is_dead:
            raise CommandKilled
        self._points += 1
        if not self._trouble:
            return
        kind, phase, point = self._trouble
        if isinstance(point, str) and self._phase == phase and _is_at(point, event, args):
            self._trouble = (kind, phase, self._points + (kind == "dies"))
        elif isinstance(point, str):
            return
        kind, phase, point = self._trouble
        if self._is_full or (self._phase == phase and self._points >= int(point)):
            if kind == "dies":
                self._is_dead = True
                raise CommandKilled
            if event in _CREATES or (event == "open" and isinstance(args[2], int) and args[2] & os.O_CREAT):
                self._is_full = kind == "full"
                self._trouble = self._trouble if self._is_full else ()
                self._simulation.figures["full disks"] += 1
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def say(self, message: object = "", **_: Any) -> None:
        """Take what a command prints."""
        self.printed.append(str(message))

    def pid(self, real: Callable[[], int]) -> int:
        """Return a number of its own for each command."""
        return _FIRST_PID + self.count if self.has_turn else real()


class _Writer:
    """The connection of a command that waits until it may write, as the daemon sees it."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._count = commands.count

    @property
    def waits(self) -> bool:
        """True until the command has ended."""
        return self._commands.is_waiting and self._commands.count == self._count

    def send(self, message: dict[str, Any]) -> None:
        """Let the command go on once it may; beside a killed process it does so later, when its files are put back."""
        if message["event"] == "ready" and self.waits and not self._commands.is_daemon_killed:
            self._commands.go_on()


class SimulatedCommandClient(SimulatedClient):
    """A command's client, whose requests are effects at which it may die."""

    @override
    def at(self, op: str, when: str, status: int = 0) -> None:
        self.simulation.commands.at_request(op, when)


class _NoDisplay:
    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def doing(self, *_: Any) -> None: ...


class WayHome:
    """What only a scenario with commands has: its steps, and the last questions at its end."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self.repository = HomeRepository(simulation.workspace, simulation.checker, simulation.folders.state)

    def do(self, step: Step) -> None:
        """Run a step that needs no daemon."""
        simulation = self._simulation
        checker = simulation.checker
        match step.name:
            case "beside_command":
                op, when, name, *args = step.args
                simulation.commands.beside(op, when, name, tuple(args))
            case "move_sandbox":
                simulation.note(str(step))
                checker.move_to(f"box{step.args[0]}")
                simulation.reload()
            case "repository":
                self.repository.make(*step.args)
            case "home_commits":
                self.repository.check_unchanged()
                self.repository.commit(*step.args)
            case "hold_initialize":
                checker.holds_initialize = True
            case "late_initialize":
                checker.deliver_held()
            case "follow":
                simulation.follow()
            case "takes":
                checker.note_jump(step.args[0])
                simulation.clock.go_on(step.args[0])
            case _ if simulation.workspace.is_dir():
                simulation.figures["commands"] += 1
                living = checker.all_live()
                simulation.commands.run(step)
                checker.note_jump(0.0, living)  # the daemon waited for it, as both are in one thread here

    def finish(self) -> None:
        """Ask the last questions, with no daemon: what is lost, what is left, and whether `apply` and `diff` agree."""
        simulation = self._simulation
        checker, commands = simulation.checker, simulation.commands
        if not simulation.comes_home or checker.lost:
            return
        commands.end_beside()
        checker.settings.stop_following()  # what is asked now is answered from the sandbox
        self._check_nothing_lost()
        self.repository.check_unchanged()
        self.repository.check_commits()
        if self.repository.is_made:
            commands.run(Step("branch", ("last", (), ())))
            code, _ = commands.last
            # The cache was damaged, and what is held is not sent again before a person decides.
            lacks_bytes = checker.held() and any("is not known any more" in line for line in commands.printed)
            if code != 0 and not lacks_bytes and checker.cycle is not None and checker.cycle.content.is_known:
                checker.lose(f"with nothing else under way, apply --branch ends with {code}")
        for path in self._drafts():
            if not commands.was_killed:
                checker.lose(f"the temporary file {path!r} is left")
        commands.run(Step("apply", ((), (), ())))
        code, told = commands.last
        if code not in (0, 1) and checker.cycle is not None and checker.cycle.content.is_known:
            checker.lose(f"with nothing else under way, apply ends with {code}")
        for path in self._drafts():
            checker.lose(f"the temporary file {path!r} is left by an apply")
        if not any(told.get(name) for name in ("taken", "merged", "deleted")):
            return  # what `diff` would find is what this found
        commands.run(Step("diff", ((),)))
        named = {path for name in ("never", "stays", "conflicts") for path in told.get(name, ())}
        for change in commands.last[1].get("changes", ()):
            if code == 0 and change["path"] not in named:
                checker.lose(f"apply ended with 0, and diff still has {change}")
        self._check_nothing_lost()

    def _check_nothing_lost(self) -> None:
        checker = self._simulation.checker
        if not checker.state_damaged:
            checker.excuse_ended(LATE_S)
            sandbox, is_excluded = tree(checker.live.sandbox.workspace) if checker.live else {}, checker.is_excluded()
            for author, path, what in checker.account.lost(sandbox):
                if author == "person" or not is_excluded(path, False):
                    checker.lose(f"the {author}'s {path!r} ({what}) is on neither side, and not saved")

    def _drafts(self) -> list[str]:
        tops = [self._simulation.workspace, *(each.sandbox.workspace for each in self._simulation.checker.all_live())]
        return [path for top in tops for path in drafts_in(Path(top))]


def patch_commands(patch: pytest.MonkeyPatch, simulation: Simulation, key: str) -> None:
    """Put the simulation's clock, folders, requests and locks in the place of a command's."""
    commands = simulation.commands
    for variable, text in simulation.environ.items():
        patch.setenv(variable, text)
    real_pid = os.getpid
    patch.setattr(os, "getpid", lambda: commands.pid(real_pid))
    commit = StateDb._commit

    def committed(db: StateDb, connection: sqlite3.Connection) -> None:
        commands.effect("commit", ())
        commit(db, connection)

    patch.setattr(StateDb, "_commit", committed)
    patch.setattr(click, "echo", commands.say)
    patch.setattr(logs, "set_up_logs", lambda *_: None)
    replaced = {
        "CLOCK": simulation.clock,
        "configured": lambda _: simulation.settings.current,
        "refuse_elsewhere": lambda _: None,  # a story is typed in the workspace
        "no_sync_begins": commands.no_sync_begins,
        "set_up_logs": lambda *_: None,
        "interrupting": lambda _: contextlib.nullcontext(),
        "key_of": lambda *_: ApiKey(key, "the scenario"),
        "selection_of": lambda *_: SELECTION,
        "excludes_for": lambda *_: "",
        "HttpClient": lambda *args: SimulatedCommandClient(simulation, *args),
        "ProgressDisplay": _NoDisplay,
        "order_daemon": lambda _, message: simulation.order_daemon(message),
    }
    for name, value in replaced.items():
        modules = _MODULES if name == "HttpClient" else (*_MODULES, build)
        named = [module for module in modules if hasattr(module, name)]
        assert named, f"no command has {name} any more"
        for module in named:
            patch.setattr(module, name, value)


def _is_at(point: str, event: str, args: tuple[Any, ...]) -> bool:
    kind, _, text = point.partition(" ")
    return kind == event and any(isinstance(arg, str | bytes) and text in os.fsdecode(arg) for arg in args[:2])


def _exit(command: click.Command, args: list[str]) -> int:
    return int(command.main(args, "syncd", standalone_mode=False) or 0)
