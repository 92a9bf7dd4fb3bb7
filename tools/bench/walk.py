"""What one edit runs through: the modules and functions of syncd, in the real daemon.

As a program, `python -m tools.bench.walk FOUND python -m syncd …`, it runs the command after FOUND, and at each SIGUSR2
adds a line to that file: the functions that ran since the last one, as JSON.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
from pathlib import Path
from types import FrameType

import syncd
from tests.emulator import Emulator
from tests.system.rig import KEY
from tools.bench import trees
from tools.bench.daemons import configured, edit_file
from tools.bench.measure import REPO, Bench, show

_ROOT = os.path.dirname(syncd.__file__) + os.sep


def walk(bench: Bench) -> None:
    """The modules and functions that an edit runs through, with the product's defaults: what is followed, too."""
    folder, tree = bench.folder("walk"), bench.tree("S")
    found = folder / "found"
    with Emulator(folder / "cloud", api_key=KEY) as emulator:
        rig = configured(folder, tree, emulator, {"sandbox.follow_seconds": 30})
        rig.environ["PYTHONPATH"] = str(REPO)
        try:
            daemon = rig.up(prefix=(sys.executable, "-m", __name__, str(found)))

            def functions() -> set[str]:
                lines = len(_lines(found))
                os.kill(daemon.pid, signal.SIGUSR2)
                rig.until(lambda: len(_lines(found)) > lines, "the functions")
                return set(json.loads(_lines(found)[-1]))

            for victim in trees.victims(tree)[:2]:  # the first of these is the daemon's first
                rig.ok("flush")
                functions()
                count = rig.count("initialize", 200)
                edit_file(tree / victim)
                rig.until(lambda count=count: rig.count("initialize", 200) > count, "an edit")
                rig.in_state("watching")
                ran = functions()
        finally:
            rig.close()
    modules = {name.partition(":")[0] for name in ran}
    show("an edit runs through", [{"modules": len(modules), "functions": len(ran)}])


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def _main(found: str, *_: str) -> None:
    """Run `syncd` with the arguments that are left."""
    ran: set[str] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(_ROOT) and not code.co_name.startswith("<"):
            ran.add(f"{code.co_filename.removeprefix(_ROOT)}:{code.co_qualname}")

    def tell(_number: int, _frame: FrameType | None) -> None:
        with open(found, "a") as file:
            file.write(json.dumps(sorted(ran)) + "\n")
        ran.clear()

    sys.argv = sys.argv[sys.argv.index("syncd") :]
    signal.signal(signal.SIGUSR2, tell)
    sys.setprofile(note)
    runpy.run_module("syncd", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
