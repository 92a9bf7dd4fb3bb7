"""Keeps what the agent made as commits on a reference of the repository around the workspace: `refs/syncd/SANDBOX`.

The tree of each is what the sandbox holds, of what may come home. Its parents are the one before, and HEAD. Only
objects and this one reference are written, by no hook, filter or setting: branches, the index, HEAD, stashes and the
work tree stay as they are.
"""

from __future__ import annotations

import errno
import hashlib
import os
import select
from collections.abc import Iterator, Mapping
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from syncd.archive.base_store import SentFiles
from syncd.core.errors import SyncdError, SyncWarning, TryLater
from syncd.core.waiter import REAL
from syncd.merge.branch import Head, change_reference, head_of, writing_objects
from syncd.merge.git import (
    ANY_CODE,
    SYNCD,
    Git,
    NewCommit,
    find_git,
    find_work_tree,
    is_version,
    make_commits,
    tree_of,
    why_submodules_are_refused,
)
from syncd.merge.path_changes import link_at
from syncd.model.entry import ABSENT, Kind, SeenEntry
from syncd.model.manifest import Manifest, changed_paths
from syncd.model.reconcile import Home, Sides, never_taken
from syncd.scan.file_reader import ContentReader
from syncd.selection.ignore_files import repository_around
from syncd.selection.selection import SECRETS, PathPatterns
from syncd.store.blobs import Blobs
from syncd.store.state_db import Record
from syncd.sync.agent_work import AgentWork, IsExcluded
from syncd.sync.following import facts_of
from syncd.sync.sandbox import Access
from syncd.sync.workspace import Workspace

_SECRETS = PathPatterns(SECRETS)


class _Sent(Struct, frozen=True):
    """The paths where HEAD and what was sent, with this base, may differ."""

    head: str
    base: Manifest
    differing: frozenset[str]


class FollowedCommits:
    """The commits of one sandbox's work. `warnings` are about what could not be committed."""

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
        git = find_git(self._environ)
        if git is None:
            return
        git = replace(git, wait_ready=self._wait_ready)
        changes = self._allowed(git, found, work.changed)
        if changes or made is not None:
            self._commit(git, work.content.base or Manifest(), changes, is_excluded, scratch)
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
        person = f"{SYNCD} {max(0, int(self._waiter.clock.wall_s()))} +0000"  # git knows none before 1970
        parents = tuple(parent for parent in dict.fromkeys((last, work_tree.head)) if parent)
        message = f"What the agent changed in {self._reference.rpartition('/')[2]}\n"
        commit = NewCommit(message.encode(), paths, parents=parents)
        with writing_objects(git, work_tree, scratch) as private:
            if last and work_tree.head:
                commit.tree = tree_of(git, private, work_tree.head)
            (made,) = make_commits(git, private, person, [commit], work_tree.prefix)
        command = "update-ref", "--no-deref", "-m", "syncd: what the agent changed", self._reference, made, last
        ended = change_reference(git, work_tree, person, *command)
        if ended.code:
            raise TryLater(f"git cannot set {self._reference} ({ended.complaint.strip()[:160]})", "see `git fsck`")

    def _wait_ready(self, descriptor: int, within_s: float) -> bool:
        return self._waiter.wait_ready(descriptor, select.POLLIN, REAL.monotonic_s() + within_s)

    # -- what was sent

    def _differing_from_head(
        self, head: Head, commit: str, base: Manifest, is_excluded: IsExcluded, sent_files: SentFiles
    ) -> _Sent:
        """Return the paths at which HEAD may hold something else than what was sent."""
        known = self._sent
        if known is not None and known.head == commit:
            return _Sent(commit, base, known.differing.union(changed_paths(known.base, base)))
        # What rules exclude stays as in HEAD, but a file that a person tracks although it is a secret.
        stays = lambda path: path not in _SECRETS and is_excluded(path, False)  # noqa: E731
        return _Sent(commit, base, frozenset(head.as_sent(self._versions(base, sent_files), stays)))

    def _versions(self, base: Manifest, sent_files: SentFiles) -> Iterator[tuple[str, SeenEntry]]:
        for path, entry in base.items():
            if entry.kind is not Kind.DIRECTORY:
                self._waiter.poll_events()  # a large workspace is read for seconds
                yield path, sent_files.needed_version(path, entry)
