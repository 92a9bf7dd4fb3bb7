"""Runs git such that nothing which a repository or a person has configured starts a program.

What switches that off is in `git_in_sandbox`, the same here and there. Objects are written with a private folder in the
place of the repository's own, whose configuration is then not even read.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import IO

from msgspec import Struct, field
from msgspec.structs import replace

from syncd.core.errors import ConfigError, NeedsPerson, SyncdError, TryLater
from syncd.core.hardening import original_umask
from syncd.core.text import one_line, shown_path
from syncd.sandbox.repository.git_in_sandbox import ENVIRONMENT, LARGE_BYTES, NO_CONFIGURATION, SETTINGS

_BLOCK_BYTES = 1 << 16
_WRITTEN_TOGETHER = 16  # blocks of an input, many of which are short lines
# A command that neither takes nor gives a byte for this long does not answer.
_ANSWER_S = 60.0
# A daemon does nothing else while it waits for this one, at its start and at a reload.
_EXCLUDES_S = 4.0
# Of a command that is fed: after its last input, fast-import writes its index, or each object into a file of its own.
_END_S = 600.0
# Of one process: what an agent wrote may be made to need any amount.
_MOST_MEMORY = 1 << 30
_OLDEST_GIT = "2.31"
# The exit code of `git config --get` for a name that is not set.
_NOT_SET = 1
# Git takes a file with a NUL in so many of its first bytes for a binary one (xdiff-interface.c).
_BINARY_PREFIX_BYTES = 8000
# `git merge-file` ends with the number of conflicts, at most this one; with more if it failed.
_MOST_CONFLICTS = 127
# By these git finds the person's and the machine's configuration.
_CONFIGURATION_VARIABLES = tuple(NO_CONFIGURATION)


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
    """An installed git: the program, the search path, and the variables by which it finds the person's settings."""

    program: str
    path: str
    person: Mapping[str, str]

    def run(
        self,
        arguments: Sequence[str],
        variables: Mapping[str, str],
        allowed: Iterable[int] = (0,),
        given: bytes = b"",
    ) -> GitResult:
        """Run one command. Raises `NeedsPerson` unless its exit code is allowed, `TryLater` if it does not answer.

        `variables` are added to the environment, which holds nothing of this process's but the search path. `given` is
        the command's input.
        """
        result = _collected(self._start(arguments, {**NO_CONFIGURATION, **variables}, (given,), _ANSWER_S))
        if result.code not in allowed:
            raise _failed(arguments, result)
        return result

    def ask(
        self, arguments: Sequence[str], variables: Mapping[str, str], folder: str = "/", within_s: float | None = None
    ) -> GitResult:
        """Run a command that only reads, in a folder, with the person's configuration; any exit code is an answer.

        Raises `TryLater` if it does not answer.
        """
        environment = {**self.person, **variables}
        return _collected(self._start(arguments, environment, (), within_s or _ANSWER_S, folder))

    def feed(self, arguments: Sequence[str], blocks: Iterable[bytes], variables: Mapping[str, str]) -> None:
        """Run one command with these blocks as its input; its output is dropped. Raises as `run` does."""
        for _ in self._blocks(arguments, variables, blocks, _END_S):
            pass

    def read(self, arguments: Sequence[str], variables: Mapping[str, str], given: bytes = b"") -> Iterator[bytes]:
        """Run one command with this input and return its output in blocks. Raises as `run` does, at the end."""
        return self._blocks(arguments, variables, (given,), _ANSWER_S)

    def _blocks(
        self, arguments: Sequence[str], variables: Mapping[str, str], given: Iterable[bytes], within_s: float
    ) -> Iterator[bytes]:
        result = yield from self._start(arguments, {**NO_CONFIGURATION, **variables}, given, within_s)
        if result.code:
            raise _failed(arguments, result)

    def _start(
        self,
        arguments: Sequence[str],
        variables: Mapping[str, str],
        given: Iterable[bytes],
        within_s: float,
        folder: str = "/",
    ) -> Generator[bytes, None, GitResult]:
        """Yield a command's output in blocks, and return its end. One whose reader stops is killed."""
        try:
            process = subprocess.Popen(
                [self.program, *(part for setting in SETTINGS for part in ("-c", setting)), *arguments],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=folder,
                env={"PATH": self.path, **ENVIRONMENT, **variables},
                umask=original_umask(),
            )
        except OSError as failure:
            raise NeedsPerson(f"git cannot be started ({failure.strerror})", "see that `git --version` works") from None
        assert process.stdin and process.stdout and process.stderr  # noqa: S101, PT018 - pipes, as requested above
        try:
            with process.stdin, process.stdout, process.stderr:
                with contextlib.suppress(ProcessLookupError):
                    resource.prlimit(process.pid, resource.RLIMIT_DATA, (_MOST_MEMORY, _MOST_MEMORY))
                complaint = yield from _exchange(process.stdin, process.stdout, process.stderr, given, within_s)
            code = process.wait(within_s)
        except (TimeoutError, subprocess.TimeoutExpired):
            raise TryLater(f"git {arguments[0]} does not answer", "try again when the machine has less to do") from None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        return GitResult(code, complaint=complaint.decode("utf-8", "replace"))


def _exchange(
    stdin: IO[bytes], stdout: IO[bytes], stderr: IO[bytes], given: Iterable[bytes], within_s: float
) -> Generator[bytes, None, bytes]:
    """Write the input while the output is read and yielded; return what was complained of.

    Raises `TimeoutError` if no byte goes in or comes out for so long.
    """
    os.set_blocking(stdin.fileno(), False)
    poll = select.poll()
    for pipe, event in ((stdin, select.POLLOUT), (stdout, select.POLLIN), (stderr, select.POLLIN)):
        poll.register(pipe, event)
    blocks, left, complaint, reads = iter(given), memoryview(b""), b"", {stdout.fileno(), stderr.fileno()}
    while reads:
        if not stdin.closed and not left and not (left := memoryview(b"".join(islice(blocks, _WRITTEN_TOGETHER)))):
            poll.unregister(stdin)
            stdin.close()
        ready = dict(poll.poll(within_s * 1000))
        if not ready:
            raise TimeoutError
        if not stdin.closed and stdin.fileno() in ready:
            try:
                left = left[os.write(stdin.fileno(), left) :]
            except BlockingIOError:
                pass
            except BrokenPipeError:  # where it has ended before its input did, its exit code says more
                poll.unregister(stdin)
                stdin.close()
        for descriptor in reads & ready.keys():
            block = os.read(descriptor, _BLOCK_BYTES)
            if not block:
                poll.unregister(descriptor)
                reads = reads - {descriptor}
            elif descriptor == stderr.fileno():
                complaint = (complaint + block)[:_BLOCK_BYTES]
            else:
                yield block
    return complaint


def _collected(command: Generator[bytes, None, GitResult]) -> GitResult:
    """Return a command's end, with its whole output."""
    blocks: list[bytes] = []
    while True:
        try:
            blocks.append(next(command))
        except StopIteration as end:
            result: GitResult = end.value
            return replace(result, output=b"".join(blocks))


def find_git(environ: Mapping[str, str]) -> Git | None:
    """Return the git that `$PATH` leads to, None if there is none.

    Relative folders of `$PATH` do not count: they may lead to a program in the workspace.
    """
    path = ":".join(part for part in environ.get("PATH", os.defpath).split(":") if part.startswith("/"))
    program = shutil.which("git", path=path)
    if program is None:
        return None
    return Git(program, path, {name: environ[name] for name in _CONFIGURATION_VARIABLES if name in environ})


def need_git(environ: Mapping[str, str]) -> Git:
    """Return the git that `$PATH` leads to. Raises `NeedsPerson` if there is none."""
    git = find_git(environ)
    if git is None:
        raise NeedsPerson("git is not installed, or not in a folder of $PATH", "install git")
    return git


def personal_excludes(environ: Mapping[str, str]) -> str:
    """Return the path of the user's own exclude file: from git's configuration, else `$XDG_CONFIG_HOME/git/ignore`.

    Only the user's and the machine's configuration count, never the workspace's. Raises `ConfigError` if git cannot
    read its configuration, `TryLater` if git does not answer: without that file, paths that it excludes would be
    uploaded.
    """
    git = find_git(environ)
    if git is not None and (environ.get("HOME") or environ.get("GIT_CONFIG_GLOBAL")):  # else git has no user's file
        for scope in ("--global", "--system"):
            try:
                asked = ["config", scope, "--type=path", "--get", "core.excludesFile"]
                result = git.ask(asked, {}, within_s=_EXCLUDES_S)
            except SyncdError as failure:
                raise TryLater(
                    f"git was asked for your exclude file ({failure.message})",
                    "try again, or set workspace.use_gitignore = false",
                ) from None
            if result.code not in (0, _NOT_SET):
                raise ConfigError(
                    f"git cannot read its configuration, which may name your exclude file "
                    f"({one_line(result.complaint, 120)})",
                    f"correct it until `git config {scope} --list` works",
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


def fast_import(git: Git, commands: Iterable[bytes], variables: Mapping[str, str]) -> None:
    """Make objects by commands of git-fast-import(1). Raises as `Git.run` does."""
    git.feed(["fast-import", "--quiet", f"--big-file-threshold={LARGE_BYTES}"], commands, variables)


def is_binary(content: bytes) -> bool:
    """Return True if git takes the content for a binary one."""
    return b"\0" in content[:_BINARY_PREFIX_BYTES]


def merge(git: Git | None, base: bytes, ours: bytes, theirs: bytes, scratch: str) -> bytes | str:
    """Return the text with the changes of both sides, or the reason for which there is none.

    Git merges bytes: it converts no line end, adds no newline at the end, and reads no attribute. Where only one side
    changed the line ends of a file, each of its lines changed, so that any change of the other side is a conflict.

    `git` is None where none is installed. The texts are written into a private folder of `scratch` meanwhile.
    """
    if any(map(is_binary, (base, ours, theirs))):
        return "it is no text"
    if git is None:
        return "git is not installed"
    with tempfile.TemporaryDirectory(prefix="syncd-merge-", dir=scratch) as private:
        paths = [os.path.join(private, name) for name in ("ours", "base", "theirs")]
        for path, content in zip(paths, (ours, base, theirs), strict=True):
            with open(path, "xb") as file:
                file.write(content)
        try:
            # Without a repository, or it would read the configuration of one around the folder.
            outside = {"GIT_DIR": os.path.join(private, "none")}
            result = git.run(["merge-file", "-p", "--quiet", *paths], outside, range(-255, 256))
        except SyncdError:
            return "git failed"
    if 0 < result.code <= _MOST_CONFLICTS:
        return "both sides changed the same lines"
    return "git failed" if result.code else result.output


def object_format_around(git: Git, workspace: str) -> str:
    """Return the format of the objects in the repository that holds the workspace; git's old default without one."""
    found = git.ask(["rev-parse", "--show-object-format"], {}, workspace).output.strip()
    return "sha256" if found == b"sha256" else "sha1"


def find_work_tree(git: Git, workspace: str) -> GitWorkTree:
    """Return the repository that the workspace lies in.

    Raises `NeedsPerson` if there is none, if it belongs to another user, or if git cannot read it. The person's
    configuration is read for this: it may trust another user's repository (`safe.directory`).
    """

    def answer(*arguments: str) -> bytes:
        result = git.ask(["rev-parse", *arguments], {}, workspace)
        if result.code:
            raise _no_work_tree(workspace, result)
        return result.output.removesuffix(b"\n")

    # A path may hold a newline, so that only the last of the answers can be one.
    object_format, inside, folder = answer("--show-object-format", "--is-inside-work-tree", "--git-dir").split(b"\n", 2)
    if object_format not in (b"sha1", b"sha256"):
        raise NeedsPerson("git is too old", f"install git {_OLDEST_GIT} or a newer one")
    if inside != b"true":
        raise NeedsPerson(
            f"the workspace {shown_path(workspace)!r} is in no work tree of its repository",
            "use `syncd apply` without --branch",
        )
    absolute = os.path.join(workspace, os.fsdecode(folder))
    objects = os.path.join(workspace, os.fsdecode(answer("--git-path", "objects")))
    return GitWorkTree(
        folder=absolute,
        objects=objects,
        prefix=os.fsdecode(answer("--show-prefix")),
        object_format=object_format.decode(),
        head=_head(git, absolute, workspace),
        settings=_settings(git, absolute),
    )


def _head(git: Git, folder: str, workspace: str) -> str:
    """Return the id of the checked out commit; empty if the current branch has none yet."""
    variables = {"GIT_DIR": folder}
    found = git.run(["rev-parse", "--verify", "--quiet", "HEAD"], variables, range(256))
    if found.code == 0:
        return found.output.decode().strip()
    current = git.run(["symbolic-ref", "--quiet", "HEAD"], variables, range(256))
    reference = current.output.removesuffix(b"\n")
    listed = git.run(["for-each-ref", "--format=%(refname)", "--", os.fsdecode(reference)], variables, range(256))
    if found.complaint or current.code or listed.output or listed.complaint:
        why = one_line(found.complaint or listed.complaint or current.complaint or "its commit cannot be read", 120)
        raise NeedsPerson(
            f"git cannot read HEAD of the repository of {shown_path(workspace)!r} ({why})", "see `git fsck`"
        )
    return ""


def _settings(git: Git, folder: str) -> Mapping[str, str]:
    """Return the configuration: the last value of each key, as git takes it."""
    arguments = ["config", "--null", "--list", "--includes"]
    result = git.ask(arguments, {"GIT_DIR": folder})
    if result.code:
        raise _failed(arguments, result)
    pairs = (os.fsdecode(item).partition("\n") for item in result.output.split(b"\0") if item)
    return {key: value for key, _, value in pairs}


def _no_work_tree(workspace: str, result: GitResult) -> NeedsPerson:
    shown = shown_path(workspace)
    if "dubious ownership" in result.complaint or "unsafe repository" in result.complaint:
        return NeedsPerson(
            f"the repository of {shown!r} belongs to another user",
            f"run this as its owner, or trust it with `git config --global --add safe.directory {shown}`",
        )
    if "not a git repository" in result.complaint:
        return NeedsPerson(f"the workspace {shown!r} is in no git repository", "make one with git init")
    return NeedsPerson(
        f"git cannot read the repository of {shown!r} ({one_line(result.complaint, 160)})", "see `git fsck`"
    )


def _failed(arguments: Sequence[str], result: GitResult) -> NeedsPerson:
    reason = one_line(result.complaint, 200) or f"exit code {result.code}"
    return NeedsPerson(f"git {arguments[0]} failed ({reason})", "look at the reason that git gives")
