"""The emulator serves this machine alone: no other address and no other host name."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.emulator import Emulator


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """A started emulator."""
    with Emulator(tmp_path_factory.mktemp("emulator"), api_key="key") as emulator:
        yield emulator


def answer(port: int, request: bytes) -> bytes:
    """Return the status line."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(request)
        with connection.makefile("rb") as lines:
            return lines.readline().rstrip()


@pytest.mark.parametrize(
    "hosts",
    [
        ["evil.example"],
        [],
        [""],
        ["HERE", "evil.example"],
        ["evil.example", "HERE"],
        ["HERE."],
        ["HERE, evil.example"],
        ["HERE.evil.example"],
        ["evil.example:80"],
        ["user@HERE"],
        ["localhost"],
        ["127.0.0.1:1"],
        ["[::1]:PORT"],
        ["0.0.0.0:PORT"],
        ["2130706433:PORT"],
    ],
)
def test_a_page_of_another_name_is_refused(emulator: Emulator, hosts: list[str]) -> None:
    """A browser that resolves `evil.example` to 127.0.0.1 gets nothing."""
    for port in emulator.ports():
        named = [host.replace("HERE", f"127.0.0.1:{port}").replace("PORT", str(port)) for host in hosts]
        for method in ("GET", "PUT", "OPTIONS"):
            lines = [f"{method} /local-sandbox HTTP/1.1", *(f"Host: {host}" for host in named), "Content-Length: 0"]
            said = answer(port, "\r\n".join([*lines, "", ""]).encode())
            assert said.split(b" ")[1] in (b"400", b"403"), said


def test_its_own_name_is_answered(emulator: Emulator) -> None:
    """Its own names are served, so the refusals are not of everything."""
    for host in ("127.0.0.1", "localhost"):
        request = (
            f"GET /local-sandbox/none HTTP/1.1\r\nHost: {host}:{emulator.port}\r\nAuthorization: Bearer key\r\n\r\n"
        )
        assert answer(emulator.port, request.encode()).split(b" ")[1] == b"404"


def test_no_other_address_listens(emulator: Emulator) -> None:
    """Both ports are bound to 127.0.0.1 alone."""
    for port in emulator.ports():
        for family, address in ((socket.AF_INET, "127.0.0.2"), (socket.AF_INET6, "::1")):
            with socket.socket(family) as connection:
                connection.settimeout(5)
                with pytest.raises(OSError):
                    connection.connect((address, port))
