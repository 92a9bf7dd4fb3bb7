"""Who waits for a set-up is answered once the status tells its end."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from syncd.core.clock import SystemClock
from syncd.core.errors import ExitCode
from syncd.core.settings import SandboxKeys
from syncd.core.signals import Interrupt
from syncd.core.waiter import Waiter
from syncd.daemon.setup_task import SetupTask
from syncd.model.manifest import Manifest
from syncd.sandbox.sandbox_content import SandboxContent
from syncd.sandbox.setup import SandboxSetup, SetupRun
from syncd.store.state_db import StateDb
from syncd.sync.sandbox import Access
from syncd.sync.sync_cycle import SyncCycle
from tests.component.sample_records import TARGET


class Client:
    """A command that waits; it notes what the status told when it was answered."""

    waits = True

    def __init__(self, status: list[str]) -> None:
        self.status = status
        self.found: list[str] = []

    def send(self, _message: dict[str, Any]) -> None:
        """Take no notice."""

    def done(self, _exit_code: ExitCode, _message: str = "", **_more: Any) -> None:
        """Read the status at once."""
        self.found = list(self.status)


def test_the_status_tells_it_before_who_waits_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that reads the status after `flush`, or after `syncd setup`, finds it done."""
    monkeypatch.setattr(SetupRun, "run", lambda _, record, *_more: record.ended(""))
    setup = SandboxSetup(SandboxKeys(setup=("make",)), StateDb(str(tmp_path)), TARGET)
    sandbox = SimpleNamespace(
        setup=setup, target=TARGET, state=SimpleNamespace(content=SimpleNamespace(base=Manifest()))
    )
    waiter = Waiter(Interrupt(), SystemClock())
    config = SimpleNamespace(sandbox=SandboxKeys(setup=("make",)))
    access = SimpleNamespace(config=config, waiter=waiter, refusal=None, executions=lambda _: None)
    cycle, status = SimpleNamespace(sandbox=sandbox, content=SandboxContent(Manifest())), list[str]()
    task = SetupTask(cast(Access, access), cast(SyncCycle, cycle), lambda: status.append(setup.status.state.value))
    asks, flushes = Client(status), Client(status)
    task.ask(asks)
    task.answer_later(flushes, {})
    task.set_up()
    assert asks.found == flushes.found == ["running", "done"]
