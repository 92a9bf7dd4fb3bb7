"""Runs git as no one has configured it: the settings and the environment for it, and the runner in the sandbox.

Git runs programs for hooks, filters, the file system monitor, text conversion, diffs, merges, signatures, editors,
pagers, aliases, credentials and missing objects (githooks(5), gitattributes(5), git-config(1)). Only plumbing commands
are run, which need none of them; the settings and the environment switch off what they could still reach.

It runs in the sandbox too, and is sent along with the programs there.
"""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from typing import Any

from syncd.sandbox.program_in_sandbox import BLOCK, Alarm, bytes_of

# A larger file is compared as a binary one, has no deltas, and goes through memory in blocks only.
LARGE_BYTES = 16 << 20
SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.attributesFile=/dev/null",
    "core.untrackedCache=false",
    "core.pager=cat",
    "core.editor=:",
    "core.sshCommand=false",
    "core.alternateRefsCommand=false",
    "core.commitGraph=false",
    "core.multiPackIndex=false",
    "commit.gpgSign=false",
    "credential.helper=",
    "protocol.allow=never",
    "gc.auto=0",
    "maintenance.auto=false",
    f"core.bigFileThreshold={LARGE_BYTES}",
)
ENVIRONMENT = {
    "LC_ALL": "C",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    # Versions of git that do not know the line above find no way to fetch.
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_LITERAL_PATHSPECS": "1",
}
NO_CONFIGURATION = {
    "HOME": "/dev/null",  # nothing is found below it either
    "XDG_CONFIG_HOME": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_CONFIG_GLOBAL": "/dev/null",
}
# What someone has begun in a repository, by the file or folder that git keeps meanwhile.
_UNDER_WAY = {
    "rebase-merge": "rebase",
    "rebase-apply": "rebase",
    "MERGE_HEAD": "merge",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "BISECT_LOG": "bisect",
}
ID = re.compile("[0-9a-f]{40}")  # of an object
_MOST_OUTPUT = 64 << 20  # of a command whose output is kept; folders within folders can be endless
_PRIVATE = "[core]\n\trepositoryformatversion = 0\n\tcompression = 1\n[fastimport]\n\tunpackLimit = 200\n"


class Refused(Exception):
    """The request cannot be carried out; the arguments are the state that is reported, and the reason."""


class PrivateGit:
    """git, with a private folder as its repository, which only shares the objects of the agent's."""

    def __init__(self, private: "str", workspace: "str") -> None:
        self.workspace = workspace
        self.private = private
        self.agent = os.path.join(workspace, ".git")
        path = ":".join(part for part in os.environ.get("PATH", os.defpath).split(":") if part.startswith("/"))
        self._program = shutil.which("git", path=path) or ""
        for folder in ("refs/heads", "objects", "info"):
            os.makedirs(os.path.join(private, folder))
        write_text(os.path.join(private, "HEAD"), "ref: refs/heads/home\n")
        write_text(os.path.join(private, "config"), _PRIVATE)
        self._environment = dict(
            ENVIRONMENT,
            PATH=path,
            GIT_DIR=private,
            GIT_WORK_TREE=workspace,
            GIT_OBJECT_DIRECTORY=os.path.join(self.agent, "objects"),
            GIT_OPTIONAL_LOCKS="1",  # an index that was refreshed is kept
            **NO_CONFIGURATION,
        )

    def run(self, *arguments: "str", **options: "Any") -> "bytes":
        """Run a command, and return its output. Raises `Refused` if it fails."""
        output, code, complaint = self.result(*arguments, **options)
        check(arguments[0], code, complaint)
        return output

    def result(self, *arguments: "str", text: "bytes" = b"", **variables: "Any") -> "tuple[bytes, int, str]":
        """Run a command with this input, and return its output, exit code and complaint.

        `variables` are of its environment; None: it is not set. Raises `Refused` if there is no git, or if it prints
        too much.
        """
        with self.started(arguments, text, **variables) as (process, ended):
            output = process.stdout.read(_MOST_OUTPUT + 1)
            if len(output) > _MOST_OUTPUT:
                raise Refused("failed", f"git {arguments[0]} prints too much")
            return (output, *ended())

    @contextlib.contextmanager
    def started(self, arguments: "Any", text: "bytes | None", **variables: "Any") -> "Any":
        """Start a command with this input; None: a pipe. Returns the process, whose output is a pipe, and a function.

        The function waits for its end, and returns its exit code and its complaint. The process is ended with the
        context. Raises `Refused` if there is no git, `OSError` if it cannot be started.
        """
        if not self._program:
            raise Refused("no-git", "no git is installed in the sandbox")
        changed = dict(self._environment, **variables)
        environment = {name: value for name, value in changed.items() if value is not None}
        options = [part for setting in SETTINGS for part in ("-c", setting)]
        with tempfile.TemporaryFile(dir=self.private) as given, tempfile.TemporaryFile(dir=self.private) as complaints:
            given.write(text or b"")
            given.seek(0)
            process = subprocess.Popen(
                # Names are UTF-8, whatever the locale there is.
                [bytes_of(part) for part in [self._program, "--no-pager", *options, *arguments]],
                stdin=subprocess.PIPE if text is None else given,
                stdout=subprocess.PIPE,
                stderr=complaints,
                cwd=self.workspace,
                env=environment,
            )

            def ended() -> "tuple[int, str]":
                code = process.wait()
                complaints.seek(0)
                return code, complaints.read(BLOCK).decode("utf-8", "replace")

            with process:
                try:
                    yield process, ended
                finally:
                    process.kill()  # if it has not ended

    def under_way(self) -> "set[str]":
        """Return what someone has begun in the agent's repository."""
        return {what for name, what in _UNDER_WAY.items() if os.path.lexists(os.path.join(self.agent, name))}

    def reference(self, name: "str") -> "str":
        """Return the commit of a reference in the agent's repository; empty if there is none."""
        output, code, _ = self.result("rev-parse", "--verify", "--quiet", name + "^{commit}", GIT_DIR=self.agent)
        return "" if code else output.decode("ascii").strip()

    def is_ancestor(self, commit: "str", of: "str") -> "bool":
        return self.result("merge-base", "--is-ancestor", commit, of)[1] == 0

    def move(self, name: "str", to: "str", before: "str") -> "bool":
        """Move a reference of the agent's repository if it still is as before; empty: it must not exist."""
        return self.result("update-ref", name, to, before or "0" * 40, GIT_DIR=self.agent)[1] == 0


def check(command: "str", code: "int", complaint: "str") -> None:
    """Raise `Refused` if the command failed, with the line that says why."""
    if code:
        lines = complaint.strip().splitlines() or [""]
        reasons = [line for line in lines if line.startswith(("error: ", "fatal: "))] or lines[-1:]
        raise Refused("failed", f"git {command} ended with {code}: {reasons[0][:200]}")


def write_text(path: "str | bytes", text: "str") -> None:
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)


def answer(request: "dict[str, Any]", own: "str", act: "Any") -> "dict[str, Any]":
    """Return the report of what `act` does with git, and what it returns; it is ended when its time is over."""
    try:
        git = PrivateGit(os.path.join(own, "git"), os.environ["AGENT_WORKSPACE"])
        found = Alarm.within(request["within_s"], lambda: act(git))
        return {"state": "failed", "why": "it takes too long"} if found is None else dict(found, state="done")
    except Refused as refused:
        return {"state": refused.args[0], "why": refused.args[1]}
    except OSError as failure:
        return {"state": "failed", "why": os.strerror(failure.errno or 0)}
    finally:
        shutil.rmtree(os.path.join(own, "git"), ignore_errors=True)
