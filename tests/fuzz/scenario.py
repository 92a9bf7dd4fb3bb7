"""A story is a list of lines, made from a seed, readable by people, and as short as possible once it has failed.

A line is a word and its arguments, `write('a/f', 300, 17)`. With `@37` before it, it happens at the 37th instant of the
next sync: before some file is opened, some directory listed, some request sent. Lines stand for themselves: a story
without some of its lines is still one, which is what `shortened` does with it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any


@dataclass(frozen=True)
class Line:
    """What happens; `at`: at which instant of the next sync, None: when its turn comes."""

    word: str
    args: tuple[Any, ...] = ()
    at: int | None = None

    def __str__(self) -> str:
        when = "" if self.at is None else f"@{self.at} "
        return f"{when}{self.word}({', '.join(map(repr, self.args))})"


Story = list[Line]


def parsed(text: str) -> Story:
    """The story that was printed so. Raises `ValueError`, `SyntaxError`."""
    lines = []
    for row in filter(None, map(str.strip, text.splitlines())):
        when, _, rest = row.partition(" ") if row.startswith("@") else ("", "", row)
        call = ast.parse(rest, mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError(f"{row!r} is no line of a story")
        args = tuple(ast.literal_eval(arg) for arg in call.args)
        lines.append(Line(call.func.id, args, int(when[1:]) if when else None))
    return lines


def told(story: Sequence[Line]) -> str:
    """For people, and for `parsed`."""
    return "\n".join(map(str, story))


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
# Of the requests that only some configurations make.
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
HARMS = ("flip", "cut", "drop", "folder", "foreign", "empty")


# How many stories of four are lived under the default configuration, and with nobody else in the sandbox.
PLAIN, OF = 1, 4


def story(seed: int) -> Story:
    """Some 15 to 60 lines."""
    return _Author(seed).story() if seed % OF < PLAIN else _Settler(seed).story()


class _Author:
    _ties = 0.15

    def __init__(self, seed: int) -> None:
        self._chance = Random(seed)
        self._text = 0

    def story(self) -> Story:
        chance = self._chance
        lines = [Line("stamps", (chance.choice(("fine", "coarse")),)), *self._beginning()]
        lines += [self._deed() for _ in range(chance.choice((3, 6, 6, 12, 25)))]
        for _ in range(chance.randrange(3, 9)):
            if chance.random() < self._ties:
                lines += self._unseen() if chance.random() < 0.4 else self._tie()
            for _ in range(chance.randrange(1, 7)):
                lines.append(self._event())
                if lines[-1].word == "overflow":
                    lines.append(self._deed(lines[-1].at))
                if lines[-1].word == "fault" and chance.random() < 0.6:
                    lines += self._trouble()
            if chance.random() < 0.7:
                lines.append(Line("rest"))
        return lines

    def _beginning(self) -> Story:
        return []

    def _trouble(self) -> Story:
        """A change meets the fault, and while that is waited out there is another one, often back to what was."""
        chance, path = self._chance, self._path()
        self._text += 1
        write = Line(chance.choice(("write", "replace")), (path, 8, self._text))
        ends = Line(chance.choice(("kill", "stop", "reload")))
        return [
            *([Line("rest")] if chance.random() < 0.5 else []),
            write,
            Line("failing"),
            *([ends] if chance.random() < 0.3 else []),
            Line("revert", (path,)) if chance.random() < 0.6 else self._deed(),
        ]

    def _tie(self) -> Story:
        """What is done in one folder changes something in another: second names, links that led inside."""
        chance, folder, path = self._chance, self._folder(), self._path()
        self._text += 1
        first, second = _joined(folder, "first"), _joined(chance.choice(FOLDERS), "second")
        if chance.random() < 0.5:
            ties = [Line("hard", (first, second))]
            pull = Line(chance.choice(("append", "write")), (chance.choice((first, second)), 8, self._text))
        else:
            ties = [Line("link", ("b/tie", f"../{folder}")), Line("link", (second, first))]
            pull = chance.choice(
                (
                    Line("trap", (folder,)),
                    Line("take", (folder,)),
                    Line("morph", (folder, "link")),
                    Line("remove", (first,)),
                )
            )
        return [Line("write", (first, 8, 0)), *ties, Line("rest"), pull, Line("touch", (path,)), Line("rest")]

    def _unseen(self) -> Story:
        """What neither a time nor an inode number tells of."""
        chance, folder, path = self._chance, self._folder(), self._path()
        self._text += 1
        within = _joined(folder, chance.choice(("f", "c/g", "c/e/f")))
        write, rest = Line("write", (path, 16, 0)), Line("rest")
        # What is read again, as something in its folder changes, and old enough, is believed.
        beside = _joined(path.rpartition("/")[0], "beside")
        believed = [Line("tick", (5.0,)), Line("write", (beside, 8, self._text)), rest, Line("tick", (5.0,))]
        later = believed if chance.random() < 0.6 else []
        match chance.randrange(6):
            case 0:
                first = chance.choice(
                    (Line("bring", (folder, 0)), Line("write", (within, 8, 0)), Line("mkdir", (folder,)))
                )
                anew = [Line("remake", (folder, self._text), self._instant() if chance.random() < 0.2 else None)]
                return [first, rest, *anew, *([rest] if chance.random() < 0.7 else []), self._deed_to(within), rest]
            case 1:
                mapped = [Line("map", (path, self._text)), rest]
                return [write, *mapped, *later, Line("unmap", (path, self._text + 1)), rest]
            case 2:
                alike = Line(chance.choice(("recreate", "replace_alike", "forge")), (path, self._text))
                return [write, rest, *later, alike, rest]
            case 3:
                # Fewer are no workspace that anybody would miss.
                renewed = Line("renew", (chance.choice((0, 5, 25)),))
                return [Line("fill", ("many", 25)), rest, renewed, rest]
            case 4:
                return self._written_on()
            case _:
                ends = chance.choice((Line("remove", (path,)), Line("replace", (path, 8, 0))))
                return [Line("circle", (path, self._path())), rest, ends, rest]

    def _written_on(self) -> Story:
        """A file is written by a name that is gone, and that is found by what comes after it."""
        chance, folder, path, other = self._chance, self._folder(), self._path(), self._path()
        self._text += 2
        if chance.random() < 0.6:
            other = _joined(path.rpartition("/")[0], "rotated")
        rest, at = Line("rest"), self._instant() if chance.random() < 0.3 else None
        if chance.random() < 0.5:
            begins = [Line("write", (path, 8, 0)), rest, Line("rotate", (path, other), at)]
        else:
            begins = [Line("nameless", (path.rpartition("/")[0] or folder, path, self._text), at)]
        ends = chance.choice(([], [Line("close", (path,))], [Line("flush")], [self._deed()]))
        again = [Line("write", (path, 8, self._text))] if chance.random() < 0.4 else []
        return [*begins, *([rest] if chance.random() < 0.7 else []), *again, Line("write_on", (path, 1)), *ends, rest]

    def _deed_to(self, path: str) -> Line:
        """Something small becomes of a file."""
        word = self._chance.choice(("write", "write", "replace", "append"))
        return Line(word, (path, self._chance.choice((8, 300)), self._text + 1))

    def _event(self) -> Line:
        chance = self._chance
        instant = self._instant()
        draw = chance.random()
        if draw < 0.42:
            return self._deed()
        if draw < 0.66:
            return self._deed(instant)
        if draw < 0.76:
            return Line("fault", (chance.choice(FAULTS),))
        if draw < 0.81:
            return Line(chance.choice(("kill", "kill", "stop", "reload")), (), instant)
        if draw < 0.85:
            return Line(chance.choice(("kill", "stop")))
        if draw < 0.88:
            where = chance.choice(("spool", "spool", "state"))
            at = instant if chance.random() < 0.5 else None
            return Line("harm", (where, chance.choice(HARMS), chance.randrange(8)), at)
        return chance.choice(
            (
                Line("overflow"),
                Line("overflow", (), instant),
                Line("deaf"),
                Line("late", (chance.randrange(1, 5),)),
                Line("late", (chance.randrange(1, 5),)),
                Line("tick", (chance.choice((0.1, 0.9, 5.0)),)),
                Line("tick", (chance.choice((40.0, 700.0)),)),
                Line("asleep", (chance.choice((30.0, 2000.0)),)),
                Line("clock", (chance.choice((-4000.0, -3.0, 3.0, 4000.0)),)),
                Line("order"),
                Line("flush"),
                Line("flush"),
                Line("pause"),
                Line("resume"),
                Line("away", (), instant),
                Line("away"),
                Line("back"),
                Line("limit", (chance.randrange(1, 5),)),
                Line("limit", (1000,)),
            )
        )

    def _instant(self) -> int:
        return int(2 ** self._chance.uniform(0, 8))

    def _deed(self, at: int | None = None) -> Line:
        chance = self._chance
        path, other = self._path(), self._path()
        self._text += 1
        size = chance.choice(SIZES)
        # Few texts in few sizes, too: then a change may be one back to what was there.
        text = self._text if chance.random() < 0.6 else 0
        return chance.choice(
            (
                *(Line("write", (path, size, text), at),) * 6,
                *(Line("forge", (path, text), at),) * 4,
                *(Line("replace", (path, size, text), at),) * 2,
                *(Line("revert", (path,), at),) * 4,
                Line("backup", (path, size, text), at),
                Line("append", (path, size, text), at),
                Line("truncate", (path, size // 2), at),
                Line("poke", (path, text), at),
                Line("poke", (path, text), at),
                Line("backdate", (path,), at),
                Line("touch", (path,), at),
                Line("recreate", (path, text), at),
                Line("replace_alike", (path, text), at),
                *(Line("map", (path, text), at),) * 2,
                *(Line("unmap", (path, text), at),) * 2,
                Line("nameless", (self._folder(), path, text), at),
                Line("rotate", (path, other), at),
                *(Line("write_on", (path, text), at),) * 2,
                Line("close", (path,), at),
                *(Line("rename", (path, other), at),) * 2,
                *(Line("rename", (self._folder(), self._folder()), at),) * 2,
                Line("over", (path, other), at),
                Line("swap", (path, other), at),
                Line("hard", (path, other), at),
                Line("chmod", (chance.choice((path, self._folder())), chance.choice(MODES)), at),
                Line("link", (path, chance.choice(TARGETS)), at),
                Line("circle", (path, other), at),
                Line("mkdir", (chance.choice((path, self._folder())),), at),
                *(Line("remove", (path,), at),) * 2,
                Line("remove", (self._folder(),), at),
                Line("bring", (chance.choice((path, self._folder())), text), at),
                Line("take", (chance.choice((path, self._folder())),), at),
                Line("exchange", (self._folder(), text), at),
                *(Line("remake", (self._folder(), text), at),) * 2,
                Line(
                    "morph",
                    (chance.choice((path, self._folder())), chance.choice(("file", "folder", "link", "fifo"))),
                    at,
                ),
                Line("trap", (chance.choice((path, self._folder())),), at),
                Line("secret", (chance.choice(FOLDERS), chance.choice(SECRETS)), at),
                Line("hush", (chance.choice(FOLDERS), chance.randrange(2)), at),
                *(Line("rules", (self._rules(), chance.choice(RULES)), at),) * 2,
                Line("remove", (self._rules(),), at),
            )
        )

    def _path(self) -> str:
        return _joined(self._chance.choice(FOLDERS), self._chance.choice(NAMES))

    def _folder(self) -> str:
        return self._chance.choice([folder for folder in FOLDERS if folder])

    def _rules(self) -> str:
        # The workspace's own .syncdignore only changes and never goes: `hush` counts on it.
        name = self._chance.choice((".gitignore", ".syncdignore"))
        return _joined(self._chance.choice(FOLDERS[:6]), name) if name == ".gitignore" else f"a/{name}"


class _Settler(_Author):
    """Has stories lived under other configurations, which change on the way, and with an agent in the sandbox."""

    _ties = 0.5

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        chance = self._chance
        self._settings = [
            chance.choice(("mirror", "mirror", "reset", "keep")),
            chance.choice(("full", "changes")),
            chance.choice((0, 0, 0, 90, 600, 7200)),
            chance.choice((0, 0, 4000)),
            chance.choice((1.0, 1.0, 0.05, 4.0)),
            chance.random() < 0.2,
        ]

    def _beginning(self) -> Story:
        forgets = [Line("forgetful")] if self._settings[1] == "changes" and self._chance.random() < 0.3 else []
        return [Line("settings", tuple(self._settings)), *forgets]

    def _event(self) -> Line:
        chance = self._chance
        at = self._instant() if chance.random() < 0.5 else None
        draw = chance.random()
        if draw < 0.6:
            return super()._event()
        if draw < 0.7:
            return self._agents_deed(at)
        if draw < 0.76:
            return Line("remove", (chance.choice((self._path(), self._path(), self._folder())),), at)
        if draw < 0.87:
            return Line("fault", (chance.choice(MORE_FAULTS),))
        if draw < 0.9:
            return self._change_of_mind(at)
        return chance.choice(
            (
                Line("stall", (), at),
                Line("unstall", (), at),
                Line("straggle", (), at),
                Line("straggle", (), at),
                *((Line("sandbox_ends", (), at),) if self._settings[2] else ()),
                Line("tick", (chance.choice((100.0, 500.0)),)),
            )
        )

    def _tie(self) -> Story:
        """Also what one side does to the same path as the other, before and while it is removed, or after."""
        chance, path = self._chance, self._path()
        if chance.random() < 0.3:
            return super()._tie()
        if self._settings[1] == "changes" and chance.random() < 0.3:
            return self._proof_cut_short()
        if chance.random() < 0.3:
            return self._taken_place()
        self._text += 1
        write, gone = Line("write", (path, 8, self._text)), Line("remove", (path,))
        if chance.random() < 0.5:
            at = self._instant() if chance.random() < 0.4 else None
            over = Line("agent_writes", (path, self._text), at)
            home = chance.choice((gone, gone, Line("morph", (path, "folder")), Line("touch", (path,)), self._deed()))
            if chance.random() < 0.4:
                folder = self._folder()
                write, home = Line("write", (f"{folder}/deep/f", 8, self._text)), Line("remove", (folder,))
                over = Line("agent_writes", (f"{folder}/{chance.choice(('', 'deep/'))}agents", self._text), at)
            return [write, Line("rest"), *((over, home) if chance.random() < 0.7 else (home, over)), Line("rest")]
        ends = Line(chance.choice(("kill", "stop", "reload")))
        if chance.random() < 0.4:
            unanswered = Line(
                "fault", (chance.choice(("initialize: lost", "initialize: 500 after", "initialize: cut")),)
            )
            before = [Line("write", (path, 8, 0)), Line("rest")] if chance.random() < 0.5 else []
            after = chance.choice((gone, Line("revert", (path,)), Line("revert", (path,)), self._deed()))
            return [*before, unanswered, write, Line("failing"), ends, after, Line("rest")]
        late = chance.choice(("execute: reset", "execute: reset", "execute: 503", "execute: lost", "any: reset skip=3"))
        return [
            write,
            Line("rest"),
            *([Line("stall")] if "lost" in late else []),
            Line("fault", (late,)),
            gone,
            Line("failing"),
            *([ends] if chance.random() < 0.5 else []),
            *([write] if chance.random() < 0.8 else []),
            Line("straggle", (), chance.choice((None, self._instant(), 1000))),
            Line("rest"),
            Line("straggle"),
        ]

    def _taken_place(self) -> Story:
        """A folder becomes a file, or the other way round, with something of the agent's in its place, or none."""
        chance, path = self._chance, self._path()
        self._text += 1
        below = f"{path}/{chance.choice(('agents', 'deep/f', 'f'))}"
        rest, at = Line("rest"), self._instant() if chance.random() < 0.3 else None
        folder, file = Line("write", (f"{path}/deep/f", 8, 0)), Line("write", (path, 8, 0))
        agents, back = Line("agent_writes", (below, self._text), at), Line("morph", (path, "folder"))
        match chance.randrange(4):
            case 0:
                begins = [folder, rest, agents, Line("morph", (path, chance.choice(("file", "file", "link"))))]
            case 1:
                begins = [file, rest, Line("agent_writes", (path, self._text), at), back]
            case 2:
                begins, back = [agents, file], Line("remove", (path,))
            case _:
                begins, back = [Line("agent_writes", (path, self._text)), folder], Line("remove", (path,))
        freed = Line("agent_removes", (chance.choice((path, below)),))
        trouble = chance.choice(
            ([], [], [Line("fault", (chance.choice(MORE_FAULTS),))], [Line("failing"), Line("kill")])
        )
        ends = chance.choice(([], [freed], [back], [freed, back], [Line("touch", (path,))], [Line("flush")]))
        return [*begins[:-1], *trouble[:1], begins[-1], *trouble[1:], rest, *ends, rest]

    def _proof_cut_short(self) -> Story:
        """The process ends while it asks what a small archive left there, and perhaps while that comes."""
        chance, path = self._chance, self._path()
        self._text += 1
        op, when = chance.choice((("dump", "before"), ("dump", "after"), ("download", "before"), ("download", "after")))
        ends = Line("meets", (op, when, chance.choice(("kill", "kill", "stop"))))
        after = chance.choice(([], [Line("touch", (path,))], [Line("revert", (path,))], [self._deed()]))
        return [
            *(Line("write", (f"{name}-stays", 8, 0)) for name in ("f", "a/g")),
            Line("rest"),
            ends,
            Line("write", (path, 8, self._text)),
            Line("rest"),
            *after,
            Line("rest"),
        ]

    def _trouble(self) -> Story:
        """Half of the time something is deleted, the fault is met, and it is there again, or not."""
        chance, path = self._chance, self._path()
        if chance.random() < 0.5:
            return super()._trouble()
        self._text += 1
        write = Line("write", (path, 8, self._text))
        ends = chance.choice((Line("kill"), Line("stop"), Line("reload"), self._change_of_mind(None)))
        after = (write, write, self._agents_deed(None, path), Line("write", (f"{path}/f", 8, 0)), self._deed())
        return [
            write,
            Line("rest"),
            *([Line("stall")] if chance.random() < 0.2 else []),
            Line("fault", (chance.choice(MORE_FAULTS),)),
            Line("remove", (path,)),
            Line("failing"),
            *([ends] if chance.random() < 0.4 else []),
            *([chance.choice(after)] if chance.random() < 0.8 else []),
            *([Line("straggle", (), chance.choice((None, self._instant())))] if chance.random() < 0.4 else []),
        ]

    def _agents_deed(self, at: int | None, path: str = "") -> Line:
        chance = self._chance
        path = path or chance.choice((self._path(), self._path(), _joined(self._folder(), "agents")))
        if chance.random() < 0.75:
            self._text += 1
            return Line("agent_writes", (path, self._text), at)
        return Line("agent_removes", (chance.choice((path, path, self._folder())),), at)

    def _change_of_mind(self, at: int | None) -> Line:
        chance = self._chance
        which = chance.choice((0, 0, 1, 1, 2, 3, 4, 5))
        self._settings[which] = chance.choice(
            (
                ("mirror", "reset", "keep"),
                ("full", "changes"),
                (0, 90, 600, 7200),
                (0, 4000, 20_000),
                (1.0, 0.05, 4.0),
                (False, True),
            )[which]
        )
        return Line("reconfigure", tuple(self._settings), at)


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def shortened(story: Sequence[Line], fails: Callable[[Story], bool], goes_on: Callable[[], bool]) -> Story:
    """The shortest part of the story found that still fails, while there is time: ever smaller runs are left out."""
    best = list(story)
    run = max(1, len(best) // 2)
    while goes_on():
        start, shorter = 0, False
        while start < len(best) and goes_on():
            candidate = best[:start] + best[start + run :]
            if candidate and fails(candidate):
                best, shorter = candidate, True
            else:
                start += run
        if run == 1 and not shorter:
            break
        run = max(1, run // 2) if not shorter or run > 1 else 1
    return best
