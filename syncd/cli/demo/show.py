"""The demonstration on a person's own directory: each sync as it happens, until they have seen enough."""

from __future__ import annotations

from typing import NoReturn

from syncd.cli.demo.screen import Screen
from syncd.cli.demo.stage import DemoRun, SyncdPrinted
from syncd.core.formatting import size
from syncd.emulator import RequestRecord
from syncd.scan.manifest import content_bytes, count_files
from syncd.selection.selection import Decision

_LEFT_OUT_SHOWN = 8


def show(stage: DemoRun, screen: Screen) -> NoReturn:
    """Tell what happens. Raises `Stop` when someone has seen enough, `SyncdError` if the daemon cannot work."""
    left_out: list[tuple[str, Decision]] = []
    manifest = stage.scan(left_out)
    screen.heading("syncd keeps a sandbox's workspace equal to this directory, for as long as you like")
    screen.plain(f"     workspace  {stage.workspace}")
    screen.plain(f"     sandbox    {stage.sandbox.workspace}")
    entries = manifest.values()
    screen.text(f"Files that belong there: {count_files(entries):,}, {size(content_bytes(entries))} in all.")
    if left_out:
        screen.text("This stays home:")
        screen.left_out(left_out, _LEFT_OUT_SHOWN)
    screen.text("Now change something in it, and look at both. Ctrl-C ends it.")
    screen.heading("What happens")
    stage.start()
    while True:
        event = stage.next()
        if isinstance(event, SyncdPrinted):
            screen.said(event)
        elif isinstance(event, RequestRecord):
            screen.request(event)
            if event.op == "initialize" and event.status == 200:
                screen.compared(*stage.compare())
