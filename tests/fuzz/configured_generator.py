"""Generates random scenarios from a seed: under the default configuration, or others, with an agent in the sandbox."""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from tests.fuzz.generator import TARGETS, Generator, joined
from tests.fuzz.scenario import Scenario, Step

# Faults of the requests that only some configurations make.
MORE_FAULTS = (
    "execution-upload-url: 503",
    "execution-upload-url: lost",
    "execution-upload-url: 404",
    "execution-upload: 503",
    "execution-upload: reset",
    "execution-upload: lost",
    "execution-upload: corrupt",
    "execute: 503",
    "execute: 503 after",
    "execute: reset",
    "execute: reset",
    "execute: lost",
    "execute: lost x3",
    "execute: cut",
    "execute: delay 0.01",
    "execute: 404",
    "execute: 429 retry-after=3",
    "execution-logs: 503",
    "execution-logs: cut",
    "execution-logs: lost x3",
    "execution-logs: 404",
    "dump: 503",
    "dump: lost",
    "dump: cut",
    "dump: 404",
    "download: 503",
    "download: cut",
    "download: corrupt",
    "acquire: 503",
    "acquire: lost",
    "acquire: cut",
    "acquire: 429 retry-after=3",
    "acquire: 404",
    "upload-url: 404",
    "initialize: 404",
)


class ConfiguredGenerator(Generator):
    """Generates scenarios under other configurations, which change on the way, and with an agent in the sandbox."""

    _pattern_share = 0.5

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        random = self._random
        self._settings: list[Any] = [
            random.choice(("mirror", "mirror", "keep")),
            random.choice(("full", "auto", "auto")),
            random.choice((0, 0, 0, 90, 600, 7200)),
            random.choice((0, 0, 4000)),
            random.choice((1.0, 1.0, 0.05, 4.0)),
            random.choice(("save", "save", "hold", "overwrite")),
        ]

    @override
    def _first_steps(self) -> Scenario:
        wipes = [Step("wipe_sandboxes")] if self._settings[1] == "auto" and self._random.random() < 0.3 else []
        return [Step("settings", tuple(self._settings)), *wipes]

    @override
    def _event(self) -> Step:
        random = self._random
        at = self._injection_point() if random.random() < 0.5 else None
        draw = random.random()
        if draw < 0.6:
            return super()._event()
        if draw < 0.7:
            return self._agent_operation(at)
        if draw < 0.76:
            return Step("remove", (random.choice((self._path(), self._path(), self._folder())),), at)
        if draw < 0.87:
            return Step("fault", (random.choice(MORE_FAULTS),))
        if draw < 0.9:
            return self._reconfigure(at)
        step: Step = random.choice(
            (
                Step("push_force"),
                Step("hold_executions", (), at),
                Step("release_executions", (), at),
                Step("late_executions", (), at),
                Step("late_executions", (), at),
                *((Step("sandbox_expires", (), at),) if self._settings[2] else ()),
                Step("advance", (random.choice((100.0, 500.0)),)),
            )
        )
        return step

    @override
    def _pattern(self) -> Scenario:
        """Change the same path on both sides, before, while or after it is removed."""
        random, path = self._random, self._path()
        if random.random() < 0.3:
            return super()._pattern()
        if random.random() < 0.35:
            return self._both_sides()
        if self._settings[1] == "auto" and random.random() < 0.3:
            return self._interrupted_proof()
        if random.random() < 0.3:
            return self._change_of_kind()
        self._text += 1
        write, removal = Step("write", (path, 8, self._text)), Step("remove", (path,))
        if random.random() < 0.5:
            at = self._injection_point() if random.random() < 0.4 else None
            remote = Step("agent_writes", (path, self._text), at)
            local = random.choice(
                (removal, removal, Step("change_kind", (path, "folder")), Step("touch", (path,)), self._operation())
            )
            if random.random() < 0.4:
                folder = self._folder()
                write, local = Step("write", (f"{folder}/deep/f", 8, self._text)), Step("remove", (folder,))
                remote = Step("agent_writes", (f"{folder}/{random.choice(('', 'deep/'))}agents", self._text), at)
            return [
                write,
                Step("wait_idle"),
                *((remote, local) if random.random() < 0.7 else (local, remote)),
                Step("wait_idle"),
            ]
        ends = Step(random.choice(("kill", "stop", "reload")))
        if random.random() < 0.4:
            unanswered = Step(
                "fault", (random.choice(("initialize: lost", "initialize: 500 after", "initialize: cut")),)
            )
            before = [Step("write", (path, 8, 0)), Step("wait_idle")] if random.random() < 0.5 else []
            after = random.choice((removal, Step("revert", (path,)), Step("revert", (path,)), self._operation()))
            return [*before, unanswered, write, Step("wait_failing"), ends, after, Step("wait_idle")]
        late = random.choice(("execute: reset", "execute: reset", "execute: 503", "execute: lost", "any: reset skip=3"))
        return [
            write,
            Step("wait_idle"),
            *([Step("hold_executions")] if "lost" in late else []),
            Step("fault", (late,)),
            removal,
            Step("wait_failing"),
            *([ends] if random.random() < 0.5 else []),
            *([write] if random.random() < 0.8 else []),
            Step("late_executions", (), random.choice((None, self._injection_point(), 1000))),
            Step("wait_idle"),
            Step("late_executions"),
        ]

    def _both_sides(self) -> Scenario:
        """Change a path on one side or both, with what may lose the agent's version: whole archives, ends, no looks."""
        random, path, other = self._random, self._path(), self._path()
        self._text += 2
        if random.random() < 0.3:
            path = joined(self._folder(), "deep/f")
        rest, at = Step("wait_idle"), self._injection_point() if random.random() < 0.2 else None
        local = random.choice(
            (
                [],
                [],
                [Step("write", (path, 8, self._text))],
                [Step("chmod", (path, 0o755))],
                [Step("remove", (path,))],
                [Step("remove", (path.rpartition("/")[0] or path,))],
                [Step("rename", (path, other))],
            )
        )
        trouble = random.choice(
            (
                [],
                [Step("push_force")],
                [Step("advance", (700.0,))],
                [Step("fault", ("initialize: lost",))],
                [
                    Step("fault", ("initialize: 500 after",)),
                    Step("write", (other, 8, self._text)),
                    Step("wait_failing"),
                ],
                [Step("fault", ("execute: 404 x9",)), Step("fault", ("dump: 404 x9",))],
                [Step("fault", (random.choice(MORE_FAULTS),))],
                [Step(random.choice(("kill", "stop", "reload")))],
            )
        )
        return [
            Step("write", (path, random.choice((8, 300)), self._text - 1)),
            rest,
            self._agent_operation(at, path),
            *([rest] if random.random() < 0.3 else []),
            *(local if random.random() < 0.7 else ()),
            *trouble,
            Step("write", (other, 8, self._text + 5000)),
            rest,
            *([self._agent_operation(None, path), *local, rest] if random.random() < 0.4 else []),
        ]

    def _change_of_kind(self) -> Scenario:
        """Change a folder to a file or back, maybe with a file of the agent in its place."""
        random, path = self._random, self._path()
        self._text += 1
        below = f"{path}/{random.choice(('agents', 'deep/f', 'f'))}"
        rest, at = Step("wait_idle"), self._injection_point() if random.random() < 0.3 else None
        folder, file = Step("write", (f"{path}/deep/f", 8, 0)), Step("write", (path, 8, 0))
        agents, back = Step("agent_writes", (below, self._text), at), Step("change_kind", (path, "folder"))
        match random.randrange(4):
            case 0:
                begins = [folder, rest, agents, Step("change_kind", (path, random.choice(("file", "file", "link"))))]
            case 1:
                begins = [file, rest, Step("agent_writes", (path, self._text), at), back]
            case 2:
                begins, back = [agents, file], Step("remove", (path,))
            case _:
                begins, back = [Step("agent_writes", (path, self._text)), folder], Step("remove", (path,))
        freed = Step("agent_removes", (random.choice((path, below)),))
        trouble = random.choice(
            ([], [], [Step("fault", (random.choice(MORE_FAULTS),))], [Step("wait_failing"), Step("kill")])
        )
        ends = random.choice(([], [freed], [back], [freed, back], [Step("touch", (path,))], [Step("flush")]))
        return [*begins[:-1], *trouble[:1], begins[-1], *trouble[1:], rest, *ends, rest]

    def _interrupted_proof(self) -> Scenario:
        """End the process while it downloads the result of a partial archive, or before."""
        random, path = self._random, self._path()
        self._text += 1
        op, when = random.choice((("dump", "before"), ("dump", "after"), ("download", "before"), ("download", "after")))
        ends = Step("at_request", (op, when, random.choice(("kill", "kill", "stop"))))
        after = random.choice(([], [Step("touch", (path,))], [Step("revert", (path,))], [self._operation()]))
        return [
            *(Step("write", (f"{name}-stays", 8, 0)) for name in ("f", "a/g")),
            Step("wait_idle"),
            ends,
            Step("write", (path, 8, self._text)),
            Step("wait_idle"),
            *after,
            Step("wait_idle"),
        ]

    @override
    def _change_during_fault(self) -> Scenario:
        """Half of the time: delete a file during a fault, then maybe write it again."""
        random, path = self._random, self._path()
        if random.random() < 0.5:
            return super()._change_during_fault()
        self._text += 1
        write = Step("write", (path, 8, self._text))
        ends = random.choice((Step("kill"), Step("stop"), Step("reload"), self._reconfigure(None)))
        after = (write, write, self._agent_operation(None, path), Step("write", (f"{path}/f", 8, 0)), self._operation())
        return [
            write,
            Step("wait_idle"),
            *([Step("hold_executions")] if random.random() < 0.2 else []),
            Step("fault", (random.choice(MORE_FAULTS),)),
            Step("remove", (path,)),
            Step("wait_failing"),
            *([ends] if random.random() < 0.4 else []),
            *([random.choice(after)] if random.random() < 0.8 else []),
            *(
                [Step("late_executions", (), random.choice((None, self._injection_point())))]
                if random.random() < 0.4
                else []
            ),
        ]

    def _agent_operation(self, at: int | None, path: str = "") -> Step:
        random = self._random
        path = path or random.choice((self._path(), self._path(), joined(self._folder(), "agents")))
        self._text += 1
        step: Step = random.choice(
            (
                *(Step("agent_writes", (path, self._text), at),) * 8,
                *(Step("agent_edits_alike", (path, self._text), at),) * 3,
                *(Step("agent_chmod", (path,), at),) * 2,
                Step("agent_links", (random.choice((path, self._folder())), random.choice(TARGETS)), at),
                *(Step("agent_makes_folder", (path, self._text), at),) * 2,
                *(Step("agent_removes", (random.choice((path, path, self._folder())),), at),) * 4,
                *((Step("agent_empties", (), at),) if random.random() < 0.3 else ()),
            )
        )
        return step

    def _reconfigure(self, at: int | None) -> Step:
        random = self._random
        which = random.choice((0, 0, 1, 1, 2, 3, 4, 5))
        self._settings[which] = random.choice(
            (
                ("mirror", "keep"),
                ("full", "auto"),
                (0, 90, 600, 7200),
                (0, 4000, 20_000),
                (1.0, 0.05, 4.0),
                ("save", "hold", "overwrite"),
            )[which]
        )
        return Step("reconfigure", tuple(self._settings), at)
