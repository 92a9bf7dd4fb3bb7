"""`syncd demo`: the whole job on this machine, with no account: a tour of a sample, or a directory of your own."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import click

from syncd.cli.demo.environment import DemoEnvironment, demo_environment
from syncd.cli.options import CLOCK
from syncd.core.errors import Stop, TryLater
from syncd.core.formatting import counted, size
from syncd.core.text import one_line, shown_path
from syncd.emulator import RequestRecord
from syncd.scan.manifest import count_files

_READING_S = 1.5
_EQUAL_S = 30.0
_FOREVER_S = 1e9  # until a signal
_WIDTH = 79
_LEFT_OUT_SHOWN = 8
_BURST = 200
_MEANINGS = {
    "upload-url": "the daemon asks for a signed URL",
    "upload": "the archive arrives in the bucket",
    "initialize": "the sandbox unpacks it",
}
_SAMPLE = {
    "README.md": "# Tea timer\n\nSays when the tea is ready. `./run.sh green`\n",
    ".gitignore": "build/\n*.log\n",
    "run.sh": '#!/bin/sh\nexec python3 -m tea "$@"\n',
    "src/tea/brew.py": 'MINUTES = {"green": 2, "black": 4}\n',
    "src/tea/old.py": "# No module imports this any more.\n",
    "docs/thé vert.txt": "Two minutes, not boiling.\n",
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
        with demo_environment(directory) as demo:
            screen = _Screen(demo)
            if directory is None:
                _show_tour(demo, screen)
            else:
                _show_directory(demo, screen)
    except Stop:
        click.echo("\nstopped; nothing is left behind")


class _Screen:
    """The demo's output, at most 80 columns wide. Seconds count from the last heading or pause."""

    def __init__(self, demo: DemoEnvironment) -> None:
        self._demo = demo
        self._since_s = CLOCK.monotonic_s()

    def heading(self, text: str) -> None:
        """Print a heading."""
        click.echo("\n" + click.style(text, bold=True))
        self._since_s = CLOCK.monotonic_s()

    def paragraph(self, text: str) -> None:
        """Print a paragraph."""
        click.echo(textwrap.fill(text, _WIDTH, initial_indent="   ", subsequent_indent="   "))

    def result(self, text: str) -> None:
        """Print a line with the seconds."""
        click.echo(f"   {CLOCK.monotonic_s() - self._since_s:6.2f} s  {text}")

    def workspace(self) -> None:
        """Print what belongs in the sandbox, and what is left out by which rule."""
        manifest, left_out = self._demo.scan()
        click.echo(f"     workspace  {self._demo.workspace}")
        click.echo(f"     sandbox    {self._demo.sandbox.workspace}")
        files = counted(count_files(manifest.values()), "file")
        self.paragraph(f"The sandbox gets {files}. Left out by a rule: {len(left_out) or 'nothing'}")
        for path, decision in left_out[:_LEFT_OUT_SHOWN]:
            rule = one_line(f"{decision.rule.source}: {decision.rule.pattern}") if decision.rule else ""
            click.echo(f"     {shown_path(path):24}  {rule}")

    def pause(self) -> None:
        """Wait, so that a person can read. Without a terminal, wait for nothing."""
        list(self.follow(_READING_S if sys.stdout.isatty() else 0.0))
        self._since_s = CLOCK.monotonic_s()

    def follow(self, seconds: float) -> Iterator[bool]:
        """Print events for so long. For each: True if the sandbox has just become equal to the workspace."""
        deadline_s = CLOCK.monotonic_s() + seconds
        while (event := self._demo.next_event(max(0.0, deadline_s - CLOCK.monotonic_s()))) is not None:
            if isinstance(event, str):
                for line in textwrap.wrap(one_line(f"syncd: {event}", 400), _WIDTH - 13):
                    click.echo(" " * 13 + click.style(line, dim=True))
                yield False
            else:
                self._request(event)
                yield event.op == "initialize" and event.status == 200 and self._compare()

    def _request(self, entry: RequestRecord) -> None:
        sent = size(entry.bytes_in) if entry.op == "upload" and entry.status == 200 else ""
        meaning = _MEANINGS.get(entry.op, "")
        if entry.fault is not None or entry.status != 200:
            meaning = click.style("the network fails" if entry.fault is not None else "refused", fg="yellow")
        self.result(f"{entry.op:10}  {entry.status or '---'}  {sent:>11}  {meaning}")

    def _compare(self) -> bool:
        manifest, found = self._demo.compare()
        if found.equal:
            equal = click.style("equal", fg="green", bold=True)
            files = counted(count_files(manifest.values()), "file")
            self.result(f"{equal}: the sandbox holds the workspace's {files}, byte for byte")
        else:
            self.result(f"not equal yet: the sandbox lacks {counted(len(found.missing + found.different), 'path')}")
        if found.only_there:
            self.result(f"the sandbox keeps {counted(len(found.only_there), 'deleted path')}")
        return found.equal


def _show_directory(demo: DemoEnvironment, screen: _Screen) -> None:
    screen.heading("syncd keeps a sandbox's workspace equal to this directory, until you press Ctrl-C")
    screen.workspace()
    screen.paragraph("Now change something in it, and compare the two.")
    screen.heading("What happens")
    demo.start()
    for _ in screen.follow(_FOREVER_S):
        pass


def _show_tour(demo: DemoEnvironment, screen: _Screen) -> None:
    for path, content in _SAMPLE.items():
        _write(demo, path, content)
    os.chmod(f"{demo.workspace}/run.sh", 0o755)  # noqa: S103 - this permission must arrive too
    screen.heading("syncd keeps a sandbox's workspace equal to a directory of yours")
    screen.paragraph(
        "Here a real daemon does so with no account: an emulator on this machine stands in for the sandbox."
    )
    screen.workspace()
    screen.pause()
    for number, step in enumerate(_STEPS, 1):
        screen.heading(f"{number}. {step.title}")
        screen.paragraph(step.text)
        screen.pause()
        requests = len(demo.emulator.request_log)
        step.act(demo)
        if step.sends:
            if not any(screen.follow(_EQUAL_S)):
                raise TryLater(f"the sandbox is not equal to the workspace after {_EQUAL_S:.0f} s", "please report it")
        else:
            demo.flush()
            list(screen.follow(0))
            sent = len(demo.emulator.request_log) - requests
            screen.result(f"syncd flush: all is in the sandbox; requests for it: {sent or 'none'}")
    log = demo.emulator.request_log
    uploads, urls = log.count("upload", 200), counted(log.count("upload-url", 200), "signed URL")
    screen.heading(f"Done: {uploads} uploads over {urls}")
    screen.paragraph("Workspace, sandbox and daemon are removed now.")
    screen.paragraph("With a directory of yours: syncd demo DIR. With a real sandbox: syncd init.")


def _write(demo: DemoEnvironment, path: str, content: str) -> None:
    target = os.path.join(demo.workspace, path)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target, "a", encoding="utf-8") as file:
        file.write(content)


def _write_many(demo: DemoEnvironment) -> None:
    for number in range(_BURST):
        _write(demo, f"generated/part{number:03}.txt", f"part {number}\n" * 20)


def _rename_and_delete(demo: DemoEnvironment) -> None:
    os.rename(f"{demo.workspace}/README.md", f"{demo.workspace}/docs/manual.md")
    os.unlink(f"{demo.workspace}/src/tea/old.py")


def _write_nothing_new(demo: DemoEnvironment) -> None:
    _write(demo, ".env", "DATABASE_PASSWORD=another-secret\n")
    _write(demo, "node_modules/is-odd/index.js", "module.exports = n => n % 2\n")
    for path in demo.scan()[0]:
        os.utime(os.path.join(demo.workspace, path))


def _edit_without_network(demo: DemoEnvironment) -> None:
    demo.emulator.faults.script("any: reset x3")
    _write(demo, "src/tea/brew.py", "MINUTES['white'] = 3\n")


def _kill_and_restart(demo: DemoEnvironment) -> None:
    demo.end(signal.SIGKILL)
    _write(demo, "docs/manual.md", "\nWritten while no daemon was running.\n")
    demo.start()


@dataclass(frozen=True)
class _Step:
    """One step of the tour. If it `sends`, it ends when the sandbox is equal; else when `syncd flush` returns."""

    title: str
    text: str
    act: Callable[[DemoEnvironment], None]
    sends: bool = True


_STEPS = (
    _Step("The daemon starts", "The sandbox is empty: all is sent, in one archive.", DemoEnvironment.start),
    _Step(
        "An edit",
        "A line is added to src/tea/brew.py. When the workspace has been quiet for half a second, it is sent. The "
        "signed URL is still valid, so the daemon does not ask for another.",
        lambda demo: _write(demo, "src/tea/brew.py", "MINUTES['oolong'] = 3\n"),
    ),
    _Step("A burst", f"A generator writes {_BURST} files. They are one change and one upload.", _write_many),
    _Step(
        "A rename and a deletion",
        'README.md becomes docs/manual.md, and src/tea/old.py is deleted. With deletions = "keep", the default, '
        "nothing is taken away from an agent that works in the sandbox.",
        _rename_and_delete,
    ),
    _Step(
        "Nothing to send",
        "A password is added to .env, and a package to node_modules: none of it may leave. Every other file is "
        "touched: its content is the same.",
        _write_nothing_new,
        sends=False,
    ),
    _Step(
        "The network fails",
        "A file is edited, and the next three requests end in a connection reset. The daemon waits a little longer "
        "each time, and tries again.",
        _edit_without_network,
    ),
    _Step(
        "The daemon is killed",
        "The daemon is ended by kill -9, a file is edited, and a new daemon starts: it finds the change and sends it.",
        _kill_and_restart,
    ),
)
