"""The tools that a history is of: how each is started, asked and ended."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.peers import peer, syncthing, unison
from tests.bench.peers.processes import started
from tests.emulator import Emulator
from tests.system.rig import CLOCK, DEFAULTS, KEY, Rig

# If the tool did what it was asked for, None if it was killed; and the paths for which it did not.
Answer = tuple[bool | None, tuple[str, ...]]


class Tool:
    """A tool between two folders that has no barrier, is not killed, and keeps all copies beside the files."""

    window_s = 0.0  # what the agent wrote, and was overwritten so soon, is no promise
    puts_back = False

    def __init__(self, home: Path, there: Path) -> None:
        self.home = home
        self.there = there

    def barrier(self) -> Answer:
        return False, ()

    def bring_home(self) -> Answer:
        return False, ()

    def kill(self, chance: random.Random) -> Answer:
        """Kill what runs, or what is to bring the agent's work home: only the latter is an answer of None."""
        return False, ()

    def settle(self) -> None:
        """Wait until both folders are equal, or for as long as any of these tools takes."""
        peer.true_within(15, lambda: _files(self.home) == _files(self.there))

    def kept(self) -> Iterator[bytes]:
        """Give each copy that is kept."""
        for folder in (self.home, self.there):
            yield from _files(folder).values()


class _Syncd(Tool):
    window_s = 4.0  # a look is two seconds old at most, and then the sandbox unpacks
    puts_back = True

    def __init__(self, rig: Rig, copies: Path) -> None:
        super().__init__(rig.workspace, Path(rig.sandbox.workspace))
        self._rig = rig
        self._copies = copies
        self._daemon = rig.start()

    def barrier(self) -> Answer:
        done = self._rig.run("flush", "--timeout", "30")
        return done.code == 0, tuple(re.findall(r"^held: (\S+) was changed", done.err, re.MULTILINE))

    def bring_home(self) -> Answer:
        done = self._rig.run("apply", "--yes", "--json")
        told = json.loads(done.out or "{}")
        return done.code in (0, 1), tuple(
            path for kind in ("conflicts", "never", "stays") for path in told.get(kind, ())
        )

    def kill(self, chance: random.Random) -> Answer:
        is_apply = chance.random() < 0.4
        victim = self._rig.background("apply", "--yes") if is_apply else self._daemon
        CLOCK.sleep(chance.random())
        victim.kill()
        if not is_apply:
            self._daemon = self._rig.start()
        return None if is_apply else False, ()

    def settle(self) -> None:
        """Nothing: a barrier was before."""

    def kept(self) -> Iterator[bytes]:
        for version in json.loads(self._rig.ok("saved", "list", "--json").out)["saved"]:
            self._rig.ok("saved", "restore", version["id"], str(self._copies))
            yield from _files(self._copies).values()
            shutil.rmtree(self._copies)


@contextmanager
def syncd(folder: Path) -> Iterator[Tool]:
    """Run the real command, with the emulator as the service; the agent works in the sandbox's folder."""
    with Emulator(folder / "cloud", api_key=KEY) as emulator:
        rig = Rig(folder, emulator)
        rig.configure(DEFAULTS)
        try:
            yield _Syncd(rig, folder / "copies")
        finally:
            rig.close()


@contextmanager
def running(tool: peer.Peer, folder: Path) -> Iterator[Tool]:
    """Run another tool as it is run for its measurement."""
    home, there, own = (folder / name for name in ("home", "there", "own"))
    for each in (home, there, own):
        each.mkdir()
    with tool.running(peer.Ground(home, there, own, 0.2, peer.Deadline(24 * 3600))):
        yield Tool(home, there)


@contextmanager
def _copying(ground: peer.Ground) -> Iterator[None]:
    here, there = ground.source, ground.target
    with started(ground.home, ground.environment(), ground.deadline) as processes:
        processes.start("sh", "-c", f"while sleep 0.3; do cp -au {here}/. {there}; cp -au {there}/. {here}; done")
        yield


# The first is what a person would type.
TOOLS = {"copy": peer.Peer("cp", ("cp",), "", _copying), "unison": unison.UNISON, "syncthing": syncthing.SYNCTHING}  # type: ignore[arg-type]


def _files(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}
