"""The values of a configuration that other packages decide by: an enum for each choice, and the managed file's part."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

# A constant: whoever could name another file, by an option or in the environment, could lift the ceiling.
MANAGED_FILE = "/etc/syncd/managed.toml"


# What is saved of the agent's work is kept so long, and so much of it: the oldest goes first. A look copies no more.
SAVED_DAYS = 30
SAVED_BYTES = 2 << 30


class GitThere(StrEnum):
    """The repository in the sandbox: `workspace.git`."""

    BASELINE = "baseline"
    NONE = "none"
    RAW = "raw"


class Region(StrEnum):
    """The region of the sandbox: `sandbox.region`."""

    US = "us"
    ASIA = "asia"


class Deletions(StrEnum):
    """The treatment of files in the sandbox that were deleted locally: `sandbox.deletions`."""

    KEEP = "keep"
    MIRROR = "mirror"


class AgentChanges(StrEnum):
    """The treatment of what was changed in the sandbox: `sandbox.agent_changes`."""

    SAVE = "save"
    HOLD = "hold"
    OVERWRITE = "overwrite"


class ArchiveContent(StrEnum):
    """The content of an archive: `sync.archive`."""

    AUTO = "auto"
    FULL = "full"


class Managed(Struct, frozen=True):
    """The part that the managed file has in a configuration; keys are named as in a person's file.

    `defaults` have their value from it, `ceiling` are held by its ceiling, `narrowed` had another value in the person's
    file, which the ceiling took back.
    """

    file: str
    defaults: tuple[str, ...]
    ceiling: tuple[str, ...]
    narrowed: tuple[str, ...]

    def summary(self) -> str:
        """The file with the keys that it is about, in one line."""
        kinds = (("holds", self.ceiling), ("gives", self.defaults), ("overrides your", self.narrowed))
        does = [f"{verb} {', '.join(keys)}" for verb, keys in kinds if keys]
        return f"{self.file} {'; '.join(does) or 'holds and gives nothing here'}"
