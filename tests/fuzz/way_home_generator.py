"""Generates scenarios in which the agent's work comes home, beside syncs, deaths, full disks, ends and moves."""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from tests.fuzz.configured_generator import MORE_FAULTS, ConfiguredGenerator
from tests.fuzz.generator import SECRETS, joined
from tests.fuzz.scenario import Scenario, Step

# The requests beside which a command may begin, and those of a command beside which something may happen.
_OF_A_SYNC = ("upload", "execute", "initialize", "initialize", "upload-url", "execution-logs")
_OF_A_COMMAND = ("execute", "execution-logs", "export-artifacts", "download", "execution-upload-url")
_INCLUDED = ("*", "build/", "*.log", ".env")
_IDLE = Step("wait_idle")


class WayHomeGenerator(ConfiguredGenerator):
    """Generates scenarios with commands of the agent's side."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        random = self._random
        self._settings[2] = random.choice((0, 0, 90, 600))
        self._settings[5] = random.choice(("save", "save", "save", "hold"))

    @override
    def scenario(self) -> Scenario:
        """Generate a few steps, and some patterns one after the other."""
        random = self._random
        steps = [Step("file_times", (random.choice(("fine", "coarse")),)), *self._first_steps()]
        steps += [self._drawn(self._operation) for _ in range(random.choice((1, 3, 6, 12)))]
        for _ in range(random.choice((1, 1, 2, 2, 3))):
            steps += self._pattern()
            steps += [self._drawn(self._event) for _ in range(random.choice((0, 0, 1, 1, 2, 4)))]
            if random.random() < 0.6:
                steps.append(_IDLE)
        return steps

    @override
    def _event(self) -> Step:
        random = self._random
        draw = random.random()
        if draw < 0.25:
            return self._command(self._injection_point() if random.random() < 0.4 else None)
        if draw < 0.45:
            return self._agent_operation(None)
        if draw < 0.5:
            return Step("move_sandbox", (random.randrange(1, 3),))
        return super()._event()

    @override
    def _pattern(self) -> Scenario:
        random = self._random
        patterns = (
            self._both_edit,
            self._both_edit,
            self._both_edit,
            self._take_back,
            self._take_back,
            self._beside_a_sync,
            self._beside_a_sync,
            self._late_archive,
            self._late_archive,
            self._folder_with_excluded,
            self._link_in_place,
            self._before_an_end,
            self._before_an_end,
            self._leaves,
            self._excluded_there,
            self._looks_meanwhile,
            self._followed,
            self._followed,
        )
        return random.choice(patterns)() if random.random() < 0.85 else super()._pattern()

    # -- commands

    def _command(self, at: int | None = None, *, trouble: bool = True) -> Step:
        random = self._random
        name = random.choice((*("apply",) * 6, *("resolve",) * 2, *("undo",) * 3, *("restore",) * 2, "release"))
        given = self._trouble(name) if trouble and random.random() < 0.4 else ()
        match name:
            case "apply":
                return self._apply(given, at)
            case "resolve":
                return self._resolve(given, at)
            case "restore":
                return Step("restore", (random.choice((0, 0, 0, 1, 2)), given), at)
            case "release" if not self._settings[2]:
                return Step("undo", (given,), at)
        return Step(name, (given,), at)

    def _apply(self, trouble: tuple[Any, ...] = (), at: int | None = None) -> Step:
        random = self._random
        flags = ["--deletions"] if random.random() < 0.4 else []
        flags += ["--include", random.choice(_INCLUDED)] if random.random() < 0.15 else []
        paths = [random.choice((self._path(), self._folder())) for _ in range(random.choice((0, 0, 0, 0, 1, 2)))]
        return Step("apply", (tuple(flags), tuple(paths), trouble), at)

    def _resolve(self, trouble: tuple[Any, ...] = (), at: int | None = None) -> Step:
        random = self._random
        paths = [random.choice((self._path(), self._folder(), "")) for _ in range(random.choice((1, 1, 2)))]
        return Step("resolve", (random.choice(("mine", "theirs")), tuple(paths), trouble), at)

    def _trouble(self, name: str) -> tuple[Any, ...]:
        random = self._random
        kind = random.choice(("dies", "dies", "dies", "full", "full once"))
        writes = 2 if name in ("apply", "resolve") else 1
        phase = writes if name != "release" and random.random() < 0.85 else random.randrange(writes + 1)
        return (kind, phase, int(2 ** random.uniform(0, 7)))

    def _follows(self) -> Scenario:
        """What follows a command: a sync, another command, a death, edits."""
        random = self._random
        found: Scenario = []
        for _ in range(random.randrange(4)):
            found.append(
                random.choice(
                    (
                        _IDLE,
                        _IDLE,
                        Step("undo", ((),)),
                        self._command(),
                        self._operation(),
                        self._agent_operation(None),
                        Step("push_force"),
                        Step(random.choice(("kill", "stop", "reload"))),
                    )
                )
            )
        return found

    # -- patterns

    def _edit_here(self, path: str) -> Step:
        random = self._random
        self._text += 1
        return random.choice(
            (
                Step("append", (path, 8, self._text)),
                Step("append", (path, 8, self._text)),
                Step("write", (path, random.choice((8, 300)), self._text)),
                Step("chmod", (path, 0o755)),
                Step("remove", (path,)),
            )
        )

    def _edit_there(self, path: str) -> Step:
        random = self._random
        self._text += 1
        if random.random() < 0.5:
            return Step("agent_prepends", (path, self._text))
        return self._agent_operation(None, path)

    def _both_edit(self) -> Scenario:
        """Edit the same file on both sides or one, and have it come home with trouble."""
        random, path = self._random, self._path()
        self._text += 1
        edits = [self._edit_there(path)]
        if random.random() < 0.7:
            edits.append(self._edit_here(path))
        random.shuffle(edits)
        settles = [_IDLE] if random.random() < 0.25 else []
        pauses = random.random() < 0.4
        command = self._command()
        return [
            Step("write", (path, random.choice((300, 300, 1500, 3000)), self._text)),
            _IDLE,
            *([Step("pause")] if pauses else []),
            *edits,
            *settles,
            command if random.random() < 0.3 else self._apply(self._trouble("apply") if random.random() < 0.5 else ()),
            *(
                [self._resolve(self._trouble("resolve") if random.random() < 0.4 else ())]
                if random.random() < 0.5
                else []
            ),
            *self._follows(),
            *([Step("resume")] if pauses else []),
            *([self._edit_there(path), self._apply()] if random.random() < 0.3 else []),
            *self._follows(),
        ]

    def _followed(self) -> Scenario:
        """Follow the agent, and have what is known change on either side before a command answers from it."""
        random, path = self._random, self._path()
        self._text += 1
        look = Step("follow", at=self._injection_point()) if random.random() < 0.3 else Step("follow")
        meanwhile = [self._edit_there(path), self._edit_here(path), _IDLE, Step("follow"), self._operation()]
        meanwhile += [Step(random.choice(("kill", "reload", "request_sync")))]
        return [
            Step("write", (path, random.choice((300, 1500)), self._text)),
            _IDLE,
            self._edit_there(path),
            *([Step("kill", at=self._injection_point())] if random.random() < 0.2 else []),
            look,
            *random.sample(meanwhile, random.randrange(4)),
            self._command(),
            *self._follows(),
            *([Step("follow")] if random.random() < 0.5 else []),
            *self._follows(),
        ]

    def _take_back(self) -> Scenario:
        """Take an apply back, with trouble at the end of that, and have something follow that needs to know."""
        random, path = self._random, self._path()
        self._text += 1
        trouble = (random.choice(("dies", "dies", "full")), 1, random.randrange(10, 90))
        return [
            Step("write", (path, 300, self._text)),
            _IDLE,
            self._edit_there(path),
            *([self._edit_here(path)] if random.random() < 0.4 else []),
            Step("apply", (("--deletions",) if random.random() < 0.3 else (), (), ())),
            *([_IDLE] if random.random() < 0.5 else []),
            Step("undo", (trouble if random.random() < 0.7 else (),)),
            *([Step("undo", ((),))] if random.random() < 0.2 else []),
            *([self._edit_there(path)] if random.random() < 0.2 else []),
            _IDLE,
            *self._follows(),
        ]

    def _beside_a_sync(self) -> Scenario:
        """Begin a command at some request of a sync, which may be slow or die."""
        random, path, other = self._random, self._path(), self._path()
        self._text += 2
        op, when = random.choice(_OF_A_SYNC), random.choice(("before", "after"))
        command = self._command()
        slow = [Step("at_request", ("initialize", random.choice(("before", "after")), "takes", 60.0))]
        trouble = random.choice(
            (
                [],
                [Step("fault", (random.choice(("initialize: lost", "initialize: 500 after", "initialize: 503")),))],
                [Step("at_request", ("initialize", "after", random.choice(("kill", "stop", "reload"))))],
                [Step("at_request", ("initialize", "before", "agent_writes", path, self._text))],
            )
        )
        return [
            Step("write", (path, 300, self._text - 1)),
            _IDLE,
            self._edit_there(path),
            *(slow if random.random() < 0.4 else []),
            Step("at_request", (op, when, command.name, *command.args)),
            *trouble,
            self._edit_here(path) if random.random() < 0.6 else Step("write", (other, 8, self._text)),
            _IDLE,
            *self._follows(),
        ]

    def _late_archive(self) -> Scenario:
        """Let an archive be unpacked long after its request has failed, with commands between."""
        random, path = self._random, self._path()
        self._text += 1
        return [
            Step("write", (path, 300, self._text)),
            _IDLE,
            *([self._edit_there(path)] if random.random() < 0.5 else []),
            Step("hold_initialize"),
            self._edit_here(path),
            Step("wait_failing"),
            *([self._edit_there(path)] if random.random() < 0.5 else []),
            *([self._command()] if random.random() < 0.6 else []),
            *([Step("late_initialize")] if random.random() < 0.7 else []),
            *([Step(random.choice(("kill", "stop")))] if random.random() < 0.3 else []),
            self._command(),
            *self._follows(),
        ]

    def _folder_with_excluded(self) -> Scenario:
        """Have the agent remove a folder in which something is excluded here, and delete it here too."""
        random, folder = self._random, self._folder()
        self._text += 1
        again = Step("apply", (("--deletions",), (), ()))
        return [
            Step("write", (joined(folder, "f"), 8, self._text)),
            Step("write_secret", (folder, random.choice(SECRETS))),
            _IDLE,
            Step("agent_removes", (folder,)),
            Step("apply", (("--deletions",), (), self._trouble("apply") if random.random() < 0.3 else ())),
            *([_IDLE] if random.random() < 0.5 else []),
            again,
            *self._follows(),
        ]

    def _link_in_place(self) -> Scenario:
        """Have the agent put a link in the place of a file or folder that is changed here."""
        random, path = self._random, self._path()
        self._text += 1
        link = Step("agent_links", (path, random.choice(("g", "a", "nowhere", "../f", "."))))
        return [
            Step("write", (path, 8, self._text)),
            _IDLE,
            link,
            *([self._edit_here(path)] if random.random() < 0.6 else []),
            random.choice((self._apply(), self._command(), _IDLE)),
            *self._follows(),
        ]

    def _before_an_end(self) -> Scenario:
        """Let an acquired sandbox end by itself after the agent wrote, with what keeps its work from being saved."""
        random, path, other = self._random, self._path(), self._path()
        self._text += 2
        self._settings[2] = random.choice((90, 600))
        limits, self._settings[3] = self._settings[3], random.choice((self._settings[3], 1))
        begins = Step("reconfigure", tuple(self._settings))
        self._settings[3] = limits
        spare = self._settings[2] - 70.0
        trouble = random.choice(
            (
                [],
                [Step("fault", (random.choice(("execute: 503", "export-artifacts: 503", "download: 503 x3")),))],
                [Step("fault", (random.choice(("execution-upload: 503 x4", "any: 503 x5", "execution-logs: 503")),))],
                [Step("fault", (random.choice(MORE_FAULTS),))],
                [Step("set_clock", (random.choice((-4000.0, -30.0, 30.0)),))],
                [Step("write_noise", (other, 60_000, self._text))],
                [Step("pause")],
            )
        )
        return [
            begins,
            Step("write", (path, 300, self._text - 1)),
            _IDLE,
            self._edit_there(path),
            *([self._edit_here(path), _IDLE] if random.random() < 0.3 else []),
            *([Step("rest", (spare,))] if spare > 0 else []),
            *trouble,
            Step("rest", (random.choice((50.0, 80.0, 100.0)),)),
            *([Step("resume")] if trouble == [Step("pause")] else []),
            _IDLE,
            *([Step("restore", (0, ()))] if random.random() < 0.4 else []),
            *self._follows(),
        ]

    def _leaves(self) -> Scenario:
        """Leave the sandbox: by a release or a move, after the agent wrote; then sync, and restore."""
        random, path, other = self._random, self._path(), self._path()
        self._text += 2
        leaves: Scenario = [Step("move_sandbox", (random.randrange(1, 3),))]
        begins: Scenario = []
        if random.random() < 0.5:
            self._settings[2] = 600
            begins = [Step("reconfigure", tuple(self._settings))]
            leaves = [Step("release", ((),)), *([Step("push_force")] if random.random() < 0.5 else [])]
        trouble = random.choice(([], [], [Step("fault", (random.choice(MORE_FAULTS),))]))
        return [
            *begins,
            Step("write", (path, 300, self._text)),
            Step("write", (other, 8, self._text - 1)),
            _IDLE,
            self._edit_there(path),
            *([self._edit_here(path)] if random.random() < 0.4 else []),
            *([self._apply()] if random.random() < 0.3 else []),
            *trouble,
            *leaves,
            _IDLE,
            *([Step("restore", (0, ())), _IDLE] if random.random() < 0.5 else []),
            *self._follows(),
        ]

    def _excluded_there(self) -> Scenario:
        """Have the agent write what a rule excludes here, and take it or not; then sync, and undo."""
        random = self._random
        self._text += 1
        path = random.choice(("build/f", "x.log", ".env", "a/x.log", "node_modules/f", "a/.env"))
        included = ("--include", "*") if random.random() < 0.6 else ()
        return [
            Step("write_rules", (".gitignore", "*.log\nbuild/\n")),
            *([Step("write", (path, 8, 0))] if random.random() < 0.3 else []),
            _IDLE,
            Step("agent_writes", (path, self._text)),
            Step("apply", (included, (), ())),
            *([_IDLE] if random.random() < 0.6 else []),
            *self._follows(),
            *([Step("write_rules", (".gitignore", ""))] if random.random() < 0.3 else []),
        ]

    def _looks_meanwhile(self) -> Scenario:
        """Change a path on either side while a command looks at the sandbox."""
        random, path = self._random, self._path()
        self._text += 1
        op, when = random.choice(_OF_A_COMMAND), random.choice(("before", "after"))
        change = self._edit_there(path) if random.random() < 0.5 else self._edit_here(path)
        return [
            Step("write", (path, 300, self._text)),
            _IDLE,
            self._edit_there(path),
            *([self._edit_here(path)] if random.random() < 0.4 else []),
            Step("beside_command", (op, when, change.name, *change.args)),
            self._apply(self._trouble("apply") if random.random() < 0.2 else ()),
            *self._follows(),
        ]
