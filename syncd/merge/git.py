"""Runs git such that nothing which a repository or a person has configured starts a program.

What switches that off is in `sandbox.program`, the same here and there. `merge` makes one text of two, with markers
where both changed it. Objects are written with a private folder in the place of the repository's own, whose
configuration is then not even read.

A version of a file is an entry as a look returns it: a link, or a file with a copy; ABSENT is none. Contents are
written as they are: no filter, no attribute and no conversion of line ends comes between.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import resource
import select
import shutil
import subprocess
import tempfile
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import IO

from msgspec import Struct, field
from msgspec.structs import replace

from syncd.core.errors import ConfigError, NeedsPerson, SyncdError, TryLater
from syncd.core.process import original_umask
from syncd.core.signals import Interrupt
from syncd.core.text import one_line, shown_path
from syncd.core.waiter import REAL, Waiter
from syncd.model.entry import EXECUTABLE, Kind, SeenEntry
from syncd.sandbox.program import ENVIRONMENT, LARGE_BYTES, NO_CONFIGURATION, SETTINGS, quoted

_MOST_OF_COMPLAINT = 1 << 16
_COPIED_BYTES = 1 << 18
# A command that does not end within this time does not answer.
_ANSWER_S = 60.0
# A daemon does nothing else while it waits for this one, at its start and at a reload.
_EXCLUDES_S = 4.0
# Of a command that reads or writes contents.
END_S = 600.0
# Of one process: what an agent wrote may be made to need any amount.
_MOST_MEMORY = 1 << 30
ANY_CODE = range(-255, 256)  # exit codes, and signals
_OLDEST_GIT = "2.31"
# The exit code of `git config --get` for a name that is not set.
_NOT_SET = 1
# Git takes a file with a NUL in so many of its first bytes for a binary one (xdiff-interface.c).
BINARY_PREFIX_BYTES = 8000
# `git merge-file` ends with the number of conflicts, at most this one; with more if it failed.
_MOST_CONFLICTS = 127
# The modes that git gives to the entries of a tree (fsck.c, git-fast-import(1)).
FILE_MODE = b"100644"
EXECUTABLE_MODE = b"100755"
SYMLINK_MODE = b"120000"
SUBMODULE_MODE = b"160000"
EMPTY_TREE = "empty"  # in the place of a tree's id
_MOST_OF_SUBMODULES = 1 << 20
_FSCK_REASON = re.compile(": (gitmodules[A-Za-z]+):")


class GitWorkTree(Struct, frozen=True):
    """The repository whose work tree holds the workspace.

    `prefix` is the workspace's path in the work tree: empty, or with a slash at its end. `head` is the id of the commit
    that is checked out, empty if there is none yet. `settings` are the configuration's, its keys as `git config --list`
    writes them.
    """

    folder: str
    objects: str
    prefix: str
    object_format: str
    head: str
    settings: Mapping[str, str] = field(default_factory=dict)


class GitResult(Struct, frozen=True):
    """The end of one git command."""

    code: int
    output: bytes = b""
    complaint: str = ""


class Git(Struct, frozen=True):
    """An installed git: the program, the search path, and the variables by which it finds the person's settings.

    Other work of the `waiter` may go on while it runs, and a signal ends it.
    """

    program: str
    path: str
    person: Mapping[str, str]
    waiter: Waiter = field(default_factory=lambda: Waiter(Interrupt(), REAL))

    def run(
        self,
        arguments: Sequence[str],
        variables: Mapping[str, str],
        allowed: Container[int] = (0,),
        given: bytes | IO[bytes] = b"",
        *,
        folder: str = "/",
        configuration: Mapping[str, str] = NO_CONFIGURATION,
        within_s: float | None = None,
        output: IO[bytes] | None = None,
    ) -> GitResult:
        """Run one command, with this text or file as its input.

        `variables` are added to the environment, which holds nothing of this process's but the search path.
        `configuration` are those by which it finds that of the person, else it finds none. What it prints goes into the
        file `output`, if there is one, else into the result. Raises `NeedsPerson` unless its exit code is allowed,
        `TryLater` if it does not end within so many seconds, and what a wait of the waiter raises.
        """
        # All streams are files: no pipe can fill up while another one is waited for.
        text = given if isinstance(given, bytes) else b""
        with _in_memory(text) as read, _in_memory() as printed, _in_memory() as complaints:
            try:
                process = subprocess.Popen(
                    [self.program, *(part for setting in SETTINGS for part in ("-c", setting)), *arguments],
                    stdin=read if isinstance(given, bytes) else given,
                    stdout=output or printed,
                    stderr=complaints,
                    cwd=folder,
                    env={"PATH": self.path, **ENVIRONMENT, **configuration, **variables},
                    umask=original_umask(),
                )
            except OSError as failure:
                reason = f"git cannot be started ({failure.strerror})"
                raise NeedsPerson(reason, "see that `git --version` works") from None
            try:
                with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended, or may have no more
                    resource.prlimit(process.pid, resource.RLIMIT_DATA, (_MOST_MEMORY, _MOST_MEMORY))
                with os.fdopen(os.pidfd_open(process.pid), "rb", buffering=0) as end:
                    ends_s = REAL.monotonic_s() + (within_s or _ANSWER_S)
                    has_ended = self.waiter.wait_ready(end.fileno(), select.POLLIN, ends_s)
            finally:
                process.kill()
                code = process.wait()
            if not has_ended:
                what = f"git {arguments[0]} does not answer"
                raise TryLater(what, "try again when the machine has less to do")
            complaint = os.pread(complaints.fileno(), _MOST_OF_COMPLAINT, 0).decode("utf-8", "replace")
            if code not in allowed:
                reason = one_line(complaint, 200) or f"exit code {code}"
                raise NeedsPerson(f"git {arguments[0]} failed ({reason})", "look at the reason that git gives")
            printed.seek(0)
            return GitResult(code, printed.read(), complaint)


def _in_memory(content: bytes = b"") -> IO[bytes]:
    """Return a file in memory that holds this text, to be read from its beginning."""
    file = os.fdopen(os.memfd_create("git"), "r+b")
    file.write(content)
    file.seek(0)
    return file


def find_git(environ: Mapping[str, str], waiter: Waiter | None = None) -> Git | None:
    """Return the git that `$PATH` leads to, None if there is none.

    Relative folders of `$PATH` do not count: they may lead to a program in the workspace.
    """
    path = ":".join(part for part in environ.get("PATH", os.defpath).split(":") if part.startswith("/"))
    program = shutil.which("git", path=path)
    if program is None:
        return None
    git = Git(program, path, {name: environ[name] for name in NO_CONFIGURATION if name in environ})
    return git if waiter is None else replace(git, waiter=waiter)


def needed(git: Git | None) -> Git:
    """Return the git that was found. Raises `NeedsPerson` if there is none."""
    if git is None:
        raise NeedsPerson("git is not installed, or not in a folder of $PATH", "install git")
    return git


def personal_excludes(environ: Mapping[str, str]) -> str:
    """Return the path of the user's own exclude file: from git's configuration, else `$XDG_CONFIG_HOME/git/ignore`.

    Only the user's and the machine's configuration count, with what they include, never the workspace's. Raises
    `ConfigError` if git cannot read its configuration, `TryLater` if git does not answer: without that file, paths that
    it excludes would be uploaded.
    """
    git = find_git(environ)
    if git is not None:
        asked = ["config", "--type=path", "--get", "core.excludesFile"]
        try:
            variables = {"GIT_DIR": "/dev/null/none"}
            result = git.run(asked, variables, ANY_CODE, configuration=git.person, within_s=_EXCLUDES_S)
        except SyncdError as failure:
            raise TryLater(
                f"git was asked for your exclude file ({failure.message})",
                "try again, or set workspace.use_gitignore = false with `syncd config edit`",
            ) from None
        if result.code not in (0, _NOT_SET):
            raise ConfigError(
                f"git cannot read its configuration, which may name your exclude file "
                f"({one_line(result.complaint, 120)})",
                "correct it until `git config --list` works",
            )
        if path := os.fsdecode(result.output.rstrip(b"\n")):
            return path
    home = environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.join(home, "git", "ignore")


def with_settings(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that give git more settings (`GIT_CONFIG_COUNT` in git(1)); they win over all files."""
    variables = {"GIT_CONFIG_COUNT": str(len(settings))}
    for number, (key, value) in enumerate(settings.items()):
        variables[f"GIT_CONFIG_KEY_{number}"] = key
        variables[f"GIT_CONFIG_VALUE_{number}"] = value
    return variables


@contextlib.contextmanager
def private_repository(git: Git, scratch: str | None, object_format: str) -> Iterator[str]:
    """Make an empty bare repository in a private folder of `scratch`, and remove it at the end.

    None: below the system's folder for temporary files. Its current branch never has a commit: some versions of git
    (2.43 to 2.45) would read attributes from it.
    """
    with tempfile.TemporaryDirectory(prefix="syncd-git-", dir=scratch) as folder:
        options = ("--bare", "--quiet", "--template=", f"--object-format={object_format}", "--initial-branch=none")
        git.run(["init", *options, folder], {})
        yield folder


def why_submodules_are_refused(git: Git | None, place: str) -> str:
    """Return why git refuses the file of this place as a `.gitmodules`; "" if it does not.

    A clone would run what some of these say (`gitmodules…` in git-fsck(1)). Raises as `Git.run` does.
    """
    if git is None:
        return "no git is here that could check it"
    try:
        with open(place, "rb") as file:
            content = file.read(_MOST_OF_SUBMODULES + 1)
    except OSError as failure:
        return f"it cannot be read here ({failure.strerror})"
    if len(content) > _MOST_OF_SUBMODULES:
        return "it is too large to be checked"
    with private_repository(git, None, "sha1") as folder:
        variables = {"GIT_DIR": folder, **with_settings({"fsck.gitmodulesParse": "error"})}
        blob = git.run(["hash-object", "-w", "--stdin"], variables, given=content).output.strip()
        git.run(["mktree"], variables, given=b"%s blob %s\t.gitmodules\n" % (FILE_MODE, blob))
        checked = git.run(["fsck", "--strict", "--no-dangling", "--no-progress"], variables, ANY_CODE)
    if not checked.code:
        return ""
    found = _FSCK_REASON.search(checked.complaint)
    return f"git refuses it ({found[1] if found else one_line(checked.complaint, 80)})"


def is_binary(content: bytes) -> bool:
    """Return True if git takes the content for a binary one."""
    return b"\0" in content[:BINARY_PREFIX_BYTES]


class MergedText(Struct, frozen=True):
    """The text with the changes of both sides; where they are of the same lines, both, with git's conflict markers."""

    content: bytes
    has_conflicts: bool = False


def merge(git: Git | None, base: bytes, ours: bytes, theirs: bytes, scratch: str) -> MergedText | str:
    """Return the text with the changes of both sides, or the reason for which there is none.

    Git merges bytes: it converts no line end, adds no newline at the end, and reads no attribute. Where only one side
    changed the line ends of a file, each of its lines changed, so that any change of the other side is a conflict.

    `git` is None where none is installed. The texts are written into a private folder of `scratch` meanwhile.
    """
    if any(map(is_binary, (base, ours, theirs))):
        return "it is no text"
    if git is None:
        return "git is not installed"
    names = ("mine", "sent", "theirs")
    with tempfile.TemporaryDirectory(prefix="syncd-merge-", dir=scratch) as private:
        paths = [os.path.join(private, name) for name in names]
        for path, content in zip(paths, (ours, base, theirs), strict=True):
            with open(path, "xb") as file:
                file.write(content)
        labels = [part for name in names for part in ("-L", name)]
        try:
            # Without a repository, or it would read the configuration of one around the folder.
            outside = {"GIT_DIR": os.path.join(private, "none")}
            result = git.run(["merge-file", "-p", "--quiet", *labels, *paths], outside, ANY_CODE)
        except SyncdError:
            return "git failed"
    return MergedText(result.output, result.code > 0) if 0 <= result.code <= _MOST_CONFLICTS else "git failed"


def object_format_around(git: Git, workspace: str) -> str:
    """Return the format of the objects in the repository that holds the workspace; git's old default without one."""
    asked = ["rev-parse", "--show-object-format"]
    found = git.run(asked, {}, ANY_CODE, folder=workspace, configuration=git.person).output
    return "sha256" if found.strip() == b"sha256" else "sha1"


def find_work_tree(git: Git, workspace: str) -> GitWorkTree:
    """Return the repository that the workspace lies in.

    Raises `NeedsPerson` if there is none, if it belongs to another user, or if git cannot read it. The person's
    configuration is read for this: it may trust another user's repository (`safe.directory`).
    """

    def answer(*arguments: str) -> str:
        asked = ["rev-parse", "--path-format=absolute", *arguments]
        result = git.run(asked, {}, ANY_CODE, folder=workspace, configuration=git.person)
        if result.code:
            raise _no_work_tree(workspace, result)
        return os.fsdecode(result.output.removesuffix(b"\n"))

    # A path may hold a newline, so that only the last of the answers can be one.
    object_format, inside, folder = answer("--show-object-format", "--is-inside-work-tree", "--git-dir").split("\n", 2)
    if object_format not in ("sha1", "sha256"):
        raise NeedsPerson("git is too old", f"install git {_OLDEST_GIT} or a newer one")
    if inside != "true":
        raise NeedsPerson(
            f"the workspace '{shown_path(workspace)}' is in no work tree of its repository",
            "use `syncd apply` without --branch",
        )
    objects, prefix = answer("--git-path", "objects"), answer("--show-prefix")
    head, asked = _head(git, folder, workspace), ["config", "--null", "--list", "--includes"]
    listed = os.fsdecode(git.run(asked, {"GIT_DIR": folder}, configuration=git.person).output)
    # The last value of each key counts.
    settings = {key: value for key, _, value in (each.partition("\n") for each in listed.split("\0") if each)}
    return GitWorkTree(folder, objects, prefix, object_format, head, settings)


def _head(git: Git, folder: str, workspace: str) -> str:
    """Return the id of the checked out commit; empty if the current branch has none yet."""
    variables = {"GIT_DIR": folder}
    found = git.run(["rev-parse", "--verify", "--quiet", "HEAD"], variables, ANY_CODE)
    if found.code == 0:
        return found.output.decode().strip()
    current = git.run(["symbolic-ref", "--quiet", "HEAD"], variables, ANY_CODE)
    reference = current.output.removesuffix(b"\n")
    listed = git.run(["for-each-ref", "--format=%(refname)", "--", os.fsdecode(reference)], variables, ANY_CODE)
    if found.complaint or current.code or listed.output or listed.complaint:
        why = one_line(found.complaint or listed.complaint or current.complaint or "its commit cannot be read", 120)
        raise NeedsPerson(
            f"git cannot read HEAD of the repository of '{shown_path(workspace)}' ({why})", "see `git fsck`"
        )
    return ""


def _no_work_tree(workspace: str, result: GitResult) -> NeedsPerson:
    shown = shown_path(workspace)
    if "dubious ownership" in result.complaint or "unsafe repository" in result.complaint:
        return NeedsPerson(
            f"the repository of {shown!r} belongs to another user",
            f"run this as its owner, or trust it with `git config --global --add safe.directory {shown}`",
        )
    if "not a git repository" in result.complaint:
        return NeedsPerson(f"the workspace {shown!r} is in no git repository", "run `git init` in it")
    return NeedsPerson(
        f"git cannot read the repository of {shown!r} ({one_line(result.complaint, 160)})", "see `git fsck`"
    )


# -- objects, and commits


def is_version(entry: SeenEntry) -> bool:
    """True for a link, and for a file whose content is on this machine: a patch or a commit can hold it."""
    return entry.kind is Kind.SYMLINK or (entry.kind is Kind.FILE and entry.copy != "")


def mode_of(version: SeenEntry) -> bytes:
    """Return the mode that the version has in a tree, in octal digits."""
    if version.kind is Kind.SYMLINK:
        return SYMLINK_MODE
    return EXECUTABLE_MODE if version.mode & EXECUTABLE else FILE_MODE


def size_of(version: SeenEntry) -> int:
    """Return the number of bytes of a version's content; 0 if nothing is there."""
    return len(_bytes(version.target)) if version.kind is Kind.SYMLINK else version.size_bytes


def contents_of(path: str, version: SeenEntry) -> Iterator[bytes]:
    """Return the version's content in blocks, exactly as many bytes as announced.

    Raises `TryLater` if the file has another size now, or another digest than the version, if that has one.
    """
    digest = hashlib.sha256()
    left = size_of(version)
    with io.BytesIO(_bytes(version.target)) if version.kind is Kind.SYMLINK else open(version.copy, "rb") as file:
        for block in iter(partial(file.read, _COPIED_BYTES), b""):
            left -= len(block)
            if left < 0:
                break
            digest.update(block)
            yield block
    if left or version.digest not in (b"", digest.digest()):
        raise TryLater(f"'{shown_path(path)}' changed while it was read", "try again")


def blob_id(path: str, version: SeenEntry, object_format: str) -> bytes:
    """Return the hexadecimal id of the version's blob; `object_format` is "sha1" or "sha256", as git calls it."""
    digest = hashlib.new(object_format, b"blob %d\0" % size_of(version), usedforsecurity=False)
    for block in contents_of(path, version):
        digest.update(block)
    return digest.hexdigest().encode()


class NewCommit(Struct):
    """A commit to be made: its versions by their paths; ABSENT: the path is deleted.

    `parents` are ids, or `:NUMBER` for one of those that are made together, from 1 on. All other paths are those of the
    first parent, or of `tree`, an id or EMPTY_TREE, if there is one. `author` is as a commit holds it, empty for the
    committer.
    """

    message: bytes
    paths: dict[str, SeenEntry] = field(default_factory=dict)
    author: bytes = b""
    parents: tuple[str, ...] = ()
    tree: str = ""


def make_commits(
    git: Git, variables: Mapping[str, str], committer: str, commits: Iterable[NewCommit], prefix: str = ""
) -> list[str]:
    """Make these commits through a private repository, and return their ids; their paths are below `prefix`.

    `committer` is as a commit holds it: `NAME <EMAIL> SECONDS ZONE`. Raises as `Git.run` does, and `TryLater` if a
    file changes while it is read.
    """
    command = ["fast-import", "--quiet", "--force", f"--big-file-threshold={LARGE_BYTES}"]
    with tempfile.TemporaryFile(dir=variables["GIT_DIR"]) as file:
        for number, commit in enumerate(commits, 1):
            file.writelines(_commands(commit, number, _bytes(committer), prefix))
            file.write(b"get-mark :%d\n" % number)
        file.seek(0)
        return git.run(command, variables, given=file, within_s=END_S).output.decode().split()


def _commands(commit: NewCommit, number: int, committer: bytes, prefix: str) -> Iterator[bytes]:
    """Return the commands of git-fast-import(1) that make a commit."""
    yield b"reset refs/heads/made\ncommit refs/heads/made\nmark :%d\n" % number
    yield b"author %s\ncommitter %s\n" % (commit.author or committer, committer)
    yield b"data %d\n%s\n" % (len(commit.message), commit.message)
    for word, parent in zip((b"from", b"merge"), commit.parents, strict=False):
        yield b"%s %s\n" % (word, parent.encode())
    if commit.tree == EMPTY_TREE:
        yield b"deleteall\n"
    elif commit.tree:
        yield b'M 040000 %s ""\n' % commit.tree.encode()
    # A file may take the place of a directory, and the other way round: what is gone makes room first.
    for path, version in sorted(commit.paths.items(), key=lambda item: item[1].kind is not Kind.ABSENT):
        name = quoted(_bytes(prefix + path))
        if version.kind is Kind.ABSENT:
            yield b"D %s\n" % name
        else:
            yield b"M %s inline %s\ndata %d\n" % (mode_of(version), name, size_of(version))
            yield from contents_of(path, version)
            yield b"\n"


def tree_of(git: Git, variables: Mapping[str, str], commit: str) -> str:
    """Return the id of a commit's tree."""
    return git.run(["rev-parse", f"{commit}^{{tree}}"], variables).output.decode().strip()


def subject_of(message: bytes) -> str:
    """Return the first line of a commit's message, for people."""
    lines = message.decode("utf-8", "replace").strip().splitlines()
    return one_line(lines[0], 72) if lines else "(no message)"


def identity_text(text: str) -> str:
    """Return a name or address without the characters that a commit cannot hold in it (git's ident.c)."""
    return "".join(character for character in text if character not in "<>\n\0").strip(" \t\r.,:;\"\\'")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
