"""Decides what of the agent's commits comes onto a branch: the same paths that may come from the sandbox at all."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

from syncd.cli.agent_side import AgentSide, is_named, remote_version
from syncd.cli.apply.command import workspace_input
from syncd.merge.commit_pack import SandboxCommit
from syncd.merge.git_objects import GitChange
from syncd.merge.merge_plan import PlanInput, never_taken
from syncd.merge.writes import LocalEntry
from syncd.sandbox.look_request import RemoteEntry, RemoteKind


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
    local = side.writer.look(paths)
    state: dict[str, RemoteEntry] = {}
    given = workspace_input(side.config.workspace.path, {}, local, state)
    never_links = _links_that_lead_out(given, commits, state)
    for commit in commits:
        wanted = {path: entry for path, entry in commit.changes.items() if path in paths}
        refused = [path for path in commit.refused if is_named(path, named)]
        if named and not wanted and not refused:
            continue
        made.never.update(dict.fromkeys(refused, "its name in a commit leads out of the workspace"))
        changes = []
        for path, entry in wanted.items():
            reason = never_links.get(path, "") if entry.kind is RemoteKind.SYMLINK else ""
            reason = reason or _reason(side, given, path, local[path], entry)
            if reason:
                made.never[path] = reason
            elif entry.kind is not RemoteKind.ABSENT and remote_version(entry) is None:
                made.unread[path] = commit.id
            else:
                changes.append(GitChange(path, None, remote_version(entry)))
        made.commits.append((commit, changes))
    return made


def _reason(side: AgentSide, given: PlanInput, path: str, local: LocalEntry | None, entry: RemoteEntry) -> str:
    if entry.kind is RemoteKind.OTHER:
        return "it is a submodule, a repository of its own"
    never = "" if entry.kind is RemoteKind.SYMLINK else never_taken(given, path, local, entry)
    if never:
        return never
    if side.leave_out(path, False):
        return "the workspace's rules leave it out; --include takes it"
    return ""


def _links_that_lead_out(
    given: PlanInput, commits: tuple[SandboxCommit, ...], state: dict[str, RemoteEntry]
) -> Mapping[str, str]:
    """Return the links that may never come, with the reason.

    A link can lead out by another one that a later commit changes, so all are followed after each commit.
    """
    found: dict[str, str] = {}
    links: set[str] = set()
    for commit in commits:
        state.update(commit.changes)
        for path, entry in commit.changes.items():
            (links.add if entry.kind is RemoteKind.SYMLINK else links.discard)(path)
        for path in links - found.keys():
            reason = never_taken(given, path, given.local.get(path), state[path])
            if reason:
                found[path] = reason
    return found
