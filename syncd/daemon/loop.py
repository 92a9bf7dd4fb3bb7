"""The daemon of one workspace: receives what happens, and has the loop of each sandbox know.

One thread owns all state. Each sandbox has a loop of its own (`daemon.sandbox_loop`), and these go on side by side
(`core.waiter`); signals, commands and changes are received in each wait, of whichever.
"""

from __future__ import annotations

import logging
import select
from collections.abc import Callable, Collection, Mapping
from enum import Enum
from functools import partial
from math import inf

from msgspec import Struct

from syncd import __version__
from syncd.archive.snapshotter import SyncMode
from syncd.core.api_key import ApiKey
from syncd.core.durable_file import pause_marker
from syncd.core.errors import ExitCode, KeyRefused, Stop, SyncWarning
from syncd.core.settings import Config
from syncd.daemon.control import Client, Message
from syncd.daemon.left_sandbox import LeftSandbox
from syncd.daemon.sandbox_loop import SandboxLoop
from syncd.daemon.setup_task import NO_SETUP
from syncd.daemon.shared_state import SharedState, Writer
from syncd.daemon.sync_requests import PAUSED, Asker, SyncRequest, each_of

_log = logging.getLogger("syncd")


class LoopEnd(Enum):
    """The reason why the daemon ended."""

    STOPPED = "asked to stop"
    RELOAD = "a new configuration is to be read"


class SandboxChanges(Struct, frozen=True):
    """The change of a configuration that has more sandboxes or fewer, and is else as before."""

    added: tuple[SandboxLoop, ...]
    removed: tuple[str, ...]
    left: tuple[LeftSandbox, ...]  # of these, those whose work is to be saved
    config: Config  # now
    keys: Mapping[str, ApiKey | KeyRefused]


class Daemon:
    """The daemon of one workspace."""

    def __init__(
        self,
        shared: SharedState,
        loops: Collection[SandboxLoop],
        change_sandboxes: Callable[[], SandboxChanges | None],
    ) -> None:
        self._shared = shared
        self._loops = shared.loops
        self._loops.update({loop.name: loop for loop in loops})
        self._change_sandboxes = change_sandboxes
        self._pause_marker = pause_marker(shared.status.folder)
        shared.paused = self._pause_marker.exists
        self.changes: SandboxChanges | None = None  # the last ones

    def run(self) -> LoopEnd:
        """Run until asked to stop or reload. Raises `NeedsPerson` where it cannot work and has never worked."""
        systemd = self._shared.systemd
        systemd.ready()
        _log.info("watching %s%s", self._shared.status.workspace, ", paused" if self._shared.paused else "")
        try:
            works = [work for loop in self._loops.values() for work in loop.works]
            self._shared.tasks.run([*works, *(left.run for left in self._shared.left)], self)
        except Stop:
            _log.info("stopping")
            systemd.stopping()
            return LoopEnd.STOPPED
        systemd.reloading()
        return LoopEnd.RELOAD

    def serve(self, requests: Mapping[str, SyncRequest]) -> list[SyncWarning]:
        """Run until these requests, by the names of the sandboxes, are answered and `sync.on_synced` has ended.

        Returns the warnings, if all succeeded. Raises `Stop` before an answer.
        """
        try:
            return self._served(requests)
        finally:
            for name in self._loops.keys() - requests.keys():
                self._loops[name].recall()

    def _served(self, requests: Mapping[str, SyncRequest]) -> list[SyncWarning]:
        try:
            works: list[Callable[[], None]] = []
            works += [partial(self._loops[name].serve, each) for name, each in requests.items()]
            waiting = [self._loops[name].setup for name, each in requests.items() if each.awaits_setup]
            works += [setup.run for setup in waiting if setup is not None]
            self._shared.tasks.run([*works, *(left.try_once for left in self._shared.left)], self)
        except Stop:
            if any(each.is_open for each in requests.values()):
                raise
        for name in self._loops.keys() - requests:
            self._loops[name].stood_by([self._loops[each].cycle.baseline for each in requests])
        served = [self._loops[name].publisher for name in requests]
        failed = any(each.now.last_error is not None for each in served)
        return [] if failed else self._shared.status.warnings()

    def set_up(self, name: str, client: Asker) -> None:
        """Have this sandbox set up, and answer the client. Raises `Stop` before."""
        loop = self._loops[name]
        if loop.setup is None:
            client.done(ExitCode.NEEDS_PERSON, NO_SETUP)
        else:
            self._shared.tasks.run([partial(loop.set_up, client), loop.setup.run], self)

    # -- the events of the process, in each wait

    def wake_fds(self) -> list[tuple[int, int]]:
        """The descriptors that become ready when something comes, each with the event of poll(2)."""
        shared = self._shared
        sources = (shared.watch, shared.suspend_detector, shared.control, shared.synced_hook)
        return [(fileno, select.POLLIN) for source in sources for fileno in source.filenos()]

    def deadline_s(self) -> float:
        """The monotonic second at which something is due, even if nothing comes."""
        shared = self._shared
        times = [shared.systemd.next_ping_s(), shared.watch.paused_until_s, self._shared.synced_hook.due_s]
        own = min((time_s for time_s in times if time_s is not None), default=inf)
        return min([own, *(loop.deadline_s() for loop in self._loops.values())])

    def handle(self, ready: Collection[int]) -> bool:
        """Note what has come, and answer commands. True if the loops have to know."""
        shared = self._shared
        # Where the wall clock jumped, the times that the status shows are others.
        came = not set(shared.suspend_detector.filenos()).isdisjoint(ready)
        changes = shared.watch.take()
        if changes:
            shared.dirty.add(changes)
            for loop in self._loops.values():
                loop.note_changes(changes)
            came = True
        slept_s = self._shared.suspend_detector.slept_s()
        if slept_s:
            _log.info("slept for %.0f s: scanning everything again", slept_s)
            shared.dirty.mark_all()
            for loop in self._loops.values():
                loop.woke(slept_s)
            came = True
        if shared.signals.sync_now:
            shared.signals.sync_now = False
            for loop in self._loops.values():
                loop.add(SyncRequest())
            came = True
        for client, message in self._shared.control.requests():
            self._handle(client, message)
            came = True
        if not shared.reload and shared.is_state_lost():
            _log.warning("the state folder was removed while it was in use: beginning with a new one")
            shared.reload = came = True
        if shared.signals.reload:
            shared.signals.reload = False
            self._reload()
            came = True
        if shared.synced_hook.poll():
            self._shared.recall()
            came = True
        came = shared.note_ended_writers() or came
        shared.let_write()
        for loop in self._loops.values():
            loop.note_time()
        shared.systemd.ping()
        return came or shared.reload

    def _reload(self) -> None:
        """Begin or end the loops of sandboxes, where nothing else has changed; no other sandbox notices."""
        changes = self._change_sandboxes()
        if changes is None:
            self._shared.is_reload_asked = True
            for loop in self._loops.values():
                loop.delays_reload = loop.is_syncing
            self._shared.sync_ended()
            return
        self.changes = changes
        self._shared.status.refused = ""
        self._shared.systemd.reloading()  # the service manager waits for both
        for name in changes.removed:
            self._loops.pop(name).leave()
        for loop in changes.added:
            self._loops[loop.name] = loop
            for work in loop.works:
                self._shared.tasks.add(work)
        self._shared.left = [*(each for each in self._shared.left if not each.is_over()), *changes.left]
        for left in changes.left:
            self._shared.tasks.add(left.run)
        self._shared.systemd.ready()

    # -- commands

    def _handle(self, client: Client, message: Message) -> None:
        loops = self._named(message)
        if not loops and message.get("do") != "write":  # an undo may be of one that is configured no more
            client.done(ExitCode.NEEDS_PERSON, f"no sandbox here is named {message.get('sandbox')!r}")
            return
        match message.get("do"):
            case "push":
                mode = SyncMode.FORCED if message.get("force") else SyncMode.CHANGED
                self._add(SyncRequest(client, mode, awaits_setup=not message.get("no_setup")), loops)
            case "flush" if self._shared.paused:
                client.done(ExitCode.TRY_LATER, str(PAUSED))
            case "flush":
                self._add(SyncRequest(client, lasting=True, awaits_setup=not message.get("no_setup")), loops)
            case "setup":
                setup = loops[0].setup
                if setup is None:
                    client.done(ExitCode.NEEDS_PERSON, NO_SETUP)
                else:
                    setup.ask(client)
            case "hello":
                unwritten = self._shared.status.unwritten()
                status = unwritten.document() if unwritten else None
                client.done(ExitCode.DONE, result={"version": __version__, "status": status})
            case "look":
                for loop in loops:
                    if loop.follower is not None:
                        loop.follower.woken()
                client.done(ExitCode.DONE)
            case "left":
                for loop in self._loops.values():
                    loop.forget_sandbox(str(message.get("id")))
                client.done(ExitCode.DONE)
            case "write":
                writer = Writer(str(message.get("sandbox") or ""), lambda: client.waits, client.send)
                self._shared.writers.append(writer)
                client.send({"event": "progress", "state": self._shared.status.status().state})
            case "reload":
                self._shared.signals.reload_now()
                client.done(ExitCode.DONE)
            case "pause" | "resume" as command:
                self._pause_or_resume(client, command)
            case _:
                client.done(ExitCode.NEEDS_PERSON, "this daemon does not know that command: is it of another version?")

    def _named(self, message: Message) -> list[SandboxLoop]:
        """Return the loops of the sandbox that a command names, or all."""
        name = message.get("sandbox")
        return [loop for loop in self._loops.values() if name in (None, "", loop.name)]

    def _add(self, request: SyncRequest, loops: list[SandboxLoop]) -> None:
        for loop, each in zip(loops, each_of(request, [loop.name for loop in loops]), strict=True):
            loop.add(each)

    def _pause_or_resume(self, client: Client, command: str) -> None:
        is_pause = command == "pause"
        try:
            if is_pause:
                self._pause_marker.create()
            else:
                self._pause_marker.remove()
        except OSError as failure:
            client.done(ExitCode.TRY_LATER, f"the state folder cannot be written: {failure.strerror}")
            return
        was_paused, self._shared.paused = self._shared.paused, is_pause
        if was_paused and not is_pause:
            self._shared.dirty.mark_all()
        for loop in self._loops.values():
            if is_pause:
                loop.note_pause()
            elif was_paused:
                loop.note_resume()
        _log.info("%sd", command)
        client.done(ExitCode.DONE)
