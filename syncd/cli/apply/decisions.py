"""A person's decisions about paths that wait for one: which are possible, and the texts with both sides' lines."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType

import click
from msgspec import Struct

from syncd.archive.base_store import LARGEST_BYTES
from syncd.cli.agent_side import AgentSide
from syncd.core.errors import TryLater
from syncd.core.text import shown_path
from syncd.merge.git import is_binary, merge, need_git
from syncd.model.entry import Kind
from syncd.model.reconcile import Choice, Plan, PlannedPath


class Decisions(Struct, frozen=True):
    """The choices by path; of some, the text that becomes of it.

    Of `saved` paths theirs is a saved version, and the sandbox has something else.
    """

    choices: Mapping[str, Choice] = MappingProxyType({})
    texts: Mapping[str, bytes] = MappingProxyType({})
    saved: frozenset[str] = frozenset()


def refusal(planned: PlannedPath, choice: Choice) -> str:
    """Return the reason for which a path cannot be decided so; empty if it can."""
    here, there = planned.here, planned.there
    if choice is not Choice.MARKERS:
        return ""
    if {here.kind, there.kind} != {Kind.FILE}:
        return "it is no file on both sides"
    if max(here.size_bytes, there.size_bytes) > LARGEST_BYTES:
        return "it is too large to be merged"
    return "it is no text" if is_binary(content_of(there.copy)) else ""


def possible(planned: PlannedPath) -> list[Choice]:
    """Return the choices that a path allows."""
    return [choice for choice in Choice if not refusal(planned, choice)]


def decide(side: AgentSide, plan: Plan, choices: Mapping[str, Choice]) -> Decisions:
    """Return what the choices need. Raises `click.UsageError` for one that a path does not allow, `SyncdError`."""
    chosen = [planned for planned in plan.paths if planned.path in choices]
    for planned in chosen:
        if reason := refusal(planned, choices[planned.path]):
            raise _impossible(planned.path, choices[planned.path], reason)
    marked = [planned for planned in chosen if choices[planned.path] is Choice.MARKERS]
    return Decisions(choices, {planned.path: _marked(side, planned) for planned in marked})


def _marked(side: AgentSide, planned: PlannedPath) -> bytes:
    """Return the text that git, with its markers, makes of both sides."""
    base = side.base_bytes(planned.path, planned.base, planned.here) if planned.base.kind is Kind.FILE else None
    ours, theirs = content_of(side.place(planned.path)), content_of(planned.there.copy)
    merged = merge(need_git(os.environ), base or b"", ours, theirs, side.opened.scratch)
    if isinstance(merged, str):
        raise _impossible(planned.path, Choice.MARKERS, merged)
    return merged.content


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
