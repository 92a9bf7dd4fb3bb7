"""Shows notices on the desktop: a person is needed; failing for long; in sync again; what became of the agent's work.

Failing is told once it has lasted, in seconds awake (monotonic): a night with a closed lid is no night of failing.
Success is told only after that. notify-send(1) shows them, where it is there.
"""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Mapping
from math import inf

from syncd.core.clock import Clock, day_and_time
from syncd.core.text import counted, for_sandbox, one_line, redacted, shown_path

_log = logging.getLogger("syncd")

# Failing is told once it has lasted so long.
FAILING_AFTER_S = 900.0
# A failure that waits for a person is told this soon: by then a disk would be mounted again, a key file saved.
NEEDED_AFTER_S = 60.0
# What happens to the agent's work is told once in this time.
AGENT_EVERY_S = 3_600.0
_LONGEST_S = 1.0  # a desktop answers within milliseconds
# What notify-send(1) needs to find the desktop; the key is not for it.
_VARIABLES = ("PATH", "HOME", "DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR", "DISPLAY", "WAYLAND_DISPLAY")
# Many desktops read markup, others show it: a message from a server could look like anything. A backslash is an escape
# to notify-send(1).
_AS_IT_IS = str.maketrans({"<": "(", ">": ")", "&": "+", "\\": "\\\\"})
_COMMAND = ("notify-send", "--app-name=syncd", "--icon=dialog-information", "--")


class DesktopNotifier:
    """The notices about one sandbox. Nothing here fails, and nothing takes longer than a second.

    `environ` empty: nothing is shown. `sandbox` is its name, where the workspace has several. `due_s` is the monotonic
    second from which on `show_due` has something to show; infinity: nothing is planned.
    """

    def __init__(self, workspace: str, environ: Mapping[str, str], clock: Clock, sandbox: str = "") -> None:
        name = one_line(shown_path(os.path.basename(workspace)), 40)
        self._name = f"{name} ({sandbox})" if sandbox else name
        self._sandbox = sandbox
        self._environ = environ
        self._clock = clock
        self.due_s = inf
        self._failing: tuple[float, float] | None = None  # since when, by the monotonic and the wall clock
        self._summary = self._text = ""
        self._is_told = False
        self._agent_at_s = -inf

    def failed(self, text: str, *, needs_person: bool) -> None:
        """A sync or a step of it failed, with the error's own line; with `needs_person` it will not pass by itself."""
        self._failing = self._failing or (self._clock.monotonic_s(), self._clock.wall_s())
        self._summary, self._text = "needs you" if needs_person else "is not synced", text
        if not self._is_told:
            self.due_s = self._failing[0] + (NEEDED_AFTER_S if needs_person else FAILING_AFTER_S)
        self.show_due()

    def succeeded(self) -> None:
        """A sync succeeded."""
        if self._is_told:
            self._show(f"{self._name} is in sync again", "The last sync went through.")
        self.paused()
        self._is_told = False

    def paused(self) -> None:
        """Syncing is paused: it neither fails nor works."""
        self._failing, self.due_s = None, inf

    def saved(self, files: int) -> None:
        """So many files of the agent were saved, as both sides had changed, before they were overwritten."""
        if self._agent_at_s <= self._clock.monotonic_s():
            self._agent_at_s = self._clock.monotonic_s() + AGENT_EVERY_S
            text = f"Both sides had changed {counted(files, 'file')}. `syncd saved` lists the agent's versions."
            self._show(f"{self._name}: the agent's work was saved", text)

    def agent_is_quiet(self, changed: int) -> None:
        """The agent changed something, and has been quiet since; so many of its files differ now."""
        self._show(f"{self._name}: the agent changed {counted(changed, 'file')}", "`syncd diff` shows them.")

    def unsaved(self, text: str) -> None:
        """Changes in a sandbox that ends, or was left, could not be saved; `text` says which, and why."""
        self._show(f"{self._name} needs you", text)

    def show_due(self) -> None:
        """Show the notice of the trouble if it is due now. If it cannot be shown, the next failure tries again."""
        if self._failing is None or self._clock.monotonic_s() < self.due_s:
            return
        self.due_s, since = inf, day_and_time(self._failing[1])
        self._is_told = self._show(f"{self._name} {self._summary}", f"Since {since}: {self._text}")

    def _show(self, summary: str, body: str) -> bool:
        """Have the desktop show a notice. False: it could not be shown."""
        if not self._environ:
            return False
        body = one_line(redacted(for_sandbox(body, self._sandbox) if self._sandbox else body), 400)
        try:
            subprocess.run(
                (*_COMMAND, summary.translate(_AS_IT_IS), body.translate(_AS_IT_IS)),
                env={name: self._environ[name] for name in _VARIABLES if name in self._environ},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_LONGEST_S,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as failure:
            _log.debug("no desktop notification: %s", failure)
            return False
        return True
