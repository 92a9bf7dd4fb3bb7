"""The user's service manager, asked through systemctl(1), and the journal through journalctl(1)."""

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
_NO_WALLS = (217, 218, 226)
# sd_booted(3): there if systemd is process 1.
_BOOTED = "/run/systemd/system"
_ELSEWHERE = "run `syncd run` under what this machine has instead"


class UserManager:
    """systemd for this user. Raises `NeedsPerson` where there is none to talk to."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = dict(environ)
        # cron, su and ssh without a session leave it out, though the manager runs.
        self._environ["XDG_RUNTIME_DIR"] = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
        self._environ["SYSTEMD_PAGER"] = ""
        self._environ["LC_ALL"] = "C.UTF-8"
        if shutil.which("systemctl") is None:
            raise NeedsPerson("there is no systemd on this machine", _ELSEWHERE)
        asked = self._run("systemctl", "--user", "show-environment")
        if asked.returncode != 0:
            if not os.path.isdir(_BOOTED):
                raise NeedsPerson("systemd is not what runs this machine (a container?)", _ELSEWHERE)
            why = (asked.stderr.strip().splitlines() or ["no answer"])[0]
            raise NeedsPerson(
                f"no systemd user manager answers ({why})",
                f"log in as this user, not by su or sudo; or start one: sudo loginctl enable-linger {user_name()}",
            )
        self.environ = environment_in(asked.stdout)

    def version(self) -> int:
        """Which version of systemd it is; 0 if it tells none."""
        found = re.match(r"systemd (\d+)", self._run("systemctl", "--version").stdout)
        return int(found[1]) if found else 0

    def do(self, *words: str) -> None:
        """`systemctl --user WORDS`. Raises `TryLater` with systemd's own words."""
        done = self._run("systemctl", "--user", *words)
        if done.returncode != 0:
            why = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
            raise TryLater(f"systemctl --user {' '.join(words)}: {why}", "see `syncd service status`")

    def try_to(self, *words: str) -> bool:
        """`systemctl --user WORDS`, where a failure is an answer."""
        return self._run("systemctl", "--user", *words).returncode == 0

    def show(self, unit: str, names: Sequence[str]) -> dict[str, str]:
        """These properties of a unit; times are "@" and seconds since 1970."""
        asked = self._run("systemctl", "--user", "show", "--timestamp=unix", "-p", ",".join(names), "--", unit)
        return dict(line.partition("=")[::2] for line in asked.stdout.splitlines())

    def loaded(self, pattern: str) -> list[str]:
        """The names of the units in memory that match the shell pattern."""
        asked = self._run("systemctl", "--user", "list-units", "--all", "--plain", "--no-legend", pattern)
        return [line.split()[0] for line in asked.stdout.splitlines() if line.split()]

    def supports_sandboxing(self) -> bool:
        """Whether a unit gets the user namespace that its sandbox rests on: tried with a unit that does nothing."""
        sandboxing = ("-p", "PrivateUsers=yes", "-p", "ProtectSystem=strict", "-p", "ProtectHome=read-only")
        tried = self._run("systemd-run", "--user", "--wait", "--collect", "--quiet", *sandboxing, "true")
        return tried.returncode not in _NO_WALLS  # what else goes wrong, the start of the service will tell

    def lingers(self) -> bool | None:
        """Whether services run on after the last logout; None: nobody knows."""
        if shutil.which("loginctl") is None:
            return None
        asked = self._run("loginctl", "show-user", str(os.getuid()), "-p", "Linger", "--value")
        return {"yes": True, "no": False}.get(asked.stdout.strip())

    def journal(self, unit: str, lines: int) -> list[str]:
        """The last lines about a unit, oldest first; why there are none, where the journal cannot be read."""
        words = ("--no-pager", "--no-hostname", "--quiet", "--output=short", "-n", str(lines))
        asked = self._run("journalctl", "--user", "-u", unit, *words)
        if asked.returncode == 0:
            return asked.stdout.splitlines()[-lines:]
        return [f"{_unreadable(asked)}: `syncd service logs` tells more"]

    def show_journal(self, unit: str, lines: int, *, follow: bool) -> int:
        """The last lines straight to stdout, and those to come; journalctl's exit code."""
        words = ["journalctl", "--user", "-u", unit, "--no-pager", "-n", str(lines), *(["--follow"] if follow else [])]
        if shutil.which(words[0]) is None:
            raise NeedsPerson("there is no journalctl on this machine", "look where its logs go")
        tried = self._run("journalctl", "--user", "-u", unit, "--no-pager", "-n", "0")
        if tried.returncode != 0:
            raise NeedsPerson(
                _unreadable(tried), f"sudo usermod --append --groups systemd-journal {user_name()}, then log in again"
            )
        with subprocess.Popen(words, env=self._environ, stdin=subprocess.DEVNULL) as reader:
            try:
                code = reader.wait()
            except KeyboardInterrupt:  # the terminal told both: it has seen enough
                reader.wait()
                return 0
        return 0 if code == -signal.SIGPIPE else code  # so has `syncd service logs | head`

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                words,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=_LONGEST_S,
                check=False,
            )
        except FileNotFoundError:
            return subprocess.CompletedProcess(words, 127, "", f"{words[0]} is not on this machine")
        except subprocess.TimeoutExpired:
            raise TryLater(f"{' '.join(words[:3])} takes longer than {_LONGEST_S:.0f} s", "try again") from None


def user_name() -> str:
    """Who runs this; the number, where nobody gave it a name."""
    with suppress(KeyError):
        return pwd.getpwuid(os.getuid()).pw_name
    return str(os.getuid())


def _unreadable(asked: subprocess.CompletedProcess[str]) -> str:
    """The last line is journalctl's reason, those before it are hints."""
    why = (asked.stderr.strip().splitlines() or [f"exit {asked.returncode}"])[-1]
    return f"the journal cannot be read ({why.rstrip('.')})"


def environment_in(text: str) -> dict[str, str]:
    """What `systemctl show-environment` prints: a line each, quoted like $'…' of a shell where that is needed."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition("=")
        if value.startswith("$'") and value.endswith("'"):
            value = re.sub(r"\\(.)", lambda escape: {"n": "\n", "t": "\t"}.get(escape[1], escape[1]), value[2:-1])
        found[name] = value
    return found
