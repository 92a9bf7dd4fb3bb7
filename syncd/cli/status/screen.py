"""Renders the status for people: one workspace as a screen, the state first, then the details; many as a table.

Pure functions of the document, its context, the time and the width. The text keeps the terminal's own colour: on a
light background yellow words would be hard to read, a yellow mark before them is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from syncd import __version__
from syncd.cli.output import MARK, Tone, aligned, bar, home_relative, next_attempt, styled, wrapped
from syncd.core.choices import AGENT_QUIET_S
from syncd.core.clock import seconds_of
from syncd.core.text import ago, countdown, counted, duration, for_sandbox, size, split_remedy
from syncd.sandbox.setup_rules import SetupState, SetupStatus
from syncd.sync.status_document import AgentStatus, SandboxStatus, State, Status

# Columns: a mark, then the label, then the text.
_INDENT = 2
_LABEL = 12
_TEXT = _INDENT + _LABEL
_MOST_WARNINGS = 3
# A sandbox that ends this soon is marked.
_ENDS_SOON_S = 600.0
# In the other states it is clear that more is to be sent.
_IDLE = (State.PAUSED, State.HELD, State.STOPPED)
_LATE = (State.HELD, State.RETRYING)
_HEAD = ("NAME", "STATE", "LAST SYNC", "WAITING", "WORKSPACE")


class StatusContext(Struct, frozen=True):
    """The facts that are not in the document.

    `written_at_s` is when it was last written, in seconds since 1970, None if never; `was_killed`: the process that
    wrote it did not write that it stopped; `other_pid` a process that holds the workspace and is not the document's (0:
    in another PID namespace), `unit` the daemon's systemd user unit, if installed; `is_paused`: a person paused, which
    the next daemon keeps to. `option` is the option that commands need for this configuration (` --config FILE`, or
    nothing).
    """

    written_at_s: float | None
    was_killed: bool = False
    other_pid: int | None = None
    unit: str | None = None
    option: str = ""
    is_paused: bool = False

    @property
    def start(self) -> str:
        """The command that starts the daemon."""
        return f"systemctl --user start {self.unit}" if self.unit else f"syncd run{self.option}"

    def restart(self, kill: str) -> str:
        """The way to restart the daemon; `kill` is the command that ends it where it has no unit."""
        if self.unit:
            return f"restart it: `systemctl --user restart {self.unit}`"
        return f"restart it: `{kill}`, then `{self.start}`"


_UNKNOWN = StatusContext(written_at_s=None)


class WorkspaceRow(Struct, frozen=True):
    """One configuration: its status, and a `problem`: without a status, the error that makes it unusable."""

    config: str
    name: str
    status: Status | None
    problem: str = ""


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


def _ago(at: str, now_s: float) -> str:
    """The time since then in words, or what stands there, if it is no time."""
    at_s = seconds_of(at)
    return at if at_s is None else ago(now_s - at_s)


def _lasting(since: str | None, now_s: float, least_s: float = 0.0) -> str:
    """` for 3 min`; empty if it is not known since when, or if that is no longer ago."""
    since_s = seconds_of(since)
    return "" if since_s is None or now_s - since_s < least_s else f" for {duration(now_s - since_s)}"


def _indented(text: str, width: int, indent: int) -> list[str]:
    return wrapped(text, width, " " * indent, indent) if text else []


# -- the first line


def _headline(status: Status, context: StatusContext, now_s: float) -> tuple[Tone, str, str]:
    """The mark's role, the line, and what to do."""
    if not status.running:
        return _not_running(status, context, now_s)
    if status.responding is False:
        last = "" if context.written_at_s is None else f", last seen {ago(now_s - context.written_at_s)}"
        return Tone.BAD, f"hung: process {status.pid} does not answer{last}", context.restart(f"kill -9 {status.pid}")
    urgent = status.urgent
    lasting = _lasting(urgent.state_since, now_s, 2.0)
    match urgent.state:
        case State.WATCHING if status.in_sync:
            warnings = f", with {counted(len(status.warnings), 'warning')}" if status.warnings else ""
            return Tone.ATTENTION if warnings else Tone.GOOD, f"in sync{warnings}", ""
        case State.WATCHING:
            return Tone.BUSY, "not all changes are in the sandbox yet", ""
        case State.DEBOUNCING:
            return Tone.BUSY, "changes seen: waiting until the workspace is quiet", ""
        case State.INITIALIZING:
            return Tone.BUSY, f"unpacking{lasting}", ""
        case State.RETRYING:
            wait_s = (seconds_of(urgent.retry_at) or now_s) - now_s
            return Tone.ATTENTION, f"retrying: {next_attempt(urgent.failures_in_row + 1, wait_s)}", ""
        case State.PAUSED:
            return Tone.ATTENTION, f"paused{lasting}", f"go on: `syncd resume{context.option}`"
        case State.HELD:
            error = urgent.last_error
            what, remedy = split_remedy(error.message) if error else ("see the log", "")
            name = f"{urgent.name} is " if len(status.sandboxes) > 1 else ""
            return Tone.BAD, f"{name}held{lasting}: {what}", remedy
        case _:
            return Tone.BUSY, urgent.state.word, ""


def _not_running(status: Status, context: StatusContext, now_s: float) -> tuple[Tone, str, str]:
    if context.other_pid is not None:
        process = f" (process {context.other_pid})" if context.other_pid else ""
        text = f"another syncd is working here{process}, which shows no status"
        return Tone.ATTENTION, text, "wait for its end, as a push shows none; if it stays so, end it"
    resume = f"; it is paused: `syncd resume{context.option}`" if context.is_paused else ""
    if context.written_at_s is None:
        remedy = f"check that it can work: `syncd check{context.option}`; then start it: `{context.start}`{resume}"
        return Tone.ATTENTION, "not running: no daemon has worked on this workspace yet", remedy
    text, ended_at = "not running", status.urgent.state_since  # None: only commands synced
    if context.was_killed:
        text += f": it ended unexpectedly, last seen {ago(now_s - context.written_at_s)}"
    elif ended_at is not None:
        text += f": it ended {_ago(ended_at, now_s)}"
    why = f"; why it ended: `syncd service status{context.option}`" if context.unit else ""
    return Tone.BAD, text, f"start it: `{context.start}`{resume}{why}"


# -- the rows


def _rows(status: Status, context: StatusContext, now_s: float) -> Iterator[_Row]:
    main = status.main
    yield _Row("workspace", status.workspace)
    yield _sandbox(main, now_s)
    if len(status.sandboxes) > 1:
        for each in status.sandboxes:
            tone = Tone.ATTENTION if each.state in _LATE else Tone.PLAIN
            yield _Row("", f"{each.name}: {_one_of_several(each, now_s)}", tone)
    if (last := main.last_sync) is not None:
        what = f"{size(last.archive_bytes)} sent, {counted(last.files, 'file')} in all, took {last.seconds:.2f} s"
        yield _Row("last sync", f"{_ago(last.finished_at, now_s)}: {what}")
    elif status.running or context.written_at_s is not None:
        yield _Row("last sync", "none yet")
    if len(status.sandboxes) < 2 and (setup := _setup(main.setup, now_s)):
        yield _Row("set-up", setup)
    if status.pending and status.state in _IDLE:
        yield _Row("changes", "not all in the sandbox yet", Tone.ATTENTION)
    if main.left_out:
        most_first = sorted(main.left_out.items(), key=lambda item: (-item[1], item[0]))
        by = ", ".join(f"{who} {count:,}" for who, count in most_first)
        paths = counted(sum(main.left_out.values()), "path")
        yield _Row("excluded", f"{paths}: {by}; see `syncd ls --excluded{context.option}`")
    if main.lingering:
        files, are = ("file", "is") if main.lingering == 1 else ("files", "are")
        what = f"{main.lingering:,} {files} gone or excluded here {are} there (sandbox.deletions)"
        yield _Row("still there", what)
    if len(status.sandboxes) < 2 and (agent := _agent(main.agent, now_s)):
        yield _Row("agent", agent, Tone.ATTENTION if main.agent.held_count else Tone.PLAIN)
    if status.running or status.total("syncs") or status.total("failures"):
        yield _Row("this run" if status.running else "last run", _run(status, now_s))
    if status.running and status.daemon_version not in (None, __version__):
        versions = f"the daemon is syncd {status.daemon_version}, this is {__version__}"
        yield _Row("version", f"{versions}; {context.restart(f'kill {status.pid}')}", Tone.ATTENTION)
    error = main.last_error
    if error and not (status.running and status.state is State.HELD and status.responding is not False):
        what, remedy = split_remedy(error.message)
        yield _Row("last error", f"{_ago(error.at, now_s)}, {error.step}: {what}", Tone.ATTENTION, remedy)
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
    when = f"ended {ago(now_s - ends_s)}" if ends_s <= now_s else f"ends in {duration(ends_s - now_s)}"
    return _Row("sandbox", f"{text}; {when}", Tone.ATTENTION if ends_s - now_s < _ENDS_SOON_S else Tone.PLAIN)


def _one_of_several(sandbox: SandboxStatus, now_s: float) -> str:
    """One of several sandboxes in a line: what is done for it, when it was synced last, and its agent."""
    last = sandbox.last_sync
    done = "never synced" if last is None else f"last sync {_ago(last.finished_at, now_s)}"
    state = "in sync" if sandbox.state is State.WATCHING and last is not None else sandbox.state.word
    if sandbox.state in _LATE and sandbox.last_error is not None:
        state += f" ({split_remedy(sandbox.last_error.message)[0]})"
    setup = _setup(sandbox.setup, now_s) if sandbox.setup.state is SetupState.RUNNING else ""
    agent = for_sandbox(_agent(sandbox.agent, now_s), sandbox.name)
    return "; ".join(filter(None, (f"{state}, {done}", setup, agent)))


def _setup(setup: SetupStatus, now_s: float) -> str:
    """The set-up in one line; empty where there is none. One that failed is a warning."""
    began_s = seconds_of(setup.at)
    if began_s is None or setup.state not in (SetupState.RUNNING, SetupState.DONE):
        return ""
    if setup.state is SetupState.RUNNING:
        return f"setting up: {setup.command}, {countdown(now_s - began_s)}"
    seconds = setup.seconds or 0.0
    return f"{setup.command}, {ago(now_s - began_s - seconds)}, took {duration(seconds)}"


def _agent(agent: AgentStatus, now_s: float) -> str:
    """The agent's side in one line, with the age of what is known of it; empty: there is nothing to say."""
    parts = []
    if agent.changed:
        lasting = _lasting(agent.changed_at, now_s, AGENT_QUIET_S)
        quiet = f", quiet{lasting}" if lasting else ", still at work" if agent.changed_at else ""
        parts.append(f"changed {counted(agent.changed, 'file')}{quiet}: `syncd diff`")
    if agent.held_count:
        parts.append(f"{counted(agent.held_count, 'path')} held: `syncd resolve`")
    if agent.saved:
        parts.append(f"{counted(agent.saved, 'version')} saved: `syncd saved`")
    if agent.looked_at is not None and (agent.changed or agent.followed_at is None):
        parts.append(f"last look {_ago(agent.looked_at, now_s)}")
    return "; ".join(parts)


def _run(status: Status, now_s: float) -> str:
    counts = f"{counted(status.total('syncs'), 'sync')}, {counted(status.total('failures'), 'failure')}"
    sent_bytes = status.total("uploaded_bytes")
    sent = f", {size(sent_bytes)} sent" if sent_bytes else ""
    process = f"process {status.pid}{_lasting(status.started_at, now_s)}: " if status.running else ""
    return f"{process}{counts}{sent}"


# -- many workspaces


def table(rows: Sequence[WorkspaceRow], now_s: float, width: int = 10_000) -> list[str]:
    """The table's lines, a workspace each, and then the problems; none is wider than `width` columns."""
    tones, cells = zip((Tone.PLAIN, _HEAD), *(_cells(row, now_s) for row in rows), strict=True)
    lines = [
        styled("  " if tone is Tone.PLAIN else f"{MARK} ", tone)
        + (text if len(text) <= width - _INDENT else f"{text[: width - _INDENT - 1]}…")
        for tone, text in zip(tones, aligned(cells), strict=True)
    ]
    for problem in dict.fromkeys(row.problem for row in rows if row.problem):
        lines += wrapped(problem, width, styled("! ", Tone.ATTENTION), _INDENT)
    return lines


def _cells(row: WorkspaceRow, now_s: float) -> tuple[Tone, tuple[str, ...]]:
    """The role of a workspace's mark, and its cells; its state is the beginning of the first line of its screen.

    That of one at rest is the word of the document too, as scripts look for that.
    """
    status = row.status
    if status is None:
        return Tone.BAD, (row.name, "broken", "", "", home_relative(row.config))
    tone, state, _ = _headline(status, _UNKNOWN, now_s)
    if status.running and status.responding is not False and status.state is State.WATCHING:
        state = f"{status.state}, {state}" if status.in_sync else str(status.state)
    synced = status.main.last_sync
    last = "never" if synced is None else _ago(synced.finished_at, now_s)
    return tone, (row.name, state.partition(":")[0], last, _waiting(status), home_relative(status.workspace))


def _waiting(status: Status) -> str:
    """The work that is left: changes to be sent, and paths of the agent's that a person decides on."""
    waiting, agent = ["changes"] if status.pending else [], status.main.agent
    if agent.held_count:
        waiting.append(f"{agent.held_count:,} held")
    if agent.changed:
        waiting.append(f"{agent.changed} changed there")
    return ", ".join(waiting) or "-"
