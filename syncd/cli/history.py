"""`syncd history`: past syncs, for people or programs, with or without a daemon."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing

import click
import msgspec

from syncd.cli.options import config_option, configured
from syncd.cli.output import Tone, styled, text_width, wrapped, written
from syncd.core.clock import day_and_time
from syncd.core.directories import directories_for
from syncd.core.settings import MAIN
from syncd.core.text import counted, duration, one_line, size
from syncd.report.history import SyncEnding, SyncRecord, records
from syncd.store.state_db import StateDb

_LINES = 20
_INDENT = 12  # columns of the mark and the time
_WORDS: dict[str, str] = {
    SyncEnding.INITIALIZED: "synced",
    SyncEnding.UNCHANGED: "in sync",
    SyncEnding.SUPERSEDED: "gave way",
}
_WIDTH = 88


@click.command("history")
@config_option
@click.option(
    "-n",
    "--lines",
    "most",
    metavar="N",
    type=click.IntRange(min=0),
    default=_LINES,
    help=f"So many of the newest, {_LINES} if not given; 0: all that are kept.",
)
@click.option("--failed", "only_failed", is_flag=True, help="Only those that failed.")
@click.option("--json", "as_json", is_flag=True, help="For scripts: one JSON object a line on stdout.")
def command(config_file: str | None, most: int, only_failed: bool, as_json: bool) -> None:
    """List past syncs, the newest last: when, how it ended, why, bytes, time, what changed.

    \b
    syncd history
    syncd history --failed -n 0    all failures that are kept

    Listed is what sent something, was asked for, failed, or succeeded after failures. One that gave way began anew, for
    a newer change or a command. +2 are new paths, ~1 are changed ones, -3 removed ones. Some thousands are kept.
    """
    with closing(StateDb(directories_for(configured(config_file).workspace.path, os.environ).state)) as db:
        all_ = records(db)
    found = [record for record in all_ if record.is_failure or not only_failed]
    chosen = found[-most:]  # [-0:] is all
    if not chosen:
        click.echo(f"no {'failed ' if all_ else ''}sync of this workspace is recorded", err=True)
    if as_json:
        sys.stdout.writelines(f"{json.dumps(msgspec.to_builtins(record))}\n" for record in chosen)
        return
    for line in table(chosen, text_width(sys.stdout, _WIDTH)):
        print(written(line, sys.stdout), flush=True)  # click would not escape what the encoding lacks
    if len(chosen) < len(found):
        click.echo(f"the newest {len(chosen):,} of {len(found):,}: `syncd history -n 0` lists all", err=True)


def table(listed: Iterable[SyncRecord], width: int) -> Iterator[str]:
    """The lines for these syncs, at most `width` columns each; times are local."""
    day = ""
    for record in listed:
        today, _, time = day_and_time(record.at.timestamp()).rpartition(" ")
        if today != day:
            day = today
            yield styled(day, Tone.STRONG)
        mark, tone = ("!", Tone.BAD) if record.is_failure else (" ", Tone.PLAIN)
        outcome = styled(f"{one_line(_WORDS.get(record.outcome, record.outcome), 11):11}  ", tone)
        first = f"{styled(mark, tone)} {time}  {outcome}"
        yield from wrapped(", ".join(filter(None, _notes(record))), width, first, _INDENT)
        if record.is_failure and record.error:
            yield from wrapped(f"{record.error.step}: {record.error.message}", width, " " * _INDENT, _INDENT)


def _notes(record: SyncRecord) -> Iterator[str]:
    yield one_line(record.sandbox) if record.sandbox != MAIN and record.sandbox_id else ""
    yield record.why
    yield size(record.sent_bytes) if record.sent_bytes else ""
    yield f"{record.seconds:.2f} s" if record.seconds < 100 else duration(record.seconds)
    yield counted(record.attempts, "attempt") if record.attempts > 1 else ""
    yield f"after {counted(record.failures_before, 'failure')}" if record.failures_before else ""
    change = record.change
    counts = ((change.added, "+"), (change.changed, "~"), (change.removed, "-")) if change else ()
    if numbers := " ".join(f"{sign}{count:,}" for count, sign in counts if count):
        yield numbers
    elif record.outcome == SyncEnding.INITIALIZED:
        yield f"all {counted(record.files or 0, 'file')}"
