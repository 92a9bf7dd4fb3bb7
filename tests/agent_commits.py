"""A repository as syncd makes it in a sandbox, and an agent that commits there with plain git."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from syncd.remote.target import Target
from syncd.sandbox.agent_repository import HomeCommit, home_record
from syncd.store.state_db import StateDb

NamedPath = str | bytes
_CLEAN = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C.UTF-8"}
_WHO = {
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_AUTHOR_DATE": "1795539000 +0130",
    "GIT_COMMITTER_NAME": "Agent",
    "GIT_COMMITTER_EMAIL": "agent@example.org",
    "GIT_COMMITTER_DATE": "1795539001 +0000",
}


class RepositoryThere:
    """The repository of a workspace: all that is there is the commit `home`; the agent is on its own branch."""

    def __init__(self, workspace: Path, *options: str) -> None:
        self.workspace = workspace
        self.git("init", "-q", "-b", "home", *options)
        self.git("add", "-A", "-f")
        self.git("commit", "-q", "--allow-empty", "-m", "as sent")
        self.git("checkout", "-q", "-b", "work")
        self.home = self.id_of("HEAD")

    def git(self, *words: NamedPath, given: bytes = b"", **variables: str) -> bytes:
        """Run git in the workspace, and return its output."""
        environment = {**_CLEAN, **_WHO, **variables}
        done = subprocess.run(
            ["git", *words], cwd=self.workspace, env=environment, input=given, capture_output=True, check=False
        )
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def id_of(self, name: str) -> str:
        """Return the id of a commit or another object."""
        return self.git("rev-parse", name).decode().strip()

    def write(self, files: Mapping[NamedPath, bytes | None]) -> None:
        """Write files of the workspace; None: delete it."""
        for path, content in files.items():
            full = os.path.join(os.fsencode(self.workspace), os.fsencode(path))
            if content is None:
                os.unlink(full)
                continue
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "wb") as file:
                file.write(content)

    def commit(self, message: str, files: Mapping[NamedPath, bytes | None] | None = None, **variables: str) -> str:
        """Write files, commit all that is there, and return the commit's id."""
        self.write(files or {})
        self.git("add", "-A", "-f")
        self.git("commit", "-q", "--allow-empty", "--allow-empty-message", "-m", message, **variables)
        return self.id_of("HEAD")

    def raw_commit(self, tree: str, message: bytes, author: bytes = b"Ada <ada@example.org> 1795539000 +0130") -> str:
        """Make a commit as no git would, on top of HEAD, and check it out for HEAD alone."""
        parent = self.id_of("HEAD").encode()
        text = b"tree %s\nparent %s\nauthor %s\ncommitter %s\n\n%s" % (tree.encode(), parent, author, author, message)
        made = self.git("hash-object", "-t", "commit", "-w", "--stdin", "--literally", given=text).decode().strip()
        self.git("update-ref", "HEAD", made)
        return made

    def raw_tree(self, *entries: tuple[bytes, bytes, str]) -> str:
        """Make a tree of modes, names and ids, whatever the names are."""
        content = b"".join(b"%s %s\0%s" % (mode, name, bytes.fromhex(entry)) for mode, name, entry in entries)
        return self.git("hash-object", "-t", "tree", "-w", "--stdin", "--literally", given=content).decode().strip()

    def blob(self, content: bytes) -> str:
        """Store a content, and return its id."""
        return self.git("hash-object", "-w", "--stdin", given=content).decode().strip()


def note_home(state_folder: Path | str, target: Target, commit: str) -> None:
    """Record the commit as the last one that syncd made in the sandbox."""
    with closing(StateDb(str(state_folder))) as db:
        home_record(db, target).save(HomeCommit(commit, ""))
