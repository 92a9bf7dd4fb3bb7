"""Puts the agent's changes on a new branch of the repository that the workspace lies in.

The branch begins at HEAD. Its first commit holds what was sent to the sandbox, where that differs from HEAD; then come
the agent's commits, made anew with their authors, dates and messages; the last one holds the changes that are in none
of them. So the last tree is what was sent with all changes, whatever the agent committed. Only objects and this one
reference are written: the work tree, the index, HEAD, all other references and the configuration stay as they are.
Contents go in as they are, without filters or other line ends.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from msgspec import Struct, field

from syncd.core.errors import NeedsPerson
from syncd.core.text import one_line, shown_path
from syncd.merge.git import Git, GitWorkTree, fast_import, find_work_tree, private_repository, with_settings
from syncd.merge.git_objects import (
    SUBMODULE_MODE,
    GitChange,
    GitSymlink,
    GitVersion,
    blob_id,
    checked_blob_command,
    commit_command,
    delete_line,
    foreign_identity,
    identity,
    identity_text,
    is_repository_name,
    is_submodules_name,
    mode_of,
    null_id,
    subject_of,
    todays_mode,
    write_line,
)

SENT_MESSAGE = "As sent to the sandbox\n"
CHANGES_MESSAGE = "Changes from the sandbox\n"
UNCOMMITTED_MESSAGE = "agent, not committed\n"
_Tree = Mapping[str, tuple[bytes, bytes]]


class AgentCommit(Struct, frozen=True):
    """A commit of the agent's, with what it puts at each path; `message` and author are foreign texts."""

    author: str
    email: str
    seconds: int
    zone: str
    message: bytes
    changes: Sequence[GitChange]


class NewBranch(Struct, frozen=True):
    """The branch that was made. `commits` are the ids of its new commits, the oldest first; none if nothing differs.

    `subjects` are the first lines of their messages. `skipped` are the changes that are not in it: in submodules, whose
    commits it keeps, and below a `.git`.
    """

    name: str
    commits: tuple[str, ...]
    skipped: tuple[str, ...]
    subjects: tuple[str, ...] = ()


class _NewCommit(Struct):
    """The paths that one commit writes and deletes, relative to the workspace.

    A write without a version is of a blob that is stored already. `author` is empty for the person's own commits.
    """

    message: bytes
    writes: list[tuple[str, bytes, bytes, GitVersion | None]] = field(default_factory=list)
    deletes: list[str] = field(default_factory=list)
    author: bytes = b""

    def __bool__(self) -> bool:
        return bool(self.writes or self.deletes)


class _TreeBuilder:
    """The mode and blob of each path, as git-fast-import(1) changes them.

    What is written takes the place of a file above it, and of a directory that has its name.
    """

    def __init__(self, entries: _Tree) -> None:
        self.entries = dict(entries)
        self._folders = Counter(folder for path in self.entries for folder in _folders_of(path))

    def copy(self) -> _TreeBuilder:
        """Return another one with the same entries."""
        return _TreeBuilder(self.entries)

    def carry_out(self, commit: _NewCommit) -> None:
        """Change the entries as the commit does."""
        for path in commit.deletes:
            self._remove(path)
        for path, mode, blob, _ in commit.writes:
            above = [folder for folder in _folders_of(path) if folder in self.entries]
            below = [each for each in self.entries if each.startswith(f"{path}/")] if self._folders[path] else []
            for other in (path, *above, *below):
                self._remove(other)
            self.entries[path] = (mode, blob)
            self._folders.update(_folders_of(path))

    def _remove(self, path: str) -> None:
        if self.entries.pop(path, None) is not None:
            self._folders.subtract(_folders_of(path))


def _folders_of(path: str) -> list[str]:
    """Return the directories above a path."""
    return [path[:at] for at, character in enumerate(path) if character == "/"]


def make_branch(
    git: Git,
    workspace: str,
    name: str,
    sent: Mapping[str, GitVersion],
    changes: Iterable[GitChange],
    *,
    left_out: Callable[[str], bool],
    now: datetime,
    commits: Sequence[AgentCommit] = (),
    scratch: str | None = None,
) -> NewBranch:
    """Make the branch `name`, and return what is in it.

    `sent` are all files and links that the sandbox was sent, `changes` what is otherwise there; paths are relative to
    the workspace. `commits` are the agent's, the oldest first: each is made, also if it changes nothing. A path of HEAD
    that was not sent is removed by the first commit, unless `left_out` says that the workspace's rules leave it out, or
    a sparse checkout does not hold it. Each content is read once, and a second time if HEAD does not have it. `now` is
    the time at which the commits are made, with its zone.

    Raises `NeedsPerson` if the name is taken or git refuses it, if there is no repository, or if there is nothing to
    commit in one without a commit; `TryLater` if a file changes while it is read.
    """
    work_tree = find_work_tree(git, workspace)
    reference = _free_reference(git, work_tree, name)
    tree, submodules = _tree_of_head(git, work_tree)
    hidden = _not_checked_out(git, work_tree)
    gone = [path for path in tree if path not in sent and path not in hidden and not left_out(path)]
    object_format = work_tree.object_format
    as_sent = _as_sent(tree, submodules, sent, gone, object_format)
    builder = _TreeBuilder({**tree, **submodules})
    builder.carry_out(as_sent)
    changed, skipped = _as_changed(builder.entries, submodules, changes, object_format)
    planned = [as_sent] if as_sent else []
    if commits:
        goal = builder.copy()
        goal.carry_out(changed)
        for commit in commits:
            made, left = _as_committed(builder.entries, submodules, commit, object_format)
            builder.carry_out(made)
            planned.append(made)
            skipped += left
        changed = _as_left(builder.entries, goal.entries, changed)
    planned += [changed] if changed else []
    ids = _write_commits(git, work_tree, planned, now, scratch) if planned else ()
    tip = ids[-1] if ids else work_tree.head
    if not tip:
        raise NeedsPerson(
            "there is nothing to commit, as nothing was changed in the sandbox", "make the repository's first commit"
        )
    _create_reference(git, work_tree, reference, tip, now)
    subjects = tuple(subject_of(commit.message) for commit in planned)
    return NewBranch(name, ids, tuple(dict.fromkeys(skipped)), subjects)


def _free_reference(git: Git, work_tree: GitWorkTree, name: str) -> str:
    """Return the reference of the branch. Raises `NeedsPerson` if git would refuse its name, or if it exists."""
    reference, shown = f"refs/heads/{name}", shown_path(name)
    variables = {"GIT_DIR": work_tree.folder}
    # As in `git branch`: what looks like an option, and the two names of the current commit.
    refused = name.startswith("-") or name in ("HEAD", "@") or "\0" in name
    if refused or git.run(["check-ref-format", reference], variables, range(256)).code:
        raise NeedsPerson(f"git does not allow a branch named {shown!r}", "choose another name")
    taken = [["show-ref", "--verify", "--quiet", reference], ["symbolic-ref", "--quiet", reference]]
    if any(git.run(command, variables, range(256)).code == 0 for command in taken):
        raise NeedsPerson(f"the branch {shown!r} exists already; it was not moved", "choose another name")
    # A branch without a commit can be the current one of a work tree.
    checked_out = git.run(["worktree", "list", "--porcelain"], variables).output.split(b"\n")
    if b"branch " + os.fsencode(reference) in checked_out:
        raise NeedsPerson(f"the branch {shown!r} is the current one, without a commit yet", "choose another name")
    return reference


def _tree_of_head(git: Git, work_tree: GitWorkTree) -> tuple[_Tree, _Tree]:
    """Return mode and blob of each path that HEAD has in the workspace, and the submodules around and in it.

    Paths are relative to the workspace; a submodule that holds the workspace is the path "".
    """
    tree: dict[str, tuple[bytes, bytes]] = {}
    submodules: dict[str, tuple[bytes, bytes]] = {}
    if not work_tree.head:
        return tree, submodules
    prefix = work_tree.prefix
    command = ["ls-tree", "-z", "--full-tree"]
    variables = {"GIT_DIR": work_tree.folder}
    folders = [prefix[:at] for at, character in enumerate(prefix) if character == "/"]
    if folders:
        above = git.run([*command, work_tree.head, "--", *folders], variables).output
        if any(mode == SUBMODULE_MODE for _, mode, _ in _entries(above)):
            return tree, {"": (SUBMODULE_MODE, b"")}
    inside = [prefix] if prefix else []
    for path, mode, blob in _entries(git.run([*command, "-r", work_tree.head, "--", *inside], variables).output):
        if not path.startswith(prefix):
            continue  # the workspace's folder is a file or a link in HEAD
        if mode == SUBMODULE_MODE:
            submodules[path[len(prefix) :]] = (mode, blob)
        else:
            tree[path[len(prefix) :]] = (todays_mode(mode), blob)
    return tree, submodules


def _not_checked_out(git: Git, work_tree: GitWorkTree) -> frozenset[str]:
    """Return the paths that are in no work tree by git-sparse-checkout(1): they were not sent, but nobody removed them.

    They are relative to the workspace. Only the index knows them; it is read, but not refreshed.
    """
    if work_tree.settings.get("core.sparsecheckout", "false").lower() in ("false", "no", "off", "0"):
        return frozenset()
    listing = git.run(["ls-files", "-t", "-z"], {"GIT_DIR": work_tree.folder}).output
    start = b"S " + os.fsencode(work_tree.prefix)
    lines = (line for line in listing.split(b"\0") if line.startswith(start))
    return frozenset(os.fsdecode(line[len(start) :]) for line in lines)


def _entries(listing: bytes) -> Iterator[tuple[str, bytes, bytes]]:
    """Return path, mode and id of each entry that `git ls-tree -z` lists."""
    for line in listing.split(b"\0"):
        if line:
            facts, _, path = line.partition(b"\t")
            mode, _, entry_id = facts.split(b" ")
            yield os.fsdecode(path), mode, entry_id


def _as_sent(
    tree: _Tree, submodules: _Tree, sent: Mapping[str, GitVersion], gone: list[str], object_format: str
) -> _NewCommit:
    commit = _NewCommit(SENT_MESSAGE.encode(), deletes=gone)
    for path, version in sent.items():
        if not _is_kept(path, submodules):
            _write(commit, tree, path, version, object_format)
    return commit


def _as_changed(
    tree: _Tree, submodules: _Tree, changes: Iterable[GitChange], object_format: str
) -> tuple[_NewCommit, list[str]]:
    commit, skipped = _NewCommit(CHANGES_MESSAGE.encode()), []
    for change in changes:
        links_submodules = isinstance(change.after, GitSymlink) and is_submodules_name(change.path.rpartition("/")[2])
        if _is_kept(change.path, submodules) or links_submodules:
            skipped.append(change.path)
        elif change.after is not None:
            _write(commit, tree, change.path, change.after, object_format)
        elif change.path in tree:
            commit.deletes.append(change.path)
    return commit, skipped


def _as_committed(
    tree: _Tree, submodules: _Tree, agents: AgentCommit, object_format: str
) -> tuple[_NewCommit, list[str]]:
    """Return the agent's commit on top of this tree, and the paths that are left out of it."""
    commit, skipped = _as_changed(tree, submodules, agents.changes, object_format)
    commit.message = agents.message.replace(b"\0", b"")
    commit.author = foreign_identity(agents.author, agents.email, agents.seconds, agents.zone)
    return commit, skipped


def _as_left(tree: _Tree, goal: _Tree, changed: _NewCommit) -> _NewCommit:
    """Return the commit that leads from the agent's last one to what was sent with all changes."""
    versions = {path: version for path, _, _, version in changed.writes}
    commit = _NewCommit(UNCOMMITTED_MESSAGE.encode(), deletes=[path for path in tree if path not in goal])
    for path, entry in goal.items():
        if tree.get(path) != entry:
            # What is as it was sent is stored with the first commit, or with HEAD.
            commit.writes.append((path, *entry, versions.get(path)))
    return commit


def _write(commit: _NewCommit, tree: _Tree, path: str, version: GitVersion, object_format: str) -> None:
    entry = mode_of(version), blob_id(path, version, object_format)
    if tree.get(path) != entry:
        commit.writes.append((path, *entry, version))


def _is_kept(path: str, submodules: _Tree) -> bool:
    """Return True if a path stays as HEAD has it: a submodule or a path in one, and anything in a `.git`."""
    names = path.split("/")
    if any(is_repository_name(name) for name in names):
        return True
    return bool(submodules) and any("/".join(names[:count]) in submodules for count in range(len(names) + 1))


def _write_commits(
    git: Git, work_tree: GitWorkTree, planned: Sequence[_NewCommit], now: datetime, scratch: str | None
) -> tuple[str, ...]:
    """Write blobs, trees and commits into the repository's objects; return the commits' ids."""
    person = identity(*_name_and_email(work_tree), int(now.timestamp()), f"{now:%z}")
    # Of the private repository, which is removed at the end.
    references = [f"refs/heads/{number}" for number in range(len(planned))]

    def commands() -> Iterator[bytes]:
        stored: set[bytes] = set()
        parent = work_tree.head.encode()
        for reference, commit in zip(references, planned, strict=True):
            for path, _, blob, version in commit.writes:
                if version is not None and blob not in stored:
                    stored.add(blob)
                    yield from checked_blob_command(path, version, blob, work_tree.object_format)
            yield commit_command(reference.encode(), person, commit.message, parent, author=commit.author)
            # A file may take the place of a directory, and the other way round: what is gone makes room first.
            yield from (delete_line(work_tree.prefix + path) for path in commit.deletes)
            yield from (write_line(work_tree.prefix + path, mode, blob) for path, mode, blob, _ in commit.writes)
            parent = reference.encode()

    with private_repository(git, scratch, work_tree.object_format) as folder:
        variables = {"GIT_DIR": folder, "GIT_OBJECT_DIRECTORY": work_tree.objects}
        shared = work_tree.settings.get("core.sharedrepository", "")
        settings = {"core.sharedRepository": shared} if shared else {}
        fast_import(git, commands(), {**variables, **with_settings(settings)})
        listed = git.run(["show-ref", "--verify", "--hash", *references], variables)
    return tuple(listed.output.decode().split())


def _create_reference(git: Git, work_tree: GitWorkTree, reference: str, tip: str, now: datetime) -> None:
    """Create the reference, if there is still none of this name. Raises `NeedsPerson`."""
    who, email = _name_and_email(work_tree)
    variables = {
        "GIT_DIR": work_tree.folder,
        "GIT_COMMITTER_NAME": who,
        "GIT_COMMITTER_EMAIL": email,
        "GIT_COMMITTER_DATE": f"{int(now.timestamp())} {now:%z}",
        **_without_hooks(work_tree.settings),
    }
    nothing = null_id(work_tree.object_format).decode()
    message = "branch: Created by syncd apply --branch"
    made = git.run(["update-ref", "--no-deref", "-m", message, reference, tip, nothing], variables, range(256))
    if made.code:
        shown, reason = shown_path(reference.removeprefix("refs/heads/")), one_line(made.complaint, 160)
        raise NeedsPerson(f"git cannot make the branch {shown!r} ({reason})", "choose another name")


def _without_hooks(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that disable the hooks which are settings (`hook.NAME.command`, since git 2.54)."""
    hooks = sorted({key.rpartition(".")[0] for key in settings if key.startswith("hook.") and key.count(".") > 1})
    return with_settings({f"{hook}.enabled": "false" for hook in hooks})


def _name_and_email(work_tree: GitWorkTree) -> tuple[str, str]:
    settings = work_tree.settings
    name, email = settings.get("user.name", ""), settings.get("user.email", "")
    return identity_text(name) or "syncd", identity_text(email) or "syncd@localhost"
