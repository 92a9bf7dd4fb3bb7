"""A connection's route in a network namespace with changing addresses."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from syncd.core.waiter import Interrupt, Waiter
from syncd.remote.http_client import HttpClient
from syncd.remote.network import NetworkRoute, default_addresses, enable_keepalive, route_of
from tests.clock import ScriptedClock

REPO = Path(__file__).parents[2]


def test_an_ended_connection_has_none() -> None:
    """An ended connection has no route, and causes no error."""
    ended = socket.socket()
    ended.close()
    assert route_of(ended) is None
    enable_keepalive(ended)


def test_no_route() -> None:
    """An address without its link has no route."""
    assert not NetworkRoute("::1", ("fe80::1", 9, 0, 0)).is_unchanged()


def test_default_addresses() -> None:
    """There are none without a network; one comes with a default route and goes with it."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("no unshare or no ip here")
    inside = ["unshare", "--user", "--map-root-user", "--net"]
    if subprocess.run([*inside, "ip", "link", "set", "lo", "up"], capture_output=True, check=False).returncode:
        pytest.skip("no namespaces for users here")
    done = subprocess.run(
        [*inside, sys.executable, "-W", "error", "-c", _DEFAULT_ROUTES],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["()", "('10.9.0.1',)", "()"]
    assert default_addresses() == default_addresses()


_DEFAULT_ROUTES = """
import subprocess
from syncd.remote.network import default_addresses
come = ("link set lo up", "address add 10.9.0.1/24 dev lo", "route add default dev lo src 10.9.0.1")
for commands in ((), come, ("route del default",)):
    for command in commands:
        subprocess.run(["ip", *command.split()], check=True)
    print(default_addresses())
"""

_SERVER = """
import socket, threading
def talk(connection, peer):
    body = peer[0].encode()
    while connection.recv(4096):
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)
listener = socket.create_server(("10.9.0.2", 8000))
print("listening", flush=True)
while True:
    threading.Thread(target=talk, args=listener.accept(), daemon=True).start()
"""
# Goes on once its link is there.
_FAR_SIDE = """
echo here
read _
ip addr add 10.9.0.2/24 dev far && ip link set far up && exec "$0" -c "$1"
"""


def _ip(words: str) -> bool:
    return subprocess.run(["ip", *words.split()], capture_output=True, check=False).returncode == 0


def _inside() -> None:
    """Set up two network namespaces joined by a pair of links, and change the address on this side."""
    command = ["unshare", "--net", "sh", "-c", _FAR_SIDE, sys.executable, _SERVER]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None
    assert server.stdout is not None
    clock = ScriptedClock()
    client = HttpClient(Waiter(Interrupt(), clock))
    try:
        assert server.stdout.readline() == "here\n"
        if not _ip(f"link add near type veth peer name far netns {server.pid}"):
            print("no such links")
            return
        assert _ip("addr add 10.9.0.1/24 dev near")
        assert _ip("link set near up")
        server.stdin.write("\n")
        server.stdin.flush()
        assert server.stdout.readline() == "listening\n"
        for address in ("10.9.0.1", "10.9.0.1", "10.9.0.7"):
            if address == "10.9.0.7":
                assert _ip("addr del 10.9.0.1/24 dev near")
                assert _ip("addr add 10.9.0.7/24 dev near")
            clock.go_on(60)
            answer = client.exchange("GET", "http://10.9.0.2:8000/", headers={}, read_s=20)
            print(answer.status, "from", answer.body.decode())
    finally:
        client.drop()
        server.kill()
        server.communicate()


if __name__ == "__main__":
    _inside()
