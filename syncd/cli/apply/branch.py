"""`syncd apply --branch`: the sandbox's changes as commits on a new branch; the workspace stays as it is.

The same paths come in a commit as may come from the sandbox at all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Sequence
from datetime import datetime
from functools import partial

import click
from msgspec.structs import replace

from syncd.cli.agent_side import OpenSandbox, for_each, is_named, look_at, open_sandbox
from syncd.cli.apply.plan_text import lists_of, not_fetched, to_look_at
from syncd.cli.options import CLOCK
from syncd.cli.progress import ProgressDisplay
from syncd.core.errors import SyncdError
from syncd.core.settings import Config
from syncd.core.text import counted, one_line, shown_path
from syncd.merge.commits import SandboxCommit, UnreadableCommits, make_branch, read_commits
from syncd.merge.git import is_version, needed
from syncd.merge.home import AgentSide, make_plan
from syncd.model.entry import ABSENT, Kind, SeenEntry
from syncd.model.reconcile import PathOutcome, Plan, PlannedPath, Sides, never_taken
from syncd.remote.failure import StepFailed
from syncd.sandbox.agent_repository import recorded_home
from syncd.sandbox.protocol import RepositoryState, SandboxCommits
from syncd.selection.selection import PathPatterns


def apply_to_branches(
    configs: Sequence[Config], name: str, named: Collection[str], included: tuple[str, ...], *, as_json: bool
) -> int:
    """Make a branch for each of these sandboxes, of that name with their own in it, and say what is on it.

    One that cannot be asked keeps no other from its branch. Raises `SyncdError`, which may name what was not fetched.
    """
    made: dict[str, dict[str, list[str]]] = {}
    lacking: list[SyncdError | None] = []

    def make(config: Config) -> None:
        own = name.replace("{sandbox}", config.sandbox_name)
        made[config.sandbox_name], lacks = _apply_to_branch(config, own, named, included, as_json=as_json)
        lacking.append(lacks)

    failed = for_each(configs, make)
    if as_json:
        rows = [{"sandbox": name, **lists} for name, lists in made.items()]
        keys = lists_of(Plan())
        of_all = {key: sorted({path for each in made.values() for path in each.get(key, ())}) for key in keys}
        click.echo(json.dumps({**of_all, **({"sandboxes": rows} if len(configs) > 1 else {})}))
    if not failed and (lacks := next(filter(None, lacking), None)):
        raise lacks
    return failed


def _apply_to_branch(
    config: Config, name: str, named: Collection[str], included: tuple[str, ...], *, as_json: bool
) -> tuple[dict[str, list[str]], SyncdError | None]:
    """Make the branch, say what is on it, and return the lists of paths, and what was not fetched for it.

    Raises `SyncdError`.
    """
    with open_sandbox(config) as opened:
        # Before the look, a new one: what is committed in between counts as not committed, and nothing is taken back.
        found, commits = _fetched(opened)
        side = look_at(opened, PathPatterns(included) if included else None)
        plan = make_plan(side, side.local(), partial(is_named, named=named))
        to_make, never, stays = _commits_to_make(side, commits, named)
        never |= {planned.path: planned.reason for planned in plan.of(PathOutcome.NEVER)}
        stays |= {planned.path: planned.reason for planned in plan.of(PathOutcome.UNFETCHED)}
        files = {path: entry for path, entry in side.base.items() if entry.kind is not Kind.DIRECTORY}
        sent = {path: side.home.sent_files.needed_version(path, entry) for path, entry in files.items()}
        # A directory in the place of what was sent is a deletion, whatever of it can be in a commit.
        changes = {
            planned.path: ABSENT if planned.there.is_directory else planned.there
            for planned in plan.paths
            if planned.outcome not in (PathOutcome.NEVER, PathOutcome.UNFETCHED)
            and (planned.path in sent if planned.there.is_directory else _is_whole(planned.there))
        }
        new = {path: each for of in (*(commit.changes for commit in to_make), changes) for path, each in of.items()}
        here = side.home.writer.look(new)
        branch = make_branch(
            needed(side.home.git),
            config.workspace.path,
            name,
            sent,
            {path: after for path, after in changes.items() if after.kind is not Kind.ABSENT or path in sent},
            is_excluded=lambda path: side.rules.exclude(path, False),
            now=datetime.fromtimestamp(CLOCK.wall_s()).astimezone(),
            commits=to_make,
            scratch=side.home.scratch,
        )
    never |= branch.skipped
    if found.unlisted:
        click.echo(f"{counted(found.unlisted, 'newer commit')} in the sandbox are too many to be read", err=True)
    if found.others:
        what = f"{counted(found.others, 'commit')} of other branches or of a stash in the sandbox"
        click.echo(f"not on the branch: {what}", err=True)
    on_branch = sorted(changes.keys() - never.keys())
    to_look = to_look_at(
        PlannedPath(path, PathOutcome.TAKE, ABSENT, here[path], there)
        for path, there in sorted(new.items())
        if path not in branch.skipped
    )
    lists = {
        "taken": [path for path in on_branch if changes[path].kind is not Kind.ABSENT],
        "deleted": [path for path in on_branch if changes[path].kind is Kind.ABSENT],
        "never": sorted(never),
        "stays": sorted(stays),
        "look_at": [*to_look],
    }
    if not as_json:
        for word, reasons in (("never", never), ("stays", stays), ("look at", to_look)):
            for path, reason in sorted(reasons.items()):
                click.echo(f"{word:8}  {shown_path(path)}: {reason}")
        for commit_id, subject in zip(branch.commits, branch.subjects, strict=True):
            click.echo(f"commit    {commit_id[:10]} {subject}")
        shown = shown_path(name)
        made = f"branch {shown}: {counted(len(branch.commits), 'new commit')}; see `git log -p {shown}`"
        click.echo(made if branch.commits else "no branch is made, as there is nothing new in the sandbox")
    return lists, not_fetched(plan)


def _fetched(opened: OpenSandbox) -> tuple[SandboxCommits, tuple[SandboxCommit, ...]]:
    """Return the sandbox's report, and the agent's commits, the oldest first. Raises `SyncdError`, `Stop`.

    Where they cannot be read, their changes still come, as one commit; where no repository was made, that is no news.
    """
    home = recorded_home(opened.sandbox.state.db, opened.sandbox.target)
    if not home:
        return SandboxCommits(RepositoryState.LOST), ()
    folder = os.path.join(opened.scratch, "commits")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    with ProgressDisplay("reading the commits in the sandbox", silent_s=0.5):
        try:
            found, path = opened.sandbox.agent_repository.fetch_commits(home, folder)
            if path:
                return found, read_commits(found, path, folder)
        except StepFailed as failure:
            found = SandboxCommits(RepositoryState.FAILED, failure.message)
        except UnreadableCommits as failure:
            found = replace(found, state=RepositoryState.FAILED, why=str(failure), unlisted=0)
    if found.why:
        reason = one_line(found.why, 160)
        failed = f"the agent's commits cannot be read ({reason})"
        what = failed if found.state is RepositoryState.FAILED else reason
        click.echo(f"{what}: the agent's changes are one commit", err=True)
    return found, ()


def _is_whole(remote: SeenEntry) -> bool:
    """True if what is there was fetched, or if nothing is there."""
    return remote.kind is Kind.ABSENT or is_version(remote)


def _commits_to_make(
    side: AgentSide, commits: tuple[SandboxCommit, ...], named: Collection[str]
) -> tuple[list[SandboxCommit], dict[str, str], dict[str, str]]:
    """Return the commits for the branch, with what may come of them; of named paths, if any, alone.

    With the reason, the second are paths that are left out of all of them, the last those whose content in one of them
    was not fetched: they come with what is not committed. Raises `TryLater`.
    """
    made: list[SandboxCommit] = []
    never: dict[str, str] = {}
    stays: dict[str, str] = {}
    paths = {path for commit in commits for path in commit.changes if is_named(path, named)}
    # A link can lead out by another one, of whichever commit.
    links = {p: each for commit in commits for p, each in commit.changes.items() if each.kind is Kind.SYMLINK}
    sides, home = Sides({}, side.home.writer.look(paths), links), side.home.facts()

    def why_never(path: str, entry: SeenEntry) -> str:
        if entry.kind is Kind.OTHER:
            return "it is a submodule, a repository of its own"
        never = never_taken(sides, home, path, sides.here[path], entry)
        rules = "the workspace's rules exclude it; --include applies it"
        return never or (rules if side.is_excluded(path, False) else "")

    for commit in commits:
        wanted = {path: entry for path, entry in commit.changes.items() if path in paths}
        refused = [path for path in commit.refused if is_named(path, named)]
        if named and not wanted and not refused:
            continue
        never.update(dict.fromkeys(refused, "its name in a commit leads out of the workspace"))
        never |= {path: reason for path, entry in wanted.items() if (reason := why_never(path, entry))}
        allowed = {path: entry for path, entry in wanted.items() if path not in never}
        unread = f"its content in the agent's commit {commit.id[:10]} could not be fetched"
        stays |= {path: unread for path, entry in allowed.items() if not _is_whole(entry)}
        made.append(replace(commit, changes={path: each for path, each in allowed.items() if _is_whole(each)}))
    return made, never, stays
