"""`syncd demo`: the whole job on this machine, with no account: a tour of a sample, or a directory of your own.

An emulator stands in for the sandbox API, and a real daemon syncs to it; both keep everything in one temporary folder.
"""

from __future__ import annotations

import filecmp
import json
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from glob import iglob
from queue import Empty, SimpleQueue

import click
from msgspec import Struct

from syncd.cli.layout import aligned
from syncd.cli.local_scan import scan_workspace
from syncd.cli.options import CLOCK
from syncd.core.config_file import load_config
from syncd.core.errors import Stop, TryLater, WorkspaceError, failure_with
from syncd.core.settings import Config
from syncd.core.text import counted, shown_path, size
from syncd.core.waiter import Interrupt, interrupting
from syncd.emulator import Emulator, RequestRecord
from syncd.merge.git import find_git
from syncd.model.entry import count_files

_READING_S = 1.0
_EQUAL_S = 100.0  # a busy machine takes its time
_FOREVER_S = 1e9  # until a signal
_LOOK_S = 0.5
_STOP_S = 6.0  # the daemon itself takes at most 5 s from signal to exit
_FLUSH_S = 30
_URL_LIFETIME_S = 1800
_WIDTH = 79
_INDENT = " " * 13  # below the seconds of a result
_MOST_LINES = 8
_BURST = 200
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
_MEANINGS = {
    "upload-url": "the daemon asks for a signed URL",
    "upload": "the archive arrives in the bucket",
    "initialize": "the sandbox unpacks it",
    "execute": "a program of syncd's looks there",
    "download": "the agent's version comes home",
}
# The other requests of such a look; they are shown if they fail.
_OF_LOOKS = ("execution-upload-url", "execution-upload", "execution-logs", "execution-status", "export-artifacts")
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
    requests: SimpleQueue[RequestRecord] = SimpleQueue()
    with ExitStack() as opened:
        interrupt = Interrupt()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has a background job ignore it
        opened.enter_context(interrupting(interrupt))
        folder = os.path.realpath(opened.enter_context(tempfile.TemporaryDirectory(prefix="syncd-demo-")))
        cloud = os.path.join(folder, "cloud")
        emulator = opened.enter_context(
            Emulator(cloud, port=0, api_key="", url_lifetime_s=_URL_LIFETIME_S, clock=CLOCK, observer=requests.put)
        )
        if directory is None:
            os.mkdir(workspace := os.path.join(folder, "workspace"))
        else:
            workspace = os.path.abspath(directory)
        keys = {
            "workspace.path": workspace,
            "sandbox.id": _MAIN_ID,
            "sandbox.base_url": emulator.base_url,
            "sandbox.api_key_file": os.path.join(folder, "no-key-file"),  # the key is in the environment
            # In the tour, what both sides change waits for the person.
            "sandbox.agent_changes": "hold" if directory is None else "save",
            **_TIMING,
        }
        config_file = os.path.join(folder, "config.toml")
        with open(config_file, "w", encoding="utf-8") as file:
            file.writelines(f"{name} = {json.dumps(value)}\n" for name, value in keys.items())
        config = load_config(config_file)
        if folder.startswith(config.workspace.path + os.sep):
            raise WorkspaceError(f"{workspace} holds the demo's own folder {folder}", "set TMPDIR to another folder")
        environ = {name: value for name, value in os.environ.items() if name not in _SERVICE_VARIABLES} | {
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "KLAVIS_API_KEY": emulator.api_key,
            "XDG_STATE_HOME": os.path.join(folder, "state"),
            "XDG_CACHE_HOME": os.path.join(folder, "cache"),
        }
        there, second = (str(emulator.create_sandbox(each).workspace) for each in (_MAIN_ID, _SECOND_ID))
        demo = _Demo(config, config.workspace.path, there, second, emulator, environ, requests, interrupt)
        opened.callback(demo.end)
        yield demo


class _Demo(Struct):
    """The workspace, that of the sandbox, `there`, and of a second one; the emulator, the daemon, what is printed."""

    config: Config
    workspace: str
    there: str
    second: str
    emulator: Emulator
    environ: dict[str, str]
    coming: SimpleQueue[RequestRecord]
    interrupt: Interrupt
    requests: list[RequestRecord] = []
    daemon: subprocess.Popen[bytes] | None = None
    steps: int = 0
    since_s: float = 0.0  # of the last heading or pause

    # -- programs

    def start(self, log_level: str = "error") -> None:
        """Start `syncd run` as a process of its own, which logs to stdout."""
        self.daemon = subprocess.Popen(
            [*_SYNCD, "run", "--config", self.config.file, "--log-level", log_level],
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

    def syncd(self, *arguments: str, codes: Collection[int] = (0,)) -> list[str]:
        """Run a command of syncd in the workspace, and return the lines of its output. Raises `TryLater`."""
        return self._output([*_SYNCD, *arguments, "--config", self.config.file], self.workspace, {}, codes)

    def show_syncd(self, *arguments: str) -> bool:
        """Run such a command, and print what it says. True if the sandbox became equal by it."""
        output = self.syncd(*arguments, codes=(0, 1))
        is_equal = self.catch_up()  # the daemon may be faster than the command's end
        hunk = next((number for number, text in enumerate(output, 1) if text.startswith("@@")), 0)
        self.show(shlex.join(("syncd", *arguments)), output[hunk : hunk + _MOST_LINES])
        return is_equal

    def git(self, folder: str, *arguments: str) -> list[str]:
        """Run git in a folder, and return the lines of its output. Raises `TryLater`."""
        return self._output([*_GIT, *arguments], folder, _NO_SETTINGS, (0,))

    def _output(self, line: list[str], folder: str, more: dict[str, str], codes: Collection[int]) -> list[str]:
        environ = {**self.environ, **more}
        null, pipe = subprocess.DEVNULL, subprocess.PIPE
        with subprocess.Popen(line, cwd=folder, env=environ, stdin=null, stdout=pipe, stderr=pipe) as program:
            try:
                while program.returncode is None:
                    with suppress(subprocess.TimeoutExpired):
                        output, complaint = program.communicate(timeout=_LOOK_S)
                    self.interrupt.check()
            finally:
                program.kill()
        if program.returncode not in codes:
            said = os.fsdecode(complaint).strip()
            command_line = shlex.join(line)
            raise TryLater(f"{command_line} ended with {program.returncode} ({said})", "please report it")
        return output.decode("utf-8", "replace").splitlines()

    # -- what is printed, at most 80 columns wide, and as the terminal

    def heading(self, text: str) -> None:
        click.echo("\n" + click.style(textwrap.fill(text, _width()), bold=True))
        self.since_s = CLOCK.monotonic_s()

    def step(self, title: str, text: str) -> None:
        self.steps += 1
        self.heading(f"{self.steps}. {title}")
        self.paragraph(text)
        self.pause()

    def paragraph(self, text: str) -> None:
        click.echo(textwrap.fill(text, _width(), initial_indent="   ", subsequent_indent="   "))

    def result(self, text: str) -> None:
        """Print a line with the seconds."""
        line = f"   {CLOCK.monotonic_s() - self.since_s:6.2f} s  {text}"
        click.echo(textwrap.fill(line, _width(), subsequent_indent=_INDENT))

    def show(self, command: str, output: Iterable[str]) -> None:
        self.result(click.style(command, bold=True))
        for shown in output:
            click.echo(textwrap.fill(shown_path(shown), _width(), initial_indent=_INDENT, subsequent_indent=_INDENT))

    def places(self) -> None:
        """Print both sides, and what is left out by which rule."""
        click.echo(f"     workspace  {shown_path(self.workspace)}")
        click.echo(f"     sandbox    {shown_path(self.there)}")
        left_out = self.syncd("ls", "--ignored")
        files = counted(count_files(scan_workspace(self.config).scan.manifest.values()), "file")
        self.paragraph(f"The sandbox gets {files}. Excluded by a rule: {len(left_out) or 'nothing'}")
        rows = [line.partition("\t")[::2] for line in left_out[:_MOST_LINES]]
        self.show("syncd ls --ignored", aligned(rows) if rows else [])

    def pause(self) -> None:
        """Wait, so that a person can read. Without a terminal, wait for nothing."""
        self.catch_up(_READING_S if sys.stdout.isatty() else 0.0)
        self.since_s = CLOCK.monotonic_s()

    def catch_up(self, seconds: float = 0.0) -> bool:
        """Print the requests that came, and those of so many seconds. True if the sandbox became equal by them."""
        return any([*self.follow(seconds)])

    def until_equal(self) -> None:
        """Print requests until the sandbox has become equal to the workspace. Raises `TryLater`."""
        if not any(self.follow(_EQUAL_S)):
            raise TryLater(f"the sandbox is not equal to the workspace after {_EQUAL_S:.0f} s", "please report it")

    def flush(self) -> None:
        """Run `syncd flush`, and print the requests that came of it."""
        self.syncd("flush", "--timeout", str(_FLUSH_S))
        self.catch_up()

    def follow(self, seconds: float) -> Iterator[bool]:
        """Print requests for so long. For each: True if the sandbox has just become equal to the workspace.

        Raises `Stop` after a signal, and the failure of a daemon that ended.
        """
        deadline_s = CLOCK.monotonic_s() + seconds
        while True:
            left_s = deadline_s - CLOCK.monotonic_s()
            try:
                self.interrupt.check()
                request = self.coming.get(timeout=max(0.0, min(left_s, _LOOK_S)))
            except Empty:
                if left_s <= 0:
                    return
                if self.daemon is not None and (code := self.daemon.poll()) is not None:
                    raise failure_with(code, f"syncd run ended with {code}: see above") from None
                continue
            self.requests.append(request)
            self._print(request)
            yield request.op == "initialize" and request.status == 200 and self._compare(request.sandbox)

    def _print(self, entry: RequestRecord) -> None:
        if entry.op in _OF_LOOKS and entry.status == 200:
            return
        sent = size(entry.bytes_in) if entry.op == "upload" and entry.status == 200 else ""
        meaning = _MEANINGS.get(entry.op, "")
        if entry.status != 200:
            meaning = click.style("the network fails" if entry.status is None else "refused", fg="yellow")
        name = "look" if entry.op == "execute" or entry.op in _OF_LOOKS else entry.op
        self.result(f"{name:10}  {entry.status or '---'}  {sent:>11}  {meaning}")

    def _compare(self, sandbox_id: str | None) -> bool:
        manifest = scan_workspace(self.config).scan.manifest
        there = self.there if sandbox_id == _MAIN_ID else self.second
        lacking = sum(not _same(f"{self.workspace}/{path}", f"{there}/{path}") for path in manifest)
        if lacking:
            self.result(f"not equal yet: in {counted(lacking, 'path')}")
        else:
            equal = click.style("equal", fg="green", bold=True)
            files = counted(count_files(manifest.values()), "file")
            self.result(f"{equal}: the sandbox holds the workspace's {files}, byte for byte")
        return not lacking


def _same(here: str, there: str) -> bool:
    """True if both are of the same kind, with the same content or target; a file, if it is executable in both."""
    try:
        mode, other = (os.lstat(path).st_mode for path in (here, there))
        if stat.S_IFMT(mode) != stat.S_IFMT(other):
            return False
        if stat.S_ISLNK(mode):
            return os.readlink(here) == os.readlink(there)
        if not stat.S_ISREG(mode):
            return True
        return not (mode ^ other) & stat.S_IXUSR and filecmp.cmp(here, there, shallow=False)
    except OSError:
        return False


def _show_directory(demo: _Demo) -> None:
    demo.heading("syncd keeps a sandbox's workspace in sync with this directory, until you press Ctrl-C")
    demo.places()
    demo.paragraph("Now change something in it, and compare the two.")
    demo.paragraph("Of an agent in a real sandbox, `syncd diff` shows the changes, and `syncd apply` takes them home.")
    demo.heading("What happens")
    demo.start("info")
    demo.catch_up(_FOREVER_S)


def _show_tour(demo: _Demo) -> None:
    for path, content in _SAMPLE.items():
        _write(demo.workspace, path, content)
    os.chmod(f"{demo.workspace}/run.sh", 0o755)  # noqa: S103 - this permission must arrive too
    demo.heading("syncd keeps a sandbox's workspace in sync with a directory of yours")
    demo.paragraph("Here a real daemon does so with no account: an emulator on this machine stands in for the sandbox.")
    demo.places()
    demo.pause()
    _show_syncs(demo)
    has_git = find_git(os.environ) is not None
    if has_git:
        _show_the_agents_side(demo)
    done = Counter(request.op for request in demo.requests if request.status == 200)
    demo.heading(f"Done: {done['upload']} uploads over {counted(done['upload-url'], 'signed URL')}")
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
    demo.flush()

    demo.step(
        "An edit",
        "A line is added to src/tea/brew.py. When the workspace has been quiet for half a second, it is sent. The "
        "signed URL is still valid, so the daemon does not ask for another.",
    )
    _write(workspace, _BREW, "MINUTES['oolong'] = 3\n")
    demo.until_equal()

    demo.step("A burst", f"A generator writes {_BURST} files. They are one change and one upload.")
    for number in range(_BURST):
        _write(workspace, f"generated/part{number:03}.txt", f"part {number}\n" * 20)
    demo.until_equal()

    demo.step(
        "A rename and a deletion",
        'README.md becomes docs/manual.md, and src/tea/old.py is deleted. With deletions = "mirror", the default, both '
        "disappear in the sandbox too, as no one has changed them there.",
    )
    os.rename(f"{workspace}/README.md", f"{workspace}/{_MANUAL}")
    os.unlink(f"{workspace}/src/tea/old.py")
    demo.until_equal()

    demo.step(
        "Nothing to send",
        "A password is added to .env, and a package to node_modules: none of it may leave. Every other file is "
        "touched: its content is the same.",
    )
    before = len(demo.requests)
    _write(workspace, ".env", "DATABASE_PASSWORD=another-secret\n")
    _write(workspace, "node_modules/is-odd/index.js", "module.exports = n => n % 2\n")
    for path in iglob(f"{workspace}/**/*", recursive=True):
        os.utime(path)
    demo.flush()
    demo.result(f"syncd flush: all is in the sandbox; requests for it: {len(demo.requests) - before or 'none'}")

    demo.step(
        "The network fails",
        "A file is edited, and the next three uploads end with their connection. The daemon waits a little longer "
        "each time, and tries again.",
    )
    demo.emulator.bucket.uploads_to_lose = 3
    _write(workspace, _BREW, "MINUTES['white'] = 3\n")
    demo.until_equal()

    demo.step(
        "The daemon is killed",
        "The daemon is ended by kill -9, a file is edited, and a new daemon starts: it finds the change and sends it.",
    )
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
    demo.flush()
    demo.show_syncd("diff", _SHARED)
    demo.show_syncd("apply")
    if not demo.show_syncd("resolve", _BREW, "--mine"):
        demo.until_equal()
    with open(f"{there}/{_SHARED}", encoding="utf-8") as file:
        demo.show(f"{_SHARED}, here and there:", file.read().splitlines())

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
    demo.until_equal()
    demo.flush()
    demo.show("git status, in the sandbox", demo.git(there, "status", "--short", "--branch"))
    _write(there, "src/tea/sugar.py", "SPOONS = 1\n")
    demo.git(there, "add", "-A")
    demo.git(there, "commit", "-q", "-m", "Add sugar")
    demo.show("syncd log", demo.syncd("log"))
    demo.show("syncd apply --branch tea", demo.syncd("apply", "--branch", "tea"))
    demo.catch_up()
    demo.show("git log --oneline tea, here", demo.git(here, "log", "--oneline", "tea"))

    demo.step(
        "Two agents",
        "A second sandbox gets everything too. Its agent and the first one edit the same line: you compare them, take "
        "one, take it back, and take the other. No agent's work is lost, and none reaches the other by itself.",
    )
    demo.show_syncd("sandbox", "add", "blue", "--id", _SECOND_ID)
    demo.flush()
    _edit(there, _BREW, '"black": 4', '"black": 5')
    _edit(demo.second, _BREW, '"black": 4', '"black": 3')
    demo.show_syncd("diff", "--all", "--stat", _BREW)
    demo.show_syncd("apply", "--sandbox", "main", _BREW)
    demo.show_syncd("apply", "--undo")
    demo.show_syncd("diff", "--sandbox", "main", "--against", "blue", _BREW)
    demo.show_syncd("apply", "--sandbox", "blue", _BREW)
    with open(f"{here}/{_BREW}", encoding="utf-8") as file:
        demo.show(f"{_BREW}, here:", file.read().splitlines()[:1])


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
