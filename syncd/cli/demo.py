"""`syncd demo`: the whole job on this machine, with no account: of a sample workspace, or of a directory of your own.

An emulator stands in for the sandbox API, a real daemon syncs to it, and the commands are the real ones. All of them
keep everything in one temporary folder.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import click
from msgspec import Struct

from syncd.cli.config import toml
from syncd.cli.options import CLOCK, interruptible
from syncd.cli.output import stdout_failure, text_width, wrapped
from syncd.core.errors import Stop, WorkspaceError, failure_with
from syncd.core.settings import checked_workspace
from syncd.core.text import shown_path
from syncd.core.waiter import Waiter
from syncd.emulator import Emulator

_WIDTH = 80
_LOOK_S = 0.05
_STOP_S = 6.0  # the daemon itself takes at most 5 s from signal to exit
_URL_LIFETIME_S = 1800
_SANDBOX = "demo"
# Set by a service manager for its own service, which the demo's daemon is not.
_SERVICE_VARIABLES = ("CREDENTIALS_DIRECTORY", "STATE_DIRECTORY", "CACHE_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_USEC")
# prctl(PR_SET_PDEATHSIG, SIGTERM): a demo that is killed takes its daemon with it.
_PROGRAM = "import ctypes; ctypes.CDLL(None).prctl(1, 15); from syncd.cli import main; main()"
# -P: a folder named syncd in the current directory must not be taken for the program.
_SYNCD = (sys.executable, "-P", "-c", _PROGRAM)
_SETUP = {"sandbox.setup": ["sh", "setup.sh"], "sandbox.setup_files": ["setup.sh"]}
_SAMPLE = {
    "README.md": "# Tea timer\n\nSays when the tea is ready.\n",
    ".gitignore": "build/\n",
    "brew.py": 'MINUTES = {"green": 2, "black": 4}\n',
    "setup.sh": "mkdir -p build\ncp brew.py build/brew && echo build/brew is made\n",
    # The next two are excluded.
    ".env": "API_TOKEN=a-secret-of-the-sample\n",
    "build/tea.bin": "\0" * 4096,
}


@click.command("demo")
@click.argument("directory", metavar="[DIR]", required=False, type=click.Path(exists=True, file_okay=False))
def command(directory: str | None) -> None:
    """Show the whole job, with an emulator in the place of the sandbox.

    \b
    syncd demo                a sample, in some seconds
    syncd demo ~/code/site    what you do there, until Ctrl-C

    Nothing in DIR is changed, nothing leaves this machine, and nothing is left behind.
    """
    try:
        with _demo(directory) as demo:
            _say(
                "1. The daemon starts" if directory is None else "The daemon starts, until you press Ctrl-C",
                "It sends the first of these folders to the second, which an emulator has in the place of a sandbox:",
            )
            click.echo(f"  {shown_path(demo.workspace)}\n  {shown_path(demo.there)}")
            demo.syncd("ls", "--excluded")
            demo.start()
            if directory is None:
                _show_sample(demo)
            else:
                demo.until(lambda: False)
    except Stop:
        click.echo("\nstopped; nothing is left behind")
    else:
        _say("Done", "With a directory of yours: syncd demo DIR. With a real sandbox: syncd init.")


def _show_sample(demo: _Demo) -> None:
    here, there = demo.workspace, demo.there
    demo.until(lambda: os.path.exists(os.path.join(there, "brew.py")))
    demo.syncd("flush")
    _say(
        "2. The sandbox is set up",
        'It ran sandbox.setup = ["sh", "setup.sh"] there, and `flush` waited for that. Now you run it once more:',
    )
    demo.syncd("setup")
    _say(
        "3. You edit",
        "A line is added to brew.py: it arrives by itself, and `flush` waits for that.",
    )
    _append(here, "brew.py", 'MINUTES["oolong"] = 3\n')
    demo.syncd("flush")
    _say(
        "4. The agent writes in the sandbox, and you bring it home",
        "It adds a line to README.md, and a file. No sync overwrites that. In the end `verify` compares both sides:"
        " build, which the set-up made, is only there.",
    )
    _append(there, "README.md", "`python3 brew.py` lists the minutes.\n")
    _append(there, "sugar.py", "SPOONS = 1\n")
    demo.syncd("diff", "--stat")
    demo.syncd("apply", "--yes")
    demo.syncd("verify")


def _say(title: str, text: str) -> None:
    """Print a heading, and a text of at most five lines."""
    click.echo("\n".join(("", click.style(title, bold=True), *wrapped(text, text_width(sys.stdout, _WIDTH), "  ", 2))))


class _Demo(Struct):
    """The workspace, that of the sandbox, `there`, and the daemon."""

    config_file: str
    workspace: str
    there: str
    environ: dict[str, str]
    waiter: Waiter
    daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start `syncd run` as a process of its own, which logs to stdout."""
        sys.stdout.flush()
        self.daemon = subprocess.Popen(
            [*_SYNCD, "run", "--config", self.config_file],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stderr=sys.stdout.fileno(),
            start_new_session=True,  # Ctrl-C is for the demo, which then stops the daemon
        )

    def end(self) -> None:
        """Stop the daemon, and return when it has exited."""
        if self.daemon is not None:
            self.daemon.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.daemon.wait(_STOP_S)
            self.daemon.kill()
            self.daemon.wait()

    def until(self, is_done: Callable[[], bool]) -> None:
        """Wait. Raises `Stop` after a signal, or without a reader, and `SyncdError` if the daemon has ended."""
        while not is_done():
            code = None if self.daemon is None else self.daemon.poll()
            if code is not None:
                raise failure_with(code, f"syncd run ended with {code}: see above")
            if stdout_failure() is not None:
                raise Stop
            self.waiter.sleep(_LOOK_S)

    def syncd(self, *arguments: str) -> None:
        """Show a command of syncd and run it in the workspace to its end. Raises `SyncdError`, `Stop`."""
        line = shlex.join(("syncd", *arguments))
        click.echo(f"$ {click.style(line, bold=True)}")
        sys.stdout.flush()
        words = (*_SYNCD, *arguments, "--config", self.config_file)
        ended = subprocess.run(words, cwd=self.workspace, env=self.environ, stdin=subprocess.DEVNULL, check=False)
        self.waiter.interrupt.check()
        if ended.returncode > 1:  # 1: something differs
            raise failure_with(ended.returncode, f"{line} failed: see above")


@contextmanager
def _demo(directory: str | None) -> Iterator[_Demo]:
    """A demo of this directory, or of a new one. Raises `SyncdError` for one that cannot be watched."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has a background job ignore it
    with interruptible() as waiter, tempfile.TemporaryDirectory(prefix="syncd-demo-") as made:
        folder = os.path.realpath(made)
        cloud = os.path.join(folder, "cloud")
        workspace = checked_workspace(directory or os.path.join(folder, "workspace"), os.getcwd())
        for path, content in _SAMPLE.items() if directory is None else ():
            _append(workspace, path, content)
        with Emulator(
            cloud, port=0, api_key="", url_lifetime_s=_URL_LIFETIME_S, clock=CLOCK, observer=lambda _: None
        ) as emulator:
            keys = {
                "workspace.path": workspace,
                "sandbox.id": _SANDBOX,
                "sandbox.base_url": emulator.base_url,
                "sandbox.api_key_file": os.path.join(folder, "no-key-file"),  # the key is in the environment
                **(_SETUP if directory is None else {}),
            }
            config_file = os.path.join(folder, "config.toml")
            with open(config_file, "w", encoding="utf-8") as file:
                file.writelines(f"{name} = {toml(value, name)}\n" for name, value in keys.items())
            if folder.startswith(workspace + os.sep):
                what = f"{workspace} holds the demo's own folder {folder}"
                raise WorkspaceError(what, "set TMPDIR to another folder")
            environ = {name: value for name, value in os.environ.items() if name not in _SERVICE_VARIABLES} | {
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "KLAVIS_API_KEY": emulator.api_key,
                "XDG_STATE_HOME": os.path.join(folder, "state"),
                "XDG_CACHE_HOME": os.path.join(folder, "cache"),
            }
            demo = _Demo(config_file, workspace, str(emulator.create_sandbox(_SANDBOX).workspace), environ, waiter)
            try:
                yield demo
            finally:
                demo.end()


def _append(top: str, path: str, content: str) -> None:
    target = os.path.join(top, path)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target, "a", encoding="utf-8") as file:
        file.write(content)
