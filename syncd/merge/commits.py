"""Puts the agent's changes, and its commits, into the repository that the workspace lies in.

On a new branch (`make_branch`), or on `refs/syncd/SANDBOX` (`FollowedCommits`). Only objects and this one reference are
written, by no hook, filter or setting: the work tree, the index, HEAD, stashes, all other references and the
configuration stay as they are. Contents go in as they are, without filters or other line ends.

The agent's commits come in a file that was made in the sandbox: what git told of them there, and contents. Nothing in
it is trusted: it is read as texts, names, modes and contents, which are checked, and no git here reads the agent's
objects.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import IO

from msgspec import Struct

from syncd.archive.base_store import SentFiles
from syncd.core.choices import COMMITTER
from syncd.core.errors import NeedsPerson, SyncdError, SyncWarning, TryLater
from syncd.core.text import one_line, shown_path
from syncd.merge.git import (
    ANY_CODE,
    EMPTY_TREE,
    SUBMODULE_MODE,
    Git,
    GitResult,
    GitWorkTree,
    NewCommit,
    blob_id,
    find_git,
    find_work_tree,
    identity_text,
    is_version,
    make_commits,
    mode_of,
    private_repository,
    subject_of,
    tree_of,
    why_submodules_are_refused,
    with_settings,
)
from syncd.merge.path_changes import link_at
from syncd.model.entry import ABSENT, EXECUTABLE, Kind, SeenEntry
from syncd.model.git_names import is_in_repository, names_submodules
from syncd.model.manifest import Manifest, changed_paths, is_within
from syncd.model.reconcile import Home, Sides, never_taken
from syncd.sandbox.protocol import MOST_COMMITS, MOST_COMMITTED_PATHS, SandboxCommits, leads_outside
from syncd.scan.file_reader import ContentReader
from syncd.selection.ignore_files import repository_around
from syncd.selection.selection import SECRETS, PathPatterns
from syncd.store.blobs import Blobs
from syncd.store.state_db import Record
from syncd.sync.agent_work import AgentWork, IsExcluded
from syncd.sync.following import facts_of
from syncd.sync.sandbox import Access
from syncd.sync.workspace import Workspace

_MOST_OF_MESSAGE = 64 << 10
_LONGEST_TARGET = 4095  # of a link
_BLOCK_BYTES = 1 << 18
_LONGEST_LINE = 100
_MOST_FIELDS = 2 * MOST_COMMITTED_PATHS + 6 * MOST_COMMITS  # of a path two, of a commit itself no more than six
_ROW = re.compile(rb"\n?:[0-7]{6} ([0-7]{6}) [0-9a-f]{40} ([0-9a-f]{40}) [A-Z]")
_CONTENT = re.compile(rb"([0-9a-f]{40}) blob ([0-9]{1,12})\n")
_Header = tuple[bytes, bytes, bytes]
_Rows = list[tuple[str, bytes, str]]
# An author that git and others take and show: of no year after 9999.
_AUTHOR = re.compile(
    rb"[^<>\n ][^<>\n]{0,1000} <[^<>\n]{0,1000}> (0|[1-9][0-9]{0,11}) [+-](?:0[0-9][0-5][0-9]|1[0-3][0-5][0-9]|1400)"
)
_LAST_SECOND = 253_402_300_799
_SECRETS = PathPatterns(SECRETS)


# -- the commits that the sandbox reported


class UnreadableCommits(Exception):
    """The commits cannot be read; the message says why."""


class SandboxCommit(Struct, frozen=True):
    """One commit of the agent's. `changes` are the paths that differ from its first parent, ABSENT for a deleted one.

    A file without a copy was not fetched. `author` is as a commit holds it. `refused` are paths that lead out of the
    workspace, as nobody has to trust a tree.
    """

    id: str
    author: bytes
    message: bytes
    changes: Mapping[str, SeenEntry]
    refused: tuple[str, ...] = ()


def read_commits(found: SandboxCommits, path: str, folder: str) -> tuple[SandboxCommit, ...]:
    """Return the commits that the sandbox reported, from the file with them, which is removed.

    `folder` is private; the contents stay there, in files. Raises `UnreadableCommits`.
    """
    try:
        with open(path, "rb") as file:
            os.unlink(path)
            commits = _compared(found, file.read(found.told_bytes))
            wanted = {blob for _, rows in commits for _, mode, blob in rows if mode[:2] in (b"10", b"12")}
            sizes = _write_contents(file, wanted, folder)
        made = []
        for (commit_id, author, message), rows in commits:
            refused = tuple(path for path, _, _ in rows if leads_outside(path))
            inside = [row for row in rows if not leads_outside(row[0])]
            changes = {path: _entry(mode, blob, sizes, folder) for path, mode, blob in inside}
            told = foreign_author(author), message[:_MOST_OF_MESSAGE]
            made.append(SandboxCommit(commit_id.decode(), *told, changes, refused))
        return tuple(made)
    except OSError as failure:
        raise UnreadableCommits(f"they cannot be written here: {failure.strerror}") from None


def _compared(found: SandboxCommits, told: bytes) -> list[tuple[_Header, _Rows]]:
    """Return each commit's id, author and message, and path, mode and blob of what it changed."""
    if told.count(b"\0") > _MOST_FIELDS:
        raise UnreadableCommits("they changed too many paths")
    fields = iter(told.split(b"\0"))
    commits: list[tuple[_Header, _Rows]] = []
    for part in fields:
        if not part.lstrip(b"\n").startswith(b":"):
            header = tuple(itertools.islice(fields, 3))
            if len(header) == 3:
                commits.append((header, []))
            continue
        row = _ROW.fullmatch(part)
        if row is None or not commits:
            raise UnreadableCommits("what they changed cannot be read")
        commits[-1][1].append((os.fsdecode(next(fields, b"")), row[1], row[2].decode()))
    if [header[0] for header, _ in commits] != [pair.partition(" ")[0].encode() for pair in found.commits]:
        raise UnreadableCommits("git names other ones")
    return commits


def _write_contents(file: IO[bytes], wanted: set[str], folder: str) -> dict[str, int]:
    """Write the wanted contents that follow in the file into files of the folder, named by their ids.

    Returns their sizes in bytes. Raises `UnreadableCommits` for what `git cat-file --batch` does not print.
    """
    sizes: dict[str, int] = {}
    while line := file.readline(_LONGEST_LINE):
        content = _CONTENT.fullmatch(line)
        blob = content[1].decode() if content is not None else ""
        if content is None or blob not in wanted or blob in sizes:
            raise UnreadableCommits("they come with what is no content of theirs")
        left = sizes[blob] = int(content[2])
        with open(os.path.join(folder, blob), "xb") as to:
            while left and (block := file.read(min(left, _BLOCK_BYTES))):
                to.write(block)
                left -= len(block)
        if left or file.read(1) != b"\n":
            raise UnreadableCommits("a content of theirs is cut")
    return sizes


def foreign_author(author: bytes) -> bytes:
    """Return an author that somebody else wrote, as a commit holds it: unknown, if it is none that git would write."""
    found = _AUTHOR.fullmatch(author)
    return author if found is not None and int(found[1]) <= _LAST_SECOND else b"unknown <> 0 +0000"


def _entry(mode: bytes, blob: str, sizes: Mapping[str, int], folder: str) -> SeenEntry:
    """Return what a commit has at a path with this mode and blob."""
    if mode == b"000000":
        return ABSENT
    copy = os.path.join(folder, blob) if blob in sizes else ""
    if mode.startswith(b"10"):
        permissions = 0o755 if int(mode, 8) & EXECUTABLE else 0o644
        return SeenEntry(Kind.FILE, permissions, size_bytes=sizes.get(blob, 0), copy=copy)
    if not mode.startswith(b"12"):
        return SeenEntry(Kind.OTHER)
    if not 0 < sizes.get(blob, 0) <= _LONGEST_TARGET:
        return SeenEntry(Kind.UNREAD)
    with open(copy, "rb") as file:
        target = file.read()
    return SeenEntry(Kind.UNREAD) if b"\0" in target else SeenEntry(Kind.SYMLINK, target=os.fsdecode(target))


# -- a branch

SENT_MESSAGE = "As sent to the sandbox\n"
CHANGES_MESSAGE = "Changes from the sandbox\n"
UNCOMMITTED_MESSAGE = "agent, not committed\n"


class NewBranch(Struct, frozen=True):
    """The branch that was made. `commits` are the ids of its new commits, the oldest first; none if nothing differs.

    `subjects` are the first lines of their messages. `skipped` are the changes that are not in it, with the reasons.
    """

    commits: tuple[str, ...]
    subjects: tuple[str, ...]
    skipped: Mapping[str, str]


def make_branch(
    git: Git,
    workspace: str,
    name: str,
    sent: Mapping[str, SeenEntry],
    changes: Mapping[str, SeenEntry],
    *,
    is_excluded: Callable[[str], bool],
    now: datetime,
    commits: Sequence[SandboxCommit] = (),
    scratch: str | None = None,
) -> NewBranch:
    """Make the branch `name`, and return what is in it; where the agent did nothing, none is made, with no commit.

    It begins at HEAD. Its first commit holds what was sent to the sandbox, where that differs from HEAD; then come the
    agent's commits, made anew with their authors, dates and messages; the last one holds the changes that are in none
    of them. So the last tree is what was sent with all changes, whatever the agent committed.

    `sent` are all files and links that the sandbox was sent, `changes` what is otherwise there (ABSENT: nothing); paths
    are relative to the workspace. `commits` are the agent's, the oldest first, with what may come of their changes;
    each is made, also without any. A path of HEAD that was not sent is removed by the first commit, unless it
    `is_excluded` by the workspace's rules, or a sparse checkout does not hold it. What was sent is read once, and a
    second time if HEAD does not have it. `now` is the time at which the commits are made, with its zone.

    Raises `NeedsPerson` if the name is taken or git refuses it, or if there is no repository; `TryLater` if a file
    changes while it is read.
    """
    work_tree = find_work_tree(git, workspace)
    _refuse_name(git, work_tree, name)
    head, person = head_of(git, work_tree), _person(work_tree, now)
    changed, skipped = head.as_changed(changes)
    agents = []
    for commit in commits:
        paths, left = head.as_changed(commit.changes)
        agents.append(NewCommit(commit.message, paths, commit.author))
        skipped |= left
    made: list[tuple[str, bytes]] = []
    if changed or agents:
        made = _write_commits(git, work_tree, person, head.as_sent(sent.items(), is_excluded), changed, agents, scratch)
    if made:
        ended = change_reference(git, work_tree, person, "branch", "--no-track", name, made[-1][0])
        if ended.code:
            reason = one_line(ended.complaint, 160)
            raise NeedsPerson(f"git cannot make the branch {shown_path(name)!r} ({reason})", "choose another name")
    subjects = tuple(subject_of(message) for _, message in made)
    return NewBranch(tuple(each for each, _ in made), subjects, skipped)


def _refuse_name(git: Git, work_tree: GitWorkTree, name: str) -> None:
    """Raise `NeedsPerson` if git allows no branch of this name, or if it is the current one, without a commit yet."""
    shown, variables = shown_path(name), {"GIT_DIR": work_tree.folder}
    checked = git.run(["check-ref-format", "--branch", name], variables, ANY_CODE)
    # It prints another name for one that stands for a branch that was left, such as "@{-1}".
    if name == "@" or checked.code or checked.output != os.fsencode(f"{name}\n"):
        raise NeedsPerson(f"git does not allow a branch named {shown!r}", "choose another name")
    if not work_tree.head and f"branch refs/heads/{name}" in os.fsdecode(
        git.run(["worktree", "list", "--porcelain"], variables).output
    ).split("\n"):
        raise NeedsPerson(f"the branch {shown!r} is the current one, without a commit yet", "choose another name")


class Head(Struct, frozen=True):
    """Mode and blob of each path that HEAD has in the workspace, and the submodules in it.

    `hidden` are the paths that a sparse checkout does not hold. Paths are relative to the workspace.
    """

    files: Mapping[str, tuple[bytes, bytes]]
    submodules: Collection[str]
    hidden: Collection[str]
    object_format: str

    def as_sent(
        self, sent: Iterable[tuple[str, SeenEntry]], is_excluded: Callable[[str], bool]
    ) -> dict[str, SeenEntry]:
        """Return what differs of what was sent, ABSENT for a path that was not, unless the rules exclude it.

        The files are read, each once.
        """
        found, paths = dict[str, SeenEntry](), set[str]()
        for path, version in sent:
            paths.add(path)
            if not self.why_stays(path):
                facts = mode_of(version), blob_id(path, version, self.object_format)
                if self.files.get(path) != facts:
                    found[path] = version
        unsent = (path for path in self.files if path not in paths and path not in self.hidden)
        return found | {path: ABSENT for path in unsent if not is_excluded(path)}

    def as_changed(self, changes: Mapping[str, SeenEntry]) -> tuple[dict[str, SeenEntry], dict[str, str]]:
        """Return what a commit of these changes has, and the paths that are left out of it, each with the reason."""
        links = {path for path, after in changes.items() if after.kind is Kind.SYMLINK and names_submodules(path)}
        skipped = {path: why for path in changes if (why := self.why_stays(path))}
        skipped |= dict.fromkeys(links, "git allows no link of this name")
        return {path: after for path, after in changes.items() if path not in skipped}, skipped

    def why_stays(self, path: str) -> str:
        """Return the reason for which a path stays as it is, also its submodule's commit; empty if it does not."""
        if is_in_repository(path):
            return "it is inside of a .git"
        return "it is in a submodule" if self.submodules and is_within(path, self.submodules) else ""


def head_of(git: Git, work_tree: GitWorkTree) -> Head:
    """Return what HEAD has in the workspace."""
    tree: dict[str, tuple[bytes, bytes]] = {}
    submodules: set[str] = set()
    variables, prefix = {"GIT_DIR": work_tree.folder}, work_tree.prefix
    if work_tree.head:
        inside = [prefix] if prefix else []
        listing = git.run(["ls-tree", "-z", "--full-tree", "-r", work_tree.head, "--", *inside], variables).output
        for line in filter(None, listing.split(b"\0")):
            facts, _, name = line.partition(b"\t")
            mode, _, blob = facts.split(b" ")
            path = os.fsdecode(name)
            if not path.startswith(prefix):
                continue  # the workspace's folder is a file or a link in HEAD
            if mode == SUBMODULE_MODE:
                submodules.add(path[len(prefix) :])
            else:
                tree[path[len(prefix) :]] = (mode, blob)
    # A path that git-sparse-checkout(1) leaves out was not sent, but nobody removed it. Only the index knows it.
    marked, start = git.run(["ls-files", "-t", "-z"], variables).output.split(b"\0"), os.fsencode(f"S {prefix}")
    hidden = frozenset(os.fsdecode(line[len(start) :]) for line in marked if line.startswith(start))
    return Head(tree, submodules, hidden, work_tree.object_format)


# -- what is written into the person's repository, in the person's name


def _write_commits(  # noqa: PLR0917 - the parts of one branch
    git: Git,
    work_tree: GitWorkTree,
    person: str,
    as_sent: dict[str, SeenEntry],
    changed: dict[str, SeenEntry],
    agents: Sequence[NewCommit],
    scratch: str | None,
) -> list[tuple[str, bytes]]:
    """Write the commits into the repository's objects; return their ids and messages, none if nothing is new."""
    sent = [NewCommit(SENT_MESSAGE.encode(), as_sent)] if as_sent else []
    planned, head = [*sent, *agents], tuple(filter(None, [work_tree.head]))
    for number, commit in enumerate(planned):
        commit.parents = (f":{number}",) if number else head
    # Its tree is the one in which the agent's commits have to end, whatever they hold.
    goal = NewCommit(b"", changed, parents=(":1",) if sent else head)
    messages = [commit.message for commit in planned]
    with writing_objects(git, work_tree, scratch) as variables:
        *ids, last = make_commits(git, variables, person, [*planned, goal], work_tree.prefix)
        tip, tree = (*head, *ids)[-1:], tree_of(git, variables, last)
        if not any(tree_of(git, variables, each) == tree for each in tip):
            messages.append((UNCOMMITTED_MESSAGE if agents else CHANGES_MESSAGE).encode())
            ids += make_commits(git, variables, person, [NewCommit(messages[-1], parents=tip, tree=tree)])
    return list(zip(ids, messages, strict=True)) if len(ids) > len(sent) else []


def change_reference(git: Git, work_tree: GitWorkTree, person: str, *command: str) -> GitResult:
    """Run a command that changes a reference of the repository as this person, and runs no hook; return its end."""
    # Hooks can be settings too (`hook.NAME.command`, since git 2.54).
    hooks = sorted(
        {key.rpartition(".")[0] for key in work_tree.settings if key.startswith("hook.") and key.count(".") > 1}
    )
    name, email, date = re.split(" <|> ", person)
    # After a "@" git takes seconds as they are, also those of a clock that is after 2099.
    facts = {"GIT_COMMITTER_NAME": name, "GIT_COMMITTER_EMAIL": email, "GIT_COMMITTER_DATE": f"@{date}"}
    settings = with_settings({f"{hook}.enabled": "false" for hook in hooks})
    return git.run(command, {"GIT_DIR": work_tree.folder, **facts, **settings}, ANY_CODE)


@contextmanager
def writing_objects(git: Git, work_tree: GitWorkTree, scratch: str | None) -> Iterator[dict[str, str]]:
    """Return the variables by which git writes into the repository's objects, and reads no configuration of it."""
    with private_repository(git, scratch, work_tree.object_format) as folder:
        shared = work_tree.settings.get("core.sharedrepository", "")
        settings = with_settings({"core.sharedRepository": shared} if shared else {})
        yield {"GIT_DIR": folder, "GIT_OBJECT_DIRECTORY": work_tree.objects, **settings}


def _person(work_tree: GitWorkTree, now: datetime) -> str:
    """Return the person whose repository this is, `now`, as a commit holds it; git knows no time before 1970."""
    name, email = (identity_text(work_tree.settings.get(f"user.{part}", "")) for part in ("name", "email"))
    return f"{name or 'syncd'} <{email or 'syncd@localhost'}> {max(0, int(now.timestamp()))} {now:%z}"


# -- the reference that follows


class _Sent(Struct, frozen=True):
    """The paths where HEAD and what was sent, with this base, may differ."""

    head: str
    base: Manifest
    differing: frozenset[str]


class FollowedCommits:
    """Keeps one sandbox's work as commits on a reference. `warnings` are about what could not be committed.

    The tree of each is what the sandbox holds, of what may come home. Its parents are the one before, and HEAD.
    """

    def __init__(self, access: Access, workspace: Workspace) -> None:
        self.warnings: list[SyncWarning] = []
        self._waiter = access.waiter
        self._db = access.db
        self._workspace = access.config.workspace.path
        self._reference = f"refs/syncd/{access.config.sandbox_name}"
        self._base_store = workspace.base_store
        self._environ = workspace.environ
        self._secrets = ContentReader(self._workspace, access.clock, search=workspace.search).secrets
        self._sent: _Sent | None = None

    def follow(self, owner: str, work: AgentWork, is_excluded: IsExcluded, scratch: str) -> None:
        """Commit the work in the sandbox of that `owner`, unless the last commit was of the same. Raises `Stop`.

        `scratch` is a private folder that somebody else removes.
        """
        try:
            if repository_around(self._workspace) is not None:
                self._follow(owner, work, is_excluded, scratch)
        except (SyncdError, OSError) as failure:
            why = failure.message if isinstance(failure, SyncdError) else failure.strerror
            what = f"what the agent changed is at home, but not on {self._reference} ({why})"
            remedy = "`syncd diff` shows it; it is tried again by itself"
            if os.strerror(errno.EROFS) in what:  # the key was set after the installation
                remedy = f"{remedy}, in vain by a service until `syncd service install` is run again"
            self.warnings = [SyncWarning("follow-commit", what, remedy)]
        else:
            self.warnings = []

    def _follow(self, owner: str, work: AgentWork, is_excluded: IsExcluded, scratch: str) -> None:
        record = Record(self._db, "followed commit", bytes, "what the agent changed is committed once more", owner)
        found = {
            path: there
            for path, there in work.changed.items()
            if is_version(there) or (there.kind in (Kind.ABSENT, Kind.DIRECTORY) and work.base_of(path))
        }
        digest = hashlib.sha256(repr(facts_of(found)).encode("utf-8", "surrogateescape")).digest()
        made = record.load()
        if made == digest or (made is None and not found):
            return
        git = find_git(self._environ, self._waiter)
        if git is None:
            return
        changes = self._allowed(git, found, work.changed)
        if changes or made is not None:
            self._commit(git, work.content.base, changes, is_excluded, scratch)
            record.save(digest)

    def _allowed(
        self, git: Git, found: Mapping[str, SeenEntry], there: Mapping[str, SeenEntry]
    ) -> dict[str, SeenEntry]:
        """Return what may come of this, beside all that is there: no link that leads out, no secret; ABSENT is gone."""
        refused = partial(why_submodules_are_refused, git)
        home = Home(False, partial(link_at, self._workspace), lambda _: (), refused_submodules=refused)
        sides, secret = Sides({}, {}, there), self._secrets(found)
        return {
            path: ABSENT if each.kind is Kind.DIRECTORY else each
            for path, each in found.items()
            if path not in secret and not never_taken(sides, home, path, ABSENT, each)
        }

    def _commit(
        self, git: Git, base: Manifest, changes: Mapping[str, SeenEntry], is_excluded: IsExcluded, scratch: str
    ) -> None:
        work_tree = find_work_tree(git, self._workspace)
        variables = {"GIT_DIR": work_tree.folder}
        found = git.run(["rev-parse", "--verify", "--quiet", f"{self._reference}^{{commit}}"], variables, ANY_CODE)
        last = found.output.decode().strip() if found.code == 0 else ""
        os.makedirs(scratch, mode=0o700, exist_ok=True)
        head = head_of(git, work_tree)
        sent_files = SentFiles(self._workspace, scratch, self._base_store, Blobs(self._db))
        self._sent = self._differing_from_head(head, work_tree.head, base, is_excluded, sent_files)
        paths = dict.fromkeys(self._sent.differing, ABSENT)
        for path in paths:
            entry = base.get(path)
            if entry is not None and entry.kind is not Kind.DIRECTORY:
                paths[path] = sent_files.needed_version(path, entry)
        paths |= head.as_changed(changes)[0]
        person = f"{COMMITTER} {max(0, int(self._waiter.clock.wall_s()))} +0000"  # git knows none before 1970
        parents = tuple(parent for parent in dict.fromkeys((last, work_tree.head)) if parent)
        message = f"What the agent changed in {self._reference.rpartition('/')[2]}\n"
        commit = NewCommit(message.encode(), paths, parents=parents)
        with writing_objects(git, work_tree, scratch) as private:
            if last:  # not the tree of the last one, which may have what is gone since
                commit.tree = tree_of(git, private, work_tree.head) if work_tree.head else EMPTY_TREE
            (made,) = make_commits(git, private, person, [commit], work_tree.prefix)
        command = "update-ref", "--no-deref", "-m", "syncd: what the agent changed", self._reference, made, last
        ended = change_reference(git, work_tree, person, *command)
        if ended.code:
            raise TryLater(f"git cannot set {self._reference} ({one_line(ended.complaint, 160)})", "see `git fsck`")

    # -- what was sent

    def _differing_from_head(
        self, head: Head, commit: str, base: Manifest, is_excluded: IsExcluded, sent_files: SentFiles
    ) -> _Sent:
        """Return the paths at which HEAD may hold something else than what was sent."""
        # What rules exclude stays as in HEAD, but a file that a person tracks although it is a secret.
        stays: Callable[[str], bool] = lambda path: path not in _SECRETS and is_excluded(path, False)  # noqa: E731
        known = self._sent
        if known is not None and known.head == commit:
            later = known.differing.union(changed_paths(known.base, base))
            as_in_head = {path for path in later if path not in base and (path in head.hidden or stays(path))}
            return _Sent(commit, base, frozenset(p for p in later - as_in_head if not head.why_stays(p)))
        return _Sent(commit, base, frozenset(head.as_sent(self._versions(base, sent_files), stays)))

    def _versions(self, base: Manifest, sent_files: SentFiles) -> Iterator[tuple[str, SeenEntry]]:
        for path, entry in base.items():
            if entry.kind is not Kind.DIRECTORY:
                self._waiter.poll_events()  # a large workspace is read for seconds
                yield path, sent_files.needed_version(path, entry)
