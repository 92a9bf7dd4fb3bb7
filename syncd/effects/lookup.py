"""Looking up a host's name, where it can be cut short: `getaddrinfo` heeds neither a time-out nor a signal.

Without an answer from any name server it lasts for 20 seconds and more; a stop would wait for it.
"""

from __future__ import annotations

import _thread
import socket
import threading
import urllib.request
from urllib.parse import urlsplit

from syncd.base.config import is_loopback


def look_up(url: str, within_s: float) -> None:
    """Find out whether the URL's host has an address. Raises `OSError`, `TimeoutError` after `within_s` seconds.

    The answer itself is the system's to keep: whoever connects asks again. Nothing is asked for what
    is on this machine, or where a proxy does the asking.
    """
    host = urlsplit(url).hostname or ""
    if not host or is_loopback(host) or urllib.request.getproxies_environment():
        return
    done = threading.Lock()
    done.acquire()
    failures: list[OSError] = []

    def ask() -> None:
        try:
            socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as failure:
            failures.append(failure if isinstance(failure, OSError) else OSError("that is no host name"))
        finally:
            done.release()

    # Not a `threading.Thread`: at its end the process would wait for it.
    _thread.start_new_thread(ask, ())
    if not done.acquire(timeout=within_s):
        raise TimeoutError("its name cannot be looked up in time")
    if failures:
        raise failures[0]
