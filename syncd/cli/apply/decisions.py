"""A person's decisions about paths that wait for one: which are possible, what is asked, and what each needs.

Theirs gets a second name, and texts are merged with conflict markers or by git's merge tool, before anything is
written.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import click
from msgspec import Struct

from syncd.archive.base_store import LARGEST_BYTES
from syncd.cli.agent_side import AgentSide
from syncd.cli.apply.merge_tool import has_merge_tool, run_merge_tool
from syncd.cli.options import answered, confirmed
from syncd.core.errors import TryLater
from syncd.core.text import counted, shown_path
from syncd.core.waiter import Waiter
from syncd.merge.git import is_binary, merge, need_git
from syncd.model.entry import Kind, leads_out
from syncd.model.reconcile import Choice, Plan, PlannedPath

_LONGEST_NAME = 255
_LETTERS = {"m": Choice.MINE, "t": Choice.THEIRS, "b": Choice.BOTH, "k": Choice.MARKERS, "o": Choice.TOOL}
_LEAVES, _LEAVES_ALL = ("", "s"), "q"


class Decisions(Struct, frozen=True):
    """The choices by path; of some, the text that becomes of it, or the second name that theirs gets.

    Of `saved` paths theirs is a saved version, and the sandbox has something else.
    """

    choices: Mapping[str, Choice] = MappingProxyType({})
    texts: Mapping[str, bytes] = MappingProxyType({})
    beside: Mapping[str, str] = MappingProxyType({})
    saved: frozenset[str] = frozenset()


def refusal(planned: PlannedPath, choice: Choice) -> str:
    """Return the reason for which a path cannot be decided so; empty if it can."""
    here, there = planned.here, planned.there
    if choice is Choice.BOTH and there.kind is Kind.ABSENT:
        return "it was deleted in the sandbox, so there is nothing to put beside it"
    if choice in (Choice.MARKERS, Choice.TOOL):
        if {here.kind, there.kind} != {Kind.FILE}:
            return "it is no file on both sides"
        if max(here.size_bytes, there.size_bytes) > LARGEST_BYTES:
            return "it is too large to be merged"
    if choice is Choice.MARKERS and is_binary(content_of(there.copy)):
        return "it is no text"
    return ""


def possible(planned: PlannedPath) -> list[Choice]:
    """Return the choices that a path allows."""
    return [choice for choice in Choice if not refusal(planned, choice)]


def ask_choices(side: AgentSide, plan: Sequence[PlannedPath], waiter: Waiter) -> dict[str, Choice]:
    """Ask a person at a terminal about each of these conflicts. Raises `Stop`, `click.Abort`."""
    count = counted(len(plan), "conflict")
    if not plan or not confirmed(f"{count} left: resolve {'it' if len(plan) == 1 else 'them'} now?", waiter):
        return {}
    has_tool = has_merge_tool(side.opened.config.workspace.path)
    words = {letter: choice.name.lower().replace(letter, f"[{letter}]", 1) for letter, choice in _LETTERS.items()}
    choices: dict[str, Choice] = {}
    for planned in plan:
        allowed = {x for x, choice in _LETTERS.items() if not refusal(planned, choice) and (x != "o" or has_tool)}
        offered = ", ".join(word for letter, word in words.items() if letter in allowed)
        question = f"{shown_path(planned.path)}: {planned.reason}\n  {offered}, [s]kip or [q]uit? [s]:"
        answer = answered(question, (*allowed, *_LEAVES, _LEAVES_ALL), waiter)
        if answer == _LEAVES_ALL:
            break
        if answer not in _LEAVES:
            choices[planned.path] = _LETTERS[answer]
    return choices


def decide(side: AgentSide, plan: Plan, choices: Mapping[str, Choice], *, quiet: bool = False) -> Decisions:
    """Return what the choices need; `quiet`: a merge tool gets no stdout.

    Raises `click.UsageError` for one that a path does not allow, `SyncdError`, `Stop`.
    """
    chosen = [planned for planned in plan.paths if planned.path in choices]
    for planned in chosen:
        if reason := refusal(planned, choices[planned.path]):
            raise _impossible(planned.path, choices[planned.path], reason)
    beside = _names_beside(side, (planned for planned in chosen if choices[planned.path] is Choice.BOTH))
    texts: dict[str, bytes] = {}
    for planned in chosen:
        if choices[planned.path] in (Choice.MARKERS, Choice.TOOL):
            texts[planned.path] = _text(side, planned, choices[planned.path], quiet=quiet)
    return Decisions(choices, texts, beside)


def _text(side: AgentSide, planned: PlannedPath, choice: Choice, *, quiet: bool) -> bytes:
    """Return the text that a person, or git with its markers, makes of both sides."""
    git, opened = need_git(os.environ), side.opened
    base = side.base_bytes(planned.path, planned.base, planned.here) if planned.base.kind is Kind.FILE else None
    ours, theirs = content_of(side.place(planned.path)), content_of(planned.there.copy)
    merged = merge(git, base or b"", ours, theirs, opened.scratch)
    if choice is Choice.TOOL:
        return run_merge_tool(
            git,
            (base, ours, theirs),
            merged,
            path=planned.path,
            workspace=opened.config.workspace.path,
            scratch=opened.scratch,
            check=opened.waiter.interrupt.check,
            output=2 if quiet else 1,
        )
    if isinstance(merged, str):
        raise _impossible(planned.path, choice, merged)
    return merged.content


def _names_beside(side: AgentSide, chosen: Iterable[PlannedPath]) -> dict[str, str]:
    """Return a second name for theirs of each path, which is taken on no side; what is in a folder goes with it."""
    found: dict[str, str] = {}
    folders: dict[str, str] = {}
    targets: dict[str, str | None] = {}  # by new names
    for planned in chosen:  # a folder before what is in it
        path = planned.path
        above = path.rpartition("/")[0]
        while above and above not in folders:
            above = above.rpartition("/")[0]
        found[path] = folders[above] + path[len(above) :] if above else _free_name(side, path, found.values())
        if planned.there.is_directory:
            folders[path] = found[path]
        targets[found[path]] = planned.there.target if planned.there.kind is Kind.SYMLINK else None
    for path, name in found.items():
        target = targets[name]
        # Under this name a link may lead through one of ours that theirs had replaced.
        if target is not None and leads_out(
            name, target, lambda at: targets[at] if at in targets else link_at(side.place(at))
        ):
            raise _impossible(path, Choice.BOTH, "the link would lead out of the workspace")
    return found


def _free_name(side: AgentSide, path: str, others: Iterable[str]) -> str:
    folder, slash, name = path.rpartition("/")
    parent = side.place(folder)
    if os.path.lexists(parent) and not os.path.isdir(parent):
        raise _impossible(path, Choice.BOTH, "its folder is none here")
    known = (side.base, side.work.changed, side.work.left_out, frozenset(others))
    number = 1
    while True:
        suffix = ".theirs" if number == 1 else f".theirs.{number}"
        stem = os.fsencode(name)[: _LONGEST_NAME - len(suffix)]
        free = f"{folder}{slash}{os.fsdecode(stem)}{suffix}"
        if not os.path.lexists(side.place(free)) and not any(free in paths for paths in known):
            return free
        number += 1


def _impossible(path: str, choice: Choice, reason: str) -> click.UsageError:
    return click.UsageError(f"{shown_path(path)} cannot be decided by --{choice.name.lower()} ({reason}).")


def link_at(place: str) -> str | None:
    """Return the target of a link on this machine, None for all that is no link."""
    try:
        return os.readlink(place)
    except OSError:
        return None


def content_of(path: str) -> bytes:
    """Return the content of a file on this machine. Raises `TryLater`."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as failure:
        raise TryLater(f"{path} cannot be read ({failure.strerror})", "nothing was changed; try again") from None
