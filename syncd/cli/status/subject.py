"""The workspace of one configuration file, whose status is read any number of times."""

from __future__ import annotations

import os

from syncd.cli.options import CLOCK, load_for_command
from syncd.cli.status.inquiry import Inquiry
from syncd.core.directories import directories_for
from syncd.core.errors import ConfigError
from syncd.core.settings import Config
from syncd.core.text import shown_path
from syncd.report.status_store import read_status
from syncd.sync.status_document import SandboxName, State, Status


class Subject:
    """The workspace of a configuration file, which may be edited meanwhile."""

    def __init__(self, path: str, config: Config) -> None:
        self._path = path
        self._stamp = self._read()
        self.config = config
        self.inquiry = self._inquire(config)

    def read(self) -> Status:
        """The document now."""
        self.refresh()
        return self.inquiry.status()

    def refresh(self) -> None:
        """Read an edited configuration; an invalid one changes nothing, as in the daemon."""
        stamp = self._read()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self.config = load_for_command(self._path)
        except ConfigError:
            return
        self.inquiry = self._inquire(self.config)

    def _read(self) -> tuple[int, ...] | None:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_ctime_ns

    def _inquire(self, config: Config) -> Inquiry:
        return Inquiry(directories_for(config.workspace.path, os.environ).state, _nothing(config), self._path, CLOCK)


def status_of(config: Config, folder: str) -> Status:
    """The document of this configuration's workspace; the daemon is not asked."""
    return read_status(folder, _nothing(config))


def _nothing(config: Config) -> Status:
    sandbox = SandboxName(config.sandbox.id or "", config.sandbox.base_url, config.sandbox.region)
    workspace = shown_path(config.workspace.path)
    return Status(
        running=False,
        pid=None,
        state=State.STOPPED,
        workspace=workspace,
        sandbox=sandbox,
        managed=config.managed,
    )
