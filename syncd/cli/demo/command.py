"""`syncd demo`: the whole job on this machine, with no account: a tour of a sample, or a directory of your own."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import click
from msgspec import Struct

from syncd.cli.demo.environment import DemoEnvironment, demo_environment
from syncd.cli.options import CLOCK
from syncd.core.errors import Stop, TryLater
from syncd.core.formatting import counted, size
from syncd.core.text import one_line, shown_path
from syncd.emulator import RequestRecord
from syncd.merge.git import find_git
from syncd.model.entry import count_files

_READING_S = 1.0
_EQUAL_S = 100.0  # a busy machine takes its time
_FOREVER_S = 1e9  # until a signal
_WIDTH = 79
_INDENT = 13  # below the seconds of a result
_LEFT_OUT_SHOWN = 8
_BURST = 200
_DIFF_LINES = 8
_MEANINGS = {
    "upload-url": "the daemon asks for a signed URL",
    "upload": "the archive arrives in the bucket",
    "initialize": "the sandbox unpacks it",
    "execute": "a program of syncd's looks there",
    "download": "the agent's version comes home",
}
# The other requests of such a look; they are shown if they fail.
_OF_LOOKS = ("execution-upload-url", "execution-upload", "execution-logs", "execution-status", "export-artifacts")
_SHARED = "docs/thé vert.txt"
_SAMPLE = {
    "README.md": "# Tea timer\n\nSays when the tea is ready. `./run.sh green`\n",
    ".gitignore": "build/\n*.log\n",
    "run.sh": '#!/bin/sh\nexec python3 -m tea "$@"\n',
    "src/tea/brew.py": 'MINUTES = {"green": 2, "black": 4}\n',
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
        with demo_environment(directory) as demo:
            screen = _Screen(demo)
            if directory is None:
                _show_tour(demo, screen)
            else:
                _show_directory(demo, screen)
    except Stop:
        click.echo("\nstopped; nothing is left behind")


class _Screen:
    """The demo's output, at most 80 columns wide, and as the terminal. Seconds count from the last heading or pause."""

    def __init__(self, demo: DemoEnvironment) -> None:
        self._demo = demo
        self._width = min(_WIDTH, shutil.get_terminal_size().columns - 1) if sys.stdout.isatty() else _WIDTH
        self._since_s = CLOCK.monotonic_s()
        self._requests = 0

    def heading(self, text: str) -> None:
        """Print a heading."""
        click.echo("\n" + click.style(textwrap.fill(text, self._width), bold=True))
        self._since_s = CLOCK.monotonic_s()
        self._requests = len(self._demo.requests)

    @property
    def requests(self) -> int:
        """The number of requests since the last heading."""
        return len(self._demo.requests) - self._requests

    def paragraph(self, text: str) -> None:
        """Print a paragraph."""
        click.echo(textwrap.fill(text, self._width, initial_indent="   ", subsequent_indent="   "))

    def command(self, line: str, output: Iterable[str]) -> None:
        """Print a command, and lines of its output."""
        self.result(click.style(line, bold=True))
        for shown in output:
            text = one_line(shown.replace("\t", "    "), self._width - _INDENT)
            colour = {"+": "green", "-": "red"}.get(text[:1])
            click.echo(" " * _INDENT + click.style(text, fg=colour))

    def result(self, text: str) -> None:
        """Print a line with the seconds."""
        line = f"   {CLOCK.monotonic_s() - self._since_s:6.2f} s  {text}"
        click.echo(textwrap.fill(line, self._width, subsequent_indent=" " * _INDENT))

    def workspace(self) -> None:
        """Print what belongs in the sandbox, and what is left out by which rule."""
        manifest, left_out = self._demo.scan()
        click.echo(f"     workspace  {shown_path(str(self._demo.workspace))}")
        click.echo(f"     sandbox    {shown_path(str(self._demo.sandbox.workspace))}")
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
                for line in textwrap.wrap(one_line(f"syncd: {event}", 400), self._width - _INDENT):
                    click.echo(" " * _INDENT + click.style(line, dim=True))
                yield False
            else:
                self._request(event)
                yield event.op == "initialize" and event.status == 200 and self._compare()

    def _request(self, entry: RequestRecord) -> None:
        if entry.op in _OF_LOOKS and entry.status == 200:
            return
        sent = size(entry.bytes_in) if entry.op == "upload" and entry.status == 200 else ""
        meaning = _MEANINGS.get(entry.op, "")
        if entry.status != 200:
            meaning = click.style("the network fails" if entry.status is None else "refused", fg="yellow")
        name = "look" if entry.op == "execute" or entry.op in _OF_LOOKS else entry.op
        self.result(f"{name:10}  {entry.status or '---'}  {sent:>11}  {meaning}")

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
    screen.paragraph(
        "Of an agent in a real sandbox, `syncd diff` shows the changes, and `syncd apply` takes them home."
    )
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
    has_git = find_git(os.environ) is not None
    for number, step in enumerate([*_STEPS, *_GIT_STEPS] if has_git else _STEPS, 1):
        screen.heading(f"{number}. {step.title}")
        screen.paragraph(step.text)
        screen.pause()
        step.act(demo)
        step.follow(demo, screen)
    done = Counter(request.op for request in demo.requests if request.status == 200)
    screen.heading(f"Done: {done['upload']} uploads over {counted(done['upload-url'], 'signed URL')}")
    screen.paragraph("Workspace, sandbox and daemon are removed now.")
    if not has_git:
        screen.paragraph("git is not on this machine: the steps were left out that merge, and bring commits home.")
    screen.paragraph("With a directory of yours: syncd demo DIR. With a real sandbox: syncd init.")


def _until_equal(_: DemoEnvironment, screen: _Screen) -> None:
    if not any(screen.follow(_EQUAL_S)):
        raise TryLater(f"the sandbox is not equal to the workspace after {_EQUAL_S:.0f} s", "please report it")


def _until_proved(demo: DemoEnvironment, screen: _Screen) -> None:
    _until_equal(demo, screen)
    demo.flush()
    list(screen.follow(0))


def _until_flushed(demo: DemoEnvironment, screen: _Screen) -> None:
    demo.flush()
    list(screen.follow(0))
    screen.result(f"syncd flush: all is in the sandbox; requests for it: {screen.requests or 'none'}")


def _bring_home(demo: DemoEnvironment, screen: _Screen) -> None:
    demo.flush()
    list(screen.follow(0))
    for line, codes in (("diff", (0, 1)), ("apply", (0,))):
        output = demo.run(line, codes=codes).splitlines()
        list(screen.follow(0))
        hunk = next((number for number, text in enumerate(output, 1) if text.startswith("@@")), 0)
        screen.command(f"syncd {line}", output[hunk : hunk + _DIFF_LINES])
    _until_equal(demo, screen)
    with open(f"{demo.sandbox.workspace}/{_SHARED}", encoding="utf-8") as file:
        screen.command(f"{_SHARED}, here and there:", file.read().splitlines())


def _bring_commits_home(demo: DemoEnvironment, screen: _Screen) -> None:
    _until_equal(demo, screen)
    demo.flush()
    list(screen.follow(0))
    there = str(demo.sandbox.workspace)
    screen.command("git status, in the sandbox", [demo.git(there, "status", "--short", "--branch")])
    with open(f"{there}/src/tea/sugar.py", "w", encoding="utf-8") as file:
        file.write("SPOONS = 1\n")
    demo.git(there, "add", "-A")
    demo.git(there, "commit", "-q", "-m", "Add sugar")
    screen.command("syncd log", demo.run("log").splitlines())
    screen.command("syncd apply --branch tea", demo.run("apply", "--branch", "tea").splitlines())
    list(screen.follow(0))
    screen.command("git log --oneline tea, here", demo.git(demo.workspace, "log", "--oneline", "tea").splitlines())


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
    demo.emulator.bucket.uploads_to_lose = 3
    _write(demo, "src/tea/brew.py", "MINUTES['white'] = 3\n")


def _kill_and_restart(demo: DemoEnvironment) -> None:
    demo.end(signal.SIGKILL)
    _write(demo, "docs/manual.md", "\nWritten while no daemon was running.\n")
    demo.start()


def _edit_on_both_sides(demo: DemoEnvironment) -> None:
    for top, old, new in (
        (str(demo.sandbox.workspace), "Two minutes", "Three minutes"),
        (demo.workspace, "A pinch", "Two pinches"),
    ):
        path = os.path.join(top, _SHARED)
        with open(path, encoding="utf-8") as file:
            content = file.read()
        with open(path, "w", encoding="utf-8") as file:
            file.write(content.replace(old, new))


def _begin_history(demo: DemoEnvironment) -> None:
    demo.git(demo.workspace, "init", "-q", "--initial-branch=main")
    demo.git(demo.workspace, "add", "-A")
    demo.git(demo.workspace, "commit", "-q", "-m", "The tea timer")
    _write(demo, "docs/manual.md", "\nNow with a history.\n")


class _Step(Struct, frozen=True):
    """One step of the tour; `follow` shows what comes of it, and returns when it is complete."""

    title: str
    text: str
    act: Callable[[DemoEnvironment], None]
    follow: Callable[[DemoEnvironment, _Screen], None] = _until_equal


_STEPS = (
    _Step(
        "The daemon starts",
        "The sandbox is empty: all is sent, in one archive. A second one, nearly empty, then proves that the sandbox "
        "keeps the rest: from now on only what changed is sent.",
        DemoEnvironment.start,
        _until_proved,
    ),
    _Step(
        "An edit",
        "A line is added to src/tea/brew.py. When the workspace has been quiet for half a second, it is sent. The "
        "signed URL is still valid, so the daemon does not ask for another.",
        lambda demo: _write(demo, "src/tea/brew.py", "MINUTES['oolong'] = 3\n"),
    ),
    _Step("A burst", f"A generator writes {_BURST} files. They are one change and one upload.", _write_many),
    _Step(
        "A rename and a deletion",
        'README.md becomes docs/manual.md, and src/tea/old.py is deleted. With deletions = "mirror", the default, both '
        "disappear in the sandbox too, as no one has changed them there.",
        _rename_and_delete,
    ),
    _Step(
        "Nothing to send",
        "A password is added to .env, and a package to node_modules: none of it may leave. Every other file is "
        "touched: its content is the same.",
        _write_nothing_new,
        _until_flushed,
    ),
    _Step(
        "The network fails",
        "A file is edited, and the next three uploads end with their connection. The daemon waits a little longer "
        "each time, and tries again.",
        _edit_without_network,
    ),
    _Step(
        "The daemon is killed",
        "The daemon is ended by kill -9, a file is edited, and a new daemon starts: it finds the change and sends it.",
        _kill_and_restart,
    ),
)

_AGENT_STEP = _Step(
    "The agent writes too",
    "An agent in the sandbox edits one line of docs/thé vert.txt, and you edit another. With agent_changes = "
    '"hold", as here, neither overwrites the other: you look at what the agent did, and take it home. "save", the '
    "default, sends yours and keeps the agent's file in `syncd saved`.",
    _edit_on_both_sides,
    _bring_home,
)
_COMMITS_STEP = _Step(
    "The agent commits",
    "The workspace becomes a git repository. .git stays home; the sandbox gets a repository of its own, which holds "
    "what was sent and follows each sync. The agent commits there, and its commit comes home, onto a new branch.",
    _begin_history,
    _bring_commits_home,
)
_GIT_STEPS = (_AGENT_STEP, _COMMITS_STEP)
