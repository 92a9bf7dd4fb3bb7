"""Repositories of git: a person's, and the one in a sandbox with an agent that commits there; and git, run with no
one's settings but those of the repository.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path

from syncd.remote.target import Target
from syncd.sandbox.agent_repository import HomeCommit, home_record
from syncd.store.state_db import StateDb

NamedPath = str | bytes
# Whoever it is: nobody's settings but those of the repository, and no help in finding it.
CLEAN = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
_PERSON = {f"GIT_{who}_{what}": f"{what}@x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
_WHO = {
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_AUTHOR_DATE": "1795539000 +0130",
    "GIT_COMMITTER_NAME": "Agent",
    "GIT_COMMITTER_EMAIL": "agent@example.org",
    "GIT_COMMITTER_DATE": "1795539001 +0000",
}
HOOKS = (
    *("applypatch-msg", "commit-msg", "fsmonitor-watchman", "post-applypatch", "post-checkout", "post-commit"),
    *("post-index-change", "post-merge", "post-receive", "post-rewrite", "post-update", "pre-applypatch"),
    *("pre-auto-gc", "pre-commit", "pre-merge-commit", "pre-push", "pre-rebase", "pre-receive", "prepare-commit-msg"),
    *("proc-receive", "push-to-checkout", "reference-transaction", "sendemail-validate", "update"),
)


def git(folder: Path, *words: NamedPath, given: bytes = b"", codes: Iterable[int] = (0,), **environment: str) -> str:
    """Run git there, and return its output; what is not UTF-8 in it is surrogate-escaped."""
    done = subprocess.run(
        ["git", *words], cwd=folder, env={**CLEAN, **environment}, input=given, capture_output=True, check=False
    )
    assert done.returncode in codes, (words, done.returncode, done.stdout, done.stderr)
    return os.fsdecode(done.stdout)


def person_git(folder: Path, *arguments: str) -> str:
    """Git as the person runs it, with the repository's programs switched off where it could run them."""
    safe = ("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "protocol.file.allow=always")
    return git(folder, *safe, *arguments, **_PERSON)


def committed(folder: Path) -> None:
    """Make a person's repository there, with a commit of all files."""
    git(folder, "init", "-q", "-b", "main")
    for key, value in (("user.name", "me"), ("user.email", "me@localhost"), ("gc.auto", "0")):
        git(folder, "config", key, value)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", "first")


def shell(folder: Path, commands: str) -> None:
    """What the agent, or the person, types; each of the commands must succeed."""
    subprocess.run(["sh", "-e", "-c", commands], cwd=folder, env=CLEAN, check=True)


def poisoned(top: Path, folder: Path, **more: str) -> Path:
    """Have whatever git can run in a repository leave a mark; return the mark, which is not there yet."""
    mark, program = folder / "mark", folder / "program"
    program.write_text(f'#!/bin/sh\necho "$0 $*" >> {mark}\ncat\n')
    program.chmod(0o755)
    for hooks in (top / ".git/hooks", folder / "hooks"):
        hooks.mkdir(exist_ok=True)
        for hook in HOOKS:
            shutil.copy(program, hooks / hook)
    names = "core.fsmonitor core.editor sequence.editor core.pager pager.log core.sshCommand core.askPass core.gitProxy"
    names += " pager.rev-parse pager.rev-list filter.evil.clean filter.evil.smudge filter.evil.process diff.external"
    names += " diff.evil.command diff.evil.textconv gpg.program gpg.ssh.program gpg.x509.program credential.helper"
    names += " core.alternateRefsCommand uploadpack.packObjectsHook hook.evil.command"
    settings = dict.fromkeys(names.split(), str(program)) | {
        "core.hooksPath": str(folder / "hooks"),
        "merge.evil.driver": f"{program} %A",
        "merge.default": "evil",
        "filter.evil.required": "true",
        "commit.gpgSign": "true",
        "tag.gpgSign": "true",
        "core.autocrlf": "true",
        "core.safecrlf": "true",
        "hook.evil.event": "reference-transaction",
        "hook.evil=x y.event": "reference-transaction",
        "user.name": "Dev <dev>",
        "user.email": "dev@example.org",
    }
    aliases = "update-ref fast-import ls-tree rev-parse config init show-ref symbolic-ref check-ref-format worktree"
    aliases += " status read-tree rev-list diff-tree branch commit-tree ls-files"
    settings |= {f"alias.{word}": f"!{program}" for word in aliases.split()} | more
    for key, value in settings.items():
        git(folder, "config", "-f", str(top / ".git/config"), key, value)
    (top / ".git/info").mkdir(exist_ok=True)
    (top / ".git/info/attributes").write_text(
        "* filter=evil diff=evil merge=evil text eol=crlf working-tree-encoding=utf-16\n"
    )
    return mark


def tree_of(folder: Path, commit: str) -> dict[str, tuple[str, bytes]]:
    """Return the mode and content of each path of a commit; of a submodule its commit."""
    rows = [row.partition("\t") for row in git(folder, "ls-tree", "-r", "-z", "--full-tree", commit).split("\0")[:-1]]
    entries = {path: facts.split(" ") for facts, _, path in rows}
    blobs = "".join(f"{entry}\n" for _, kind, entry in entries.values() if kind == "blob")
    left = os.fsencode(git(folder, "cat-file", "--batch", given=blobs.encode()))
    found = {}
    for path, (mode, kind, entry) in entries.items():
        content = entry.encode()
        if kind == "blob":
            head, _, left = left.partition(b"\n")
            size = int(head.split()[2])
            content, left = left[:size], left[size + 1 :]
        found[path] = mode, content
    return found


class RepositoryThere:
    """The repository of a workspace: all that is there is the commit `home`; the agent is on its own branch."""

    def __init__(self, workspace: Path, *options: str) -> None:
        self.workspace = workspace
        self.git("init", "-q", "-b", "home", *options)
        self.git("add", "-A", "-f")
        self.git("commit", "-q", "--allow-empty", "-m", "as sent")
        self.git("checkout", "-q", "-b", "work")
        self.home = self.id_of("HEAD")

    def git(self, *words: NamedPath, given: bytes = b"", **variables: str) -> str:
        """Run git in the workspace, as the agent."""
        return git(self.workspace, *words, given=given, **{**_WHO, **variables})

    def id_of(self, name: str) -> str:
        """Return the id of a commit or another object."""
        return self.git("rev-parse", name).strip()

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
        made = self.git("hash-object", "-t", "commit", "-w", "--stdin", "--literally", given=text).strip()
        self.git("update-ref", "HEAD", made)
        return made

    def raw_tree(self, *entries: tuple[bytes, bytes, str]) -> str:
        """Make a tree of modes, names and ids, whatever the names are."""
        content = b"".join(b"%s %s\0%s" % (mode, name, bytes.fromhex(entry)) for mode, name, entry in entries)
        return self.git("hash-object", "-t", "tree", "-w", "--stdin", "--literally", given=content).strip()

    def blob(self, content: bytes) -> str:
        """Store a content, and return its id."""
        return self.git("hash-object", "-w", "--stdin", given=content).strip()


def note_home(state_folder: Path | str, target: Target, commit: str) -> None:
    """Record the commit as the last one that syncd made in the sandbox."""
    with closing(StateDb(str(state_folder))) as db:
        home_record(db, target).save(HomeCommit(commit, ""))
