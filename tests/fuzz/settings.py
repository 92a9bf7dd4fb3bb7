"""The configurations of a simulation, as its steps give them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from syncd.core.settings import Config, check_config

# The values of the step `settings`: deletions, archive, a lifetime or 0 for the configured sandbox, the upload limit in
# KiB a second, the quiet period, and agent_changes.
DEFAULTS = ("mirror", "auto", 0, 0, 1.0, "save")


class Settings:
    """The settings of a simulation: the current ones, the last daemon's, and all since the last step `settings`."""

    def __init__(self, base_url: str, workspace: Path, sandbox_id: str, git: str, follow_s: float = 0.0) -> None:
        self._base_url = base_url
        self._workspace = workspace
        self._sandbox_id = sandbox_id
        self._git = git
        self._follow_s, self.follows = follow_s, follow_s > 0
        self._retry = {"first_delay_seconds": 1, "max_delay_seconds": 8, "give_up_after_seconds": 60}
        self.history: list[tuple[Any, ...]] = [DEFAULTS]
        self.current = self.of_daemon = self._config(DEFAULTS)

    def start_with(self, values: tuple[Any, ...]) -> None:
        self.history = [values]
        self.current = self._config(values)

    def change_to(self, values: tuple[Any, ...]) -> None:
        self.history.append(values)
        self.current = self._config(values)

    def retry_by_default(self) -> None:
        """Wait after failures as a person's daemon does, instead of so briefly as suits a story."""
        self._retry = {}
        self.current = self.of_daemon = self._config(self.history[-1])

    def stop_following(self) -> None:
        self._follow_s = 0.0
        self.current = self._config(self.history[-1])

    def move_to(self, sandbox_id: str) -> None:
        self._sandbox_id = sandbox_id
        self.current = self._config(self.history[-1])

    def _config(self, values: tuple[Any, ...]) -> Config:
        deletions, archive, ttl_seconds, limit_kib, quiet_s, agent_changes = values
        if ttl_seconds and limit_kib:
            ttl_seconds = max(ttl_seconds, 600)  # in a shorter life not all can be sent at the limit
        sandbox: dict[str, Any] = {"base_url": self._base_url, "deletions": deletions}
        sandbox |= {"acquire": {"ttl_seconds": ttl_seconds}} if ttl_seconds else {"id": self._sandbox_id}
        return check_config(
            {
                "workspace": {"path": str(self._workspace), "git": self._git},
                "sandbox": {**sandbox, "agent_changes": agent_changes, "follow_seconds": self._follow_s},
                "sync": {
                    "archive": archive,
                    "upload_limit_kib_per_second": limit_kib,
                    "debounce_seconds": quiet_s,
                },
                "retry": self._retry,
            }
        )
