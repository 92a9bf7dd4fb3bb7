"""A person's decisions about paths that wait for one: which are possible, what is asked, and what each needs.

Theirs gets a second name, and texts are merged with conflict markers or by git's merge tool, before anything is
written. The tool gets base, mine and theirs, in a repository of its own outside of the workspace. Which one it is, and
how it is called, git's configuration says (`merge.tool`, `mergetool.*`), also that of the repository around the
workspace. Nothing else of it counts, and the path's own name, which an agent may have chosen, is in no command line.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType

import click
from msgspec import Struct

from syncd.archive.base_store import LARGEST_BYTES
from syncd.cli.agent_side import AgentSide, OpenSandbox
from syncd.cli.options import answered, confirmed
from syncd.core import safe_open
from syncd.core.api_key import KEY_VARIABLE
from syncd.core.errors import NeedsPerson, SyncdError, TryLater
from syncd.core.text import counted, shown_path
from syncd.core.waiter import Waiter
from syncd.merge.git import (
    FILE_MODE,
    Git,
    MergedText,
    find_git,
    is_binary,
    merge,
    need_git,
    private_repository,
    with_settings,
)
from syncd.model.entry import Kind, leads_out
from syncd.model.reconcile import Choice, Plan, PlannedPath
from syncd.sandbox.repository.git_in_sandbox import NO_CONFIGURATION, SETTINGS

_LONGEST_NAME = 255
_LETTERS = {"m": Choice.MINE, "t": Choice.THEIRS, "b": Choice.BOTH, "k": Choice.MARKERS, "o": Choice.TOOL}
_LEAVES, _LEAVES_ALL = ("", "s"), "q"
_ASKED_S = 0.2
_FOUND_OR_NONE = (0, 1)
_KEYS = r"^(merge\.tool|mergetool\..*)$"
# Outside of its configuration nothing says where git works, and a key is nobody's business.
_KEPT_BACK = (KEY_VARIABLE, "CREDENTIALS_DIRECTORY")
_ODD = re.compile("[^A-Za-z0-9._-]")


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
    has_tool = _has_merge_tool(side.opened.config.workspace.path)
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
        return _merge_by_tool(git, opened, planned.path, (base, ours, theirs), merged, output=2 if quiet else 1)
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


# -- git's merge tool


def _has_merge_tool(workspace: str) -> bool:
    """True if git is installed and knows which merge tool to run."""
    git = find_git(os.environ)
    try:
        return git is not None and bool(_settings(git, workspace).get("merge.tool"))
    except SyncdError:
        return False


def _merge_by_tool(
    git: Git,
    opened: OpenSandbox,
    path: str,
    sides: tuple[bytes | None, bytes, bytes],
    merged: MergedText | str,
    *,
    output: int,
) -> bytes:
    """Return what a person makes of the sides in the merge tool, which begins with what git could merge.

    `output` is the tool's stdout. Raises `NeedsPerson` without a tool, `TryLater` if it did not end well, or left the
    conflicts as they were; `Stop`.
    """
    settings = _settings(git, opened.config.workspace.path)
    tool = settings.get("merge.tool")
    if not tool:
        raise NeedsPerson(
            "git has no merge tool configured",
            "`git config --global merge.tool NAME`; `git mergetool --tool-help` lists some",
        )
    if f"mergetool.{tool}.cmd" in settings:
        # Else git would ask, or believe the time of the file, and take what a tool wrote before it failed.
        settings.setdefault(f"mergetool.{tool}.trustexitcode", "true")
    settings |= {"mergetool.keepBackup": "false", "mergetool.writeToTemp": "false"}
    name = _harmless_name(path)
    start = sides[1] if isinstance(merged, str) else merged.content
    with private_repository(git, opened.scratch, "sha1") as repository:
        work_tree = os.path.join(repository, "work")
        os.mkdir(work_tree)
        variables = {"GIT_DIR": repository, "GIT_WORK_TREE": work_tree}
        rows = [
            b"%s %s %d\t%s\n" % (FILE_MODE, _object(git, content, variables), stage, name.encode())
            for stage, content in enumerate(sides, 1)
            if content is not None
        ]
        git.run(["update-index", "--index-info"], variables, given=b"".join(rows))
        file = os.path.join(work_tree, name)
        with open(file, "xb") as begun:
            begun.write(start)
        options = [part for setting in SETTINGS if not setting.startswith("core.editor") for part in ("-c", setting)]
        line = [git.program, *options, "mergetool", "--no-prompt", f"--tool={tool}", "--", name]
        code = _run(line, work_tree, _environment(variables, settings), opened.waiter.interrupt.check, output)
        if code:
            raise TryLater(f"the merge tool {tool!r} did not end well for '{shown_path(path)}'", "nothing was changed")
        content = _read(file, path)
    if content == start and (isinstance(merged, str) or merged.has_conflicts):
        raise TryLater(
            f"the merge tool {tool!r} left '{shown_path(path)}' as it was", "nothing was changed; merge it, and save it"
        )
    return content


def _settings(git: Git, workspace: str) -> dict[str, str]:
    """Return git's configuration of merge tools, as it is in the workspace; the last value of each key."""
    found = git.ask(["config", "--null", "--get-regexp", _KEYS], {}, workspace, allowed=_FOUND_OR_NONE)
    pairs = (os.fsdecode(item).partition("\n") for item in found.output.split(b"\0") if item)
    return {key: value for key, newline, value in pairs if newline}


def _harmless_name(path: str) -> str:
    """Return a name like the path's last one, by which an editor knows the language, of harmless characters alone."""
    name = _ODD.sub("_", path.rpartition("/")[2])[-60:]
    return name if name[:1].isalnum() else f"_{name}"


def _object(git: Git, content: bytes, variables: Mapping[str, str]) -> bytes:
    return git.run(["hash-object", "-w", "--stdin"], variables, given=content).output.strip()


def _environment(variables: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """Return the person's environment, with no configuration of git but what is handed on."""
    person = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") and k not in _KEPT_BACK}
    nothing = {key: value for key, value in NO_CONFIGURATION.items() if key.startswith("GIT_")}
    return {**person, **nothing, "GIT_ATTR_NOSYSTEM": "1", **variables, **with_settings(settings)}


def _run(line: list[str], folder: str, environ: Mapping[str, str], check: Callable[[], None], output: int) -> int:
    """Run the tool to its end, and return its exit code. Raises `NeedsPerson`, and what `check` does."""
    sys.stdout.flush()
    try:
        program = subprocess.Popen(line, cwd=folder, env=environ, stdout=output)
    except OSError as failure:
        raise NeedsPerson(f"git cannot be started ({failure.strerror})", "see that `git --version` works") from None
    with program:
        try:
            while program.returncode is None:
                with suppress(subprocess.TimeoutExpired):
                    program.wait(_ASKED_S)
                check()
        except BaseException:
            program.terminate()
            raise
    return program.returncode


def _read(file: str, path: str) -> bytes:
    try:
        descriptor, _ = safe_open.open_file(file, None)
        with os.fdopen(descriptor, "rb") as found:
            return found.read()
    except OSError as failure:
        reason = failure.strerror or failure
        raise TryLater(
            f"the merge tool left no file for '{shown_path(path)}' ({reason})", "nothing was changed"
        ) from None
