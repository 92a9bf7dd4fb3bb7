"""A message bus for a test, and a program's name on it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jeepney import MessageType, message_bus
from jeepney.bus import get_bus
from jeepney.io.blocking import DBusConnection, Proxy, prep_socket

NO_BUS = "" if shutil.which("dbus-daemon") else "dbus-daemon is not on this machine"


@contextmanager
def private_bus(listen: str) -> Iterator[str]:
    """Run a real bus at that address, and give its address with all that belongs to it."""
    command = ["dbus-daemon", "--session", "--nofork", "--print-address=1", f"--address={listen}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as bus:
        assert bus.stdout is not None
        try:
            yield bus.stdout.readline().strip()
        finally:
            bus.kill()


def named(address: str, name: str) -> DBusConnection:
    """A connection to the bus that has this name there."""
    link = DBusConnection(prep_socket(get_bus(address)))
    (got,) = Proxy(message_bus, link).RequestName(name)
    assert got == 1, "somebody else has the name"
    return link


def serve(link: DBusConnection, answer: Callable[[Any], Any]) -> None:
    """Send the answer to each call until the connection ends; None: it gets none."""
    while True:
        try:
            asked = link.receive()
        except OSError:
            return
        if asked.header.message_type is MessageType.method_call and (reply := answer(asked)) is not None:
            link.send(reply)


@contextmanager
def serving(link: DBusConnection, answer: Callable[[Any], Any]) -> Iterator[None]:
    """Serve in a thread, and close the connection at the end."""
    thread = threading.Thread(target=serve, args=(link, answer), name="server on a bus")
    thread.start()
    try:
        yield
    finally:
        link.sock.shutdown(socket.SHUT_RDWR)
        thread.join()
        link.close()
