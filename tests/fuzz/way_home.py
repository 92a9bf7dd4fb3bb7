"""What only scenarios with the way home have: commands, moves, slow initializes, and the last questions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from syncd.core.settings import SandboxKeys
from tests.fuzz.account import drafts_in
from tests.fuzz.operations import tree
from tests.fuzz.repositories import HomeRepository
from tests.fuzz.scenario import Step

if TYPE_CHECKING:
    from tests.fuzz.simulation import Simulation

# `sandbox.follow_seconds` of a story that follows: the default.
FOLLOW_S = SandboxKeys().follow_seconds
# What the agent wrote so late before a sandbox's end need not be saved any more.
LATE_S = 75.0


class WayHome:
    """The steps of one simulation, and its end."""

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
            if commands.last[0] != 0 and checker.cycle is not None and checker.cycle.baseline is not None:
                checker.lose(f"with nothing else under way, apply --branch ends with {commands.last[0]}")
        for path in self._drafts():
            if not commands.was_killed:
                checker.lose(f"the temporary file {path!r} is left")
        commands.run(Step("apply", ((), (), ())))
        code, told = commands.last
        if code not in (0, 1) and checker.cycle is not None and checker.cycle.baseline is not None:
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
