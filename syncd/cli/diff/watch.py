"""Shows what an agent changes while it works: `syncd diff --watch`."""

from __future__ import annotations

import contextlib
import io

from msgspec.structs import replace

from syncd.cli import live
from syncd.cli.agent_side import look_at, open_sandbox
from syncd.cli.diff.command import show
from syncd.cli.options import CLOCK
from syncd.cli.status.reader import reader_for
from syncd.cli.status.screen import agent_text
from syncd.core.errors import ExitCode, NeedsPerson, SyncdError
from syncd.core.settings import Config
from syncd.remote.failure import StepFailed
from syncd.sync.status_document import AgentStatus


def show_changes(config: Config, path: str, named: tuple[str, ...], form: str | None) -> int:
    """Show the changes of these paths, each time that the daemon found others, until a person ends it.

    `path` is that of the configuration. Raises `NeedsPerson` if nothing follows the agent.
    """
    reader = reader_for(path, lambda _path: config)
    seen: tuple[object, ...] = ()
    shown = ""

    def read() -> tuple[AgentStatus, str]:
        nonlocal seen, shown
        status = reader.status()
        agent = next((each.agent for each in status.sandboxes if each.name == config.sandbox_name), status.agent)
        now = (status.syncs, agent.changed_at, agent.changed)
        if not status.running:
            raise NeedsPerson("no daemon runs, so nothing is followed", "run `syncd service install`, or `syncd run`")
        if now != seen:
            seen, shown = now, _shown(config, named, form)
        return replace(agent, looked_at=None, followed_at=None, follow_requests=0), shown

    def text(read: tuple[AgentStatus, str]) -> str:
        agent, changes = read
        return changes if form == "json" else f"{agent_text(agent, CLOCK.wall_s())}\n\n{changes}".lstrip("\n")

    if not config.sandbox.follow_seconds:
        raise NeedsPerson("nothing is followed (sandbox.follow_seconds = 0)", "set it to 5 or more, as 10")
    live.watch(read, text, as_json=form == "json")
    return ExitCode.DONE


def _shown(config: Config, named: tuple[str, ...], form: str | None) -> str:
    """Return what `syncd diff` prints, or why it fails."""
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace", newline="", write_through=True)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        try:
            with open_sandbox(config) as opened:
                show(look_at(opened), named, form)
        except (SyncdError, StepFailed) as failure:
            return str(failure.as_error() if isinstance(failure, StepFailed) else failure)
    out.seek(0)
    return out.read().rstrip("\n")
