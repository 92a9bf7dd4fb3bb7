"""Runs git as no one has configured it: the settings and the environment for it, and the runner in the sandbox.

Git runs programs for hooks, filters, the file system monitor, text conversion, diffs, merges, signatures, editors,
pagers, aliases, credentials and missing objects (githooks(5), gitattributes(5), git-config(1)). Only plumbing commands
are run, which need none of them; the settings and the environment switch off what they could still reach.

It runs in the sandbox too, with any Python from 3.6 on, and is sent along with the programs there.
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
from typing import Any

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
BLOCK = 1 << 18
_MOST_OUTPUT = 64 << 20  # of a command whose output is kept; folders within folders can be endless
_PRIVATE = (
    "[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tcompression = 1\n[fastimport]\n\tunpackLimit = 200\n"
)
_PRIVATE_SHA256 = _PRIVATE.replace("= 0", "= 1") + "[extensions]\n\tobjectFormat = sha256\n"


class Refused(Exception):
    """The request cannot be carried out; the arguments are the state that is reported, and the reason."""


class PrivateGit:
    """git, with a private folder as its repository, which only shares the objects of the agent's."""

    def __init__(self, private: "str", workspace: "str", within_s: "float", id_length: "int" = 40) -> None:
        self.workspace = workspace
        self.within_s = within_s  # for each command
        self.private = private
        self.agent = os.path.join(workspace, ".git")
        path = ":".join(part for part in os.environ.get("PATH", os.defpath).split(":") if part.startswith("/"))
        self._program = shutil.which("git", path=path) or ""
        for folder in ("refs/heads", "objects", "info"):
            os.makedirs(os.path.join(private, folder))
        write_text(os.path.join(private, "HEAD"), "ref: refs/heads/home\n")
        write_text(os.path.join(private, "config"), _PRIVATE if id_length == 40 else _PRIVATE_SHA256)
        self._environment = {
            "PATH": path,
            "GIT_DIR": private,
            "GIT_WORK_TREE": workspace,
            "GIT_OBJECT_DIRECTORY": os.path.join(self.agent, "objects"),
        }
        self._environment.update(ENVIRONMENT)
        # An index that was refreshed is kept.
        self._environment.update(NO_CONFIGURATION, GIT_OPTIONAL_LOCKS="1")

    def run(self, *arguments: "str", **options: "Any") -> "bytes":
        """Run a command, and return its output. Raises `Refused` if it fails."""
        output, code, complaint = self.result(*arguments, **options)
        if code:
            raise failed(arguments[0], code, complaint)
        return output

    def result(self, *arguments: "str", text: "bytes" = b"", **variables: "Any") -> "tuple[bytes, int, str]":
        """Run a command with this input, and return its output, exit code and complaint.

        `variables` are of its environment; None: it is not set. Raises `Refused` if there is no git, or if it takes too
        long or prints too much.
        """
        late = threading.Event()
        with tempfile.TemporaryFile(dir=self.private) as given:
            given.write(text)
            given.seek(0)
            with self.started(arguments, given, **variables) as (process, complaint_of):

                def end() -> None:
                    late.set()
                    process.kill()

                timer = threading.Timer(self.within_s, end)
                timer.daemon = True
                timer.start()
                try:
                    output = process.stdout.read(_MOST_OUTPUT + 1)
                    if len(output) > _MOST_OUTPUT:
                        raise Refused("failed", f"git {arguments[0]} prints too much")
                    process.wait()
                finally:
                    timer.cancel()
                if late.is_set():
                    raise Refused("failed", f"git {arguments[0]} takes too long")
                return output, process.returncode, complaint_of()

    @contextlib.contextmanager
    def started(self, arguments: "Any", given: "Any", **variables: "Any") -> "Any":
        """Start a command with this input. Returns the process, whose output is a pipe, and what reads its complaint.

        It is ended with the context. Raises `Refused` if it cannot be started.
        """
        if not self._program:
            raise Refused("no-git", "no git is installed in the sandbox")
        changed = dict(self._environment, **variables)
        environment = {name: value for name, value in changed.items() if value is not None}
        options = [part for setting in SETTINGS for part in ("-c", setting)]
        with tempfile.TemporaryFile(dir=self.private) as complaints:
            try:
                process = subprocess.Popen(
                    # Names are UTF-8, whatever the locale there is.
                    [as_bytes(part) for part in [self._program, "--no-pager", *options, *arguments]],
                    stdin=given,
                    stdout=subprocess.PIPE,
                    stderr=complaints,
                    cwd=self.workspace,
                    env=environment,
                )
            except OSError as failure:
                raise Refused("failed", f"git cannot be run: {os.strerror(failure.errno or 0)}") from None

            def complaint_of() -> "str":
                complaints.seek(0)
                return complaints.read(BLOCK).decode("utf-8", "replace")

            try:
                yield process, complaint_of
            finally:
                if process.poll() is None:
                    process.kill()
                for pipe in (process.stdin, process.stdout):
                    if pipe is not None:
                        with contextlib.suppress(OSError):  # what it still held cannot be written
                            pipe.close()
                process.wait()

    def reference(self, name: "str") -> "str":
        """Return the commit of a reference in the agent's repository; empty if there is none."""
        output, code, _ = self.result("rev-parse", "--verify", "--quiet", name + "^{commit}", GIT_DIR=self.agent)
        return "" if code else output.decode("ascii").strip()

    def move(self, name: "str", to: "str", before: "str") -> "bool":
        """Move a reference of the agent's repository if it still is as before; empty: it must not exist."""
        return self.result("update-ref", name, to, before or "0" * 40, GIT_DIR=self.agent)[1] == 0


def failed(command: "str", code: "int", complaint: "str") -> "Refused":
    """Return the failure of a command, with the line that says why."""
    lines = complaint.strip().splitlines() or [""]
    reasons = [line for line in lines if line.startswith(("error: ", "fatal: "))] or lines[-1:]
    return Refused("failed", f"git {command} ended with {code}: {reasons[0][:200]}")


def as_bytes(name: "str") -> "bytes":
    return name.encode("utf-8", "surrogateescape")


def write_text(path: "str | bytes", text: "str") -> None:
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
