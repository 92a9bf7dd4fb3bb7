"""Judges a history by its log alone: if some order explains it, and where each version is that anyone wrote.

A file has slots. A write puts a new token into one, or into all if it makes the file; a version is what all slots hold.
A writer knows what it replaced, as it exchanges files in one step. No order explains

- a token that nobody had written there, or, on one side, a version that had been replaced there (in the sandbox by one
  that was saved: what nobody could save was too new to be seen, or is lost), unless the tool had replaced it there, and
  it came home once more;
- after a barrier, in the sandbox: a version without what was written at home before, unless the agent wrote it since,
  or made it of one that it could not read; or one that was deleted at home;
- after all was brought home: a version older than the agent's, which the agent has not touched meanwhile.

A daemon that was killed does not know what it sent last to have arrived, up to the next barrier: what the agent made of
that counts as changed on both sides, is saved, and gives way to what is at home.
Paths that the tool named as held, left or in conflict are free. A token is *current* in a file of either side, *saved*
in a copy, *overwritten* by a writer who had read it, *raced* if its writer had not, which is its own doing, or *lost*.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

HOME, THERE = "home", "there"
CHANGES = ("write", "delete")
# A tool that was killed does not know what it has done, up to the next step that finds out.
_FINDS_OUT = {"kill_apply": "bring_home", "kill_daemon": "barrier"}
Values = dict[str, str]


class Step(NamedTuple):
    """A step: of a writer, or (without a side) of the tool. The values of a torn or missing file are None.

    `over` is what a change replaced, `seen` what its writer had read before.
    """

    kind: str
    side: str
    begin: float
    end: float
    path: str = ""
    values: Values | None = None
    over: Values | None = None
    seen: Values | None = None
    ok: bool = True
    free: tuple[str, ...] = ()


class History:
    """The steps of one history; `kept` are the tokens in copies that the tool keeps."""

    def __init__(self, steps: Iterable[Step], kept: Iterable[str] = ()) -> None:
        self.steps = sorted(steps, key=lambda step: step.begin)
        self._kept = frozenset(kept)
        self._of_tool = [step for step in self.steps if not step.side]
        self._files: dict[str, list[Step]] = defaultdict(list)
        self._written: dict[str, Step] = {}
        self._before: dict[str, str] = {}
        self._raced: set[str] = set()
        for step in self.steps:
            if step.path:
                self._files[step.path].append(step)
            for slot, token in _new(step):
                self._written[token] = step
                if step.over and slot in step.over:
                    self._before[token] = step.over[slot]
            if step.over != step.seen:
                self._raced |= _replaced(step)

    def inexplicable(self) -> Iterator[str]:
        """Yield what no order explains."""
        rules = (self._unknown, self._gone_back, self._not_there, self._not_home)
        for path, steps in self._files.items():
            yield from (f"{path}: {what}" for rule in rules for what in rule(steps))

    def _unknown(self, steps: list[Step]) -> Iterator[str]:
        for step in steps:
            for token in (step.values or {}).values():
                author = self._written.get(token)
                if author is None or author.path != step.path or author.begin > step.end:
                    yield f"{_shown(step)}, which nobody had written"

    def _gone_back(self, steps: list[Step]) -> Iterator[str]:
        now, gone = {HOME: "", THERE: ""}, {HOME: dict[str, float](), THERE: dict[str, float]()}
        sent_over: set[str] = set()  # versions in whose place the tool put another one in the sandbox
        for step in steps:
            side = step.side
            for values in filter(None, (step.over, step.values)):
                version, before = _version(values), now[side]
                if version == before:
                    continue
                saved = self._kept.intersection(before.split()) - set(version.split())
                if version in gone[side] and (saved or side == HOME):
                    kills = ("kill_apply",) if side == HOME else ("kill_apply", "kill_daemon")
                    if not any(self._is_unknown(gone[side][version], step.end, kill) for kill in kills):
                        yield f"{_shown(step)}, which was replaced at {gone[side][version]:.3f}"
                gone[side].pop(version, None)
                gone[side][before], now[side] = step.begin, version
                if side == HOME and version in sent_over:
                    gone[THERE].pop(version, None)
                elif side == THERE and step.kind == "write" and values is step.values:
                    sent_over.discard(before)
                elif side == THERE:
                    sent_over.add(before)
            if step.kind == "delete":
                gone[side][now[side]], now[side] = step.begin, ""
                if side == THERE:  # what is missing there may be put there again
                    gone[side].clear()

    def _is_unknown(self, begin: float, end: float, killed: str) -> bool:
        """Return if a step that kills was between, or before, and none since then has found out what had been done."""
        settled = end
        for step in reversed(self._of_tool):
            if step.kind == killed and step.begin <= end and begin <= settled:
                return True
            settled = step.end if step.kind == _FINDS_OUT[killed] and step.ok else settled
        return False

    def _not_there(self, steps: list[Step]) -> Iterator[str]:
        for step, values, barrier in self._after("barrier", THERE, steps):
            own = [each for each in steps if each.side == HOME and each.kind in CHANGES and each.end < barrier.begin]
            wanted = own[-1] if own else None
            found = [self._written[token] for token in values.values() if token in self._written]
            if wanted is None or any(each.side == THERE and each.end > barrier.begin for each in found):
                continue
            gone = [each for each in steps if (each.side, each.kind) == (HOME, "delete") and each.end > barrier.begin]
            if any(each.side == THERE for each in found) and any(each.begin < step.end for each in gone):
                continue  # gone at home since, and changed there before: that stays there
            missing = [slot for slot, token in _new(wanted) if token not in self._raced]
            if not all(self._has(values, slot, wanted) for slot in missing):
                yield f"{_shown(step)}, older than what the barrier of {barrier.begin:.3f} was for"
            if wanted.kind == "delete" and len(values) == 1 and self._is_within(values, wanted.over or {}):
                yield f"{_shown(step)}, deleted before the barrier of {barrier.begin:.3f}"

    def _has(self, values: Values, slot: str, wanted: Step) -> bool:
        """Return if this version was made of what was wanted, of a later one, or of one that nobody could read."""
        for step in self._writes(values.get(slot)):
            if step is wanted or (step.side == HOME and step.begin >= wanted.end):
                return True
        # One that was just being unpacked may have held this slot, too.
        writes = chain.from_iterable(map(self._writes, values.values()))
        return any(step.side == THERE and not step.over and step.begin > wanted.begin for step in writes)

    def _not_home(self, steps: list[Step]) -> Iterator[str]:
        for step, values, brought in self._after("bring_home", HOME, steps):
            agents = [each for each in steps if each.side == THERE and each.kind in CHANGES]
            before = [each for each in agents if each.end < brought.begin]
            touched = any(brought.begin <= each.end and each.begin <= brought.end for each in agents)
            newest = before[-1].values if before and not touched else None
            if newest and values != newest and self._is_within(values, newest):
                if self._is_unknown(before[-1].end, brought.end, "kill_daemon"):
                    continue
                yield f"{_shown(step)}, older than what the agent had when all was home at {brought.begin:.3f}"

    def _writes(self, token: str | None) -> Iterator[Step]:
        """Yield the steps that wrote a token, what it replaced, and so on."""
        return (self._written[each] for each in self._line(token) if each in self._written)

    def _line(self, token: str | None) -> Iterator[str]:
        """Yield a token, what it replaced, and so on."""
        while token is not None:
            yield token
            token = self._before.get(token)

    def _is_within(self, old: Values, new: Values) -> bool:
        """Return if the first version is the second one or older, slot by slot."""
        return all(token in self._line(new.get(slot)) for slot, token in old.items())

    def _after(self, kind: str, side: str, steps: list[Step]) -> Iterator[tuple[Step, Values, Step]]:
        """Yield what was found on a side, with the last step of the tool before, if that holds for the path."""
        done = [each for each in self.steps if each.kind == kind and each.ok]
        for step in steps:
            values = step.values if step.kind in ("read", "final") else step.over
            before = [each for each in done if each.end < step.begin and step.path not in each.free]
            if step.side == side and values and before:
                yield step, values, before[-1]

    def places(self) -> tuple[Counter[str], list[tuple[Step, str, float]]]:
        """Count the tokens by place; return those that are lost, with their writes and for how long they were there."""
        places = dict.fromkeys(self._kept, "saved")
        known: dict[str, set[str]] = defaultdict(set)
        for step in self.steps:
            known[step.side] |= {*(step.values or {}).values(), *(step.seen or {}).values()}
            for token in _replaced(step):
                places.setdefault(token, "overwritten" if token in known[step.side] else "raced")
        for step in self.steps:
            if step.kind == "final":
                places |= dict.fromkeys((step.values or {}).values(), "current")
        lost = []
        for token, written in self._written.items():
            if token not in places:
                later = [e for e in self._files[written.path] if e.side == written.side and e.begin > written.end]
                gone = (e.end for e in later if token not in (e.over or e.values or {}).values())
                lost.append((written, token, next(gone, float("inf")) - written.end))
        return Counter(places.get(token, "lost") for token in self._written), lost


def _new(step: Step) -> list[tuple[str, str]]:
    """Return the slots and tokens that a write was the first to write."""
    values = step.values if step.kind == "write" else None
    return [(slot, token) for slot, token in (values or {}).items() if token not in (step.seen or {}).values()]


def _replaced(step: Step) -> set[str]:
    """Return the tokens that were there before a change, and not after it."""
    return set((step.over or {}).values()) - set((step.values or {}).values())


def _version(values: Values | None) -> str:
    return " ".join(token for _, token in sorted((values or {}).items()))


def _shown(step: Step) -> str:
    return f"at {step.begin:.3f} a {step.kind} {step.side} found {_version(step.over or step.values)}"
