"""A throw-away machine with a real systemd and a user's service manager, in namespaces of this one.

It boots in a second. Needs root, util-linux and systemd; `missing()` says what is not there. Own network (loopback
only), own processes, own file tree on memory over the host's; of the host's files only one home can be written.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import pytest

from tests.system.command import CLOCK, Finished, wait_until

REPO = Path(__file__).resolve().parent.parent.parent
USER = "dev"
UID = 4711  # a person's: the journal keeps a file of their own for these only
HOME = f"/home/{USER}"
RUNTIME = f"/run/user/{UID}"
PROGRAMS = ("unshare", "nsenter", "setpriv", "mount", "pivot_root", "ip", "systemctl", "journalctl", "loginctl")
NAMESPACES = ("--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup")
NEWNET = 0x40000000  # CLONE_NEWNET, setns(2)


@cache
def missing() -> str:
    """Return why there can be no such machine here; empty if there can."""
    if os.geteuid() != 0:
        return "only root can make namespaces with a systemd of their own"
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"not on this machine: {', '.join(absent)}"
    if not any(os.path.exists(path) for path in ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")):
        return "systemd is not on this machine"
    if not os.path.exists("/usr/share/dbus-1/system.conf"):
        return "no system bus on this machine"
    if _cgroups() is None:
        return "no cgroup2 tree that can be written"
    tried = subprocess.run(["unshare", *NAMESPACES, "--fork", "true"], capture_output=True, text=True, check=False)
    return f"namespaces are refused: {tried.stderr.strip()}" if tried.returncode else ""


def _cgroups() -> Path | None:
    """Return where the unified cgroup tree is mounted, if it is writable."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 ") and "rw" in place.split()[5].split(","):
            return Path(place.split()[4])
    return None


needs_machine = pytest.mark.skipif(bool(missing()), reason=missing() or "all is here")


def _outermost(paths: set[str]) -> list[str]:
    """Return the paths that no other of them contains."""
    return sorted(path for path in paths if not any(path.startswith(f"{other}/") for other in paths))


def shown(path: str) -> str:
    """Return the machine's path for this path; its services have temporary folders of their own."""
    return f"/opt/shown{path}" if path.startswith(("/tmp/", "/var/tmp/")) else path


class Machine:
    """A machine with `folder/home` as its user's home, which ends with everything in it."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        work = folder / "machine"
        work.mkdir()
        cgroups = _cgroups()
        assert cgroups is not None, missing()
        self._cgroup = cgroups / f"syncd-tests-{os.getpid()}-{id(self):x}"
        self._cgroup.mkdir()
        plan = {
            "work": str(work),
            "user": USER,
            "uid": UID,
            "shown": {path: shown(path) for path in _outermost({sys.prefix, sys.base_prefix, str(REPO)})},
            "bound": {HOME: str(self.home)},
        }
        init = [sys.executable, "-I", str(Path(__file__).with_name("machine_init.py")), json.dumps(plan)]
        join = 'echo $$ >"$0/cgroup.procs" && exec "$@"'  # first of all: the cgroup namespace's root is where it is now
        space = ["unshare", *NAMESPACES, "--propagation", "private", "--fork", "--kill-child", "--"]
        self._log = folder / "boot.log"
        with self._log.open("wb") as log:
            self._unshare = subprocess.Popen(
                ["sh", "-c", join, str(self._cgroup), *space, *init],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            wait_until(self._init, lambda: "process 1")
            self.pid = self._init()
            private = Path(f"/proc/{self.pid}/root{RUNTIME}/systemd/private")
            wait_until(lambda: self._is_systemd() and private.exists(), lambda: "the user's service manager")
        except BaseException:
            self.close()
            raise

    def _init(self) -> int:
        """Return the process id of its init; 0 until there is one."""
        assert self._unshare.poll() is None, f"it did not boot: {self._log.read_text()}"
        pid = self._unshare.pid
        with suppress(OSError):
            return int((Path(f"/proc/{pid}/task/{pid}/children").read_text().split() or ["0"])[0])
        return 0

    def _is_systemd(self) -> bool:
        assert self._unshare.poll() is None, f"it did not boot: {self._log.read_text()}"
        return Path(f"/proc/{self.pid}/comm").read_text() == "systemd\n"

    # -- what is done in it

    def run(self, *args: str, as_root: bool = False, environ: Mapping[str, str] | None = None) -> Finished:
        """Run a command as the user (or root) to its end, in the home directory, 60 s at most."""
        started_s = CLOCK.monotonic_s()
        ended = subprocess.run(
            self.line(*args, as_root=as_root, environ=environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
        out, err = os.fsdecode(ended.stdout), os.fsdecode(ended.stderr)
        return Finished(tuple(args), ended.returncode, out, err, CLOCK.monotonic_s() - started_s)

    def line(self, *args: str, as_root: bool = False, environ: Mapping[str, str] | None = None) -> list[str]:
        """Return the command line that runs a command in it."""
        person = ["--reuid", str(UID), "--regid", str(UID), "--init-groups", "--"]
        settings = {
            "HOME": HOME,
            "USER": USER,
            "LOGNAME": USER,
            "LANG": "C.UTF-8",
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "XDG_RUNTIME_DIR": RUNTIME,
            **(environ or {}),
        }
        return [
            *("nsenter", "--target", str(self.pid), *NAMESPACES, f"--wdns={HOME}", "--"),
            *(() if as_root else ("setpriv", *person)),
            *("env", "-i", *(f"{name}={value}" for name, value in settings.items())),
            *args,
        ]

    @contextmanager
    def network(self) -> Iterator[None]:
        """Open sockets of this thread in the machine's network; threads that it starts stay there."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/thread-self/ns/net", "rb") as ours, open(f"/proc/{self.pid}/ns/net", "rb") as theirs:
            _enter(libc, theirs.fileno())
            try:
                yield
            finally:
                _enter(libc, ours.fileno())

    def close(self) -> None:
        """End every process in it, and with them their namespaces."""
        with suppress(OSError):
            (self._cgroup / "cgroup.kill").write_text("1")
        self._unshare.kill()
        self._unshare.wait()
        wait_until(self._gone, lambda: "its processes to end")

    def _gone(self) -> bool:
        for folder, _, _ in os.walk(self._cgroup, topdown=False):
            try:
                os.rmdir(folder)
            except OSError:  # a process is still on its way out
                return False
        return True


def _enter(libc: ctypes.CDLL, namespace: int) -> None:
    if libc.setns(namespace, NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
