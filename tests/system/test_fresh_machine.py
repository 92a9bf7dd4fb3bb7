"""The README's set-up, word for word, on a machine with an empty home and systemd."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.emulator import Emulator
from tests.system.command import CLOCK, Finished
from tests.system.machine import HOME, REPO, Machine, needs_machine, shown
from tests.system.rig import KEY
from tests.system.service_rig import own
from tests.system.trees import lacking, tree

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(600),
    needs_machine,
]

LONGEST_S = 300
WHEELS = f"{HOME}/wheels"
# There is no network in there and no package manager to ask: what each would have brought is here already.
BROUGHT = {"sudo apt install pipx"}
SETTINGS = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": WHEELS, "PIPX_DEFAULT_PYTHON": shown(sys.executable)}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A home that holds an unpacked source archive, pipx, and nothing else."""
    home = tmp_path / "home"
    (home / "bin").mkdir(parents=True)
    _done("-m", "hatchling", "build", "-d", str(tmp_path), "-t", "sdist")
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        archive.extractall(home, filter="data")
    next(home.glob("syncd-*")).rename(home / "syncd")
    wheels = ("-c", "constraints-dev.txt", "-d", str(home / "wheels"), ".", "pip", "hatchling", "editables")
    _done("-m", "pip", "download", "-q", *wheels)
    (home / "bin/pipx").write_text(f'#!/bin/sh\nexec {shown(sys.executable)} -m pipx "$@"\n')
    (home / "bin/pipx").chmod(0o755)
    own(home)
    machine = Machine(tmp_path)
    yield machine
    machine.close()


def test_the_readme(machine: Machine, tmp_path: Path) -> None:
    """Each line ends with 0; then a saved file arrives, and everything can be uninstalled."""
    emulator = Emulator(tmp_path / "cloud", api_key=KEY)
    with machine.network():
        emulator.start()
    started_s = CLOCK.monotonic_s()
    try:
        sandbox = emulator.create_sandbox("box")
        assert _in(machine, "mkdir ~/project && echo hello > ~/project/first.txt").code == 0
        install, use = _blocks()
        assert set(install) & BROUGHT
        for line in install:
            if line not in BROUGHT:
                _succeeds(_in(machine, f"cd ~/syncd && PATH=~/bin:$PATH && {line}"))
        for line in use:
            words = line
            if line == "syncd init":  # there is no terminal to answer on
                words += f" --path ~/project --id box --base-url {emulator.base_url}"
            _succeeds(_in(machine, words))
        assert CLOCK.monotonic_s() - started_s < LONGEST_S
        assert (machine.home / ".config/syncd/api-key").stat().st_mode & 0o777 == 0o600
        _succeeds(_in(machine, "echo more > ~/project/second.txt && syncd flush"))
        assert not lacking(tree(machine.home / "project"), tree(sandbox.workspace))
        _succeeds(_in(machine, "syncd service status"))
        _succeeds(_in(machine, "syncd service uninstall"))
        _succeeds(_in(machine, "PATH=~/bin:$PATH && pipx uninstall syncd"))
        assert not (machine.home / ".config/systemd").exists()
        assert not os.path.lexists(machine.home / ".local/bin/syncd")
    finally:
        emulator.close()


def _blocks() -> list[list[str]]:
    """Return the lines of the README's two blocks: before and after a new terminal is opened."""
    section = (REPO / "README.md").read_text("utf-8").split("\n## Install\n")[1]
    return [block.split("\n") for block in re.findall(r"```sh\n(.*?)\n```", section, re.DOTALL)[:2]]


def _in(machine: Machine, line: str) -> Finished:
    """Type a line into a new terminal, with what an installation wrote into the shell's files."""
    return machine.run("bash", "-lc", line, environ={**SETTINGS, "SHELL": "/bin/bash", "KLAVIS_API_KEY": KEY})


def _succeeds(done: Finished) -> None:
    print(f"{done.seconds:6.1f} s  {done.args[-1]}")
    assert done.code == 0, f"{done.args[-1]}\n{done.out}{done.err}"
    assert KEY not in done.out + done.err


def _done(*words: str) -> None:
    ended = subprocess.run([sys.executable, *words], cwd=REPO, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr
