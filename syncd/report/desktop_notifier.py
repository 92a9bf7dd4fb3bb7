"""Shows notices on the desktop: a person is needed; failing for long; in sync again; what became of the agent's work.

Failing is told once it has lasted, in seconds awake (monotonic): a night with a closed lid is no night of failing.
Success is told only after that. notify-send(1) shows them, where it is there.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
from collections.abc import Mapping
from enum import IntEnum
from math import inf

from msgspec import Struct
from msgspec.structs import replace

from syncd.core.clock import Clock, utc
from syncd.core.text import counted, for_sandbox, one_line, redacted, shown_path

_log = logging.getLogger("syncd")

# Failing is told once it has lasted so long.
FAILING_AFTER_S = 900.0
# A failure that waits for a person is told this soon: by then a disk would be mounted again, a key file saved.
NEEDED_AFTER_S = 60.0
# What happens to the agent's work is told once in this time.
AGENT_EVERY_S = 3_600.0
# A trouble that could not be shown, as before a person logs in, is tried again after this.
TRY_AGAIN_S = 300.0
_LONGEST_S = 1.0  # a desktop answers within milliseconds
# What notify-send(1) needs to find the desktop; the key is not for it.
_VARIABLES = ("PATH", "HOME", "DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR", "DISPLAY", "WAYLAND_DISPLAY")
# Of a URL only the host is for people.
_URL = re.compile(r"""(?i)\b[a-z][a-z0-9+.-]*://(?:[^\s/?#@'"]*@)?([^\s/?#'"]*)[^\s'"]*?(?=[.,:;)\]]*(?:[\s'"]|$))""")
# Many desktops read markup, others show it: a message from a server could look like anything. A backslash is an escape
# to notify-send(1).
_AS_IT_IS = str.maketrans({"<": "(", ">": ")", "&": "+", "\\": "\\\\"})


class Told(IntEnum):
    """The part of a lasting trouble that there is to tell, or that a person was told."""

    NOTHING = 0
    FAILING = 1
    NEEDED = 2


class LastNotice(Struct):
    """The last notice about syncing, by what it told. It outlives a reload."""

    told: Told = Told.NOTHING


class _Trouble(Struct, frozen=True):
    """Syncing fails. `since_s` and `needed_since_s` are seconds awake; the second is None where it may pass."""

    text: str
    since_s: float
    since_wall_s: float
    needed_since_s: float | None = None

    @property
    def tells(self) -> Told:
        return Told.FAILING if self.needed_since_s is None else Told.NEEDED


class DesktopNotifier:
    """The notices of one daemon. Nothing here fails, and nothing takes longer than a second.

    `environ` None: nothing is shown.
    """

    def __init__(
        self,
        workspace: str,
        environ: Mapping[str, str] | None,
        last: LastNotice,
        clock: Clock,
        *,
        sandbox: str = "",
    ) -> None:
        """`sandbox` is the name of the sandbox, where the workspace has several."""
        name = one_line(shown_path(os.path.basename(workspace)), 40)
        self._name = f"{name} ({sandbox})" if sandbox else name
        self._sandbox = sandbox
        self._environ = environ
        self._last = last
        self._clock = clock
        self._trouble: _Trouble | None = None
        self._try_again_s = self._agent_at_s = -inf

    def failed(self, text: str, *, needs_person: bool) -> None:
        """A sync or a step of it failed, with the error's own line; with `needs_person` it will not pass by itself."""
        now_s = self._clock.monotonic_s()
        trouble = self._trouble or _Trouble(text, now_s, self._clock.wall_s())
        needed_since_s = now_s if trouble.needed_since_s is None else trouble.needed_since_s
        self._trouble = replace(trouble, text=text, needed_since_s=needed_since_s if needs_person else None)
        self.show_due()

    def succeeded(self) -> None:
        """A sync succeeded."""
        self._trouble = None
        if self._last.told is not Told.NOTHING:
            self._last.told = Told.NOTHING
            self._show(f"{self._name} is in sync again", "The last sync went through.")

    def paused(self) -> None:
        """Syncing is paused: it neither fails nor works."""
        self._trouble = None

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

    @property
    def due_s(self) -> float | None:
        """The monotonic second from which on `show_due` has something to show; None: nothing is planned."""
        trouble = self._trouble
        if trouble is None or self._environ is None or trouble.tells <= self._last.told:
            return None
        if trouble.needed_since_s is None:
            return max(trouble.since_s + FAILING_AFTER_S, self._try_again_s)
        return max(trouble.needed_since_s + NEEDED_AFTER_S, self._try_again_s)

    def show_due(self) -> None:
        """Show the notice of the trouble if it is due now."""
        trouble, due_s, now_s = self._trouble, self.due_s, self._clock.monotonic_s()
        if trouble is None or due_s is None or due_s > now_s:
            return
        summary = f"{self._name} needs you" if trouble.tells is Told.NEEDED else f"{self._name} is not synced"
        since = utc(trouble.since_wall_s).astimezone()
        if self._show(summary, f"Since {since:%a %H:%M}: {trouble.text}"):
            self._last.told = trouble.tells
        else:
            self._try_again_s = now_s + TRY_AGAIN_S

    def _show(self, summary: str, body: str) -> bool:
        """Have the desktop show a notice. False: it could not be shown."""
        if self._environ is None:
            return False
        body = for_sandbox(body, self._sandbox) if self._sandbox else body
        text = _URL.sub(r"\1", one_line(redacted(body), 400)).translate(_AS_IT_IS)
        try:
            subprocess.run(
                (
                    "notify-send",
                    "--app-name=syncd",
                    "--icon=dialog-information",
                    "--",
                    summary.translate(_AS_IT_IS),
                    text,
                ),
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
