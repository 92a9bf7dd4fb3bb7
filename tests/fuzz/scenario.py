"""Random scenarios: generated from a seed, printed and parsed, and shrunk once one has failed.

A scenario is a list of steps. A step is a name and its arguments, `write('a/f', 300, 17)`. With `@37` before it, it
happens at the 37th injection point of the next sync: before some file is opened, some directory listed, some request
sent. Steps do not depend on each other: a scenario without some of its steps is valid, which `shrink` makes use of.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any


@dataclass(frozen=True)
class Step:
    """One step. `at`: the injection point of the next sync at which it happens, or None: when its turn comes."""

    name: str
    args: tuple[Any, ...] = ()
    at: int | None = None

    def __str__(self) -> str:
        when = "" if self.at is None else f"@{self.at} "
        return f"{when}{self.name}({', '.join(map(repr, self.args))})"


Scenario = list[Step]


def parse(text: str) -> Scenario:
    """Parse a printed scenario. Raises `ValueError`, `SyntaxError`."""
    steps = []
    for row in filter(None, map(str.strip, text.splitlines())):
        when, _, rest = row.partition(" ") if row.startswith("@") else ("", "", row)
        call = ast.parse(rest, mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError(f"{row!r} is no step of a scenario")
        args = tuple(ast.literal_eval(arg) for arg in call.args)
        steps.append(Step(call.func.id, args, int(when[1:]) if when else None))
    return steps


def render(scenario: Sequence[Step]) -> str:
    """Print one step a line, for people and for `parse`."""
    return "\n".join(map(str, scenario))


FOLDERS = ("", "", "a", "a", "b", "a/c", "a/c/e", "é", "new\nline", "node_modules", "build")
NAMES = ("f", "f", "f", "g", "g", "x.log", "-", "f~", "\udcff", "deep/h", " ")
SECRETS = (".env", "id_rsa", "x.pem")
TARGETS = ("f", "../f", "a", "..", ".", "/etc/hosts", "../outside/f", "../../outside", "nowhere", "a/c")
RULES = ("*.log\n", "build/\n", "*.log\n!x.log\n", "/a/c\n", "g\n", "f~\n", "a/*\n!a/f\n", "", "!g\n", "*\n!*/\n!f\n")
MODES = (0o644, 0o755, 0o600, 0o700, 0o4755)
SIZES = (0, 1, 8, 8, 8, 16, 16, 300, 300, 3000, 9000, 30_000)
FAULTS = (
    "upload-url: 503",
    "upload-url: 429 retry-after=3",
    "upload-url: lost",
    "upload-url: html",
    "upload-url: 404",
    "upload-url: reset",
    "upload: 503",
    "upload: expired",
    "upload: forbidden",
    "upload: reset",
    "upload: reset mid-body",
    "upload: lost",
    "upload: corrupt",
    "upload: wrong-hash",
    "upload: no-hash",
    "initialize: 503",
    "initialize: 500 after",
    "initialize: lost",
    "initialize: lost x3",
    "initialize: cut",
    "initialize: reset",
    "initialize: html",
    "initialize: error no space",
    "initialize: 400",
    "initialize: 401",
    "any: 502 x2",
    "any: reset x5",
    "any: lost x4",
    "any: hang 0.01",
)
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
    "execution-status: 503",
    "execution-status: cut",
    "reset: 503",
    "reset: 500 after",
    "reset: lost",
    "reset: reset",
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
DAMAGES = ("flip", "cut", "drop", "folder", "foreign", "empty")


# So many scenarios of four have the default configuration and no agent in the sandbox.
DEFAULT, OF = 1, 4


def generate(seed: int) -> Scenario:
    """Generate a scenario of some 15 to 60 steps."""
    return _Generator(seed).scenario() if seed % OF < DEFAULT else _ConfiguredGenerator(seed).scenario()


class _Generator:
    """Generates scenarios under the default configuration."""

    _pattern_share = 0.15

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._text = 0

    def scenario(self) -> Scenario:
        random = self._random
        steps = [Step("file_times", (random.choice(("fine", "coarse")),)), *self._first_steps()]
        steps += [self._operation() for _ in range(random.choice((3, 6, 6, 12, 25)))]
        for _ in range(random.randrange(3, 9)):
            if random.random() < self._pattern_share:
                steps += self._undetectable_change() if random.random() < 0.4 else self._pattern()
            for _ in range(random.randrange(1, 7)):
                steps.append(self._event())
                if steps[-1].name == "overflow":
                    steps.append(self._operation(steps[-1].at))
                if steps[-1].name == "fault" and random.random() < 0.6:
                    steps += self._change_during_fault()
            if random.random() < 0.7:
                steps.append(Step("wait_idle"))
        return steps

    def _first_steps(self) -> Scenario:
        # Then each archive must hold everything.
        return [Step("wipe_sandboxes")] if self._random.random() < 0.5 else []

    def _change_during_fault(self) -> Scenario:
        """Change a file during a fault, and while the daemon waits to retry, change another one or change it back."""
        random, path = self._random, self._path()
        self._text += 1
        write = Step(random.choice(("write", "replace")), (path, 8, self._text))
        ends = Step(random.choice(("kill", "stop", "reload")))
        return [
            *([Step("wait_idle")] if random.random() < 0.5 else []),
            write,
            Step("wait_failing"),
            *([ends] if random.random() < 0.3 else []),
            Step("revert", (path,)) if random.random() < 0.6 else self._operation(),
        ]

    def _pattern(self) -> Scenario:
        """Change something in one folder by an operation in another: hard links, symlinks that led inside."""
        random, folder, path = self._random, self._folder(), self._path()
        self._text += 1
        first, second = _joined(folder, "first"), _joined(random.choice(FOLDERS), "second")
        if random.random() < 0.5:
            links = [Step("hard_link", (first, second))]
            change = Step(random.choice(("append", "write")), (random.choice((first, second)), 8, self._text))
        else:
            links = [Step("symlink", ("b/link", f"../{folder}")), Step("symlink", (second, first))]
            change = random.choice(
                (
                    Step("link_outside", (folder,)),
                    Step("move_out", (folder,)),
                    Step("change_kind", (folder, "link")),
                    Step("remove", (first,)),
                )
            )
        return [
            Step("write", (first, 8, 0)),
            *links,
            Step("wait_idle"),
            change,
            Step("touch", (path,)),
            Step("wait_idle"),
        ]

    def _undetectable_change(self) -> Scenario:
        """Change files without a change of mtime or inode number."""
        random, folder, path = self._random, self._folder(), self._path()
        self._text += 1
        within = _joined(folder, random.choice(("f", "c/g", "c/e/f")))
        write, rest = Step("write", (path, 16, 0)), Step("wait_idle")
        # A file that was read again, as something in its folder changed, has a stamp old enough to be trusted.
        beside = _joined(path.rpartition("/")[0], "beside")
        trusted = [Step("advance", (5.0,)), Step("write", (beside, 8, self._text)), rest, Step("advance", (5.0,))]
        later = trusted if random.random() < 0.6 else []
        match random.randrange(6):
            case 0:
                first = random.choice(
                    (Step("move_in", (folder, 0)), Step("write", (within, 8, 0)), Step("mkdir", (folder,)))
                )
                recreated = [
                    Step(
                        "recreate_folder",
                        (folder, self._text),
                        self._injection_point() if random.random() < 0.2 else None,
                    )
                ]
                return [
                    first,
                    rest,
                    *recreated,
                    *([rest] if random.random() < 0.7 else []),
                    self._edit_of(within),
                    rest,
                ]
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
            other = _joined(path.rpartition("/")[0], "rotated")
        rest, at = Step("wait_idle"), self._injection_point() if random.random() < 0.3 else None
        if random.random() < 0.5:
            begins = [Step("write", (path, 8, 0)), rest, Step("rotate", (path, other), at)]
        else:
            begins = [Step("link_tmpfile", (path.rpartition("/")[0] or folder, path, self._text), at)]
        ends = random.choice(([], [Step("close", (path,))], [Step("flush")], [self._operation()]))
        again = [Step("write", (path, 8, self._text))] if random.random() < 0.4 else []
        return [
            *begins,
            *([rest] if random.random() < 0.7 else []),
            *again,
            Step("write_unlinked", (path, 1)),
            *ends,
            rest,
        ]

    def _edit_of(self, path: str) -> Step:
        """Edit the file."""
        name = self._random.choice(("write", "write", "replace", "append"))
        return Step(name, (path, self._random.choice((8, 300)), self._text + 1))

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
        return _joined(self._random.choice(FOLDERS), self._random.choice(NAMES))

    def _folder(self) -> str:
        return self._random.choice([folder for folder in FOLDERS if folder])

    def _rules(self) -> str:
        # The workspace's own .syncdignore only changes and never goes: `write_ignored` relies on it.
        name = self._random.choice((".gitignore", ".syncdignore"))
        return _joined(self._random.choice(FOLDERS[:6]), name) if name == ".gitignore" else f"a/{name}"


class _ConfiguredGenerator(_Generator):
    """Generates scenarios under other configurations, which change on the way, and with an agent in the sandbox."""

    _pattern_share = 0.5

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        random = self._random
        self._settings = [
            random.choice(("mirror", "mirror", "reset", "keep")),
            random.choice(("full", "auto", "auto")),
            random.choice((0, 0, 0, 90, 600, 7200)),
            random.choice((0, 0, 4000)),
            random.choice((1.0, 1.0, 0.05, 4.0)),
            random.choice(("save", "save", "hold", "overwrite")),
        ]

    def _first_steps(self) -> Scenario:
        wipes = [Step("wipe_sandboxes")] if self._settings[1] == "auto" and self._random.random() < 0.3 else []
        return [Step("settings", tuple(self._settings)), *wipes]

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
        return random.choice(
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
            path = _joined(self._folder(), "deep/f")
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
                [Step("fault", ("initialize: 500 after",)), Step("write", (other, 8, self._text)), Step("wait_failing")],
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
        path = path or random.choice((self._path(), self._path(), _joined(self._folder(), "agents")))
        self._text += 1
        return random.choice(
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

    def _reconfigure(self, at: int | None) -> Step:
        random = self._random
        which = random.choice((0, 0, 1, 1, 2, 3, 4, 5))
        self._settings[which] = random.choice(
            (
                ("mirror", "reset", "keep"),
                ("full", "auto"),
                (0, 90, 600, 7200),
                (0, 4000, 20_000),
                (1.0, 0.05, 4.0),
                ("save", "hold", "overwrite"),
            )[which]
        )
        return Step("reconfigure", tuple(self._settings), at)


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def shrink(scenario: Sequence[Step], fails: Callable[[Scenario], bool], has_time: Callable[[], bool]) -> Scenario:
    """Leave out ever smaller runs of steps, while there is time, and return the shortest scenario that still fails."""
    best = list(scenario)
    run = max(1, len(best) // 2)
    while has_time():
        start, shorter = 0, False
        while start < len(best) and has_time():
            candidate = best[:start] + best[start + run :]
            if candidate and fails(candidate):
                best, shorter = candidate, True
            else:
                start += run
        if run == 1 and not shorter:
            break
        run = max(1, run // 2) if not shorter or run > 1 else 1
    return best
