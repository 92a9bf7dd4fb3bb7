"""Renders the status document as a screen for people: the state first, then the details.

A pure function of the document, its context, the time and the width. The words carry the meaning and the colours only
help, so that it reads the same on a pipe. The text keeps the terminal's own colour: on a light background yellow words
would be hard to read, a yellow mark before them is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from msgspec import Struct

from syncd.cli.status.text import ASCII, Glyphs, Line, Span, Tone, wrapped
from syncd.core.formatting import ago, countdown, counted, duration, seconds_of, size, split_remedy
from syncd.sync.status_document import Progress, State, Status

# Columns: a mark, then the label, then the text.
_MARK = 2
_LABEL = 12
_TEXT = _MARK + _LABEL
_MOST_WARNINGS = 3
_BAR = 30
# A sandbox that ends this soon is marked.
_ENDS_SOON_S = 600.0
# In the other states it is clear that more is to be sent.
_IDLE = (State.PAUSED, State.HELD, State.STOPPED)


class DaemonEnding(Enum):
    """The end of the last daemon of this workspace, as far as its files show it."""

    NEVER_RAN = "there is no state"
    CLEAN = "it wrote that it stopped"
    KILLED = "it was killed, or the power failed"


class StatusContext(Struct, frozen=True):
    """The facts that are not in the document.

    `written_at_s` is when it was last written, in seconds since 1970; `busy_pid` a process that holds the workspace and
    is not the document's (0: in another PID namespace), `unit` the daemon's systemd user unit, if installed. `option`
    is the option that commands need for this configuration (` --config FILE`, or nothing).
    """

    version: str
    ending: DaemonEnding
    written_at_s: float | None
    busy_pid: int | None
    unit: str | None = None
    option: str = ""

    @property
    def start(self) -> str:
        """The command that starts the daemon."""
        return f"systemctl --user start {self.unit}" if self.unit else f"syncd run{self.option}"

    @property
    def restart(self) -> str:
        """The way to restart a process that may be healthy: it is not killed."""
        if self.unit:
            return f"`systemctl --user restart {self.unit}`"
        return f"stop it (Ctrl-C where it was started), then `{self.start}`"

    def replace_hung(self, pid: int | None) -> str:
        """The same for a process that does not answer, and may not react to a signal."""
        if self.unit or not pid:
            return self.restart
        return f"`kill {pid}`, if it is still there after 5 s `kill -9 {pid}`, then `{self.start}`"


class _Headline(Struct, frozen=True):
    tone: Tone
    text: str
    remedy: str = ""


def screen(status: Status, context: StatusContext, now_s: float, width: int, glyphs: Glyphs = ASCII) -> list[Line]:
    """The screen's lines, none wider than `width` columns; `now_s` is in seconds since 1970."""
    top = _headline(status, context, now_s)
    mark: Span = (f"{glyphs.mark} ", top.tone)
    lines = wrapped(top.text, width, (mark,), _MARK, Tone.STRONG)
    if status.progress is not None and status.running and status.responding is not False:
        lines += _bar(status.progress, width, glyphs)
    if top.remedy:
        lines += wrapped(top.remedy, width, ((" " * _MARK, Tone.PLAIN),), _MARK)
    lines.append(())
    for label, text, tone in _rows(status, context, now_s):
        lines += _row(label, text, width, tone)
    lines += _error(status, now_s, width)
    return lines + _warnings(status, context, width)


# -- the first line


def _headline(status: Status, context: StatusContext, now_s: float) -> _Headline:
    if not status.running:
        return _not_running(status, context, now_s)
    if status.responding is False:
        last = "" if context.written_at_s is None else f", last seen {ago(now_s - context.written_at_s)}"
        return _Headline(
            Tone.BAD,
            f"hung: process {status.pid} does not answer{last}",
            f"restart it: {context.replace_hung(status.pid)}",
        )
    since_s = seconds_of(status.state_since)
    lasting = "" if since_s is None or now_s - since_s < 2 else f" for {duration(now_s - since_s)}"
    match status.state:
        case State.WATCHING if not status.pending:
            return _Headline(Tone.ATTENTION if status.warnings else Tone.GOOD, _in_sync(status))
        case State.WATCHING:
            return _Headline(Tone.BUSY, "watching: not all changes are in the sandbox yet")
        case State.STARTING:
            return _Headline(Tone.BUSY, "starting")
        case State.DEBOUNCING:
            return _Headline(Tone.BUSY, "changes seen: waiting until the workspace is quiet")
        case State.SNAPSHOTTING:
            return _Headline(Tone.BUSY, f"packaging{_progress(status.progress)}")
        case State.UPLOADING:
            return _Headline(Tone.BUSY, f"uploading{_progress(status.progress)}")
        case State.INITIALIZING:
            return _Headline(Tone.BUSY, f"initializing: the sandbox unpacks it{lasting and f',{lasting}'}")
        case State.RETRYING:
            return _Headline(Tone.ATTENTION, _next_try(status, now_s), "nothing to do: it goes on by itself")
        case State.PAUSED:
            return _Headline(Tone.ATTENTION, f"paused{lasting}", f"go on: `syncd resume{context.option}`")
        case State.HELD:
            what, remedy = split_remedy(status.last_error.message) if status.last_error else ("see the log", "")
            return _Headline(Tone.BAD, f"held{lasting}: {what}", remedy)
        case _:
            return _Headline(Tone.BUSY, str(status.state))


def _not_running(status: Status, context: StatusContext, now_s: float) -> _Headline:
    if context.busy_pid is not None:
        process = f" (process {context.busy_pid})" if context.busy_pid else ""
        return _Headline(
            Tone.ATTENTION,
            f"another syncd is working here{process}, which shows no status",
            "a push or flush shows none, and a daemon that starts none for a moment; if it stays so, it is a "
            f"daemon of another version than {context.version}: restart it: {context.restart}",
        )
    last = "" if context.written_at_s is None else ago(now_s - context.written_at_s)
    match context.ending:
        case DaemonEnding.NEVER_RAN:
            remedy = f"check that it can work: `syncd check{context.option}`; then start it: `{context.start}`"
            return _Headline(Tone.ATTENTION, "never started for this workspace", remedy)
        case DaemonEnding.CLEAN:
            return _Headline(Tone.BAD, _stopped(status, now_s), _start_it(context))
        case DaemonEnding.KILLED:
            return _Headline(Tone.BAD, f"stopped unexpectedly{last and f', last seen {last}'}", _start_it(context))


def _start_it(context: StatusContext) -> str:
    why = f"; why it ended: `syncd service status{context.option}`" if context.unit else ""
    return f"start it: `{context.start}`{why}"


def _stopped(status: Status, now_s: float) -> str:
    since_s, synced_s = seconds_of(status.state_since), _finished_s(status)
    if since_s is None or (synced_s is not None and synced_s > since_s):  # a push without a daemon came after it
        return "not running"
    return f"stopped {ago(now_s - since_s)}"


def _finished_s(status: Status) -> float | None:
    return seconds_of(status.last_sync.finished_at) if status.last_sync else None


def _in_sync(status: Status) -> str:
    return f"in sync, with {counted(len(status.warnings), 'warning')}" if status.warnings else "in sync"


def _next_try(status: Status, now_s: float) -> str:
    at_s = seconds_of(status.retry_at)
    failed = f": the {_STEPS.get(status.last_error.step, status.last_error.step)} failed" if status.last_error else ""
    if at_s is None or at_s <= now_s:
        return f"trying again now{failed}"
    return f"trying again in {duration(at_s - now_s + 0.999)}{failed}"


_STEPS = {
    "watch": "check of the workspace",
    "snapshot": "packaging",
    "upload-url": "asking for an upload URL",
    "initialize": "unpacking in the sandbox",
    "delete": "removing of deleted files",
}


def _progress(progress: Progress | None) -> str:
    if progress is None:
        return ""
    components = [f"{_share(progress):.0%}"] if progress.total_bytes else []
    if progress.bytes_per_second:
        components.append(f"{size(int(progress.bytes_per_second))}/s")
    if progress.seconds_left is not None:
        components.append(f"{countdown(progress.seconds_left)} left")
    return f" {', '.join(components)}" if components else ""


def _share(progress: Progress) -> float:
    return min(1.0, progress.done_bytes / progress.total_bytes)


def _bar(progress: Progress, width: int, glyphs: Glyphs) -> list[Line]:
    if not progress.total_bytes:
        return []
    full = int(_share(progress) * _BAR)
    of = f"{size(progress.done_bytes)} of {size(progress.total_bytes)}"
    if progress.total_files is not None:
        of += f", {progress.done_files or 0:,} of {counted(progress.total_files, 'file')}"
    bar: Line = (
        (" " * _MARK, Tone.PLAIN),
        (glyphs.full * full, Tone.BUSY),
        (glyphs.empty * (_BAR - full) + "  ", Tone.PLAIN),
    )
    return wrapped(of, width, bar, _MARK)


# -- the rows


def _rows(status: Status, context: StatusContext, now_s: float) -> Iterator[tuple[str, str, Tone]]:
    yield "workspace", status.workspace, Tone.PLAIN
    yield _sandbox(status, now_s)
    for name, url in status.mcp_servers.items():
        yield "", f"{name}: {url}", Tone.PLAIN
    if status.last_sync is not None:
        last = status.last_sync
        at_s = _finished_s(status)
        when = last.finished_at if at_s is None else ago(now_s - at_s)
        what = f"{counted(last.files, 'file')}, {size(last.archive_bytes)}, took {last.seconds:.2f} s"
        yield "last sync", f"{when}: {what}", Tone.PLAIN
    elif status.running or context.ending is not DaemonEnding.NEVER_RAN:
        yield "last sync", "none yet", Tone.PLAIN
    if status.pending and status.state in _IDLE:
        yield "changes", "not all in the sandbox yet", Tone.ATTENTION
    if status.left_out:
        by = ", ".join(f"{who} {count:,}" for who, count in sorted(status.left_out.items(), key=_most_first))
        paths = counted(sum(status.left_out.values()), "path")
        yield "stays home", f"{paths}: {by}; `syncd ls --ignored{context.option}` names them", Tone.PLAIN
    if status.lingering:
        files, are = ("file", "is") if status.lingering == 1 else ("files", "are")
        what = f"{status.lingering:,} {files} gone or left out here {are} there (sandbox.deletions)"
        yield "still there", what, Tone.PLAIN
    if status.managed is not None:
        yield "managed", status.managed.summary(), Tone.PLAIN
    agent = _agent(status, now_s)
    if agent:
        yield "agent", agent, Tone.ATTENTION if status.agent.held_count else Tone.PLAIN
    if status.running or status.syncs or status.failures:
        yield "this run" if status.running else "last run", _run(status, now_s), Tone.PLAIN
    if status.running and status.daemon_version not in (None, context.version):
        yield (
            "version",
            f"the daemon is syncd {status.daemon_version}, this is {context.version}; restart it: {context.restart}",
            Tone.ATTENTION,
        )


def _agent(status: Status, now_s: float) -> str:
    """The agent's side in one line, empty if there is nothing to say."""
    agent = status.agent
    parts = []
    if agent.changed:
        parts.append(f"the agent changed {counted(agent.changed, 'path')}: `syncd diff`")
    if agent.held_count:
        parts.append(f"{counted(agent.held_count, 'path')} held: `syncd apply`")
    if agent.saved:
        parts.append(f"{counted(agent.saved, 'version')} saved: `syncd saved`")
    looked_s = seconds_of(agent.looked_at)
    if agent.changed and looked_s is not None:
        parts.append(f"last look {ago(now_s - looked_s)}")
    return "; ".join(parts)


def _most_first(counts: tuple[str, int]) -> tuple[int, str]:
    return -counts[1], counts[0]


def _sandbox(status: Status, now_s: float) -> tuple[str, str, Tone]:
    sandbox = status.sandbox
    text = f"{sandbox.id or 'none yet,'} at {sandbox.base_url}, region {sandbox.region}"
    ends_s = seconds_of(status.sandbox_expires_at)
    if ends_s is None:
        return "sandbox", text, Tone.PLAIN
    if ends_s <= now_s:
        return "sandbox", f"{text}; ended {ago(now_s - ends_s)}", Tone.ATTENTION
    soon = ends_s - now_s < _ENDS_SOON_S
    return "sandbox", f"{text}; ends in {duration(ends_s - now_s)}", Tone.ATTENTION if soon else Tone.PLAIN


def _run(status: Status, now_s: float) -> str:
    started_s = seconds_of(status.started_at)
    process = f"process {status.pid}" if status.running else ""
    process += f" for {duration(now_s - started_s)}" if started_s is not None and status.running else ""
    process += ": " if process else ""
    sent = f", {size(status.uploaded_bytes)} sent" if status.uploaded_bytes else ""
    return f"{process}{counted(status.syncs, 'sync')}, {counted(status.failures, 'failure')}{sent}"


def _error(status: Status, now_s: float, width: int) -> list[Line]:
    error = status.last_error
    if error is None or (status.running and status.state is State.HELD and status.responding is not False):
        return []
    what, remedy = split_remedy(error.message)
    at_s = seconds_of(error.at)
    when = error.at if at_s is None else ago(now_s - at_s)
    return _row("last error", f"{when}, {error.step}: {what}", width, Tone.ATTENTION) + _indented(remedy, width)


def _warnings(status: Status, context: StatusContext, width: int) -> list[Line]:
    lines: list[Line] = []
    for warning in status.warnings[:_MOST_WARNINGS]:
        what, remedy = split_remedy(warning)
        lines += _row("warning", what, width, Tone.ATTENTION) + _indented(remedy, width)
    more = len(status.warnings) - _MOST_WARNINGS
    if more > 0:
        lines += _row("", f"and {more:,} more: `syncd status --json{context.option}` has all", width, Tone.PLAIN)
    return lines


def _row(label: str, text: str, width: int, tone: Tone) -> list[Line]:
    mark = "! " if tone is Tone.ATTENTION else "  "
    return wrapped(text, width, ((mark, tone), (f"{label:{_LABEL}}", Tone.PLAIN)), _TEXT)


def _indented(remedy: str, width: int) -> list[Line]:
    return wrapped(remedy, width, ((" " * (_TEXT + 2), Tone.PLAIN),), _TEXT + 2) if remedy else []
