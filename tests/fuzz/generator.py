"""Generates random scenarios from a seed, under the default configuration.

Each scenario leaves out a random half of the operations, events and faults, so that what hides another one is often
not there (Groce et al., "Swarm Testing", ISSTA 2012).
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tests.fuzz.scenario import Scenario, Step

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
                steps.append(Step("wait_idle"))
        return steps

    def _drawn(self, draw: Callable[[], Step]) -> Step:
        """Draw until it is nothing that this scenario leaves out."""
        while True:
            step = draw()
            what = f"{step.args[0]}" if step.name == "fault" else step.name
            if not self._leaves_out.setdefault(what, self._swarm.random() < 0.5):
                return step

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
        first, second = joined(folder, "first"), joined(random.choice(FOLDERS), "second")
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
        within = joined(folder, random.choice(("f", "c/g", "c/e/f")))
        write, rest = Step("write", (path, 16, 0)), Step("wait_idle")
        # A file that was read again, as something in its folder changed, has a stamp old enough to be trusted.
        beside = joined(path.rpartition("/")[0], "beside")
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
            other = joined(path.rpartition("/")[0], "rotated")
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


def joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
