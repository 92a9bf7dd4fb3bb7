"""The user's service manager, called through systemctl(1), and the journal, through journalctl(1)."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress

from syncd.core.errors import NeedsPerson, TryLater

# A start may take the unit's own TimeoutStartSec=, 5 minutes.
_LONGEST_S = 330.0
# systemd.exec(5): USER, CAPABILITIES, NAMESPACE.
_NO_SANDBOXING = (217, 218, 226)
# sd_booted(3): it exists if systemd is process 1.
_BOOTED = "/run/systemd/system"
_ELSEWHERE = "run `syncd run` under what this machine has instead"


class UserManager:
    """systemd of this user. Raises `NeedsPerson` where none answers."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = dict(environ)
        # cron, su and ssh without a session do not set it, though the manager runs.
        self._environ["XDG_RUNTIME_DIR"] = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
        self._environ["SYSTEMD_PAGER"] = ""
        self._environ["LC_ALL"] = "C.UTF-8"
        if shutil.which("systemctl") is None:
            raise NeedsPerson("there is no systemd on this machine", _ELSEWHERE)
        result = self._run("systemctl", "--user", "show-environment")
        if result.returncode != 0:
            if not os.path.isdir(_BOOTED):
                raise NeedsPerson("systemd is not what runs this machine (a container?)", _ELSEWHERE)
            why = (result.stderr.strip().splitlines() or ["no answer"])[0]
            raise NeedsPerson(
                f"no systemd user manager answers ({why})",
                f"log in as this user, not by su or sudo, or run `sudo loginctl enable-linger {user_name()}`",
            )
        self.environ = environment_in(result.stdout)

    def version(self) -> int:
        """The version of systemd; 0 if unknown."""
        found = re.match(r"systemd (\d+)", self._run("systemctl", "--version").stdout)
        return int(found[1]) if found else 0

    def do(self, *arguments: str) -> None:
        """Run `systemctl --user ARGUMENTS`. Raises `TryLater` with systemd's own message."""
        result = self._run("systemctl", "--user", *arguments)
        if result.returncode != 0:
            why = (result.stderr.strip().splitlines() or [f"exit {result.returncode}"])[-1]
            raise TryLater(f"systemctl --user {' '.join(arguments)} failed ({why})", "see `syncd service status`")

    def try_to(self, *arguments: str) -> bool:
        """Run `systemctl --user ARGUMENTS`. True if it succeeded."""
        return self._run("systemctl", "--user", *arguments).returncode == 0

    def show(self, unit: str, names: Sequence[str]) -> dict[str, str]:
        """These properties of a unit; a time is "@" and seconds since 1970."""
        result = self._run("systemctl", "--user", "show", "--timestamp=unix", "-p", ",".join(names), "--", unit)
        return dict(line.partition("=")[::2] for line in result.stdout.splitlines())

    def loaded(self, pattern: str) -> list[str]:
        """The names of the units in memory that match the shell pattern."""
        result = self._run("systemctl", "--user", "list-units", "--all", "--plain", "--no-legend", pattern)
        return [line.split()[0] for line in result.stdout.splitlines() if line.split()]

    def supports_sandboxing(self) -> bool:
        """True if a unit gets the user namespace that its sandbox needs: tried with a unit that does nothing."""
        sandboxing = ("-p", "PrivateUsers=yes", "-p", "ProtectSystem=strict", "-p", "ProtectHome=read-only")
        result = self._run("systemd-run", "--user", "--wait", "--collect", "--quiet", *sandboxing, "true")
        return result.returncode not in _NO_SANDBOXING  # the start of the service shows other failures

    def lingers(self) -> bool | None:
        """True if services run on after the last logout; None: unknown."""
        result = self._run("loginctl", "show-user", str(os.getuid()), "-p", "Linger", "--value")
        return {"yes": True, "no": False}.get(result.stdout.strip())

    def journal(self, unit: str, lines: int) -> list[str]:
        """The last lines about a unit, oldest first; the reason if the journal cannot be read."""
        options = ("--no-pager", "--no-hostname", "--quiet", "--output=short", "-n", str(lines))
        result = self._run("journalctl", "--user", "-u", unit, *options)
        if result.returncode == 0:
            return result.stdout.splitlines()[-lines:]
        return [f"{_unreadable(result)}: `syncd service logs` tells more"]

    def show_journal(self, unit: str, lines: int, *, follow: bool) -> int:
        """Print the last lines, and new ones if `follow`; returns journalctl's exit code."""
        command = ["journalctl", "--user", "-u", unit, "--no-pager", "-n", str(lines)]
        if follow:
            command.append("--follow")
        result = self._run("journalctl", "--user", "-u", unit, "--no-pager", "-n", "0")
        if result.returncode != 0:
            raise NeedsPerson(
                _unreadable(result), f"sudo usermod --append --groups systemd-journal {user_name()}, then log in again"
            )
        with subprocess.Popen(command, env=self._environ, stdin=subprocess.DEVNULL) as journalctl:
            try:
                code = journalctl.wait()
            except KeyboardInterrupt:
                journalctl.terminate()
                return 0
        return 0 if code == -signal.SIGPIPE else code  # as in `syncd service logs | head`

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                command,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=_LONGEST_S,
                check=False,
            )
        except FileNotFoundError:
            return subprocess.CompletedProcess(command, 127, "", f"{command[0]} is not on this machine")
        except subprocess.TimeoutExpired:
            raise TryLater(f"{' '.join(command[:3])} takes longer than {_LONGEST_S:.0f} s", "try again") from None


def user_name() -> str:
    """The name of this process's user, or its number if it has no name."""
    with suppress(KeyError):
        return pwd.getpwuid(os.getuid()).pw_name
    return str(os.getuid())


def _unreadable(result: subprocess.CompletedProcess[str]) -> str:
    """The failure with journalctl's reason, which is its last line; those before it are hints."""
    why = (result.stderr.strip().splitlines() or [f"exit {result.returncode}"])[-1]
    return f"the journal cannot be read ({why.rstrip('.')})"


def environment_in(text: str) -> dict[str, str]:
    """The variables that `systemctl show-environment` printed, quoted like $'…' of a shell where needed."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition("=")
        if value.startswith("$'") and value.endswith("'"):
            value = re.sub(r"\\(.)", lambda escape: {"n": "\n", "t": "\t"}.get(escape[1], escape[1]), value[2:-1])
        found[name] = value
    return found
