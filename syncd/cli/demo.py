"""`syncd demo`: the whole job on this machine, with no account: a tour of a sample, or a directory of your own.

An emulator stands in for the sandbox API, a real daemon syncs to it, and the commands are the real ones. All of them
keep everything in one temporary folder.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from glob import iglob
from queue import Empty, SimpleQueue

import click
from msgspec import Struct

from syncd.cli.config import toml
from syncd.cli.options import CLOCK
from syncd.cli.output import stdout_failure
from syncd.core.config_file import load_config
from syncd.core.errors import Stop, TryLater, WorkspaceError, failure_with
from syncd.core.text import counted, shown_path, size
from syncd.core.waiter import Interrupt, interrupting
from syncd.emulator import Emulator, RequestRecord
from syncd.merge.git import find_git

_READING_S = 1.0
_EQUAL_S = 100.0  # a busy machine takes its time
_FOREVER_S = 1e9  # until a signal
_LOOK_S = 0.5
_STOP_S = 6.0  # the daemon itself takes at most 5 s from signal to exit
_URL_LIFETIME_S = 1800
_WIDTH = 79
_INDENT = " " * 13  # below the seconds of a result
_MOST_LINES = 8
_MAIN_ID, _SECOND_ID = "demo", "demo-blue"
# Shorter than the defaults, so that a person need not wait.
_TIMING = {"sync.debounce_seconds": 0.5, "retry.first_delay_seconds": 0.3, "retry.max_delay_seconds": 1.0}
# Set by a service manager for its own service, which the demo's daemon is not.
_SERVICE_VARIABLES = ("CREDENTIALS_DIRECTORY", "STATE_DIRECTORY", "CACHE_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_USEC")
# git as a person or an agent would use it, but without anyone's own settings.
_GIT = ("git", "-c", "core.hooksPath=/dev/null", "-c", "user.name=demo", "-c", "user.email=demo@localhost")
_NO_SETTINGS = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
# -P: a folder named syncd in the current directory must not be taken for the program.
_SYNCD = (sys.executable, "-P", "-m", "syncd")
# prctl(PR_SET_PDEATHSIG, SIGTERM): a demo that is killed takes its daemon with it.
_DAEMON = "import ctypes; ctypes.CDLL(None).prctl(1, 15); from syncd.cli import main; main()"
# The other requests, of looks and of `syncd verify`, are shown if they fail.
_MEANINGS = {
    "upload-url": "the daemon asks for a signed URL",
    "upload": "the archive arrives in the bucket",
    "initialize": "the sandbox unpacks it",
    "execute": "a program of syncd's looks there",
}
_BREW, _MANUAL, _SHARED = "src/tea/brew.py", "docs/manual.md", "docs/thé vert.txt"
_SAMPLE = {
    "README.md": "# Tea timer\n\nSays when the tea is ready. `./run.sh green`\n",
    ".gitignore": "build/\n*.log\n",
    "run.sh": '#!/bin/sh\nexec python3 -m tea "$@"\n',
    _BREW: 'MINUTES = {"green": 2, "black": 4}\n',
    "src/tea/old.py": "# No module imports this any more.\n",
    _SHARED: "Two minutes, not boiling.\nPour slowly.\nA pinch of patience.\n",
    # The next four are left out.
    ".env": "API_TOKEN=a-secret-of-the-sample\n",
    "debug.log": "started\n",
    "build/tea.bin": "\0" * 4096,
    "node_modules/left-pad/index.js": "module.exports = String\n",
}


@click.command("demo")
@click.argument("directory", metavar="[DIR]", required=False, type=click.Path(exists=True, file_okay=False))
def command(directory: str | None) -> None:
    """Show the whole job, with an emulator in the place of the sandbox.

    Without DIR: a tour of half a minute on a sample workspace. With DIR: what you do in that directory, until Ctrl-C.
    Nothing in DIR is changed, nothing leaves this machine, and nothing is left behind.
    """
    try:
        with _demo(directory) as demo:
            if directory is None:
                _show_tour(demo)
            else:
                _show_directory(demo)
    except Stop:
        click.echo("\nstopped; nothing is left behind")


@contextmanager
def _demo(directory: str | None) -> Iterator[_Demo]:
    """A demo of this directory, or of a new one. Raises `SyncdError` for one that cannot be watched."""
    interrupt, requests = Interrupt(), SimpleQueue[RequestRecord]()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has a background job ignore it
    with interrupting(interrupt), tempfile.TemporaryDirectory(prefix="syncd-demo-") as made:
        folder = os.path.realpath(made)
        cloud, workspace = os.path.join(folder, "cloud"), directory or os.path.join(folder, "workspace")
        with Emulator(
            cloud, port=0, api_key="", url_lifetime_s=_URL_LIFETIME_S, clock=CLOCK, observer=requests.put
        ) as emulator:
            os.makedirs(workspace, exist_ok=True)
            keys = {
                "workspace.path": os.path.abspath(workspace),
                "sandbox.id": _MAIN_ID,
                "sandbox.base_url": emulator.base_url,
                "sandbox.api_key_file": os.path.join(folder, "no-key-file"),  # the key is in the environment
                # In the tour, what both sides change waits for the person.
                "sandbox.agent_changes": "hold" if directory is None else "save",
                **_TIMING,
            }
            config_file = os.path.join(folder, "config.toml")
            with open(config_file, "w", encoding="utf-8") as file:
                file.writelines(f"{name} = {toml(value, name)}\n" for name, value in keys.items())
            workspace = load_config(config_file).workspace.path
            if folder.startswith(workspace + os.sep):
                what = f"{workspace} holds the demo's own folder {folder}"
                raise WorkspaceError(what, "set TMPDIR to another folder")
            environ = {name: value for name, value in os.environ.items() if name not in _SERVICE_VARIABLES} | {
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "KLAVIS_API_KEY": emulator.api_key,
                "XDG_STATE_HOME": os.path.join(folder, "state"),
                "XDG_CACHE_HOME": os.path.join(folder, "cache"),
            }
            there, second = (str(emulator.create_sandbox(each).workspace) for each in (_MAIN_ID, _SECOND_ID))
            demo = _Demo(config_file, workspace, there, second, emulator, environ, requests, interrupt)
            try:
                yield demo
            finally:
                demo.end()


class _Demo(Struct):
    """The workspace, that of the sandbox, `there`, and of a second one; the emulator, the daemon, what is printed."""

    config_file: str
    workspace: str
    there: str
    second: str
    emulator: Emulator
    environ: dict[str, str]
    coming: SimpleQueue[RequestRecord]
    interrupt: Interrupt
    done: Counter[str] = Counter()  # the requests that succeeded
    daemon: subprocess.Popen[bytes] | None = None
    steps: int = 0
    since_s: float = 0.0  # of the last heading

    # -- programs

    def start(self, log_level: str = "error") -> None:
        """Start `syncd run` as a process of its own, which logs to stdout."""
        self.daemon = subprocess.Popen(
            [sys.executable, "-P", "-c", _DAEMON, "run", "--config", self.config_file, "--log-level", log_level],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stderr=sys.stdout.fileno(),
            start_new_session=True,  # Ctrl-C is for the demo, which then stops the daemon
        )

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send the daemon this signal, and return when it has exited."""
        if self.daemon is None:
            return
        self.daemon.send_signal(number)
        try:
            self.daemon.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            self.daemon.wait()

    def syncd(self, *arguments: str) -> list[str]:
        """Run a command of syncd in the workspace, and return the lines of its output. Raises `SyncdError`."""
        return self.run([*_SYNCD, *arguments, "--config", self.config_file], self.workspace)

    def git(self, folder: str, *arguments: str) -> None:
        self.run([*_GIT, *arguments], folder)

    def run(self, line: list[str], folder: str) -> list[str]:
        environ, pipe = self.environ | _NO_SETTINGS, subprocess.PIPE
        with subprocess.Popen(
            line, cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe
        ) as program:
            try:
                while program.returncode is None:
                    with suppress(subprocess.TimeoutExpired):
                        output, complaint = program.communicate(timeout=_LOOK_S)
                    self.interrupt.check()
            finally:
                program.kill()
        if program.returncode > 1:  # 1: something differs
            raise failure_with(program.returncode, f"{shlex.join(line)} failed ({os.fsdecode(complaint).strip()})")
        return output.decode("utf-8", "replace").splitlines()

    # -- what is printed, at most 80 columns wide, and as the terminal

    def heading(self, text: str) -> None:
        self.follow(_READING_S if sys.stdout.isatty() else 0.0)
        click.echo("\n" + click.style(textwrap.fill(text, _width()), bold=True))
        self.since_s = CLOCK.monotonic_s()

    def step(self, title: str, text: str) -> None:
        self.steps += 1
        self.heading(f"{self.steps}. {title}")
        self.paragraph(text)

    def paragraph(self, text: str) -> None:
        fill = textwrap.TextWrapper(_width(), initial_indent="   ", subsequent_indent="   ")
        fill.break_on_hyphens = fill.break_long_words = False  # a path stays in one piece
        click.echo(fill.fill(text))

    def result(self, text: str, lines: Iterable[str] = ()) -> None:
        """Print a line with the seconds, and what belongs to it."""
        line = f"   {CLOCK.monotonic_s() - self.since_s:6.2f} s  {text}"
        click.echo(textwrap.fill(line, _width(), subsequent_indent=_INDENT))
        for each in lines:
            shown = shown_path(each.expandtabs(32))
            click.echo(textwrap.fill(shown, _width(), initial_indent=_INDENT, subsequent_indent=_INDENT))

    def show(self, *arguments: str) -> None:
        """Run a command of syncd, and print what it says."""
        output = self.syncd(*arguments)
        self.follow()
        hunk = next((number for number, text in enumerate(output, 1) if text.startswith("@@")), 0)
        self.result(click.style(shlex.join(("syncd", *arguments)), bold=True), output[hunk : hunk + _MOST_LINES])

    def follow(self, seconds: float = 0.0) -> bool:
        """Print the requests of so many seconds. True if the sandbox became equal to the workspace by one.

        Raises `Stop` after a signal or without a reader, and the failure of a daemon that ended.
        """
        ends_s, is_equal = CLOCK.monotonic_s() + seconds, False
        while True:
            self.interrupt.check()
            if stdout_failure() is not None:  # nobody can read on
                raise Stop
            left_s = ends_s - CLOCK.monotonic_s()
            try:
                is_equal |= self._print(self.coming.get(timeout=max(0.0, min(left_s, _LOOK_S))))
            except Empty:
                if left_s <= 0:
                    return is_equal
                if self.daemon is not None and (code := self.daemon.poll()) is not None:
                    raise failure_with(code, f"syncd run ended with {code}: see above") from None

    def until_equal(self) -> None:
        """Print requests until the sandbox has become equal to the workspace. Raises `TryLater`."""
        ends_s = CLOCK.monotonic_s() + _EQUAL_S
        while not self.follow(_LOOK_S):
            if CLOCK.monotonic_s() >= ends_s:
                raise TryLater(f"the sandbox is not equal to the workspace after {_EQUAL_S:.0f} s", "please report it")

    def _print(self, entry: RequestRecord) -> bool:
        """Print a request. True if the sandbox is equal to the workspace by it."""
        is_done = entry.status == 200
        self.done[entry.op] += is_done
        if is_done and entry.op not in _MEANINGS:
            return False
        sent = size(entry.bytes_in) if entry.op == "upload" and is_done else ""
        failed = click.style("the network fails" if entry.status is None else "refused", fg="yellow")
        meaning = _MEANINGS.get(entry.op, "") if is_done else failed
        self.result(f"{entry.op:10}  {entry.status or '---'}  {sent:>11}  {meaning}")
        if entry.op != "initialize" or not is_done:
            return False
        *_, found = self.syncd("verify", "--sandbox", "main" if entry.sandbox == _MAIN_ID else "blue")
        is_equal = found.startswith("equal:")
        self.result(f"syncd verify: {click.style(found, fg='green', bold=True) if is_equal else found}")
        return is_equal


def _show_directory(demo: _Demo) -> None:
    demo.heading("syncd keeps a sandbox's workspace in sync with this directory, until you press Ctrl-C")
    demo.paragraph(f"The sandbox's is {shown_path(demo.there)}. Change something here, and compare the two.")
    demo.paragraph("Of an agent in a real sandbox, `syncd diff` shows the changes, and `syncd apply` takes them home.")
    demo.show("ls", "--ignored")
    demo.start("info")
    demo.follow(_FOREVER_S)


def _show_tour(demo: _Demo) -> None:
    for path, content in _SAMPLE.items():
        _write(demo.workspace, path, content)
    os.chmod(f"{demo.workspace}/run.sh", 0o755)  # noqa: S103 - this permission must arrive too
    demo.heading("syncd keeps a sandbox's workspace in sync with a directory of yours")
    demo.paragraph("Here a real daemon does so with no account: an emulator on this machine stands in for the sandbox.")
    demo.paragraph(f"Of {shown_path(demo.workspace)} all is sent to {shown_path(demo.there)}, but for:")
    demo.show("ls", "--ignored")
    _show_syncs(demo)
    has_git = find_git(os.environ) is not None
    if has_git:
        _show_the_agents_side(demo)
    demo.heading(f"Done: {demo.done['upload']} uploads over {counted(demo.done['upload-url'], 'signed URL')}")
    demo.paragraph("Workspace, sandbox and daemon are removed now.")
    if not has_git:
        demo.paragraph("git is not on this machine: the steps that merge and bring commits home are skipped.")
    demo.paragraph("With a directory of yours: syncd demo DIR. With a real sandbox: syncd init.")


def _show_syncs(demo: _Demo) -> None:
    workspace = demo.workspace
    demo.step(
        "The daemon starts",
        "The sandbox is empty: all is sent, in one archive. A second one, nearly empty, then proves that the sandbox "
        "keeps the rest: from now on only what changed is sent.",
    )
    demo.start()
    demo.until_equal()
    demo.show("flush")

    demo.step(
        "An edit, a rename and a deletion",
        "A line is added to src/tea/brew.py, README.md becomes docs/manual.md, and src/tea/old.py is deleted. When the "
        "workspace has been quiet for half a second, all of it goes in one upload, over the signed URL that is still "
        'valid. With deletions = "mirror", the default, what is gone here goes there too, unless someone changed it.',
    )
    _write(workspace, _BREW, "MINUTES['oolong'] = 3\n")
    os.rename(f"{workspace}/README.md", f"{workspace}/{_MANUAL}")
    os.unlink(f"{workspace}/src/tea/old.py")
    demo.until_equal()

    demo.step(
        "Nothing to send",
        "A password is added to .env, and a package to node_modules: none of it may leave. Every other file is "
        "touched: its content is the same.",
    )
    _write(workspace, ".env", "DATABASE_PASSWORD=another-secret\n")
    _write(workspace, "node_modules/is-odd/index.js", "module.exports = n => n % 2\n")
    for path in iglob(f"{workspace}/**/*", recursive=True):
        os.utime(path)
    demo.show("flush")

    demo.step(
        "The network fails, and the daemon is killed",
        "A file is edited, and the next two uploads end with their connection. The daemon waits a little longer each "
        "time, and tries again. Then it is ended by kill -9, a file is edited, and a new daemon finds that.",
    )
    demo.emulator.bucket.uploads_to_lose = 2
    _write(workspace, _BREW, "MINUTES['white'] = 3\n")
    demo.until_equal()
    demo.end(signal.SIGKILL)
    _write(workspace, _MANUAL, "\nWritten while no daemon was running.\n")
    demo.start()
    demo.until_equal()


def _show_the_agents_side(demo: _Demo) -> None:
    here, there = demo.workspace, demo.there
    demo.step(
        "The agent writes too",
        "An agent in the sandbox edits one line of docs/thé vert.txt, and you edit another; of src/tea/brew.py both "
        'edit the same one. With agent_changes = "hold", as here, neither overwrites the other: you look at what the '
        'agent did, take it home, and decide what cannot be merged. "save", the default, sends yours and keeps the '
        "agent's file in `syncd saved`.",
    )
    _edit(there, _SHARED, "Two minutes", "Three minutes")
    _edit(here, _SHARED, "A pinch", "Two pinches")
    _edit(there, _BREW, "'oolong'] = 3", "'oolong'] = 5")
    _edit(here, _BREW, "'oolong'] = 3", "'oolong'] = 4")
    demo.show("flush")
    demo.show("diff", _SHARED)
    demo.show("apply")
    demo.show("resolve", _BREW, "--mine")
    demo.show("flush")

    demo.step(
        "The agent commits",
        "The workspace becomes a git repository. .git is not sent; the sandbox gets a repository of its own, which "
        "holds what was sent and follows each sync. The agent commits there, and its commit comes home, onto a new "
        "branch.",
    )
    demo.git(here, "init", "-q", "--initial-branch=main")
    demo.git(here, "add", "-A")
    demo.git(here, "commit", "-q", "-m", "The tea timer")
    _write(here, _MANUAL, "\nNow with a history.\n")
    demo.show("flush")
    _write(there, "src/tea/sugar.py", "SPOONS = 1\n")
    demo.git(there, "add", "-A")
    demo.git(there, "commit", "-q", "-m", "Add sugar")
    demo.show("log")
    demo.show("apply", "--branch", "tea")

    demo.step(
        "Two agents",
        "A second sandbox gets everything too. Its agent and the first one edit the same line: you compare them, take "
        "one, take it back, and take the other. No agent's work is lost, and none reaches the other by itself.",
    )
    demo.show("sandbox", "add", "blue", "--id", _SECOND_ID)
    demo.show("flush")
    _edit(there, _BREW, '"black": 4', '"black": 5')
    _edit(demo.second, _BREW, '"black": 4', '"black": 3')
    demo.show("diff", "--all", "--stat", _BREW)
    demo.show("apply", "--sandbox", "main", _BREW)
    demo.show("apply", "--undo")
    demo.show("diff", "--sandbox", "main", "--against", "blue", _BREW)
    demo.show("apply", "--sandbox", "blue", _BREW)


def _width() -> int:
    return min(_WIDTH, shutil.get_terminal_size().columns - 1) if sys.stdout.isatty() else _WIDTH


def _edit(top: str, path: str, old: str, new: str) -> None:
    with open(f"{top}/{path}", "r+", encoding="utf-8") as file:
        content = file.read().replace(old, new)
        file.seek(0)
        file.write(content)


def _write(top: str, path: str, content: str) -> None:
    target = os.path.join(top, path)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target, "a", encoding="utf-8") as file:
        file.write(content)
