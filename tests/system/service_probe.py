"""Tries what a sandboxed service must not be able to do, and what it must; prints the outcomes as JSON.

Run by systemd in the daemon's place, and once more without sandboxing. Standard library only. No key is printed.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

HOME = os.path.expanduser("~")
CLONE_NEWUSER = 0x10000000
AF_PACKET = 17


def write(folder: str) -> None:
    """Create and remove a file."""
    path = os.path.join(folder, f".probe{os.getpid()}")
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    os.unlink(path)


def unshare() -> None:
    """Create a user namespace, which gives all privileges in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if libc.unshare(CLONE_NEWUSER) == 0 else ctypes.get_errno())
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise OSError(code, os.strerror(code))


def set_id(folder: str) -> None:
    """Create a set-id file."""
    path = os.path.join(folder, f".set-id{os.getpid()}")
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    try:
        os.chmod(path, 0o4700)
    finally:
        os.unlink(path)


def priority() -> None:
    """Lower the own priority, which anyone may."""
    os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0))


def own(folder: str) -> None:
    """Change a file's owner to the own user, which anyone may."""
    path = os.path.join(folder, f".own{os.getpid()}")
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    try:
        os.chown(path, os.getuid(), os.getgid())
    finally:
        os.unlink(path)


def credential() -> None:
    """Read the key that the service manager passes."""
    content = Path(os.environ["CREDENTIALS_DIRECTORY"], "klavis-api-key").read_text()
    if content != Path(sys.argv[1]).read_text():
        raise OSError(errno.EIO, "another key")


def outcome(attempt: Callable[[], object]) -> str:
    """Return the name of the error, "ok" without one."""
    try:
        attempt()
    except OSError as failure:
        return errno.errorcode.get(failure.errno or 0, str(failure))
    except KeyError:
        return "none"
    return "ok"


ATTEMPTS: dict[str, Callable[[], object]] = {
    "write home": lambda: write(HOME),
    "write configuration": lambda: write(f"{HOME}/.config/syncd"),
    "write workspace": lambda: write(f"{HOME}/work"),
    "write state": lambda: write(f"{HOME}/.local/state/syncd"),
    "write cache": lambda: write(f"{HOME}/.cache/syncd"),
    "write runtime folder": lambda: write(os.environ["XDG_RUNTIME_DIR"]),
    "read workspace": lambda: Path(f"{HOME}/work/first.txt").read_bytes(),
    "read key file": lambda: Path(f"{HOME}/.config/syncd/api-key").read_bytes(),
    "read another's temporary file": lambda: Path("/tmp/of-another").read_bytes(),
    "use the credential": credential,
    "internet socket": lambda: socket.socket(socket.AF_INET).close(),
    "netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
    "open a terminal": lambda: os.close(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)),
    "make a user namespace": unshare,
    "memory that is written and run": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC).close(),
    "make a set-id file": lambda: set_id(f"{HOME}/.local/state/syncd"),
    "give a file away": lambda: own(f"{HOME}/.local/state/syncd"),
    "set a priority": priority,
}

if __name__ == "__main__":
    print("probe " + json.dumps({name: outcome(attempt) for name, attempt in ATTEMPTS.items()}))
