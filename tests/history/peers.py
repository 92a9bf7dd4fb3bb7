"""The tools that a history is of: how each is started, asked and ended."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.emulator import Emulator
from tests.system.command import CLOCK
from tests.system.rig import DEFAULTS, KEY, Rig
from tools.bench import tools
from tools.bench.peer import Ground, Peer, Running, started

# If the tool did what it was asked for, and the paths for which it did not.
Answer = tuple[bool, tuple[str, ...]]


@dataclass
class Tool:
    """A tool between two folders, which is killed after so many seconds.

    What the agent wrote, and was overwritten within `window_s`, is no promise.
    """

    home: Path
    there: Path
    barrier: Callable[[], Answer] = lambda: (False, ())
    bring_home: Callable[[], Answer] = lambda: (False, ())
    kill_apply: Callable[[float], Answer] = lambda _: (False, ())
    kill_daemon: Callable[[float], Answer] = lambda _: (False, ())
    copies: Callable[[], Iterable[bytes]] = tuple
    window_s: float = 0.0


@contextmanager
def syncd(folder: Path) -> Iterator[Tool]:
    """Run the real command, with the emulator as the service; the agent works in the sandbox's folder."""

    def barrier() -> Answer:
        done = rig.run("flush", "--timeout", "30")
        return done.code == 0, tuple(re.findall(r"^held: (\S+) was changed", done.err, re.MULTILINE))

    def bring_home() -> Answer:
        done = rig.run("apply", "--yes", "--json")
        told = json.loads(done.out or "{}")
        free = [path for kind in ("conflicts", "never", "stays") for path in told.get(kind, ())]
        return done.code in (0, 1), tuple(free)

    def kill_apply(after_s: float) -> Answer:
        victim = rig.background("apply", "--yes")
        CLOCK.sleep(after_s)
        victim.kill()
        return False, ()

    def kill_daemon(after_s: float) -> Answer:
        CLOCK.sleep(after_s)
        daemons[-1].kill()
        daemons.append(rig.start())
        return False, ()

    def saved() -> Iterator[bytes]:
        for version in json.loads(rig.ok("saved", "--json").out)["saved"]:
            rig.ok("saved", "restore", version["id"], str(folder / "copies"))
            yield from files(folder / "copies").values()
            shutil.rmtree(folder / "copies")

    with Emulator(folder / "cloud", api_key=KEY) as emulator:
        rig = Rig(folder, emulator)
        rig.configure(DEFAULTS)
        daemons = [rig.start()]
        there = Path(rig.sandbox.workspace)
        try:
            # A look is two seconds old at most, and then the sandbox unpacks.
            yield Tool(rig.workspace, there, barrier, bring_home, kill_apply, kill_daemon, saved, window_s=4.0)
        finally:
            rig.close()


@contextmanager
def running(tool: Peer, folder: Path) -> Iterator[Tool]:
    """Run another tool as it is run for its measurement."""
    home, there, own = (folder / name for name in ("home", "there", "own"))
    for each in (home, there, own):
        each.mkdir()
    with tool.running(Ground(home, there, own, 0.2)):
        yield Tool(home, there, copies=lambda: [*files(home).values(), *files(there).values()])


@contextmanager
def _copying(ground: Ground) -> Iterator[Running]:
    here, there = ground.source, ground.target
    with started(ground) as processes:
        processes.start("sh", "-c", f"while sleep 0.3; do cp -au {here}/. {there}; cp -au {there}/. {here}; done")
        yield Running(processes, ground.is_there, lambda: 0)


@contextmanager
def _unison(ground: Ground) -> Iterator[Running]:
    """Run it each second, since many packages of it lack the file monitor."""
    words = ("-batch", "-auto", "-confirmbigdel=false", "-repeat", "1")
    with started(ground) as processes:
        folders = (str(ground.source), str(ground.target))
        processes.start("unison", *folders, *words, env={"UNISON": str(ground.home / "archives")})
        yield Running(processes, ground.is_there, lambda: 0)


# The first is what a person would type.
TOOLS = {
    "copy": Peer("cp", ("cp",), _copying),
    "unison": Peer("Unison", ("unison",), _unison),
    "syncthing": tools.SYNCTHING,
}


def files(folder: Path) -> dict[str, bytes]:
    """Return the content of each file in a folder."""
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}
