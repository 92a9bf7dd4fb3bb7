"""`syncd history --paths`: the paths that left in a sync."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import click

from syncd.cli.status.text import Line, Span, Tone
from syncd.core.errors import NeedsPerson
from syncd.core.formatting import counted, size
from syncd.core.text import one_line, shown_path
from syncd.report.history import SyncEnding, SyncRecord
from syncd.report.sent_paths import UNCHANGED, ArchiveRecord, archive_total
from syncd.sync.arrived_changes import Change

# A number of so many digits at most says which sync from the end; an id is longer.
_MOST_DIGITS = 5
_SIGNS = {Change.ADDED.value: "+", Change.CHANGED.value: "~", Change.REMOVED.value: "-", UNCHANGED: "="}
# Columns of a path: sign, size, digest, and the path; two spaces between them.
_SIZE = 11
_DIGEST = 12
_NO_END = "under way, killed, or not in the history any more"
_NONE_SENT = "no paths that left this workspace are recorded yet: `syncd push` sends some"


def archives_of(
    which: str, by_sync: Mapping[str, Sequence[ArchiveRecord]], records: Iterable[SyncRecord]
) -> list[ArchiveRecord]:
    """Return the archives of the syncs that `--paths` names; where none are kept, say so on stderr.

    Raises `NeedsPerson` if there is no such sync.
    """
    if which.isdecimal() and len(which) <= _MOST_DIGITS:
        number, syncs = int(which), list(by_sync.values())
        if not syncs:
            click.echo(_NONE_SENT, err=True)
        elif number > len(syncs):
            click.echo(f"no more than {counted(len(syncs), 'sync')} that sent something are kept", err=True)
        chosen = syncs[-number:][:1] if 0 < number <= len(syncs) else syncs if number == 0 else []
        return [archive for archives in chosen for archive in archives]
    if which in by_sync:
        return list(by_sync[which])
    record = next((record for record in records if record.id == which), None)
    if record is None:
        raise NeedsPerson(
            f"no sync {one_line(which, 40)!r} is in the history", "`syncd history` lists them with their ids"
        )
    kept = "are not kept any more" if record.paths_in or record.sent_bytes else "are none: it sent nothing"
    click.echo(f"the paths of the sync {which} {kept}", err=True)
    return []


def path_lines(archives: Iterable[ArchiveRecord], outcomes: Mapping[str | None, str]) -> Iterator[Line]:
    """Yield the lines for people; times are local."""
    for archive in archives:
        outcome = outcomes.get(archive.sync)
        tone = Tone.BAD if outcome == SyncEnding.FAILED else Tone.PLAIN
        at = f"{archive.at.astimezone():%a %Y-%m-%d %H:%M:%S}"
        yield (f"{at}  sync {one_line(archive.sync)}  ", Tone.STRONG), (one_line(outcome or _NO_END), tone)
        paths, size_bytes = archive_total(archive)
        text = f"{one_line(archive.archive)} archive of {counted(paths, 'path')}, {size(size_bytes)}"
        yield ((f"{text}, to the sandbox {one_line(archive.sandbox)}", Tone.PLAIN),)
        for row in archive.named:
            yield _row(row.change, "" if row.bytes is None else size(row.bytes), row.sha256 or "", shown_path(row.path))
        for rest in archive.unnamed:
            yield _row(rest.change, size(rest.bytes), "", f"({counted(rest.paths, 'path')} without a name here)")


def _row(change: str, amount: str, digest: str, path: str) -> Line:
    sign: Span = f"{_SIGNS.get(change, '?')}  ", Tone.PLAIN
    return sign, (f"{amount:>{_SIZE}}  {digest[:_DIGEST]:{_DIGEST}}  {path}", Tone.PLAIN)
