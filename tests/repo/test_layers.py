"""Imports go down only, and each outside thing has one place: that is what keeps a change small."""

from __future__ import annotations

import subprocess
import sys
from fnmatch import fnmatchcase

import pytest
from sources import REPO, Source, sources

# A floor may import itself and what stands here.
BELOW = {
    "": set(),
    "base": set(),
    "policy": {"base"},
    "effects": {"base", "policy"},
    "process": {"base", "policy", "effects"},
    "emulator": {"base"},  # it stands in for a foreign server: what it shared with the client, neither could check
    "commands": {"base", "policy", "effects", "process", "emulator"},
}

# What decides must give the same answer for the same values, whenever and wherever it is asked.
_PURE = "policy decides on values it is given"
_IMPURE = {
    "asyncio": "it waits",
    "concurrent": "it starts threads",
    "ctypes": "it calls the system",
    "fcntl": "it calls the system",
    "httpx": "it reaches the network",
    "io": "it reads",
    "logging": "a decision is returned; who acts on it also says so",
    "multiprocessing": "it starts processes",
    "os": "it asks the system",
    "pathlib": "it asks the file system",
    "random": "chance is an argument",
    "secrets": "chance is an argument",
    "select": "it waits",
    "shutil": "it asks the file system",
    "signal": "it asks the system",
    "socket": "it reaches the network",
    "subprocess": "it starts processes",
    "tempfile": "it writes",
    "threading": "it starts threads",
    "time": "time is an argument",
    "urllib.request": "it reaches the network",
    "watchdog": "it watches",
}

# Each of these modules is imported by the files here alone (shell patterns), for the reason beside it.
ONLY_IN = {
    "time": (("syncd/base/clock.py",), "one module reads clocks, so that tests turn them by hand"),
    "httpx": (("syncd/effects/*",), "one floor reaches the network; foreign errors are translated there"),
    "watchdog": (("syncd/effects/*watch*.py", "syncd/effects/inotify*.py"), "its events stay inside the watch"),
    "isal": (("syncd/effects/*",), "compression is the archive's business"),
    "jeepney": (("syncd/effects/session_bus.py",), "it is loaded when there is something to say, which is hardly ever"),
    "tarfile": (("syncd/effects/*", "syncd/emulator/*"), "archives are made and opened on the floor of effects"),
    "click": (("syncd/commands/*",), "only the commands know of arguments and exit codes"),
    "rich": (("syncd/commands/*",), "only the commands show anything"),
    "subprocess": (
        ("syncd/commands/*", "syncd/emulator/*", "syncd/effects/git_config.py", "syncd/effects/hook.py"),
        "the daemon starts git, once, and the person's hook; the service's commands and the emulator's executions do",
    ),
    "requests": ((), "httpx does it"),
    "asyncio": ((), "one upload at a time: a loop and its colour would buy nothing"),
}

# Large, and needed by a few commands only: they are imported in the function that uses them.
LATE = {
    "rich": "a progress bar costs every other command its start",
}

HEAVY = ("asyncio", "httpx", "rich", "watchdog", "tenacity", "ssl", "http.client", "syncd.emulator")


@pytest.mark.parametrize("source", sources("syncd"), ids=lambda source: source.path)
def test_imports_go_down(source: Source) -> None:
    """A module imports its own floor and lower ones, never a higher one."""
    floor = source.floor
    assert floor in BELOW, f"{source.path}: a floor that nobody has placed"
    for asked in source.imports():
        other = asked.module.split(".")[1] if asked.module.startswith("syncd.") else None
        if other in BELOW:
            assert other in BELOW[floor] | {floor}, f"{source.path}:{asked.line}: {floor} imports {other}"


@pytest.mark.parametrize("source", sources("syncd/policy"), ids=lambda source: source.path)
def test_policy_is_pure(source: Source) -> None:
    """No policy module can read a clock, a file, the network or chance."""
    for asked in source.imports():
        for module, reason in _IMPURE.items():
            assert not asked.within(module), f"{source.path}:{asked.line}: {_PURE}; {module}: {reason}"


@pytest.mark.parametrize("module", ONLY_IN)
def test_each_outside_thing_has_its_place(module: str) -> None:
    """What reaches outside is imported only where that is someone's job."""
    places, reason = ONLY_IN[module]
    for source in sources("syncd"):
        if not any(fnmatchcase(source.path, place) for place in places):
            strays = [asked.line for asked in source.imports() if asked.within(module)]
            assert not strays, f"{source.path}:{strays}: {module}: {reason}"


@pytest.mark.parametrize("module", LATE)
def test_large_things_are_imported_late(module: str) -> None:
    """No command pays at its start for what another one shows or runs."""
    for source in sources("syncd"):
        if not source.path.startswith(module.replace(".", "/")):
            early = [asked.line for asked in source.imports() if asked.at_top and asked.within(module)]
            assert not early, f"{source.path}:{early}: import {module} in the function: {LATE[module]}"


@pytest.mark.parametrize("module", ["syncd.base.config", "syncd.base.folders", "syncd.base.apikey"])
def test_the_base_loads_fast(module: str) -> None:
    """Reading the configuration loads none of the large libraries."""
    assert _loaded_by(f"import {module}") == ""


def test_the_commands_load_fast() -> None:
    """Naming the commands loads none of the large libraries: `--help` and completion answer at once."""
    assert _loaded_by("import syncd.commands") == ""


def _loaded_by(statement: str) -> str:
    """Which of the heavy modules a fresh interpreter holds after a statement."""
    code = f"import sys; {statement}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    return run.stdout.strip()
