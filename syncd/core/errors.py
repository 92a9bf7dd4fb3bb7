"""Every failure that a user can see, each one line and a hint.

    SyncdError                  message: what happened, to what; hint: what to do next
    ├── TryLater                exit 75: the same command may work later
    │   ├── Locked              another instance holds this workspace
    │   └── Unavailable         network or server, after all retries
    └── NeedsPerson             exit 78: will not work until a person changes something
        ├── ConfigError         a key of the configuration
        ├── KeyRefused          the API key is missing, readable by others, or refused
        ├── WorkspaceError      the workspace is missing or is no directory
        │   └── NearlyEmpty     it lost nearly everything at once
        ├── SandboxRefused      Klavis refused the request
        │   └── SandboxNotFound Klavis knows no such sandbox
        └── SnapshotTooLarge    over `sync.max_snapshot_mib`

`Stop` is not a failure: the process was asked to end. Nor is a `SyncWarning`, which stops nothing.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class ExitCode(IntEnum):
    """The exit code of a command. DIFFERENT: what was compared is not equal, or conflicts are left."""

    DONE = 0
    DIFFERENT = 1
    WRONG_USAGE = 2
    TRY_LATER = 75
    NEEDS_PERSON = 78


class SyncdError(Exception):
    """A failure with a message for people; `exit_code` is the command's exit code."""

    exit_code = ExitCode.TRY_LATER

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}: {self.hint}" if self.hint else self.message


class TryLater(SyncdError):
    """The same command may work later."""


class Locked(TryLater):
    """Another instance of syncd holds this workspace."""


class Unavailable(TryLater):
    """The network or a server still failed after all retries."""


class NeedsPerson(SyncdError):
    """The same command will not work until a person changes something."""

    exit_code = ExitCode.NEEDS_PERSON


class ConfigError(NeedsPerson):
    """The configuration cannot be used; the message names the key, its value and what is allowed."""


class KeyRefused(NeedsPerson):
    """The API key is missing, readable by others, or refused by Klavis."""


class WorkspaceError(NeedsPerson):
    """The workspace is missing, unreadable or no directory."""


class NearlyEmpty(WorkspaceError):
    """The workspace lost nearly everything at once: more likely an accident than work."""


class SandboxRefused(NeedsPerson):
    """Klavis refused the request."""


class SandboxNotFound(SandboxRefused):
    """Klavis does not know the sandbox, or no longer knows it."""


class SnapshotTooLarge(NeedsPerson):
    """The snapshot is over `sync.max_snapshot_mib`."""


def failure_with(exit_code: int, message: str) -> SyncdError:
    """Return the failure with which another process of syncd ended, or answered."""
    return NeedsPerson(message) if exit_code == ExitCode.NEEDS_PERSON else TryLater(message)


class Stop(BaseException):
    """The process was asked to end. A `BaseException`, so that no handler of failures catches it."""


class SyncWarning(NamedTuple):
    """A problem in one line (`what`) and what to do about it (`remedy`), which `status` shows until it is mended.

    Unlike an error it stops nothing. Warnings with the same `key` are about one problem, even if their text differs.
    """

    key: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}" if self.remedy else self.what
