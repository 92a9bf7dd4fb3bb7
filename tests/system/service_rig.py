"""A user on a throw-away machine: home, workspace, sandbox, syncd in a venv, and systemd to run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from syncd.core.directories import directories_for
from tests.emulator import Emulator
from tests.system.command import Finished, Found, wait_until
from tests.system.machine import HOME, REPO, UID, Machine, shown
from tests.system.rig import FAST, KEY, SANDBOX, as_toml
from tests.system.trees import Tree, is_there, tree

# Blanks and what systemd would take for a specifier or a variable: an installation is where it is.
VENV = "my tools/50%h $HOME/venv"
UNITS = ".config/systemd/user"


def make_home(home: Path) -> None:
    """Make a home with only syncd in it."""
    venv = home / VENV
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    (packages,) = venv.glob("lib/python*/site-packages")
    shared = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "shared.pth").write_text("".join(f"{shown(path)}\n" for path in [*shared, str(REPO)]))
    own(home)


def own(path: Path) -> None:
    """Give everything there to the user."""
    for folder, folders, files in os.walk(path):
        for name in ("", *folders, *files):
            os.lchown(os.path.join(folder, name), UID, UID)


class ServiceRig:
    """One configuration of one user, from `syncd service install` to `uninstall`."""

    def __init__(self, machine: Machine, emulator: Emulator, name: str = "") -> None:
        self.machine = machine
        self.emulator = emulator
        self.home = machine.home
        self.unit = f"syncd@{name}.service" if name else "syncd.service"
        self.file = "syncd@.service" if name else "syncd.service"
        self.config_file = f"{HOME}/.config/syncd/{name or 'config'}.toml"
        self.option = ("--config", self.config_file) if name else ()
        self.sandbox = emulator.create_sandbox(f"{SANDBOX}{name}")
        self.workspace = f"{HOME}/work{name}"
        self.key_file = f"{HOME}/.config/syncd/api-key"
        self.outputs: list[str] = []

    # -- what a person sets up

    def at(self, path: str) -> Path:
        """Return a path of the machine as this process reaches it."""
        return self.home / path.removeprefix(HOME).lstrip("/") if path.startswith(HOME) else self.root / path[1:]

    @property
    def root(self) -> Path:
        """The machine's root."""
        return Path(f"/proc/{self.machine.pid}/root")

    def configure(self, keys: Mapping[str, object] | None = None) -> None:
        """Write the configuration: `table.key` to value, over the test defaults."""
        values = {
            "workspace.path": self.workspace,
            "sandbox.id": self.sandbox.id,
            "sandbox.base_url": self.emulator.base_url,
            "sandbox.api_key_file": self.key_file,
            **FAST,
            **(keys or {}),
        }
        self.put(self.config_file, as_toml(values))

    def put(self, path: str, text: str | bytes, mode: int = 0o600) -> None:
        """Write a user's file over an existing one, with the folders above it."""
        target = self.at(path)
        for folder in reversed(target.parents):
            if not folder.exists():
                folder.mkdir()
                os.chown(folder, UID, UID)
        draft = target.with_name(target.name + ".draft")
        draft.write_bytes(text if isinstance(text, bytes) else text.encode())
        draft.chmod(mode)
        os.chown(draft, UID, UID)
        draft.replace(target)

    def write(self, path: str, text: str | bytes = "text\n") -> None:
        """Write a file of the workspace."""
        self.put(f"{self.workspace}/{path}", text, 0o644)

    def set_up(self, keys: Mapping[str, object] | None = None) -> None:
        """Write configuration, key and a workspace."""
        self.configure(keys)
        self.put(self.key_file, KEY + "\n")
        self.write("first.txt")

    def drop_in(self, *lines: str) -> None:
        """Write a drop-in as `systemctl edit` does, and reload."""
        self.put(f"{HOME}/{UNITS}/{self.unit}.d/override.conf", "\n".join(("[Service]", *lines, "")), 0o644)
        self.systemctl("daemon-reload")

    def restarts_after(self, seconds: int) -> None:
        """Have the unit wait so long after each failure: the 2 s of the unit are over before a busy machine looks."""
        self.drop_in(f"RestartSec={seconds}", "RestartSteps=0")

    # -- the product and systemd

    def syncd(self, *args: str, environ: Mapping[str, str] | None = None) -> Finished:
        """Run `syncd ARGS` to its end."""
        done = self.machine.run(*self.command(*args), environ=environ)
        self.outputs.append(done.out + done.err)
        return done

    def command(self, *args: str) -> tuple[str, ...]:
        """Return the words of `syncd ARGS`."""
        return (f"{HOME}/{VENV}/bin/python", "-m", "syncd", *args)

    def service(self, verb: str, *args: str) -> Finished:
        """Run `syncd service VERB` for this configuration."""
        return self.syncd("service", verb, *self.option, *args)

    def installed(self, keys: Mapping[str, object] | None = None) -> Finished:
        """Set up and install, and wait for the first sync."""
        self.set_up(keys)
        done = self.service("install")
        assert done.code == 0, f"{done}\n{self.log()}"
        self.converged()
        return done

    def systemctl(self, *args: str) -> Finished:
        """Run `systemctl --user ARGS`."""
        return self.machine.run("systemctl", "--user", *args)

    def shown(self, name: str) -> str:
        """Return a property of the unit."""
        return self.systemctl("show", "--value", "-p", name, self.unit).out.strip()

    @property
    def pid(self) -> int:
        """Return the daemon's process id in the machine; 0: none."""
        inside = self.shown("MainPID")
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                numbers = next(line for line in status.read_text().splitlines() if line.startswith("NSpid:")).split()
                if numbers[-1] == inside and len(numbers) > 2 and self._is_ours(status.parent):
                    return int(status.parent.name)
            except (OSError, StopIteration):
                continue
        return 0

    def _is_ours(self, process: Path) -> bool:
        return os.readlink(process / "ns/pid") == os.readlink(f"/proc/{self.machine.pid}/ns/pid")

    def log(self) -> str:
        """Return the journal of the unit."""
        return self.machine.run("journalctl", "--user", "-u", self.unit, "-o", "cat", "--no-pager").out

    def status(self) -> dict[str, Any]:
        """Return the output of `syncd status --json`."""
        document: dict[str, Any] = json.loads(self.syncd("status", *self.option, "--json").out)
        return document

    @property
    def state_folder(self) -> Path:
        """Return the daemon's state folder."""
        return self.at(directories_for(self.workspace, {"XDG_STATE_HOME": f"{HOME}/.local/state"}).state)

    # -- waiting and seeing

    def until(self, condition: Callable[[], Found], what: str) -> Found:
        """Wait for the condition to hold, and return its value. Fails with the journal."""
        return wait_until(condition, lambda: f"{what}\n{self.log()[-4000:]}")

    def active(self, *, other_than: str = "") -> str:
        """Wait for the unit to be active with another process, and return its id in the machine."""
        return self.until(lambda: self._active(other_than), f"{self.unit} to be active")

    def _active(self, other_than: str) -> str:
        lines = self.systemctl("show", "-p", "ActiveState,MainPID", self.unit).out.splitlines()
        now = dict(line.split("=", 1) for line in lines)
        pid = now.get("MainPID", "0")  # nothing is said while the manager itself starts
        return pid if now.get("ActiveState") == "active" and pid not in ("0", other_than) else ""

    def converged(self) -> Tree:
        """Wait until the sandbox equals the workspace."""
        wanted = tree(self.at(self.workspace))
        self.until(lambda: is_there(wanted, self.sandbox.workspace), "the sandbox to hold the workspace")
        return wanted

    def in_state(self, state: str) -> None:
        """Wait for the daemon to report this state."""
        self.until(lambda: self._state() == state, f"state {state}")

    def _state(self) -> str:
        """Return the state on disk, which is fast."""
        try:
            return str(json.loads((self.state_folder / "status.json").read_text())["state"])
        except (OSError, ValueError):
            return "unknown"
