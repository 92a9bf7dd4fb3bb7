"""git as a person and an agent use it, with times and names of its own: the same commits have the same ids."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

# What syncd commits there has its own name.
AGENT = "Agent"
_ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C.UTF-8"}
_AT = "1795539000 +0130"
Leaf = tuple[str, str]
"""Mode and blob of a file or link in a commit."""


def git(folder: Path, *words: str, name: str = AGENT) -> bytes:
    """Run git in that folder, in the name of that person, and return its output. Raises `OSError` if it refuses."""
    who = {f"GIT_{role}_{what}": name for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    when = {f"GIT_{role}_DATE": _AT for role in ("AUTHOR", "COMMITTER")}
    command = ["git", "-c", "gc.auto=0", *words]
    done = subprocess.run(command, cwd=folder, env={**_ENVIRONMENT, **who, **when}, capture_output=True, check=False)
    if done.returncode:
        raise OSError(done.stderr.decode("utf-8", "replace"))
    return done.stdout


def commit(workspace: Path, how: str, text: int) -> None:
    """Do what an agent does with git. Raises `OSError` where that does not fit, as where there is no repository."""
    if not _is_there(workspace):
        raise FileNotFoundError(".git")
    named = ("-q", "-m", f"agent {text}")
    if how in ("all", "amend"):
        git(workspace, "add", "-A")
    commands = {
        "all": ("commit", *named),
        "amend": ("commit", *named, "--amend"),
        "tracked": ("commit", *named, "-a"),
        "branch": ("checkout", "-q", "-b", f"b{text}"),
        "switch": ("checkout", "-q", "-"),
        "detach": ("checkout", "-q", "--detach"),
        "reset": ("reset", "-q", "--hard", "HEAD~1"),
        "stash": ("stash", "push", "-u", *named),
    }
    git(workspace, *commands[how])


def tips(workspace: Path) -> frozenset[str]:
    """Return the ids of HEAD, the branches and the stash; none where there is no repository."""
    if not _is_there(workspace):
        return frozenset()
    found = git(workspace, "for-each-ref", "--format=%(objectname)", "refs/heads", "refs/stash")
    return frozenset([*found.decode().split(), git(workspace, "rev-parse", "HEAD").decode().strip()])


def unreachable(workspace: Path, wanted: frozenset[str]) -> frozenset[str]:
    """Return those of the commits that nothing in the repository leads to any more."""
    if not wanted or not _is_there(workspace):
        return wanted
    return wanted - set(git(workspace, "rev-list", "--all", "HEAD").decode().split())


def _is_there(workspace: Path) -> bool:
    return (workspace / ".git" / "HEAD").is_file()


def listed(workspace: Path, *which: str) -> Iterator[tuple[str, str, str]]:
    """Yield id, subject and committer of commits, the oldest first."""
    output = git(workspace, "log", "--first-parent", "--reverse", "-z", "--format=%H%n%s%n%cn", *which, "--")
    for each in output.decode().split("\0"):
        if each:
            commit_id, subject, committer = each.split("\n")
            yield commit_id, subject, committer


def leaves(workspace: Path, commit_id: str, prefix: str = "") -> dict[str, Leaf]:
    """Return the files and links of a commit below that folder."""
    found = {}
    for each in git(workspace, "ls-tree", "-r", "-z", "--full-tree", commit_id).split(b"\0"):
        facts, _, path = each.partition(b"\t")
        if os.fsdecode(path).startswith(prefix) and facts:
            mode, _, blob = facts.decode().split(" ")
            found[os.fsdecode(path)[len(prefix) :]] = mode, blob
    return found


def changed(workspace: Path, commit_id: str) -> dict[str, Leaf | None]:
    """Return what a commit changed of its first parent's, None for what it removed."""
    words = ("diff-tree", "-r", "-z", "--root", "--no-renames", "--no-commit-id", "-m", "--first-parent", commit_id)
    fields = iter(git(workspace, *words).split(b"\0"))
    found: dict[str, Leaf | None] = {}
    for facts in fields:
        if facts:
            _, mode, _, blob, _ = facts.decode().split(" ")
            found[os.fsdecode(next(fields))] = None if mode == "000000" else (mode, blob)
    return found
