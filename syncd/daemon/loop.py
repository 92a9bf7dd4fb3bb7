"""The daemon of one workspace: receives what happens, and has the loop of each sandbox know.

One thread owns all state. Each sandbox has a loop of its own (`daemon.sandbox_loop`), and these go on side by side
(`core.waiter`); signals, commands and changes are received in each wait, of whichever.
"""

from __future__ import annotations

import logging
import select
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from math import inf

from msgspec import Struct

from syncd.core.directories import Lock
from syncd.core.durable_file import PauseMarker, file_stamp
from syncd.core.errors import ConfigError, ExitCode, Stop, SyncWarning
from syncd.core.signals import Signals
from syncd.daemon.agenda import SharedState
from syncd.daemon.control import Client, ControlServer, Message
from syncd.daemon.sandbox_loop import SandboxLoop
from syncd.daemon.sync_requests import PAUSED, Asker, OneOfSeveral, SyncRequest
from syncd.remote.http_client import HttpClient
from syncd.report.logs import of_all_in_logs
from syncd.sync.status_document import State
from syncd.sync.workspace import Writer
from syncd.watch.suspend_detector import SuspendDetector

_log = logging.getLogger("syncd")

# While the key is refused, its file is checked this often.
KEY_POLL_S = 2.0


class Daemon(Struct, eq=False):
    """The daemon of one workspace."""

    shared: SharedState
    loops: Sequence[SandboxLoop]
    lock: Lock  # of the state folder
    clients: Sequence[HttpClient]  # all that ask a server
    suspend_detector: SuspendDetector
    control: ControlServer
    signals: Signals

    def run(self) -> bool:
        """Run until asked to stop, or to read another configuration, which is True.

        Raises `NeedsPerson` where it cannot work and has never worked.
        """
        systemd = self.shared.status.systemd
        systemd.ready()
        _log.info("watching %s%s", self.shared.workspace.path, ", paused" if self.shared.paused else "")
        try:
            beside = [work for loop in self.loops for work in (loop.follow, loop.set_up)]
            saves = [partial(removed.save_in_the_end, self._recall) for removed in self.shared.removed_sandboxes]
            works = [partial(loop.run, self._is_over) for loop in self.loops]
            self.shared.workspace.waiter.tasks.run(works, self, [*beside, *saves])
        except Stop:
            _log.info("stopping")
            systemd.stopping()
            return False
        self.control.dismiss()
        systemd.reloading()
        return True

    def _is_over(self) -> bool:
        """True if the loops are to end, for another configuration: no command writes, beside which that would sync."""
        return self.shared.reload and not self.shared.workspace.writers

    def serve(self, message: Message, client: Asker) -> list[SyncWarning]:
        """Run until this request of a command is answered and `sync.on_synced` has ended.

        Returns the warnings, if all succeeded. Raises `Stop` before an answer.
        """
        if message["do"] == "flush":  # it ends with the retries of its sync
            message = {**message, "do": "push"}
        asked = self._named(message)
        others = [loop for loop in self.loops if loop not in asked]
        tasks = self.shared.workspace.waiter.tasks
        works: list[Callable[[], object]] = [removed.save for removed in self.shared.removed_sandboxes]
        for loop, each in _clients(client, asked):
            loop.ask(message, each)
            if message["do"] != "setup":
                works.append(partial(loop.run, partial(_is_answered, each)))
        works.append(partial(self._await_answer, client))
        setups = [] if message.get("no_setup") else [loop.set_up for loop in asked]
        try:
            try:
                tasks.run(works, self, setups)
                tasks.run([partial(self._await_hook, client)], self)
            except Stop:
                if client.waits:
                    raise
            for loop in others:
                loop.stood_by([each.cycle.content for each in asked])
            failed = any(loop.reporter.publisher.now.last_error is not None for loop in asked)
            return [] if failed else self.shared.status.warnings()
        finally:
            for loop in others:
                loop.reporter.recall()

    def _await_answer(self, client: Asker) -> None:
        while client.waits:
            self.shared.workspace.waiter.wait(inf)

    def _await_hook(self, client: Asker) -> None:
        """Wait until `sync.on_synced` has ended, which a sync has begun before it ended and which may take a minute."""
        synced_hook = self.shared.synced_hook
        if synced_hook.is_running:
            client.send({"event": "progress", "state": State.STOPPED})
        while synced_hook.is_running:
            self.shared.workspace.waiter.wait(inf)

    def _recall(self) -> None:
        """Have the status tell what is known now of what no loop does."""
        for loop in self.loops:
            loop.reporter.recall()

    # -- the events of the process, in each wait

    def wake_fds(self) -> list[tuple[int, int]]:
        """The descriptors that become ready when something comes, each with the event of poll(2)."""
        shared = self.shared
        sources = (shared.watch, self.suspend_detector, self.control, shared.synced_hook)
        return [(fileno, select.POLLIN) for source in sources for fileno in source.filenos()]

    def deadline_s(self) -> float:
        """The monotonic second at which something is due, even if nothing comes."""
        shared = self.shared
        notices_s = [publisher.notifier.due_s for publisher in shared.status.publishers]
        key_due_s = shared.workspace.waiter.clock.monotonic_s() + KEY_POLL_S if self._awaited_keys() else inf
        others_s = (shared.status.systemd.due_s, shared.watch.collects_until_s, shared.synced_hook.due_s)
        return min(*notices_s, key_due_s, *others_s)

    @of_all_in_logs()  # whichever task waits receives what comes
    def handle(self, ready: Collection[int]) -> bool:
        """Note what has come, and answer commands. True if the loops have to know."""
        shared, signals = self.shared, self.signals
        # Where the wall clock jumped, the times that the status shows are others.
        came = not set(self.suspend_detector.filenos()).isdisjoint(ready)
        # Before the events are read: what was changed before a request is synced by it, and is not pending after.
        sync_now, signals.sync_now = signals.sync_now, False
        requests = list(self.control.requests())
        changes = shared.watch.take()
        if changes:
            shared.dirty.add(changes)
            for loop in self.loops:
                loop.note_changes(changes)
            came = True
        slept_s = self.suspend_detector.slept_s()
        if slept_s:
            _log.info("slept for %.0f s: scanning everything again", slept_s)
            shared.dirty.mark_all()
            for each in self.clients:
                each.drop()  # their connections are dead
            for loop in self.loops:
                loop.woke(slept_s)
            came = True
        if sync_now:
            for loop in self.loops:
                loop.add(SyncRequest())
            came = True
        for client, message in requests:
            self._answer(client, message)
            came = True
        if shared.status.run.pid is not None and shared.reload_after is None and self._check_for_reload():
            shared.reload_after = set(shared.workspace.syncing)
            came = True
        if shared.synced_hook.poll():
            self._recall()
            came = True
        if shared.workspace.forget_ended_writers():
            shared.dirty.mark_all()  # no event may have told of what they wrote
            for loop in self.loops:
                loop.sync_soon()
            came = True
        shared.workspace.let_write()
        for publisher in shared.status.publishers:
            publisher.notifier.show_due()
        shared.status.systemd.ping()
        return came or self._is_over()

    def _check_for_reload(self) -> bool:
        """True if a person asks, a refused key is another one, or the state folder was removed, which is made again."""
        if self.lock.is_lost:
            with suppress(ConfigError):
                self.shared.workspace.folders.make()
                _log.warning("the state folder was removed while it was in use: beginning with a new one")
                return True
        stamps = self.shared.status.run.key_stamps
        return self.signals.reload or any(file_stamp(file) != stamps[file] for file in self._awaited_keys())

    def _awaited_keys(self) -> list[str]:
        """Return the files of keys that are refused, and of all while the configuration is."""
        is_refused = bool(self.shared.status.run.refused)
        awaiting = (loop for loop in self.loops if is_refused or loop.agenda.due.awaits_person)
        return [loop.cycle.access.config.sandbox.api_key_file for loop in awaiting]

    # -- commands

    def _answer(self, client: Client, message: Message) -> None:
        loops = self._named(message)
        delays_reload = any(self.shared.delays_reload(loop.cycle.name) for loop in loops)
        is_cut_off = delays_reload or (not loops and self.shared.reload_after is not None)
        if is_cut_off and message.get("do") in ("push", "flush", "setup"):
            client.ask_again()
            return
        if not loops and message.get("do") != "write":  # an undo may be of one that is configured no more
            name = str(message.get("sandbox"))
            client.done(ExitCode.NEEDS_PERSON, f"no sandbox here is named '{name}': `syncd status` shows all")
            return
        match message.get("do"):
            case "flush" if self.shared.paused:
                client.done(ExitCode.TRY_LATER, str(PAUSED))
            case "push" | "flush" | "setup":
                for loop, each in _clients(client, loops):
                    loop.ask(message, each)
            case "hello":
                self.shared.status.write()  # the configuration may be another one by now
                unwritten = self.shared.status.unwritten()
                status = unwritten.document() if unwritten else None
                client.done(ExitCode.DONE, result={"status": status})
            case "look":
                for loop in loops:
                    loop.follower.note_activity()
                client.done(ExitCode.DONE)
            case "left":
                for loop in self.loops:
                    if loop.cycle.note_released(str(message.get("id"))):
                        loop.sync_soon()
                client.done(ExitCode.DONE)
            case "write":
                writer = Writer(str(message.get("sandbox") or ""), lambda: client.waits, client.send)
                self.shared.workspace.writers.append(writer)
                client.send({"event": "progress", "state": self.shared.status.status().state})
            case "reload":
                self.signals.reload_now()
                if self.shared.workspace.syncing:  # these are waited for, which may take minutes
                    client.done(ExitCode.DONE)
            case "pause" | "resume" as command:
                self._pause_or_resume(client, command)
            case _:
                client.done(ExitCode.NEEDS_PERSON, "this daemon does not know that command: is it of another version?")

    def _named(self, message: Message) -> list[SandboxLoop]:
        """Return the loops of the sandbox that a command names, or all."""
        name = message.get("sandbox")
        return [loop for loop in self.loops if name in (None, "", loop.cycle.name)]

    def _pause_or_resume(self, client: Client, command: str) -> None:
        is_pause, marker = command == "pause", PauseMarker(self.shared.status.folder)
        try:
            if is_pause:
                marker.create()
            else:
                marker.remove()
        except OSError as failure:
            client.done(ExitCode.TRY_LATER, f"the state folder cannot be written: {failure.strerror}")
            return
        was_paused, self.shared.paused = self.shared.paused, is_pause
        if was_paused and not is_pause:
            self.shared.dirty.mark_all()
        for loop in self.loops:
            if is_pause:
                loop.note_pause()
            elif was_paused:
                loop.note_resume()
        _log.info("%sd", command)
        client.done(ExitCode.DONE)


def _clients(client: Asker, loops: list[SandboxLoop]) -> list[tuple[SandboxLoop, Asker]]:
    """Return the loops that a client asks, each with the client that it answers."""
    if len(loops) == 1:
        return [(loops[0], client)]
    answers: dict[str, Message | None] = dict.fromkeys(loop.cycle.name for loop in loops)
    return [(loop, OneOfSeveral(client, loop.cycle.name, answers)) for loop in loops]


def _is_answered(client: Asker) -> bool:
    return not client.waits
