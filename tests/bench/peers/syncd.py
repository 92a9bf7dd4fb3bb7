"""syncd's daemon against the project's emulator; an edit has arrived once it is in the emulated sandbox's folder."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from tests.bench.daemon import SANDBOX, DaemonHome
from tests.bench.peers.folders import Mirror
from tests.bench.peers.peer import Ground, Peer
from tests.bench.peers.processes import started
from tests.bench.peers.wire import Meter, emulator_counted
from tests.bench.stopwatch import REPO
from tests.emulator import Emulator


def _with(settings: Mapping[str, object]) -> Callable[[Ground], AbstractContextManager[Mirror]]:
    @contextmanager
    def running(ground: Ground) -> Iterator[Mirror]:
        meter = Meter()
        with emulator_counted(meter), Emulator(ground.home / "cloud") as emulator:
            target = emulator.create_sandbox(SANDBOX).workspace
            keys = {**settings, "sync.debounce_seconds": ground.quiet_s}
            home = DaemonHome(ground.home / "daemon", ground.source, emulator.base_url, emulator.api_key, keys)
            with started(ground.home, home.environment(), ground.deadline) as processes:
                processes.start(sys.executable, "-m", "syncd", "run", cwd=REPO)
                yield Mirror(dataclasses.replace(ground, target=target), processes, meter)

    return running


AUTO = Peer("syncd, auto", (), "bytes counted in the emulator, whose own CPU is not", _with({"sync.archive": "auto"}))
FULL = Peer("syncd, full", (), "the same; the emulator unpacks the whole archive", _with({"sync.archive": "full"}))
OVERWRITE = Peer(
    "syncd, no look",
    (),
    'auto, with agent_changes = "overwrite": it does not look what was changed there',
    _with({"sync.archive": "auto", "sandbox.agent_changes": "overwrite"}),
)
