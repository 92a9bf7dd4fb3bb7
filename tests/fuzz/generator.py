"""Generates random scenarios from a seed: under the default configuration, or others, with an agent in the sandbox.

Each scenario leaves out a random half of the operations, events and faults, so that what hides another one is often
not there (Groce et al., "Swarm Testing", ISSTA 2012).
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from typing_extensions import override

from tests.fuzz.scenario import Scenario, Step

FOLDERS = ("", "", "a", "a", "b", "a/c", "a/c/e", "é", "new\nline", "node_modules", "build")
NAMES = ("f", "f", "f", "g", "g", "x.log", "-", "f~", "\udcff", "deep/h", " ")
SECRETS = (".env", "id_rsa", "x.pem")
TARGETS = ("f", "../f", "a", "..", ".", "/etc/hosts", "../outside/f", "../../outside", "nowhere", "a/c")
RULES = ("*.log\n", "build/\n", "*.log\n!x.log\n", "/a/c\n", "g\n", "f~\n", "a/*\n!a/f\n", "", "!g\n", "*\n!*/\n!f\n")
MODES = (0o644, 0o755, 0o600, 0o700, 0o4755)
SIZES = (0, 1, 8, 8, 8, 16, 16, 300, 300, 3000, 9000, 30_000)


def of(operation: str, *faults: str) -> list[str]:
    """Return these faults of one operation, in the emulator's language."""
    return [f"{operation}: {fault}" for fault in faults]


FAULTS = (
    *of("upload-url", "503", "429 retry-after=3", "lost", "html", "404", "reset"),
    *of("upload", "503", "expired", "forbidden", "reset", "reset mid-body", "lost", "corrupt", "wrong-hash", "no-hash"),
    *of("initialize", "503", "500 after", "lost", "lost x3", "cut", "reset", "html", "error no space", "400", "401"),
    *of("any", "502 x2", "reset x5", "lost x4", "hang 0.01"),
)
# Faults of the requests that only some configurations make.
MORE_FAULTS = (
    *of("execution-upload-url", "503", "lost", "404"),
    *of("execution-upload", "503", "reset", "lost", "corrupt"),
    *of(
        "execute",
        "503",
        "503 after",
        "reset",
        "reset",
        "lost",
        "lost x3",
        "cut",
        "delay 0.01",
        "404",
        "429 retry-after=3",
    ),
    *of("execution-logs", "503", "cut", "lost x3", "404"),
    *of("dump", "503", "lost", "cut", "404"),
    *of("download", "503", "cut", "corrupt"),
    *of("acquire", "503", "lost", "cut", "429 retry-after=3", "404"),
    *of("upload-url", "404"),
    *of("initialize", "404"),
)
IDLE = Step("wait_idle")
DAMAGES = ("flip", "cut", "drop", "folder", "foreign", "empty")


class Generator:
    """Generates scenarios under the default configuration."""

    _pattern_share = 0.15

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._text = 0
        self._swarm = Random(f"swarm {seed}")
        self._leaves_out = {"write": False}

    def scenario(self) -> Scenario:
        random = self._random
        steps = [Step("file_times", (random.choice(("fine", "coarse")),)), *self._first_steps()]
        steps += [self._drawn(self._operation) for _ in range(random.choice((3, 6, 6, 12, 25)))]
        for _ in range(random.randrange(3, 9)):
            if random.random() < self._pattern_share:
                steps += self._undetectable_change() if random.random() < 0.4 else self._pattern()
            for _ in range(random.randrange(1, 7)):
                steps.append(self._drawn(self._event))
                if steps[-1].name == "overflow":
                    steps.append(self._operation(steps[-1].at))
                if steps[-1].name == "fault" and random.random() < 0.6:
                    steps += self._change_during_fault()
            if random.random() < 0.7:
                steps.append(IDLE)
        return steps

    def _maybe(self, share: float, *steps: Step) -> Scenario:
        """Return these steps so often, else none."""
        return [*steps] if self._random.random() < share else []

    def _drawn(self, draw: Callable[[], Step]) -> Step:
        """Draw until it is nothing that this scenario leaves out."""
        while True:
            step = draw()
            what = f"{step.args[0]}" if step.name == "fault" else step.name
            if not self._leaves_out.setdefault(what, self._swarm.random() < 0.5):
                return step

    def _first_steps(self) -> Scenario:
        # Then each archive must hold everything.
        return self._maybe(0.5, Step("wipe_sandboxes"))

    def _change_during_fault(self) -> Scenario:
        """Change a file during a fault, and while the daemon waits to retry, change another one or change it back."""
        random, path = self._random, self._path()
        self._text += 1
        write = Step(random.choice(("write", "replace")), (path, 8, self._text))
        ends = Step(random.choice(("kill", "stop", "reload")))
        return [
            *self._maybe(0.5, IDLE),
            write,
            Step("wait_failing"),
            *self._maybe(0.3, ends),
            Step("revert", (path,)) if random.random() < 0.6 else self._operation(),
        ]

    def _pattern(self) -> Scenario:
        """Change something in one folder by an operation in another: hard links, symlinks that led inside."""
        random, folder, path = self._random, self._folder(), self._path()
        self._text += 1
        first, second = joined(folder, "first"), joined(random.choice(FOLDERS), "second")
        if random.random() < 0.5:
            links = [Step("hard_link", (first, second))]
            change = Step(random.choice(("append", "write")), (random.choice((first, second)), 8, self._text))
        else:
            links = [Step("symlink", ("b/link", f"../{folder}")), Step("symlink", (second, first))]
            ends = Step("change_kind", (folder, "link")), Step("remove", (first,))
            change = random.choice((Step("link_outside", (folder,)), Step("move_out", (folder,)), *ends))
        return [Step("write", (first, 8, 0)), *links, IDLE, change, Step("touch", (path,)), IDLE]

    def _undetectable_change(self) -> Scenario:
        """Change files without a change of mtime or inode number."""
        random, folder, path = self._random, self._folder(), self._path()
        self._text += 1
        within = joined(folder, random.choice(("f", "c/g", "c/e/f")))
        write, rest = Step("write", (path, 16, 0)), IDLE
        # A file that was read again, as something in its folder changed, has a stamp old enough to be trusted.
        beside = joined(path.rpartition("/")[0], "beside")
        trusted = [Step("advance", (5.0,)), Step("write", (beside, 8, self._text)), rest, Step("advance", (5.0,))]
        later = trusted if random.random() < 0.6 else []
        match random.randrange(6):
            case 0:
                first = random.choice(
                    (Step("move_in", (folder, 0)), Step("write", (within, 8, 0)), Step("mkdir", (folder,)))
                )
                at = self._injection_point() if random.random() < 0.2 else None
                recreated = Step("recreate_folder", (folder, self._text), at)
                edit = Step(random.choice(("write", "write", "replace", "append")), (within, 8, self._text + 1))
                return [first, rest, recreated, *self._maybe(0.7, rest), edit, rest]
            case 1:
                mapped = [Step("mmap", (path, self._text)), rest]
                return [write, *mapped, *later, Step("munmap", (path, self._text + 1)), rest]
            case 2:
                alike = Step(
                    random.choice(("recreate_keep_mtime", "replace_keep_mtime", "write_keep_mtime")), (path, self._text)
                )
                return [write, rest, *later, alike, rest]
            case 3:
                # The disaster guard ignores workspaces with fewer files.
                renewed = Step("replace_workspace", (random.choice((0, 5, 25)),))
                return [Step("fill_folder", ("many", 25)), rest, renewed, rest]
            case 4:
                return self._write_to_unlinked()
            case _:
                ends = random.choice((Step("remove", (path,)), Step("replace", (path, 8, 0))))
                return [Step("symlink_loop", (path, self._path())), rest, ends, rest]

    def _write_to_unlinked(self) -> Scenario:
        """Write to a file whose events name a removed name, then do what lets syncd find it."""
        random, folder, path, other = self._random, self._folder(), self._path(), self._path()
        self._text += 2
        if random.random() < 0.6:
            other = joined(path.rpartition("/")[0], "rotated")
        at = self._injection_point() if random.random() < 0.3 else None
        if random.random() < 0.5:
            begins = [Step("write", (path, 8, 0)), IDLE, Step("rotate", (path, other), at)]
        else:
            begins = [Step("link_tmpfile", (path.rpartition("/")[0] or folder, path, self._text), at)]
        ends = random.choice(([], [Step("close", (path,))], [Step("flush")], [self._operation()]))
        return [
            *begins,
            *self._maybe(0.7, IDLE),
            *self._maybe(0.4, Step("write", (path, 8, self._text))),
            Step("write_unlinked", (path, 1)),
            *ends,
            IDLE,
        ]

    def _event(self) -> Step:
        random = self._random
        point = self._injection_point()
        draw = random.random()
        if draw < 0.42:
            return self._operation()
        if draw < 0.66:
            return self._operation(point)
        if draw < 0.76:
            return Step("fault", (random.choice(FAULTS),))
        if draw < 0.81:
            return Step(random.choice(("kill", "kill", "stop", "reload")), (), point)
        if draw < 0.85:
            return Step(random.choice(("kill", "stop")))
        if draw < 0.88:
            where = random.choice(("spool", "spool", "state"))
            at = point if random.random() < 0.5 else None
            return Step("damage", (where, random.choice(DAMAGES), random.randrange(8)), at)
        return random.choice(
            (
                Step("overflow"),
                Step("overflow", (), point),
                Step("watch_fails"),
                Step("delay_events", (random.randrange(1, 5),)),
                Step("delay_events", (random.randrange(1, 5),)),
                Step("advance", (random.choice((0.1, 0.9, 5.0)),)),
                Step("advance", (random.choice((40.0, 700.0)),)),
                Step("suspend", (random.choice((30.0, 2000.0)),)),
                Step("suspend", (random.choice((30.0, 2000.0)),), point),
                Step("set_clock", (random.choice((-4000.0, -3.0, 3.0, 4000.0)),)),
                Step("request_sync"),
                Step("flush"),
                Step("flush"),
                Step("pause"),
                Step("resume"),
                Step("move_workspace_away", (), point),
                Step("move_workspace_away"),
                Step("move_workspace_back"),
                Step("limit_watches", (random.randrange(1, 5),)),
                Step("limit_watches", (1000,)),
            )
        )

    def _injection_point(self) -> int:
        return int(2 ** self._random.uniform(0, 8))

    def _operation(self, at: int | None = None) -> Step:
        random = self._random
        path, other = self._path(), self._path()
        self._text += 1
        size = random.choice(SIZES)
        # Few texts in few sizes, too, so that a change may restore what was there.
        text = self._text if random.random() < 0.6 else 0
        return random.choice(
            (
                *(Step("write", (path, size, text), at),) * 6,
                *(Step("write_keep_mtime", (path, text), at),) * 4,
                *(Step("replace", (path, size, text), at),) * 2,
                *(Step("revert", (path,), at),) * 4,
                Step("backup", (path, size, text), at),
                Step("append", (path, size, text), at),
                Step("truncate", (path, size // 2), at),
                Step("overwrite", (path, text), at),
                Step("overwrite", (path, text), at),
                Step("backdate", (path,), at),
                Step("touch", (path,), at),
                Step("recreate_keep_mtime", (path, text), at),
                Step("replace_keep_mtime", (path, text), at),
                *(Step("mmap", (path, text), at),) * 2,
                *(Step("munmap", (path, text), at),) * 2,
                Step("link_tmpfile", (self._folder(), path, text), at),
                Step("rotate", (path, other), at),
                *(Step("write_unlinked", (path, text), at),) * 2,
                Step("close", (path,), at),
                *(Step("rename", (path, other), at),) * 2,
                *(Step("rename", (self._folder(), self._folder()), at),) * 2,
                Step("rename_over", (path, other), at),
                Step("swap", (path, other), at),
                Step("hard_link", (path, other), at),
                Step("chmod", (random.choice((path, self._folder())), random.choice(MODES)), at),
                Step("symlink", (path, random.choice(TARGETS)), at),
                Step("symlink_loop", (path, other), at),
                Step("mkdir", (random.choice((path, self._folder())),), at),
                *(Step("remove", (path,), at),) * 2,
                Step("remove", (self._folder(),), at),
                Step("move_in", (random.choice((path, self._folder())), text), at),
                Step("move_out", (random.choice((path, self._folder())),), at),
                Step("exchange_folder", (self._folder(), text), at),
                *(Step("recreate_folder", (self._folder(), text), at),) * 2,
                Step(
                    "change_kind",
                    (random.choice((path, self._folder())), random.choice(("file", "folder", "link", "fifo"))),
                    at,
                ),
                Step("link_outside", (random.choice((path, self._folder())),), at),
                Step("write_secret", (random.choice(FOLDERS), random.choice(SECRETS)), at),
                Step("write_ignored", (random.choice(FOLDERS), random.randrange(2)), at),
                *(Step("write_rules", (self._rules(), random.choice(RULES)), at),) * 2,
                Step("remove", (self._rules(),), at),
            )
        )

    def _path(self) -> str:
        return joined(self._random.choice(FOLDERS), self._random.choice(NAMES))

    def _folder(self) -> str:
        return self._random.choice([folder for folder in FOLDERS if folder])

    def _rules(self) -> str:
        # The workspace's own .syncdignore only changes and never goes: `write_ignored` relies on it.
        name = self._random.choice((".gitignore", ".syncdignore"))
        return joined(self._random.choice(FOLDERS[:6]), name) if name == ".gitignore" else f"a/{name}"


# What a configuration may have, in the order of the step `settings`.
_CHOICES: tuple[tuple[Any, ...], ...] = (
    ("mirror", "keep"),
    ("auto", "full"),
    (0, 90, 600, 7200),
    (0, 4000, 20_000),
    (1.0, 0.05, 4.0),
    ("save", "hold", "overwrite"),
)


class ConfiguredGenerator(Generator):
    """Generates scenarios under other configurations, which change on the way, and with an agent in the sandbox."""

    _pattern_share = 0.5

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        random = self._random
        # The first of each is the usual one.
        self._settings = [random.choice((values[0], *values)) for values in _CHOICES]

    @override
    def _first_steps(self) -> Scenario:
        wipes = self._maybe(0.3, Step("wipe_sandboxes"))
        return [Step("settings", tuple(self._settings)), *(wipes if self._settings[1] == "auto" else [])]

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
            return [write, IDLE, *((remote, local) if random.random() < 0.7 else (local, remote)), IDLE]
        ends = Step(random.choice(("kill", "stop", "reload")))
        if random.random() < 0.4:
            unanswered = Step("fault", (random.choice(of("initialize", "lost", "500 after", "cut")),))
            before = self._maybe(0.5, Step("write", (path, 8, 0)), IDLE)
            after = random.choice((removal, Step("revert", (path,)), Step("revert", (path,)), self._operation()))
            return [*before, unanswered, write, Step("wait_failing"), ends, after, IDLE]
        late = random.choice(("execute: reset", "execute: reset", "execute: 503", "execute: lost", "any: reset skip=3"))
        return [
            write,
            IDLE,
            *([Step("hold_executions")] if "lost" in late else []),
            Step("fault", (late,)),
            removal,
            Step("wait_failing"),
            *self._maybe(0.5, ends),
            *self._maybe(0.8, write),
            Step("late_executions", (), random.choice((None, self._injection_point(), 1000))),
            IDLE,
            Step("late_executions"),
        ]

    def _both_sides(self) -> Scenario:
        """Change a path on one side or both, with what may lose the agent's version: whole archives, ends, no looks."""
        random, path, other = self._random, self._path(), self._path()
        self._text += 2
        if random.random() < 0.3:
            path = joined(self._folder(), "deep/f")
        at = self._injection_point() if random.random() < 0.2 else None
        removals = Step("remove", (path,)), Step("remove", (path.rpartition("/")[0] or path,))
        changes = Step("write", (path, 8, self._text)), Step("chmod", (path, 0o755)), Step("rename", (path, other))
        local = random.choice(([], [], *([each] for each in (*removals, *changes))))
        unanswered = Step("fault", ("initialize: 500 after",)), Step("write", (other, 8, self._text))
        trouble = random.choice(
            (
                [],
                [Step("push_force")],
                [Step("advance", (700.0,))],
                [Step("fault", ("initialize: lost",))],
                [*unanswered, Step("wait_failing")],
                [Step("fault", ("execute: 404 x9",)), Step("fault", ("dump: 404 x9",))],
                [Step("fault", (random.choice(MORE_FAULTS),))],
                [Step(random.choice(("kill", "stop", "reload")))],
            )
        )
        return [
            Step("write", (path, random.choice((8, 300)), self._text - 1)),
            IDLE,
            self._agent_operation(at, path),
            *self._maybe(0.3, IDLE),
            *self._maybe(0.7, *local),
            *trouble,
            Step("write", (other, 8, self._text + 5000)),
            IDLE,
            *self._maybe(0.4, self._agent_operation(None, path), *local, IDLE),
        ]

    def _change_of_kind(self) -> Scenario:
        """Change a folder to a file or back, maybe with a file of the agent in its place."""
        random, path = self._random, self._path()
        self._text += 1
        below = f"{path}/{random.choice(('agents', 'deep/f', 'f'))}"
        rest, at = IDLE, self._injection_point() if random.random() < 0.3 else None
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
            IDLE,
            ends,
            Step("write", (path, 8, self._text)),
            IDLE,
            *after,
            IDLE,
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
            IDLE,
            *self._maybe(0.2, Step("hold_executions")),
            Step("fault", (random.choice(MORE_FAULTS),)),
            Step("remove", (path,)),
            Step("wait_failing"),
            *self._maybe(0.4, ends),
            *self._maybe(0.8, random.choice(after)),
            *self._maybe(0.4, Step("late_executions", (), random.choice((None, self._injection_point())))),
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
        which = self._random.choice((0, 0, 1, 1, 2, 3, 4, 5))
        self._settings[which] = self._random.choice(_CHOICES[which])
        return Step("reconfigure", tuple(self._settings), at)


def joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
