"""Generates scenarios in which the workspace is in a git repository, and the agent commits in the sandbox's."""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from syncd.daemon.scheduler import FOLLOW_QUIET_S
from tests.fuzz.generator import joined
from tests.fuzz.scenario import Scenario, Step
from tests.fuzz.way_home_generator import WayHomeGenerator

_IDLE = Step("wait_idle")
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
        patterns = (
            self._commits_come_home,
            self._commits_come_home,
            self._while_it_follows,
            self._while_it_follows,
            self._commits_and_leaves,
        )
        return self._random.choice(patterns)() if self._random.random() < 0.6 else super()._pattern()

    @override
    def _command(self, at: int | None = None, *, trouble: bool = True) -> Step:
        if self._random.random() < 0.5:
            return super()._command(at, trouble=trouble)
        return self._branch(at)

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
        return [*found, *([self._edit_there(path)] if random.random() < 0.4 else [])]

    def _begins(self, path: str) -> Scenario:
        self._text += 1
        written = Step("write", (path, self._random.choice((8, 300)), self._text))
        # A repository follows at once where someone waits for the sync.
        return [written, *([Step("flush")] if self._random.random() < 0.3 else []), self._rest()]

    def _rest(self) -> Step:
        return self._random.choice((_IDLE, _FOLLOWED))

    # -- patterns

    def _commits_come_home(self) -> Scenario:
        """Have the agent commit, and bring that home, with trouble or while something changes."""
        random, path = self._random, self._path()
        home = [self._edit_here(path)] if random.random() < 0.4 else []
        change = random.choice((self._edit_there(path), self._commit(), self._edit_here(path)))
        when = random.choice(("before", "after"))
        beside = [Step("beside_command", (random.choice(_REQUESTS), when, change.name, *change.args))]
        return [
            *self._begins(path),
            *self._commits_there(path),
            *home,
            *([_IDLE] if random.random() < 0.4 else []),
            *([Step("home_commits", (random.choice(("add", "commit")),))] if random.random() < 0.4 else []),
            *(beside if random.random() < 0.3 else []),
            self._branch(),
            *self._follows(),
            *([*self._commits_there(path), self._branch()] if random.random() < 0.4 else []),
        ]

    def _while_it_follows(self) -> Scenario:
        """At some request of a sync or of the repository's program, let the agent commit, or the daemon die."""
        random, path, other = self._random, self._path(), joined("a", "beside")
        commit = self._commit(None, random.choice(("all", "all", "amend", "branch", "stash")))
        beside = random.choice((commit, commit, Step("kill"), Step("stop")))
        op, when = random.choice(("initialize", *_REQUESTS[:4])), random.choice(("before", "after"))
        faults = ("execute: lost", "execution-logs: lost x3", "execution-logs: 503", "execute: 503 after")
        trouble = random.choice(
            ([], [], [Step("hold_initialize")], [Step("hold_executions")], [Step("fault", (random.choice(faults),))])
        )
        return [
            *self._begins(path),
            *([self._edit_there(random.choice((path, other)))] if random.random() < 0.6 else []),
            Step("at_request", (op, when, beside.name, *beside.args)),
            *trouble,
            self._edit_here(path) if random.random() < 0.6 else Step("write", (other, 8, self._text)),
            *([Step("flush")] if random.random() < 0.4 else []),
            *([self._rest()] if random.random() < 0.7 else []),
            *(self._commits_there(path) if random.random() < 0.5 else []),
            *([Step("late_executions")] if random.random() < 0.2 else []),
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
            *([self._branch()] if random.random() < 0.5 else []),
            *leaves[:at],
            self._commit(),
            *leaves[at:],
            *([self._branch()] if random.random() < 0.6 else []),
        ]
