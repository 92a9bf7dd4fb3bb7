"""`syncd history`: past syncs, for people or for programs, with or without a running daemon."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import click
from click.core import ParameterSource

from syncd.cli.history_paths import archives_of, path_lines
from syncd.cli.options import config_option, configured
from syncd.cli.status.text import Line, Span, Tone, coloured, columns, fitted, wrapped
from syncd.core.directories import directories_for
from syncd.core.errors import NeedsPerson
from syncd.core.formatting import counted, size
from syncd.core.text import printable_json, shown_path
from syncd.report.history import ChangeCounts, SyncEnding, SyncRecord, failed
from syncd.report.history_store import HistoryStore, encoded
from syncd.report.sent_paths import ArchiveRecord, encoded_lines, sent_by_sync
from syncd.report.sent_paths_store import SentPathsStore
from syncd.sync.sync_reason import SyncReason

# Columns: mark, time, id, why, what changed (all the rest), size, seconds, outcome; two spaces between them.
_MARK = 2
_TIME = 8
_ID = 6
_WHY = 9
_SIZE = 11
_TOOK = 7
_OUTCOME = 11
_TEXT = _MARK + _TIME + 2
_NUMBERS = _SIZE + _TOOK + 2 * 2
_REST = _TEXT + _ID + _WHY + _OUTCOME + 3 * 2  # without the numbers
_LEAST = 8
_WITHOUT_TERMINAL = 88
_LEAST_PATH = 4
_MOST_COLUMNS = 120
_MINUTES_FROM_S = 100
_NO_SYNC = "no sync of this workspace is recorded yet: `syncd push` makes one"
_NONE_FAILED = "no failed sync of this workspace is recorded"
_NOT_KEPT = "no paths are kept, as sync.history_paths is false"
_REASONS = {SyncReason.RESCAN.value: "rescan", SyncReason.POLL.value: "poll", SyncReason.RETRY.value: "retry"}


@click.command("history")
@config_option
@click.option(
    "-n",
    "--lines",
    "most",
    metavar="N",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="So many of the newest; 0: all that are kept.",
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
@click.pass_context
def command(
    ctx: click.Context, *, config_file: str | None, most: int, only_failed: bool, which: str | None, as_json: bool
) -> None:
    """List past syncs, the newest last: when, why, what changed, bytes, time, outcome.

    Listed is what sent something, was asked for, failed, or succeeded after failures. The same failure again and again
    is listed once, and counted in the next line. About the last thousand are kept.

    --paths shows the paths in the archives of a sync: + added, ~ changed, - to be removed, = as the sandbox had it.
    """
    if which is not None and (only_failed or ctx.get_parameter_source("most") is not ParameterSource.DEFAULT):
        raise click.UsageError("--paths goes with neither --lines nor --failed.")
    config = configured(config_file)
    folder = directories_for(config.workspace.path, os.environ).state
    history, sent_paths_store = HistoryStore(folder), SentPathsStore(folder)
    records = _read(history.path, history.read)
    if which is not None and not config.sync.history_paths:
        click.echo(_NOT_KEPT, err=True)
    elif which is not None:
        sent = sent_by_sync(_read(sent_paths_store.path, sent_paths_store.read), records)
        _show_paths(archives_of(which, sent, records), records, as_json=as_json)
    else:
        _show_syncs(records, most, only_failed=only_failed, as_json=as_json)


def _show_syncs(records: list[SyncRecord], most: int, *, only_failed: bool, as_json: bool) -> None:
    found = [record for record in records if failed(record) or not only_failed][-most:]  # [-0:] is all
    if not found:
        click.echo(_NONE_FAILED if records else _NO_SYNC, err=True)
    if as_json:
        sys.stdout.writelines(f"{printable_json(encoded(record).decode())}\n" for record in found)
    elif found:
        width = min(_MOST_COLUMNS, shutil.get_terminal_size().columns) if sys.stdout.isatty() else _WITHOUT_TERMINAL
        _print(table(found, width))


def _show_paths(archives: list[ArchiveRecord], records: list[SyncRecord], *, as_json: bool) -> None:
    outcomes = {record.id: record.outcome for record in records}
    if as_json:
        lines = (line for archive in archives for line in encoded_lines(archive, outcomes.get(archive.sync)))
        sys.stdout.writelines(f"{line}\n" for line in lines)
    else:
        _print(path_lines(archives, outcomes))


def _print(lines: Iterable[Line]) -> None:
    colour = False if os.environ.get("NO_COLOR") else None
    for line in lines:
        click.echo(fitted(coloured(line), sys.stdout.encoding), color=colour)


_Record = TypeVar("_Record")


def _read(path: str, read: Callable[[], tuple[list[_Record], int]]) -> list[_Record]:
    """Return the records that can be read, and tell of the others."""
    try:
        records, damaged = read()
    except OSError as failure:
        raise NeedsPerson(
            f"the history {shown_path(path)} cannot be read ({failure.strerror})",
            "make it a file that you can read, or remove it",
        ) from None
    if damaged:
        click.echo(f"syncd: {counted(damaged, 'damaged line')} of the history left out: nothing to do", err=True)
    return records


def table(records: Iterable[SyncRecord], width: int) -> Iterator[Line]:
    """The lines for these records, at most `width` columns each if there are at least 60; times are local.

    A narrow table has no numbers.
    """
    has_numbers = width >= _REST + _NUMBERS + _LEAST
    rest = max(_LEAST, width - _REST - (_NUMBERS if has_numbers else 0))
    head = ("size", "took") if has_numbers else ()
    yield _row("", ("time", "id", "why", "changed"), head, ("outcome", Tone.PLAIN), rest)
    day = ""
    for record in records:
        local = record.at.astimezone()
        if (today := f"{local:%a %Y-%m-%d}") != day:
            day = today
            yield ((day, Tone.STRONG),)
        sent_bytes = record.sent_bytes if record.archive_bytes is None else record.archive_bytes
        cells = (
            f"{local:%H:%M:%S}",
            _short(record.id or "", _ID),
            _REASONS.get(record.why, record.why),
            _changes(record, rest),
        )
        numbers = (size(sent_bytes) if sent_bytes else "", _duration(record.seconds)) if has_numbers else ()
        tone = Tone.BAD if failed(record) else Tone.PLAIN
        yield _row("!" if failed(record) else "", cells, numbers, (_short(record.outcome, _OUTCOME), tone), rest)
        for note in _notes(record):
            yield from wrapped(note, width, ((" " * _TEXT, Tone.PLAIN),), _TEXT)


def _row(mark: str, left: tuple[str, ...], numbers: tuple[str, ...], outcome: Span, rest: int) -> Line:
    cells = [_padded(text, room) for text, room in zip(left, (_TIME, _ID, _WHY, rest), strict=True)]
    cells += [f"{text:>{room}}" for text, room in zip(numbers, (_SIZE, _TOOK), strict=False)]
    return ((f"{mark:{_MARK}}", Tone.BAD), ("".join(f"{cell}  " for cell in cells), Tone.PLAIN), outcome)


def _padded(text: str, width: int) -> str:
    """The text in exactly this many columns."""
    text = _short(text, width)
    return text + " " * (width - columns(text))


def _short(text: str, width: int) -> str:
    """The text in at most this many columns; the end of one that is too long."""
    text = shown_path(text)
    if columns(text) <= width:
        return text
    while text and columns(text) > width - 1:
        text = text[1:]
    return f"…{text}"


def _changes(record: SyncRecord, room: int) -> str:
    change = record.change or ChangeCounts()
    counts = ((change.added, "+"), (change.changed, "~"), (change.removed, "-"))
    first = change.first_added or change.first_changed or change.first_removed or ""
    numbers = " ".join(f"{sign}{count:,}" for count, sign in counts if count)
    if len(numbers) > room:
        return counted(sum(count for count, _ in counts), "path")
    if numbers:
        left = room - len(numbers) - 2
        return f"{numbers}  {_short(first, left)}" if left >= _LEAST_PATH else numbers
    return f"all {counted(record.files or 0, 'file')}" if record.outcome == SyncEnding.INITIALIZED else ""


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < _MINUTES_FROM_S else f"{seconds / 60:,.0f} min"


def _notes(record: SyncRecord) -> Iterator[str]:
    """The notes below the row."""
    if record.error is not None and failed(record):
        yield f"{record.error.step}: {record.error.message}"
    agent = [f"saved {counted(record.saved, 'version')} of the agent"] if record.saved else []
    if record.held:
        agent.append(f"{counted(record.held, 'path')} held")
    if agent:
        yield ", ".join(agent)
    counts = [f"after {counted(record.failures_before, 'failure')}"] if record.failures_before else []
    if record.attempts > 1:
        counts.append(counted(record.attempts, "attempt"))
    if counts:
        yield ", ".join(counts)
