"""Decides what of the agent's commits comes onto a branch: the same paths that may come from the sandbox at all."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

from syncd.cli.agent_side import AgentSide, is_named, remote_version
from syncd.cli.apply.command import home_of
from syncd.merge.commit_pack import SandboxCommit
from syncd.merge.git_objects import GitChange
from syncd.model.entry import Kind, SeenEntry
from syncd.model.reconcile import Home, Sides, never_taken


class CommitsToMake(Struct):
    """The commits for the branch, with those of their changes that may come.

    `never` are paths that are left out of all of them, with the reason. `unread` are paths whose content in one of them
    was not fetched: they come with what is not committed.
    """

    commits: list[tuple[SandboxCommit, list[GitChange]]] = field(default_factory=list)
    never: dict[str, str] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)


def commits_to_make(side: AgentSide, commits: tuple[SandboxCommit, ...], named: tuple[str, ...]) -> CommitsToMake:
    """Return the commits with what may come of them; of named paths, if any, alone. Raises `TryLater`."""
    made = CommitsToMake()
    paths = {path for commit in commits for path in commit.changes if is_named(path, named)}
    here, home = side.writer.look(paths), home_of(side.config)
    state: dict[str, SeenEntry] = {}
    sides = Sides({}, here, state)
    never_links = _links_that_lead_out(sides, home, commits, state)
    for commit in commits:
        wanted = {path: entry for path, entry in commit.changes.items() if path in paths}
        refused = [path for path in commit.refused if is_named(path, named)]
        if named and not wanted and not refused:
            continue
        made.never.update(dict.fromkeys(refused, "its name in a commit leads out of the workspace"))
        changes = []
        for path, entry in wanted.items():
            reason = never_links.get(path, "") if entry.kind is Kind.SYMLINK else ""
            reason = reason or _reason(side, sides, home, path, entry)
            if reason:
                made.never[path] = reason
            elif entry.kind is not Kind.ABSENT and remote_version(entry) is None:
                made.unread[path] = commit.id
            else:
                changes.append(GitChange(path, None, remote_version(entry)))
        made.commits.append((commit, changes))
    return made


def _reason(side: AgentSide, sides: Sides, home: Home, path: str, entry: SeenEntry) -> str:
    if entry.kind is Kind.OTHER:
        return "it is a submodule, a repository of its own"
    never = "" if entry.kind is Kind.SYMLINK else never_taken(sides, home, path, sides.here[path], entry)
    if never:
        return never
    if side.leave_out(path, False):
        return "the workspace's rules leave it out; --include takes it"
    return ""


def _links_that_lead_out(
    sides: Sides, home: Home, commits: tuple[SandboxCommit, ...], state: dict[str, SeenEntry]
) -> Mapping[str, str]:
    """Return the links that may never come, with the reason.

    A link can lead out by another one that a later commit changes, so all are followed after each commit.
    """
    found: dict[str, str] = {}
    links: set[str] = set()
    for commit in commits:
        state.update(commit.changes)
        for path, entry in commit.changes.items():
            (links.add if entry.kind is Kind.SYMLINK else links.discard)(path)
        for path in links - found.keys():
            reason = never_taken(sides, home, path, sides.here[path], state[path])
            if reason:
                found[path] = reason
    return found
