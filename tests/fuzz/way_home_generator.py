"""Generates scenarios in which the agent's work comes home, beside syncs, deaths, full disks, ends and moves."""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from tests.fuzz.generator import IDLE, MORE_FAULTS, SECRETS, ConfiguredGenerator, joined, of
from tests.fuzz.scenario import Scenario, Step

# The requests beside which a command may begin, and those of a command beside which something may happen.
_OF_A_SYNC = ("upload", "execute", "initialize", "initialize", "upload-url", "execution-logs")
_OF_A_COMMAND = ("execute", "execution-logs", "export-artifacts", "download", "execution-upload-url")
_INCLUDED = ("*", "build/", "*.log", ".env")


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
                steps.append(IDLE)
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
        patterns = {
            self._both_edit: 3,
            self._take_back: 2,
            self._beside_a_sync: 2,
            self._late_archive: 2,
            self._before_an_end: 2,
            self._followed: 2,
            self._folder_with_excluded: 1,
            self._link_in_place: 1,
            self._leaves: 1,
            self._excluded_there: 1,
            self._looks_meanwhile: 1,
        }
        (pattern,) = self._random.choices([*patterns], [*patterns.values()])
        return pattern() if self._random.random() < 0.85 else super()._pattern()

    # -- commands

    def _command(self, at: int | None = None) -> Step:
        random = self._random
        name = random.choice((*("apply",) * 6, *("resolve",) * 2, *("undo",) * 3, *("restore",) * 2, "release"))
        trouble = self._trouble(name, 0.4)
        match name:
            case "apply":
                return self._apply(trouble, at)
            case "resolve":
                return self._resolve(trouble, at)
            case "restore":
                return Step("restore", (random.choice((0, 0, 0, 1, 2)), trouble), at)
            case "release" if not self._settings[2]:
                return Step("undo", (trouble,), at)
        return Step(name, (trouble,), at)

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

    def _trouble(self, name: str, share: float) -> tuple[Any, ...]:
        """Return the trouble of a command, which so many have."""
        random = self._random
        if random.random() >= share:
            return ()
        kind = random.choice(("dies", "dies", "dies", "full", "full once"))
        writes = 2 if name in ("apply", "resolve") else 1
        phase = writes if name != "release" and random.random() < 0.85 else random.randrange(writes + 1)
        return (kind, phase, int(2 ** random.uniform(0, 7)))

    def _follows(self) -> Scenario:
        """What follows a command: a sync, another command, a death, edits."""
        return [self._one_more() for _ in range(self._random.randrange(4))]

    def _one_more(self) -> Step:
        random = self._random
        ends, edits = Step(random.choice(("kill", "stop", "reload"))), (self._operation(), self._agent_operation(None))
        others = Step("undo", ((),)), self._command(), Step("push_force"), ends
        return random.choice((IDLE, IDLE, *edits, *others))

    # -- patterns

    def _edit_here(self, path: str) -> Step:
        random = self._random
        self._text += 1
        edits = (Step("append", (path, 8, self._text)),) * 2
        write = Step("write", (path, random.choice((8, 300)), self._text))
        return random.choice((*edits, write, Step("chmod", (path, 0o755)), Step("remove", (path,))))

    def _edit_there(self, path: str) -> Step:
        self._text += 1
        prepends = Step("agent_prepends", (path, self._text))
        return prepends if self._random.random() < 0.5 else self._agent_operation(None, path)

    def _sent(self, path: str, *sizes: int) -> Scenario:
        """A file that is sent."""
        self._text += 1
        return [Step("write", (path, self._random.choice(sizes or (300,)), self._text)), IDLE]

    def _at_work(self, path: str, share: float) -> Scenario:
        """A file that is sent, and then edited there, and so often here as well."""
        return [*self._sent(path), self._edit_there(path), *self._maybe(share, self._edit_here(path))]

    def _both_edit(self) -> Scenario:
        """Edit the same file on both sides or one, and have it come home with trouble."""
        random, path = self._random, self._path()
        edits = [self._edit_there(path), *self._maybe(0.7, self._edit_here(path))]
        random.shuffle(edits)
        pauses = random.random() < 0.4
        return [
            *self._sent(path, 300, 300, 1500, 3000),
            *([Step("pause")] if pauses else []),
            *edits,
            *self._maybe(0.25, IDLE),
            self._command() if random.random() < 0.3 else self._apply(self._trouble("apply", 0.5)),
            *self._maybe(0.5, self._resolve(self._trouble("resolve", 0.4))),
            *self._follows(),
            *([Step("resume")] if pauses else []),
            *self._maybe(0.3, self._edit_there(path), self._apply()),
            *self._follows(),
        ]

    def _followed(self) -> Scenario:
        """Follow the agent, and have what is known change on either side before a command answers from it."""
        random, path = self._random, self._path()
        meanwhile = [self._edit_there(path), self._edit_here(path), IDLE, Step("follow"), self._operation()]
        meanwhile += [Step(random.choice(("kill", "reload", "request_sync")))]
        return [
            *self._sent(path, 300, 1500),
            self._edit_there(path),
            *self._maybe(0.2, Step("kill", at=self._injection_point())),
            Step("follow", at=self._injection_point() if random.random() < 0.3 else None),
            *random.sample(meanwhile, random.randrange(4)),
            self._command(),
            *self._follows(),
            *self._maybe(0.5, Step("follow")),
            *self._follows(),
        ]

    def _take_back(self) -> Scenario:
        """Take an apply back, with trouble at the end of that, and have something follow that needs to know."""
        random, path = self._random, self._path()
        trouble = (random.choice(("dies", "dies", "full")), 1, random.randrange(10, 90))
        return [
            *self._at_work(path, 0.4),
            Step("apply", (("--deletions",) if random.random() < 0.3 else (), (), ())),
            *self._maybe(0.5, IDLE),
            Step("undo", (trouble if random.random() < 0.7 else (),)),
            *self._maybe(0.2, Step("undo", ((),))),
            *self._maybe(0.2, self._edit_there(path)),
            IDLE,
            *self._follows(),
        ]

    def _beside_a_sync(self) -> Scenario:
        """Begin a command at some request of a sync, which may be slow or die."""
        random, path, other = self._random, self._path(), self._path()
        op, when, command = random.choice(_OF_A_SYNC), random.choice(("before", "after")), self._command()
        begins = self._at_work(path, 0.0)
        trouble = random.choice(
            (
                [],
                [Step("fault", (random.choice(of("initialize", "lost", "500 after", "503")),))],
                [Step("at_request", ("initialize", "after", random.choice(("kill", "stop", "reload"))))],
                [Step("at_request", ("initialize", "before", "agent_writes", path, self._text))],
            )
        )
        return [
            *begins,
            *self._maybe(0.4, Step("at_request", ("initialize", random.choice(("before", "after")), "takes", 60.0))),
            Step("at_request", (op, when, command.name, *command.args)),
            *trouble,
            self._edit_here(path) if random.random() < 0.6 else Step("write", (other, 8, self._text)),
            IDLE,
            *self._follows(),
        ]

    def _late_archive(self) -> Scenario:
        """Let an archive be unpacked long after its request has failed, with commands between."""
        path = self._path()
        return [
            *self._sent(path),
            *self._maybe(0.5, self._edit_there(path)),
            Step("hold_initialize"),
            self._edit_here(path),
            Step("wait_failing"),
            *self._maybe(0.5, self._edit_there(path)),
            *self._maybe(0.6, self._command()),
            *self._maybe(0.7, Step("late_initialize")),
            *self._maybe(0.3, Step(self._random.choice(("kill", "stop")))),
            self._command(),
            *self._follows(),
        ]

    def _folder_with_excluded(self) -> Scenario:
        """Have the agent remove a folder in which something is excluded here, and delete it here too."""
        random, folder = self._random, self._folder()
        return [
            Step("write_secret", (folder, random.choice(SECRETS))),
            *self._sent(joined(folder, "f"), 8),
            Step("agent_removes", (folder,)),
            Step("apply", (("--deletions",), (), self._trouble("apply", 0.3))),
            *self._maybe(0.5, IDLE),
            Step("apply", (("--deletions",), (), ())),
            *self._follows(),
        ]

    def _link_in_place(self) -> Scenario:
        """Have the agent put a link in the place of a file or folder that is changed here."""
        random, path = self._random, self._path()
        return [
            *self._sent(path, 8),
            Step("agent_links", (path, random.choice(("g", "a", "nowhere", "../f", ".")))),
            *self._maybe(0.6, self._edit_here(path)),
            random.choice((self._apply(), self._command(), IDLE)),
            *self._follows(),
        ]

    def _before_an_end(self) -> Scenario:
        """Let an acquired sandbox end by itself after the agent wrote, with what keeps its work from being saved."""
        random, path, other = self._random, self._path(), self._path()
        self._text += 1
        self._settings[2] = random.choice((90, 600))
        begins = list(self._settings)
        begins[3] = random.choice((begins[3], 1))
        some = (
            *("execute: 503", "export-artifacts: 503", "download: 503 x3", "execution-upload: 503 x4", "any: 503 x5"),
            "execution-logs: 503",
        )
        trouble = random.choice(
            (
                [],
                [Step("fault", (random.choice(some),))],
                [Step("fault", (random.choice(some),))],
                [Step("fault", (random.choice(MORE_FAULTS),))],
                [Step("set_clock", (random.choice((-4000.0, -30.0, 30.0)),))],
                [Step("write_noise", (other, 60_000, self._text))],
                [Step("pause")],
            )
        )
        return [
            Step("reconfigure", tuple(begins)),
            *self._sent(path),
            self._edit_there(path),
            *self._maybe(0.3, self._edit_here(path), IDLE),
            Step("rest", (self._settings[2] - 70.0,)),
            *trouble,
            Step("rest", (random.choice((50.0, 80.0, 100.0)),)),
            *([Step("resume")] if trouble == [Step("pause")] else []),
            IDLE,
            *self._maybe(0.4, Step("restore", (0, ()))),
            *self._follows(),
        ]

    def _leaves(self) -> Scenario:
        """Leave the sandbox: by a release or a move, after the agent wrote; then sync, and restore."""
        random, path = self._random, self._path()
        self._text += 1
        leaves: Scenario = [Step("move_sandbox", (random.randrange(1, 3),))]
        begins: Scenario = []
        if random.random() < 0.5:
            self._settings[2] = 600
            begins = [Step("reconfigure", tuple(self._settings))]
            leaves = [Step("release", ((),)), *self._maybe(0.5, Step("push_force"))]
        return [
            *begins,
            Step("write", (self._path(), 8, self._text)),
            *self._at_work(path, 0.4),
            *self._maybe(0.3, self._apply()),
            *self._maybe(0.3, Step("fault", (random.choice(MORE_FAULTS),))),
            *leaves,
            IDLE,
            *self._maybe(0.5, Step("restore", (0, ())), IDLE),
            *self._follows(),
        ]

    def _excluded_there(self) -> Scenario:
        """Have the agent write what a rule excludes here, and take it or not; then sync, and undo."""
        random = self._random
        self._text += 1
        path = random.choice(("build/f", "x.log", ".env", "a/x.log", "node_modules/f", "a/.env"))
        return [
            Step("write_rules", (".gitignore", "*.log\nbuild/\n")),
            *self._maybe(0.3, Step("write", (path, 8, 0))),
            IDLE,
            Step("agent_writes", (path, self._text)),
            Step("apply", (("--include", "*") if random.random() < 0.6 else (), (), ())),
            *self._maybe(0.6, IDLE),
            *self._follows(),
            *self._maybe(0.3, Step("write_rules", (".gitignore", ""))),
        ]

    def _looks_meanwhile(self) -> Scenario:
        """Change a path on either side while a command looks at the sandbox."""
        random, path = self._random, self._path()
        begins = self._at_work(path, 0.4)
        op, when = random.choice(_OF_A_COMMAND), random.choice(("before", "after"))
        change = self._edit_there(path) if random.random() < 0.5 else self._edit_here(path)
        return [
            *begins,
            Step("beside_command", (op, when, change.name, *change.args)),
            self._apply(self._trouble("apply", 0.2)),
            *self._follows(),
        ]
