"""Renders the status for people: one workspace as a screen, the state first, then the details; many as a table.

Pure functions of the document, its context, the time and the width. The text keeps the terminal's own colour: on a
light background yellow words would be hard to read, a yellow mark before them is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from syncd import __version__
from syncd.cli.layout import MARK, Tone, aligned, bar, columns, cut, next_attempt, styled, wrapped
from syncd.cli.output import home_relative
from syncd.cli.status.reader import ServiceState, WorkspaceRow
from syncd.core.clock import seconds_of
from syncd.core.settings import MAIN
from syncd.core.text import ago, counted, duration, for_sandbox, size, split_remedy
from syncd.sync.status_document import QUIET_S, AgentStatus, SandboxStatus, State, Status

# Columns: a mark, then the label, then the text.
_INDENT = 2
_LABEL = 12
_TEXT = _INDENT + _LABEL
_MOST_WARNINGS = 3
# A sandbox that ends this soon is marked.
_ENDS_SOON_S = 600.0
# In the other states it is clear that more is to be sent.
_IDLE = (State.PAUSED, State.HELD, State.STOPPED)
_BUSY = (State.STARTING, State.DEBOUNCING, State.SNAPSHOTTING, State.UPLOADING, State.INITIALIZING)
_DOING = {
    State.DEBOUNCING: "changes seen: waiting until the workspace is quiet",
    State.SNAPSHOTTING: "packaging",
}
_HEAD = ("NAME", "STATE", "LAST SYNC", "WAITING", "SERVICE", "WORKSPACE")
_SERVICE = {ServiceState.RUNNING: "yes", ServiceState.STOPPED: "stopped", ServiceState.NONE: "no"}


class StatusContext(Struct, frozen=True):
    """The facts that are not in the document.

    `written_at_s` is when it was last written, in seconds since 1970, None if never; `was_killed`: the process that
    wrote it did not write that it stopped; `busy_pid` a process that holds the workspace and is not the document's (0:
    in another PID namespace), `unit` the daemon's systemd user unit, if installed; `is_paused`: a person paused, which
    the next daemon keeps to. `option` is the option that commands need for this configuration (` --config FILE`, or
    nothing), and `unfollowed` are the sandboxes whose agent is not followed.
    """

    written_at_s: float | None
    was_killed: bool = False
    busy_pid: int | None = None
    unit: str | None = None
    option: str = ""
    is_paused: bool = False
    unfollowed: frozenset[str] = frozenset()

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


class _Row(Struct, frozen=True):
    label: str
    text: str
    tone: Tone = Tone.PLAIN
    remedy: str = ""


def screen(status: Status, context: StatusContext, now_s: float, width: int) -> list[str]:
    """The screen's lines, none wider than `width` columns; `now_s` is in seconds since 1970."""
    tone, text, remedy = _headline(status, context, now_s)
    lines = wrapped(text, width, styled(f"{MARK} ", tone), _INDENT, Tone.STRONG)
    progress = status.urgent.progress if status.running and status.responding is not False else None
    if progress is not None and progress.total_bytes:
        lines.append(" " * _INDENT + bar(progress, width - _INDENT))
    lines += _indented(remedy, width, _INDENT)
    lines.append("")
    for row in _rows(status, context, now_s):
        mark = styled("! ", row.tone) if row.tone is Tone.ATTENTION else "  "
        lines += wrapped(row.text, width, f"{mark}{row.label:{_LABEL}}", _TEXT)
        lines += _indented(row.remedy, width, _TEXT + 2)
    return lines


def _indented(text: str, width: int, indent: int) -> list[str]:
    return wrapped(text, width, " " * indent, indent) if text else []


# -- the first line


def _headline(status: Status, context: StatusContext, now_s: float) -> tuple[Tone, str, str]:
    """The mark's role, the line, and what to do."""
    if not status.running:
        return _not_running(status, context, now_s)
    if status.responding is False:
        last = "" if context.written_at_s is None else f", last seen {ago(now_s - context.written_at_s)}"
        return (
            Tone.BAD,
            f"hung: process {status.pid} does not answer{last}",
            f"restart it: {context.replace_hung(status.pid)}",
        )
    urgent, since_s = status.urgent, seconds_of(status.urgent.state_since)
    lasting = "" if since_s is None or now_s - since_s < 2 else f" for {duration(now_s - since_s)}"
    match urgent.state:
        case State.WATCHING if status.in_sync:
            warnings = f", with {counted(len(status.warnings), 'warning')}" if status.warnings else ""
            return Tone.ATTENTION if warnings else Tone.GOOD, f"in sync{warnings}", ""
        case State.WATCHING:
            return Tone.BUSY, "watching: not all changes are in the sandbox yet", ""
        case State.INITIALIZING:
            return Tone.BUSY, f"initializing: the sandbox unpacks it{lasting and f',{lasting}'}", ""
        case State.RETRYING:
            return Tone.ATTENTION, f"retrying: {_next_try(urgent, now_s)}", ""
        case State.PAUSED:
            return Tone.ATTENTION, f"paused{lasting}", f"go on: `syncd resume{context.option}`"
        case State.HELD:
            error = urgent.last_error
            what, remedy = split_remedy(error.message) if error else ("see the log", "")
            name = f"{urgent.name} is " if len(status.sandboxes) > 1 else ""
            return Tone.BAD, f"{name}held{lasting}: {what}", remedy
        case _:
            return Tone.BUSY, _DOING.get(urgent.state, str(urgent.state)), ""


def _not_running(status: Status, context: StatusContext, now_s: float) -> tuple[Tone, str, str]:
    if context.busy_pid is not None:
        process = f" (process {context.busy_pid})" if context.busy_pid else ""
        remedy = (
            "a push or flush shows none, and a daemon that starts none for a moment; if it stays so, it is a "
            f"daemon of another version than {__version__}: restart it: {context.restart}"
        )
        return Tone.ATTENTION, f"another syncd is working here{process}, which shows no status", remedy
    resume = f"; it is paused: `syncd resume{context.option}`" if context.is_paused else ""
    if context.written_at_s is None:
        remedy = f"check that it can work: `syncd check{context.option}`; then start it: `{context.start}`{resume}"
        return Tone.ATTENTION, "not running: no daemon has worked on this workspace yet", remedy
    since_s = seconds_of(status.urgent.state_since)
    if context.was_killed:
        text = f"not running: it ended unexpectedly, last seen {ago(now_s - context.written_at_s)}"
    elif since_s is None:  # only commands synced
        text = "not running"
    else:
        text = f"not running: it ended {ago(now_s - since_s)}"
    why = f"; why it ended: `syncd service status{context.option}`" if context.unit else ""
    return Tone.BAD, text, f"start it: `{context.start}`{resume}{why}"


def _finished_s(sandbox: SandboxStatus) -> float | None:
    return seconds_of(sandbox.last_sync.finished_at) if sandbox.last_sync else None


def _next_try(sandbox: SandboxStatus, now_s: float) -> str:
    at_s, gives_up_s = seconds_of(sandbox.retry_at), seconds_of(sandbox.gives_up_at)
    wait_s = 0.0 if at_s is None else at_s - now_s
    if gives_up_s is None:
        return next_attempt(sandbox.failures_in_row + 1, wait_s, None)
    return f"{next_attempt(sandbox.failures_in_row + 1, wait_s, gives_up_s - now_s)} and begins afresh"


# -- the rows


def _rows(status: Status, context: StatusContext, now_s: float) -> Iterator[_Row]:
    main = status.main
    yield _Row("workspace", status.workspace)
    yield _sandbox(main, now_s)
    if len(status.sandboxes) > 1:
        for each in status.sandboxes:
            yield _Row(
                "",
                f"{each.name}: {_one_of_several(each, context, now_s)}",
                Tone.ATTENTION if _is_late(each) else Tone.PLAIN,
            )
    if main.last_sync is not None:
        last, at_s = main.last_sync, _finished_s(main)
        when = last.finished_at if at_s is None else ago(now_s - at_s)
        what = f"{size(last.archive_bytes)} sent, {counted(last.files, 'file')} in all, took {last.seconds:.2f} s"
        yield _Row("last sync", f"{when}: {what}")
    elif status.running or context.written_at_s is not None:
        yield _Row("last sync", "none yet")
    if status.pending and status.state in _IDLE:
        yield _Row("changes", "not all in the sandbox yet", Tone.ATTENTION)
    if main.left_out:
        most_first = sorted(main.left_out.items(), key=lambda item: (-item[1], item[0]))
        by = ", ".join(f"{who} {count:,}" for who, count in most_first)
        paths = counted(sum(main.left_out.values()), "path")
        yield _Row("excluded", f"{paths}: {by}; `syncd ls --ignored{context.option}` names them")
    if main.lingering:
        files, are = ("file", "is") if main.lingering == 1 else ("files", "are")
        what = f"{main.lingering:,} {files} gone or excluded here {are} there (sandbox.deletions)"
        yield _Row("still there", what)
    if len(status.sandboxes) < 2 and (agent := _agent(main.agent, MAIN, context, now_s)):
        yield _Row("agent", agent, Tone.ATTENTION if main.agent.held_count else Tone.PLAIN)
    if status.running or status.total("syncs") or status.total("failures"):
        yield _Row("this run" if status.running else "last run", _run(status, now_s))
    if status.running and status.daemon_version not in (None, __version__):
        versions = f"the daemon is syncd {status.daemon_version}, this is {__version__}"
        yield _Row("version", f"{versions}; restart it: {context.restart}", Tone.ATTENTION)
    error = main.last_error
    if error and not (status.running and status.state is State.HELD and status.responding is not False):
        what, remedy = split_remedy(error.message)
        at_s = seconds_of(error.at)
        when = error.at if at_s is None else ago(now_s - at_s)
        yield _Row("last error", f"{when}, {error.step}: {what}", Tone.ATTENTION, remedy)
    for warning in status.warnings[:_MOST_WARNINGS]:
        what, remedy = split_remedy(warning)
        yield _Row("warning", what, Tone.ATTENTION, remedy)
    more = len(status.warnings) - _MOST_WARNINGS
    if more > 0:
        yield _Row("", f"and {more:,} more: `syncd status --json{context.option}` has all")


def _sandbox(sandbox: SandboxStatus, now_s: float) -> _Row:
    text = f"{sandbox.id or 'none yet,'} at {sandbox.base_url}, region {sandbox.region}"
    ends_s = seconds_of(sandbox.sandbox_expires_at)
    if ends_s is None:
        return _Row("sandbox", text)
    if ends_s <= now_s:
        return _Row("sandbox", f"{text}; ended {ago(now_s - ends_s)}", Tone.ATTENTION)
    is_soon = ends_s - now_s < _ENDS_SOON_S
    return _Row("sandbox", f"{text}; ends in {duration(ends_s - now_s)}", Tone.ATTENTION if is_soon else Tone.PLAIN)


def _is_late(sandbox: SandboxStatus) -> bool:
    return sandbox.state in (State.HELD, State.RETRYING)


def _one_of_several(sandbox: SandboxStatus, context: StatusContext, now_s: float) -> str:
    """One of several sandboxes in a line: what is done for it, when it was synced last, and its agent."""
    at_s = _finished_s(sandbox)
    done = "never synced" if at_s is None else f"last sync {ago(now_s - at_s)}"
    state = "in sync" if sandbox.state is State.WATCHING and at_s is not None else str(sandbox.state)
    if _is_late(sandbox) and sandbox.last_error is not None:
        state += f" ({split_remedy(sandbox.last_error.message)[0]})"
    agent = for_sandbox(_agent(sandbox.agent, sandbox.name, context, now_s), sandbox.name)
    return f"{state}, {done}{f'; {agent}' if agent else ''}"


def agent_text(agent: AgentStatus, now_s: float) -> str:
    """The agent's side in one line, empty if there is nothing to say."""
    parts = []
    if agent.changed:
        parts.append(f"the agent changed {counted(agent.changed, 'file')}{_quiet(agent, now_s)}: `syncd diff`")
    if agent.held_count:
        parts.append(f"{counted(agent.held_count, 'path')} held: `syncd apply`")
    if agent.saved:
        parts.append(f"{counted(agent.saved, 'version')} saved: `syncd saved`")
    return "; ".join(parts)


def _agent(agent: AgentStatus, name: str, context: StatusContext, now_s: float) -> str:
    """The same, with the age of what is known of this sandbox."""
    text, looked_s = agent_text(agent, now_s), seconds_of(agent.looked_at)
    if looked_s is None or not (agent.changed or name in context.unfollowed):
        return text
    since = "not looked since" if name in context.unfollowed else "last look"
    return f"{text}{'; ' if text else ''}{since} {ago(now_s - looked_s)}"


def _quiet(agent: AgentStatus, now_s: float) -> str:
    changed_s = seconds_of(agent.changed_at)
    if changed_s is None:
        return ""
    return f", quiet for {duration(now_s - changed_s)}" if now_s - changed_s >= QUIET_S else ", at work"


def _run(status: Status, now_s: float) -> str:
    counts = f"{counted(status.total('syncs'), 'sync')}, {counted(status.total('failures'), 'failure')}"
    sent_bytes = status.total("uploaded_bytes")
    sent = f", {size(sent_bytes)} sent" if sent_bytes else ""
    if not status.running:
        return counts + sent
    started_s = seconds_of(status.started_at)
    lasting = "" if started_s is None else f" for {duration(now_s - started_s)}"
    return f"process {status.pid}{lasting}: {counts}{sent}"


# -- many workspaces


def table(rows: Sequence[WorkspaceRow], now_s: float, width: int = 10_000) -> list[str]:
    """The table's lines, a workspace each, and then the problems; none is wider than `width` columns."""
    texts = aligned([_HEAD, *(_cells(row, now_s) for row in rows)])
    marks = ["  ", *(styled(f"{MARK} ", _tone(row)) for row in rows)]
    lines = [
        mark + (text if columns(text) <= width - _INDENT else f"{cut(text, width - _INDENT - 1)}…")
        for mark, text in zip(marks, texts, strict=True)
    ]
    for problem in dict.fromkeys(row.problem for row in rows if row.problem):
        lines += wrapped(problem, width, styled("! ", Tone.ATTENTION), _INDENT)
    return lines


def _cells(row: WorkspaceRow, now_s: float) -> tuple[str, ...]:
    status = row.status
    if status is None:
        return row.name, "broken", "", "", "", row.config
    finished_s = _finished_s(status.main)
    last = "never" if finished_s is None else ago(now_s - finished_s)
    return row.name, _state(status), last, _waiting(status), _SERVICE[row.service], home_relative(status.workspace)


def _state(status: Status) -> str:
    if not status.running:
        return "not running"
    if status.responding is False:
        return "hung"
    warnings = f", {counted(len(status.warnings), 'warning')}" if status.warnings else ""
    return f"{status.state}{warnings}"


def _waiting(status: Status) -> str:
    """The work that is left: changes to be sent, and paths of the agent's that a person decides on."""
    waiting, agent = ["changes"] if status.pending else [], status.main.agent
    if agent.held_count:
        waiting.append(f"{agent.held_count:,} held")
    if agent.changed:
        waiting.append(f"{agent.changed} changed there")
    return ", ".join(waiting) or "-"


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
