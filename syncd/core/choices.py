"""What several packages decide by, such as how long a version is kept, and an enum for each choice of a setting."""

from __future__ import annotations

from enum import StrEnum

# What is saved of the agent's work is kept so long, and so much of it: the oldest goes first. A look copies no more.
SAVED_DAYS = 30
SAVED_BYTES = 2 << 30
# An agent that changed nothing for so long has done its work, or waits for somebody.
AGENT_QUIET_S = 60.0
# In whose name syncd commits, in the sandbox and here.
COMMITTER = "syncd <syncd@localhost>"


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
