"""How a demonstration is told: short lines of at most 80 columns that read well without colour, too."""

from __future__ import annotations

import textwrap

import click

from syncd.archive.comparison import Comparison
from syncd.cli.demo.stage import SyncdPrinted, now_s
from syncd.core.formatting import size
from syncd.core.text import one_line, shown_path
from syncd.emulator import RequestRecord
from syncd.scan.manifest import Manifest, count_files
from syncd.selection.selection import Decision

_WIDTH = 79
_NAMES_SHOWN = 3
_MEANINGS = {
    "upload-url": "the daemon asks for a signed URL",
    "upload": "the archive arrives in the bucket",
    "initialize": "the sandbox unpacks it",
}


class Screen:
    """Writes to stdout; seconds count from the last `heading`, or from the start."""

    def __init__(self) -> None:
        self._from_s = now_s()

    def restart_clock(self) -> None:
        """Seconds count from now on."""
        self._from_s = now_s()

    def heading(self, text: str) -> None:
        """What comes next."""
        self.restart_clock()
        click.echo("\n" + click.style(text, bold=True))

    def text(self, text: str) -> None:
        """A paragraph."""
        click.echo(textwrap.fill(text, _WIDTH, initial_indent="   ", subsequent_indent="   "))

    def plain(self, text: str) -> None:
        """Lines as they are."""
        click.echo(text)

    def request(self, entry: RequestRecord) -> None:
        """A request that the emulator finished."""
        if entry.fault is not None or entry.status is None:
            meaning = click.style("the network fails", fg="yellow")
        elif entry.status != 200:
            meaning = click.style("refused", fg="yellow")
        else:
            meaning = _MEANINGS.get(entry.op, "")
        answer = "---" if entry.status is None else str(entry.status)
        sent = size(entry.bytes_in) if entry.op == "upload" and entry.status == 200 else ""
        click.echo(f"   {self._clock()}  {entry.op:10}  {answer}  {sent:>11}  {meaning}")

    def said(self, said: SyncdPrinted) -> None:
        """A line of the daemon's log."""
        text = one_line(f"syncd: {said.message}", 400)
        indent = " " * 13
        for line in textwrap.wrap(text, _WIDTH - len(indent)):
            click.echo(indent + click.style(line, dim=True))

    def compared(self, manifest: Manifest, found: Comparison) -> None:
        """Whether the sandbox holds the workspace now."""
        files = count_files(manifest.values())
        if found.equal:
            equal = click.style("equal", fg="green", bold=True)
            all_files = "the one file" if files == 1 else f"all {files:,} files"
            self.result(f"{equal}: the sandbox holds {all_files}, byte for byte")
        else:
            ways = [f"lacks {names(found.missing)}"] if found.missing else []
            ways += [f"differs in {names(found.different)}"] if found.different else []
            self.result(f"not equal yet: the sandbox {' and '.join(ways)}")

    def result(self, text: str) -> None:
        """How it ended, and when."""
        click.echo(f"   {self._clock()}  {text}")

    def left_out(self, paths: list[tuple[str, Decision]], most: int) -> None:
        """What stays home, and by which rule."""
        for path, decision in paths[:most]:
            rule = one_line(f"{decision.rule.source}: {decision.rule.pattern}") if decision.rule else ""
            click.echo(f"     {shown_path(path):24}  {rule}")
        if len(paths) > most:
            click.echo(f"     and {len(paths) - most:,} more")

    def _clock(self) -> str:
        return f"{now_s() - self._from_s:6.2f} s"


def names(paths: list[str]) -> str:
    """The first few of some paths."""
    shown = ", ".join(shown_path(path) for path in paths[:_NAMES_SHOWN])
    more = len(paths) - _NAMES_SHOWN
    return f"{shown} and {more:,} more" if more > 0 else shown
