"""Notifies the agent of its sandbox: by a file with the MCP servers, and by the person's own hook.

It does so once the sandbox holds the workspace. Nothing here fails a sync, and the loop waits for nothing but the one
request for the servers of a sandbox that syncd did not acquire itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from msgspec import structs

from syncd.core.api_key import ApiKey
from syncd.core.clock import Clock, stamp
from syncd.core.context import RuntimeContext
from syncd.core.directories import Directories
from syncd.core.hook import Hook, HookResult
from syncd.core.settings import Config
from syncd.core.warning import SyncWarning
from syncd.remote.api import Api
from syncd.remote.failure import StepFailed
from syncd.remote.http_client import HttpClient
from syncd.remote.sandbox_lifetime import AcquiredSandbox
from syncd.remote.target import Target
from syncd.sandbox.agent_file import AgentFile, AgentNotes
from syncd.sandbox.agent_info import AgentInfo, hook_variables, mcp_json
from syncd.sandbox.hook_rules import MOST_ATTEMPTS, HookRun, next_attempt

_log = logging.getLogger("syncd")
# After so many failed requests for the servers the hook is run without them.
_MOST_REQUESTS = 3
HOOK_TIMEOUT_S = 30.0


class AgentNotifier:
    """One workspace's notifier. `ask` returns a sandbox's MCP servers' URLs by name; it may raise `StepFailed`."""

    def __init__(
        self,
        workspace: str,
        *,
        hook: Hook,
        file: AgentFile | None,
        notes: AgentNotes,
        ask: Callable[[Target], Mapping[str, str]],
        clock: Clock,
    ) -> None:
        self._workspace = workspace
        self.hook = hook
        self._file = file
        self._notes = notes
        self._ask = ask
        self._clock = clock
        self._agent_info = AgentInfo("")
        self._asked_target: Target | None = None
        self._requests = 0
        self._servers: Mapping[str, str] | None = None
        self._file_warning: SyncWarning | None = None
        self._running: HookRun | None = notes.last_run if hook.running else None  # begun before a reload
        self._place = self._running.place if self._running else ""

    @property
    def servers(self) -> Mapping[str, str]:
        """The MCP servers of the sandbox that was last asked for them; empty if none was."""
        return self._servers or {}

    def arrived(self, target: Target | None, acquired_sandbox: AcquiredSandbox | None) -> None:
        """Notify the agent if need be: the target's sandbox, which syncd may have acquired, holds the workspace."""
        if target is None or not (self.hook.is_configured or self._file):
            return
        servers = acquired_sandbox.servers if acquired_sandbox is not None else self._servers_of(target)
        if servers is None and self._requests < _MOST_REQUESTS:
            return  # the next sync asks again
        ends_s = None if acquired_sandbox is None else acquired_sandbox.ends_wall_s
        self._agent_info = AgentInfo(target.sandbox_id, "" if ends_s is None else stamp(ends_s), servers or {})
        self._place = f"{target.base_url} {target.sandbox_id}"
        if self._file is not None and servers is not None:
            self._file_warning = self._file.write(mcp_json(servers))
        self._run_hook()

    def poll(self) -> bool:
        """Handle the hook's output and end; return True if `warnings` may have changed."""
        ended = self.hook.poll()
        if ended is None:
            return False
        self._record_end(ended)
        if self._notes.last_run is None or self._notes.last_run.place != self._place:
            self._run_hook()  # the sandbox changed meanwhile
        return True

    @property
    def warnings(self) -> list[SyncWarning]:
        """The warnings about what the agent could not be notified of."""
        found = [] if self._file_warning is None else [self._file_warning]
        run = self._notes.last_run
        if self.hook.is_configured and run is not None and run.command == self.hook.command and not run.done:
            exhausted = run.attempts >= MOST_ATTEMPTS
            failure = run.failure or ("was interrupted each time" if exhausted and not self.hook.running else "")
            again = "it is not run again" if exhausted else "it is run again after the next sync"
            if failure:
                what = f"sandbox.on_sandbox_change {failure}; {again}"
                found.append(SyncWarning("agent:hook", what, "see its output in the log, then change the command"))
        if self._requests and self._servers is None:
            what = "the API did not name the sandbox's MCP servers"
            found.append(SyncWarning("agent:servers", what, "nothing to do; the next sync asks again"))
        return found

    def _run_hook(self) -> None:
        if not self.hook.is_configured or self.hook.running:
            return
        attempt = next_attempt(self._notes.last_run, self._place, self.hook.command)
        if attempt is None:
            return
        self._notes.record_run(attempt)
        self._running = attempt
        written = self._file is not None and self._file_warning is None
        path = self._file.path if self._file is not None and written else ""
        hidden = {url: f"[URL of {name}]" for name, url in self._agent_info.servers.items() if url}
        _log.info("running sandbox.on_sandbox_change for the sandbox %s", self._agent_info.sandbox_id)
        failed = self.hook.start(hook_variables(self._agent_info, self._workspace, path), hidden)
        if failed is not None:
            self._record_end(failed)

    def _record_end(self, ended: HookResult) -> None:
        if self._running is not None:
            done = not ended.failure
            self._notes.record_run(structs.replace(self._running, done=done, failure=ended.failure))
        self._running = None

    def _servers_of(self, target: Target) -> Mapping[str, str] | None:
        if target != self._asked_target:
            self._asked_target, self._requests, self._servers = target, 0, None
        if self._servers is None:
            self._requests += 1
            try:
                self._servers = self._ask(target)
            except StepFailed as failure:
                _log.info("the sandbox's MCP servers are not known: %s", failure)
        return self._servers


def sandbox_hook_of(context: RuntimeContext) -> Hook:
    """Return the hook of a process, without a command yet. One that is ended is run once more by the next process."""
    return Hook("on_sandbox_change", HOOK_TIMEOUT_S, context.environ, context.clock)


def agent_notifier_of(
    config: Config, folders: Directories, hook: Hook, *, key: ApiKey, context: RuntimeContext, client: HttpClient
) -> AgentNotifier:
    """Return the notifier that `[sandbox]` configures, with its hook."""
    keys = config.sandbox
    notes = AgentNotes(folders.state)
    if hook.is_configured or hook.running or keys.mcp_file:
        notes.recall()

    def ask(target: Target) -> dict[str, str]:
        servers = Api(target, key, client, context.clock).sandbox().servers
        return {server.server_name or server.id: server.mcp_server_url or "" for server in servers}

    return AgentNotifier(
        config.workspace.path,
        hook=hook,
        file=AgentFile(keys.mcp_file, notes) if keys.mcp_file else None,
        notes=notes,
        ask=ask,
        clock=context.clock,
    )
