"""Generates the scenario of a seed, of one of several kinds: the last is a workspace in a git repository, with commits.

The agent commits in the sandbox's repository, and a person at home.
"""

from __future__ import annotations

from random import Random
from typing import Any

from typing_extensions import override

from syncd.daemon.scheduler import FOLLOW_QUIET_S
from tests.fuzz.generator import IDLE, ConfiguredGenerator, Generator, joined
from tests.fuzz.lasting import with_lasting_fault
from tests.fuzz.scenario import Scenario, Step
from tests.fuzz.way_home_generator import WayHomeGenerator

_FOLLOWED = Step("rest", (FOLLOW_QUIET_S + 1.0,))  # the repository in the sandbox has followed by then
# What an agent does with git: see `git.commit`.
_HOWS = (*("all",) * 6, "tracked", "amend", "amend", "branch", "branch", "switch", "switch", "detach", "reset", "stash")
# The requests of the program that keeps the sandbox's repository, and of those that read it.
_REQUESTS = ("execution-upload-url", "execution-upload", "execute", "execution-logs", "export-artifacts", "download")


class RepositoryGenerator(WayHomeGenerator):
    """Generates scenarios with commits on both sides, and `apply --branch`."""

    @override
    def _first_steps(self) -> Scenario:
        random = self._random
        written = [Step("write", (self._path(), random.choice((8, 300)), 0)) for _ in range(random.randrange(4))]
        # Sandboxes that lose their repository with each archive are rare: there, nothing is asked.
        wipes = super()._first_steps() if random.random() < 0.1 else []
        return [*wipes, *written, Step("repository", (random.choice(("in", "in", "above")),))]

    @override
    def _event(self) -> Step:
        random = self._random
        draw = random.random()
        if draw < 0.3:
            return self._commit(self._injection_point() if random.random() < 0.4 else None)
        if draw < 0.4:
            return Step("home_commits", (random.choice(("add", "commit", "commit")),))
        return super()._event()

    @override
    def _pattern(self) -> Scenario:
        patterns = (*(self._commits_come_home, self._while_it_follows) * 2, self._commits_and_leaves)
        return self._random.choice(patterns)() if self._random.random() < 0.6 else super()._pattern()

    @override
    def _command(self, at: int | None = None) -> Step:
        return super()._command(at) if self._random.random() < 0.5 else self._branch(at)

    def _branch(self, at: int | None = None) -> Step:
        random = self._random
        trouble: tuple[Any, ...] = ()
        if random.random() < 0.45:
            kind = random.choice(("dies", "dies", "full", "full once"))
            point = random.choice(("init", "index-pack", "fast-import", "update-ref"))
            at_git = random.random() < 0.3
            trouble = (kind, 0, f"subprocess.Popen {point}" if at_git else int(2 ** random.uniform(0, 8)))
        paths = (self._path(),) if random.random() < 0.1 else ()
        return Step("branch", (f"agent/{random.randrange(40)}", paths, trouble), at)

    def _commit(self, at: int | None = None, how: str = "") -> Step:
        self._text += 1
        return Step("agent_commits", (how or self._random.choice(_HOWS), self._text), at)

    def _commits_there(self, path: str) -> Scenario:
        """What the agent does: it edits and commits, some times."""
        random = self._random
        found: Scenario = []
        for _ in range(random.choice((1, 1, 2, 3))):
            again = random.choice((path, path, self._path()))
            found += [self._edit_there(again), self._commit(None, "all" if random.random() < 0.6 else "")]
        return [*found, *self._maybe(0.4, self._edit_there(path))]

    def _begins(self, path: str) -> Scenario:
        written, _ = self._sent(path, 8, 300)
        # A repository follows at once where someone waits for the sync.
        return [written, *self._maybe(0.3, Step("flush")), self._rest()]

    def _rest(self) -> Step:
        return self._random.choice((IDLE, _FOLLOWED))

    # -- patterns

    def _commits_come_home(self) -> Scenario:
        """Have the agent commit, and bring that home, with trouble or while something changes."""
        random, path = self._random, self._path()
        change = random.choice((self._edit_there(path), self._commit(), self._edit_here(path)))
        op, when = random.choice(_REQUESTS), random.choice(("before", "after"))
        return [
            *self._begins(path),
            *self._commits_there(path),
            *self._maybe(0.4, self._edit_here(path)),
            *self._maybe(0.4, IDLE),
            *self._maybe(0.4, Step("home_commits", (random.choice(("add", "commit")),))),
            *self._maybe(0.3, Step("beside_command", (op, when, change.name, *change.args))),
            self._branch(),
            *self._follows(),
            *self._maybe(0.4, *self._commits_there(path), self._branch()),
        ]

    def _while_it_follows(self) -> Scenario:
        """At some request of a sync or of the repository's program, let the agent commit, or the daemon die."""
        random, path, other = self._random, self._path(), joined("a", "beside")
        commit = self._commit(None, random.choice(("all", "all", "amend", "branch", "stash")))
        beside = random.choice((commit, commit, Step("kill"), Step("stop")))
        op, when = random.choice(("initialize", *_REQUESTS[:4])), random.choice(("before", "after"))
        fault = random.choice(("execute: lost", "execution-logs: lost x3", "execution-logs: 503", "execute: 503 after"))
        trouble = Step("hold_initialize"), Step("hold_executions"), Step("fault", (fault,))
        return [
            *self._begins(path),
            *self._maybe(0.6, self._edit_there(random.choice((path, other)))),
            Step("at_request", (op, when, beside.name, *beside.args)),
            *self._maybe(0.6, random.choice(trouble)),
            self._edit_here(path) if random.random() < 0.6 else Step("write", (other, 8, self._text)),
            *self._maybe(0.4, Step("flush")),
            *self._maybe(0.7, self._rest()),
            *self._maybe(0.5, *self._commits_there(path)),
            *self._maybe(0.2, Step("late_executions")),
            self._branch(),
            *self._follows(),
        ]

    def _commits_and_leaves(self) -> Scenario:
        """Have the agent commit in a sandbox that ends, is left or is reset; the commits come home before, or not."""
        random, path = self._random, self._path()
        leaves = self._leaves() if random.random() < 0.5 else self._before_an_end()
        at = random.randrange(2, len(leaves))
        return [
            *self._begins(path),
            *self._commits_there(path),
            *self._maybe(0.5, self._branch()),
            *leaves[:at],
            self._commit(),
            *leaves[at:],
            *self._maybe(0.6, self._branch()),
        ]


# Of so many seeds one after the other, the second half has commands of the agent's side.
_OF = 8
# Of these again, so many of the last ones have a repository.
_WITH_REPOSITORY = 2
# Of so many others, one has the default configuration and no agent in the sandbox.
_DEFAULT_OF = 4
# Of so many, one follows the agent, after each step with this chance.
_FOLLOWING_OF, _FOLLOW_SHARE = 2, 0.3
# Of so many, one has a fault that never heals.
_LASTING_OF = 16


def generate(seed: int) -> Scenario:
    """Generate a scenario of some 15 to 60 steps."""
    scenario, random = _generate(seed), Random(f"lasting {seed}")
    scenario = _following(scenario, Random(f"follow {seed}"))
    if random.randrange(_LASTING_OF) == 0:
        scenario = with_lasting_fault(scenario, random)
    # No sandbox begins to drop what it has proved to keep.
    return sorted(scenario, key=lambda step: step.name != "wipe_sandboxes")


def _following(scenario: Scenario, random: Random) -> Scenario:
    """Return the scenario with looks that follow the agent, in a story that follows it."""
    if random.randrange(_FOLLOWING_OF):
        return scenario
    followed: Scenario = []
    for step in scenario:
        followed.append(step)
        if random.random() < _FOLLOW_SHARE:
            followed.append(Step("follow", at=random.choice((None, random.randrange(100)))))
    return followed


def _generate(seed: int) -> Scenario:
    if seed % _OF >= _OF - _WITH_REPOSITORY:
        return RepositoryGenerator(seed).scenario()
    return WayHomeGenerator(seed).scenario() if seed % _OF >= _OF // 2 else generate_syncs(seed)


def generate_syncs(seed: int) -> Scenario:
    """Generate a scenario without commands of the agent's side."""
    return Generator(seed).scenario() if seed % _DEFAULT_OF == 0 else ConfiguredGenerator(seed).scenario()
