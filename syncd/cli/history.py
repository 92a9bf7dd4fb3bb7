"""`syncd history`: past syncs and the paths that left in them, for people or programs, with or without a daemon."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from itertools import chain

import click
import msgspec

from syncd.cli.layout import Tone, styled, wrapped, written
from syncd.cli.options import config_option, configured, full_id
from syncd.core.directories import directories_for
from syncd.core.errors import NeedsPerson
from syncd.core.settings import MAIN
from syncd.core.text import counted, duration, one_line, shown_path, size
from syncd.report.history import UNCHANGED, HistoryStore, SyncEnding, SyncRecord
from syncd.sync.outcome import Change

_LINES = 20
_INDENT = 12  # columns of the mark and the time
_WITHOUT_TERMINAL, _MOST_COLUMNS = 88, 120
_LONGEST_PATH = 60
_SIGNS = {Change.ADDED.value: "+", Change.CHANGED.value: "~", Change.REMOVED.value: "-", UNCHANGED: "="}


@click.command("history")
@config_option
@click.option(
    "-n",
    "--lines",
    "most",
    metavar="N",
    type=click.IntRange(min=0),
    help=f"So many of the newest, {_LINES} if not given; 0: all that are kept.",
)
@click.option("--failed", "only_failed", is_flag=True, help="Only those that failed.")
@click.option(
    "--paths",
    "which",
    metavar="[N|ID]",
    is_flag=False,
    flag_value="1",
    help="The paths that left in the last sync that sent some; in the Nth last; 0: in all; in the one with this ID.",
)
@click.option("--json", "as_json", is_flag=True, help="For scripts: one JSON object a line on stdout.")
def command(config_file: str | None, most: int | None, only_failed: bool, which: str | None, as_json: bool) -> None:
    """List past syncs, the newest last: when, how it ended, why, bytes, time, what changed.

    Listed is what sent something, was asked for, failed, or succeeded after failures. The same failure again and again
    is listed once, and counted in the next line. Some thousands are kept.

    --paths shows the paths in the archives of a sync: + added, ~ changed, - to be removed, = as the sandbox had it.
    """
    if which is not None and (only_failed or most is not None):
        raise click.UsageError("--paths goes with neither --lines nor --failed.")
    records = _read(HistoryStore(directories_for(configured(config_file).workspace.path, os.environ).state))
    width = min(_MOST_COLUMNS, shutil.get_terminal_size().columns) if sys.stdout.isatty() else _WITHOUT_TERMINAL
    if which is not None:
        chosen = _with_paths(which, records)
        lines = chain.from_iterable(chain(table([record], width), path_lines(record, width)) for record in chosen)
    else:
        found = [record for record in records if record.is_failure or not only_failed]
        chosen = found[-(_LINES if most is None else most) :]  # [-0:] is all
        if not chosen:
            click.echo(f"no {'failed ' if records else ''}sync of this workspace is recorded", err=True)
        lines = chain(table(chosen, width))
    if as_json:
        hidden = ("sent",) if which is None else ()
        objects = ({k: v for k, v in msgspec.to_builtins(record).items() if k not in hidden} for record in chosen)
        sys.stdout.writelines(f"{json.dumps(each)}\n" for each in objects)
        return
    for line in lines:
        print(written(line, sys.stdout), flush=True)  # click would not escape what the encoding lacks


def _read(store: HistoryStore) -> list[SyncRecord]:
    """Return the records that can be read, and tell of the others."""
    try:
        records, damaged = store.read()
    except OSError as failure:
        raise NeedsPerson(
            f"the history {shown_path(store.path)} cannot be read ({failure.strerror})",
            "make it a file that you can read, or remove it",
        ) from None
    if damaged:
        click.echo(f"syncd: {counted(damaged, 'damaged line')} of the history skipped: nothing to do", err=True)
    return records


def _with_paths(which: str, records: list[SyncRecord]) -> list[SyncRecord]:
    """Return the syncs that `--paths` names. Raises `NeedsPerson` if there is no such id."""
    if not which.isdecimal():
        which = full_id(which, (record.id for record in records), "syncs")
    named = [record for record in records if record.id == which]
    if named:
        if not named[0].sent:
            click.echo(f"no paths of the sync {which} are kept: it sent nothing, or they were removed", err=True)
        return named
    number = int(which) if which.isdecimal() and len(which) < 10 else -1
    if number < 0:
        raise NeedsPerson(
            f"no sync {one_line(which, 40)!r} is in the history", "`syncd history` lists them with their ids"
        )
    sending = [record for record in records if record.sent]
    if number > len(sending):
        click.echo(f"paths are kept of no more than {counted(len(sending), 'sync')}", err=True)
        return []
    return sending[-number:][:1] if number else sending


def table(records: Iterable[SyncRecord], width: int) -> Iterator[str]:
    """The lines for these syncs, at most `width` columns each; times are local."""
    day = ""
    for record in records:
        local = record.at.astimezone()
        if (today := f"{local:%a %Y-%m-%d}") != day:
            day = today
            yield styled(day, Tone.STRONG)
        mark, tone = ("!", Tone.BAD) if record.is_failure else (" ", Tone.PLAIN)
        outcome = styled(f"{one_line(record.outcome, 11):11}  ", tone)
        first = f"{styled(mark, tone)} {local:%H:%M:%S}  {one_line(record.id, 6):6}  {outcome}"
        yield from wrapped(", ".join(filter(None, _notes(record))), width, first, _INDENT)
        if record.is_failure and record.error:
            yield from wrapped(f"{record.error.step}: {record.error.message}", width, " " * _INDENT, _INDENT)


def _further(record: SyncRecord) -> str:
    """The name of the sandbox, but for the main one, and for a record that has its id alone."""
    return one_line(record.sandbox) if record.sandbox != MAIN and record.sandbox_id else ""


def _notes(record: SyncRecord) -> Iterator[str]:
    yield _further(record)
    yield record.why
    yield size(record.sent_bytes) if record.sent_bytes else ""
    yield f"{record.seconds:.2f} s" if record.seconds < 100 else duration(record.seconds)
    yield counted(record.attempts, "attempt") if record.attempts > 1 else ""
    yield f"after {counted(record.failures_before, 'failure')}" if record.failures_before else ""
    change = record.change
    counts = ((change.added, "+"), (change.changed, "~"), (change.removed, "-")) if change else ()
    if numbers := " ".join(f"{sign}{count:,}" for count, sign in counts if count):
        named = (row.path for row in record.rows() if row.path and row.change != UNCHANGED)
        path = shown_path(next(named, ""))
        yield f"{numbers} {path if len(path) <= _LONGEST_PATH else f'…{path[-_LONGEST_PATH:]}'}".rstrip()
    elif record.outcome == SyncEnding.INITIALIZED:
        yield f"all {counted(record.files or 0, 'file')}"


def path_lines(record: SyncRecord, width: int) -> Iterator[str]:
    """The lines for the paths that left in this sync. Only those with a path may be longer than `width`."""
    for archive in record.sent:
        held = [row for row in archive.rows if row.change != Change.REMOVED]
        paths, amount = counted(sum(row.paths for row in held), "path"), size(sum(row.bytes or 0 for row in held))
        to = _further(record) or record.sandbox_id or record.sandbox
        when = f"  {archive.at.astimezone():%H:%M:%S}  "
        yield from wrapped(f"{archive.archive} archive of {paths}, {amount}, to {to}", width, when, _INDENT)
        for row in archive.rows:
            name = f"({counted(row.paths, 'path')} without a name here)" if row.path is None else shown_path(row.path)
            amount = "" if row.bytes is None else size(row.bytes)
            yield f"{_SIGNS.get(row.change, ' ')}  {amount:>11}  {(row.sha256 or '')[:12]:12}  {name}".rstrip()
