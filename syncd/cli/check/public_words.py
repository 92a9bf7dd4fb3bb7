"""The texts that syncd itself and the system bring along: whoever reads them in a report learns nothing of a person."""

from __future__ import annotations

import errno
import os
import signal
import tomllib
from collections.abc import Iterator

import syncd

# What systemd and its journal say of a service, from systemd.service(5), systemd.exec(5) and its message catalog.
_SYSTEMD = """
Started Starting Stopped Stopping Reloading Reloaded Deactivated successfully Failed failure with result start
reload stop request repeated too quickly Scheduled restart job restart counter is at main control process
exited code exited killed dumped status of unit consumed CPU time over wall clock memory peak swap IP traffic
written disk processes watchdog timeout limit keeping sandbox namespace namespaces core oom-kill SIGABRT
SIGTERM SIGKILL user manager journal entries No entries files were opened due to insufficient permissions Boot
Reboot Hint You are currently not seeing messages from other users and the system Users in groups can see all
Pass to turn off this notice bus runtime directory env vars defined consider using host operation permitted
denied connect set up executing spawning step invalid argument active inactive activating deactivating failed
loaded masked enabled disabled static dead running override.conf auto-restart exit-code
"""
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec"


def public_texts() -> Iterator[str]:
    """The program's sources and units, and what the system's errors say. Where the sources are not at hand, less."""
    package = os.path.dirname(os.path.abspath(syncd.__file__))
    yield _SYSTEMD
    yield _MONTHS
    yield from (os.strerror(code) for code in errno.errorcode)
    yield " ".join([*errno.errorcode.values(), *(number.name for number in signal.Signals)])
    for folder in (package, os.path.join(os.path.dirname(package), "systemd"), os.path.dirname(tomllib.__file__)):
        for above, _, files in os.walk(folder):
            for name in sorted(files):
                if name.endswith((".py", ".service")):
                    yield _content(os.path.join(above, name))


def _content(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
