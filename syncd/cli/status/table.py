"""Renders the rows of `syncd status --all` as a table: the workspace's column gives way on a narrow terminal."""

from __future__ import annotations

import os
from collections.abc import Sequence

from syncd.cli.status.overview import ServiceState, WorkspaceRow
from syncd.cli.status.text import ASCII, Glyphs, Line, Tone, columns, wrapped
from syncd.core.formatting import ago, counted, seconds_of
from syncd.sync.status_document import State, Status

_HEAD = ("NAME", "WORKSPACE", "STATE", "LAST SYNC", "WAITING", "SERVICE")
_WORKSPACE = 1
_UNLIMITED = 10_000
_GAP = "  "
_NOTHING = "-"
_BUSY = (State.STARTING, State.DEBOUNCING, State.SNAPSHOTTING, State.UPLOADING, State.INITIALIZING)
_SERVICE = {ServiceState.RUNNING: "yes", ServiceState.STOPPED: "stopped", ServiceState.NONE: "no"}


def table(
    rows: Sequence[WorkspaceRow], home: str, now_s: float, width: int | None = None, glyphs: Glyphs = ASCII
) -> list[Line]:
    """The table's lines, a workspace each, none wider than `width` columns; None: as wide as needed."""
    cells = {row.config: _cells(row.status, row, home, now_s) for row in rows if row.status is not None}
    widths = [max(map(columns, column)) for column in zip(_HEAD, *cells.values(), strict=True)]
    widths[0] = max(widths[0], *(columns(row.name) for row in rows), 0)
    excess = 0 if width is None else 2 + sum(widths) + len(_GAP) * (len(_HEAD) - 1) - width
    widths[_WORKSPACE] -= max(0, excess)
    if widths[_WORKSPACE] < columns(_HEAD[_WORKSPACE]):
        widths[_WORKSPACE] = 0
    lines: list[Line] = [_line("  ", Tone.PLAIN, _aligned(_HEAD, widths), width)]
    for row in rows:
        mark = f"{glyphs.mark} "
        if row.status:
            lines.append(_line(mark, _tone(row), _aligned(cells[row.config], widths), width))
        else:
            lead = f"{_padded(row.name, widths[0])}{_GAP}"
            first: Line = ((mark, _tone(row)), (lead, Tone.PLAIN))
            lines += wrapped(_broken(row), width or _UNLIMITED, first, columns(mark + lead))
    for shared in dict.fromkeys(row.shared for row in rows if row.shared):
        lines += wrapped(shared, width or _UNLIMITED, (("! ", Tone.ATTENTION),), 2)
    return lines


def _broken(row: WorkspaceRow) -> str:
    """The error, which the file's name is enough for: its folder is always the same."""
    return f"broken: {row.error.replace(row.config, os.path.basename(row.config))}"


def _cells(status: Status, row: WorkspaceRow, home: str, now_s: float) -> tuple[str, ...]:
    workspace = status.workspace
    if workspace.startswith(f"{home}/"):
        workspace = f"~{workspace.removeprefix(home)}"
    finished_s = seconds_of(status.last_sync.finished_at) if status.last_sync else None
    last = "never" if finished_s is None else ago(now_s - finished_s)
    return row.name, workspace, _state(status), last, _waiting(status), _SERVICE[row.service]


def _state(status: Status) -> str:
    if not status.running:
        return "not running"
    if status.responding is False:
        return "hung"
    warnings = f", {counted(len(status.warnings), 'warning')}" if status.warnings else ""
    return f"{status.state}{warnings}"


def _waiting(status: Status) -> str:
    """The work that is left: changes to be sent, and paths of the agent's that a person decides on."""
    waiting = ["changes"] if status.pending else []
    if status.agent.held_count:
        waiting.append(f"{status.agent.held_count:,} held")
    if status.agent.changed:
        waiting.append(f"{status.agent.changed} changed there")
    return ", ".join(waiting) or _NOTHING


def _tone(row: WorkspaceRow) -> Tone:
    status = row.status
    if status is None:
        return Tone.BAD
    if not status.running:
        return Tone.PLAIN if row.service is ServiceState.NONE else Tone.ATTENTION
    if status.responding is False or status.state is State.HELD:
        return Tone.BAD
    if status.state in _BUSY or (status.state is State.WATCHING and status.pending):
        return Tone.BUSY
    return Tone.ATTENTION if status.warnings or status.state is not State.WATCHING else Tone.GOOD


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    fitted = [_end(cell, widths[number]) if number == _WORKSPACE else cell for number, cell in enumerate(cells)]
    return _GAP.join(_padded(cell, width) for cell, width in zip(fitted, widths, strict=True) if width)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - columns(text))


def _end(text: str, room: int) -> str:
    """The text, or as much of its end as fits."""
    if columns(text) <= room:
        return text
    while text and columns(text) > room - 1:
        text = text[1:]
    return f"…{text}"


def _line(mark: str, tone: Tone, text: str, width: int | None) -> Line:
    if width is not None and columns(mark) + columns(text) > width:
        while text and columns(mark) + columns(text) > width - 1:
            text = text[:-1]
        text = f"{text}…"
    return ((mark, tone), (text, Tone.PLAIN))
