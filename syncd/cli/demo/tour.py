"""The guided tour: what people do to a workspace, one thing after the other, and what arrives in the sandbox."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from syncd.archive.comparison import Comparison
from syncd.cli.demo.sample import append, write, write_sample
from syncd.cli.demo.screen import Screen, names
from syncd.cli.demo.stage import DemoEvent, DemoRun, SyncdPrinted, now_s
from syncd.core.errors import TryLater
from syncd.core.formatting import size
from syncd.emulator import RequestRecord
from syncd.scan.manifest import count_files
from syncd.selection.selection import Decision

_TIMEOUT_S = 30.0
_BURST = 200
_LEFT_OUT_SHOWN = 10


@dataclass(frozen=True)
class TourStep:
    """`sends`: whether its end is that all has arrived, or that `syncd flush` finds nothing to send.

    `hears`: whether the daemon's own warnings belong to it.
    """

    title: str
    text: str
    do: Callable[[DemoRun], None]
    sends: bool = True
    hears: bool = False


class Tour:
    """Goes through all steps on a stage, and tells of them on a screen, with a pause before each to read."""

    def __init__(self, stage: DemoRun, screen: Screen, pause_s: float) -> None:
        self._stage = stage
        self._screen = screen
        self._pause_s = pause_s
        self._started_s = now_s()
        self._step = STEPS[0]
        self._lingering: set[str] = set()

    def go(self) -> None:
        """The whole tour. Raises `TryLater` where the sandbox does not become equal in time, and `Stop`."""
        self._introduce()
        for number, step in enumerate(STEPS, 1):
            self._step = step
            self._screen.heading(f"{number}. {step.title}")
            self._screen.text(step.text)
            self._pause()
            requests = len(self._stage.emulator.request_log)
            step.do(self._stage)
            if step.sends:
                self._until_equal()
            else:
                self._until_flushed(requests)
        self._sum_up()

    def _pause(self) -> None:
        ends_s = now_s() + self._pause_s
        while (event := self._stage.next(max(0.0, ends_s - now_s()))) is not None:
            self._show(event)
        self._screen.restart_clock()

    def _introduce(self) -> None:
        write_sample(self._stage.workspace)
        show = self._screen
        show.heading("syncd keeps a sandbox's workspace equal to a directory of yours")
        show.text("Here it does so on this machine alone, with no account:")
        show.plain(f"     workspace  {self._stage.workspace}")
        show.plain("     daemon     syncd run, a process that watches the workspace")
        show.plain(f"     sandbox    played by an emulator at {self._stage.emulator.base_url}")
        left_out: list[tuple[str, Decision]] = []
        files = count_files(self._stage.scan(left_out).values())
        show.text(f"The workspace is a small project. {files} of its files belong in the sandbox. This stays home:")
        show.left_out(left_out, _LEFT_OUT_SHOWN)
        self._pause()

    def _until_equal(self) -> None:
        """Show what happens until the sandbox holds the workspace."""
        deadline_s = now_s() + _TIMEOUT_S
        while (event := self._stage.next(max(0.0, deadline_s - now_s()))) is not None:
            self._show(event)
            if _unpacked(event):
                manifest, found = self._stage.compare()
                self._screen.compared(manifest, found)
                if found.equal:
                    self._tell_of_lingering(found)
                    return
        raise TryLater(f"the sandbox is not equal to the workspace after {_TIMEOUT_S:.0f} s", "please report it")

    def _until_flushed(self, requests: int) -> None:
        """Let `syncd flush` say that all is in the sandbox, and show what was sent for it."""
        self._stage.flush()
        while (event := self._stage.next(0)) is not None:
            self._show(event)
        sent = len(self._stage.emulator.request_log) - requests
        self._screen.result(f"syncd flush: all is in the sandbox; requests for it: {sent or 'none'}")

    def _show(self, event: DemoEvent) -> None:
        if isinstance(event, RequestRecord):
            self._screen.request(event)
        elif isinstance(event, SyncdPrinted) and self._step.hears and event.level != "info":
            self._screen.said(event)

    def _tell_of_lingering(self, found: Comparison) -> None:
        fresh = [path for path in found.only_there if path not in self._lingering]
        self._lingering.update(fresh)
        if fresh:
            self._screen.text(f"Left in the sandbox, as deletions are kept there: {names(fresh)}")

    def _sum_up(self) -> None:
        journal = self._stage.emulator.request_log.entries()
        uploads = [entry for entry in journal if entry.op == "upload" and entry.status == 200]
        urls = sum(entry.op == "upload-url" and entry.status == 200 for entry in journal)
        manifest, found = self._stage.compare()
        if not found.equal:
            raise TryLater("the sandbox is not equal to the workspace in the end", "please report it")
        sent = size(sum(entry.bytes_in for entry in uploads))
        show = self._screen
        took_s = now_s() - self._started_s
        show.heading(f"Done in {took_s:.1f} s")
        show.text(
            f"The sandbox holds all {count_files(manifest.values())} files as they are here, and "
            f"{len(found.only_there)} that were deleted or renamed. {len(uploads)} uploads made it so, {sent} in all, "
            f"over {urls} signed URL{'s' * (urls != 1)}. Workspace, sandbox and daemon are removed now."
        )
        show.text("With a directory of yours: syncd demo DIR. With a real sandbox: syncd init.")


def _unpacked(event: DemoEvent) -> bool:
    return isinstance(event, RequestRecord) and event.op == "initialize" and event.status == 200


def _in(stage: DemoRun, path: str) -> str:
    return os.path.join(stage.workspace, path)


def _burst(stage: DemoRun) -> None:
    for number in range(_BURST):
        write(stage.workspace, f"generated/part{number:03}.txt", f"part {number}\n" * 20)


def _stay_home(stage: DemoRun) -> None:
    append(stage.workspace, ".env", "DATABASE_PASSWORD=another-secret\n")
    write(stage.workspace, "node_modules/is-odd/index.js", "module.exports = n => n % 2\n")
    append(stage.workspace, "debug.log", "something happened\n")


def _touch_all(stage: DemoRun) -> None:
    for folder, _, files in os.walk(stage.workspace):
        for name in files:
            os.utime(os.path.join(folder, name), follow_symlinks=False)


def _outage(stage: DemoRun) -> None:
    stage.emulator.faults.script("any: reset x3")
    append(stage.workspace, "src/tea/brew.py", "\n\nMINUTES['white'] = 3\n")


def _crash(stage: DemoRun) -> None:
    stage.kill()
    append(stage.workspace, "README.md", "\nWritten while no daemon was running.\n")
    stage.start()


STEPS = (
    TourStep(
        "The daemon starts", "The sandbox is empty, so everything is sent: one archive, one upload.", DemoRun.start
    ),
    TourStep(
        "A new file",
        "docs/plan.md is written. When the workspace has been quiet for half a second, it goes.",
        lambda stage: write(stage.workspace, "docs/plan.md", "# Plan\n\n1. Oolong\n"),
    ),
    TourStep(
        "An edit",
        "A line is added to src/tea/brew.py. The signed URL still holds, so no other is asked for.",
        lambda stage: append(stage.workspace, "src/tea/brew.py", "\n\nMINUTES['oolong'] = 3\n"),
    ),
    TourStep("A burst", f"A generator writes {_BURST} files. They are one change, so they are one upload.", _burst),
    TourStep(
        "A rename",
        "docs/plan.md becomes docs/roadmap.md.",
        lambda stage: os.rename(_in(stage, "docs/plan.md"), _in(stage, "docs/roadmap.md")),
    ),
    TourStep(
        "A deletion",
        'src/tea/old.py is deleted. The next snapshot is without it. With deletions = "keep", the default, the '
        "sandbox keeps its copy: what an agent works with is not taken away from it.",
        lambda stage: os.unlink(_in(stage, "src/tea/old.py")),
    ),
    TourStep(
        "What stays home",
        "A password is added to .env, a package to node_modules, a line to debug.log. None of it may leave.",
        _stay_home,
        sends=False,
    ),
    TourStep("Saved, but not changed", "Every file is touched. The contents are the same.", _touch_all, sends=False),
    TourStep(
        "The network fails",
        "A file is edited, and the next three requests end in a connection reset. The daemon waits a little longer "
        "each time, and goes on by itself.",
        _outage,
        hears=True,
    ),
    TourStep(
        "The daemon is killed",
        "kill -9, then an edit that nobody sees, then a new start: it looks at what changed meanwhile, and sends that.",
        _crash,
    ),
)
