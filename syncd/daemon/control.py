"""How commands reach a running daemon: a Unix socket in the state folder, one JSON object a line.

A client asks once, `{"do": "push", "force": false}`, and hears `{"event": "progress", …}` lines until the one
`{"event": "done", "exit": 0, …}`. The folder is 0700 and the socket 0600: who can connect is who runs the daemon.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from collections.abc import Iterator
from typing import Any

from syncd.core.clock import Clock

_NAME = "control.sock"
# A request is a few words; more without a line's end is no client of ours.
_LONGEST_REQUEST = 4096
_MOST_CLIENTS = 32

Message = dict[str, Any]


class Client:
    """One connected command."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._connection.setblocking(False)
        self._heard = b""
        self.gone = False

    def fileno(self) -> int:
        """For `select`."""
        return self._connection.fileno()

    def request(self) -> Message | None:
        """The request, once its line is whole. A client that ends or talks nonsense is `gone`."""
        try:
            piece = self._connection.recv(_LONGEST_REQUEST)
        except BlockingIOError:
            return None
        except OSError:
            piece = b""
        self._heard += piece
        line, end, _ = self._heard.partition(b"\n")
        if end:
            self._heard = b""
            with contextlib.suppress(ValueError, RecursionError):
                message = json.loads(line)
                if isinstance(message, dict):
                    return message
        if end or not piece or len(self._heard) >= _LONGEST_REQUEST:
            self.close()
        return None

    def send(self, message: Message) -> None:
        """Send a line. A client that does not read is let go: it must not hold up the daemon."""
        if self.gone:
            return
        try:
            self._connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self.close()

    @property
    def waits(self) -> bool:
        """Whether it still waits for an answer, as far as is known by now; one that hung up is let go."""
        if not self.gone:
            with contextlib.suppress(BlockingIOError):
                try:
                    if not self._connection.recv(1, socket.MSG_PEEK):
                        self.close()
                except ConnectionError:
                    self.close()
        return not self.gone

    def done(self, exit_code: int, message: str = "", **more: Any) -> None:
        """The last line, with what the command is to exit with."""
        self.send({"event": "done", "exit": exit_code, "message": message, **more})
        self.close()

    def close(self) -> None:
        """Hang up."""
        if not self.gone:
            self.gone = True
            self._connection.close()


class ControlServer:
    """Listens for commands. Only to be opened by who holds the workspace's lock."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._listener: socket.socket | None = None
        self._clients: list[Client] = []
        self._spare: int | None = None  # a descriptor to give up when there are no more

    def open(self) -> None:
        """Raises `OSError`."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self._folder, _NAME))  # left by a process that was killed
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.setblocking(False)
            with _short_path(self._folder) as path:
                listener.bind(path)
            os.chmod(os.path.join(self._folder, _NAME), 0o600)
            listener.listen(8)
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            listener.close()
            raise
        self._listener = listener

    def filenos(self) -> list[int]:
        """What to `select` on."""
        self._clients = [client for client in self._clients if not client.gone]
        listener = [self._listener.fileno()] if self._listener else []
        return listener + [client.fileno() for client in self._clients]

    def requests(self) -> Iterator[tuple[Client, Message]]:
        """What clients ask, without waiting for any. Who asked stays connected until told `done`."""
        while self._listener is not None:
            try:
                connection, _ = self._listener.accept()
            except OSError as failure:
                if failure.errno in (errno.EMFILE, errno.ENFILE) and self._turned_away(self._listener):
                    continue
                break
            client = Client(connection)
            if len(self._clients) >= _MOST_CLIENTS:
                client.close()
            else:
                self._clients.append(client)
        for client in list(self._clients):
            if not client.gone:
                message = client.request()
                if message is not None:
                    yield client, message

    def _turned_away(self, listener: socket.socket) -> bool:
        """Whether a client for whom no descriptor is left was hung up on; it would wake the daemon without end."""
        if self._spare is None:
            return False
        os.close(self._spare)
        self._spare = None
        try:
            listener.accept()[0].close()
        except OSError:  # without a descriptor the kernel does not even say that nobody waits
            return False
        finally:
            with contextlib.suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        return True

    def close(self) -> None:
        """Hang up on all, and take the socket away."""
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
        for client in self._clients:
            client.close()
        self._clients.clear()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self._folder, _NAME))


def ask(folder: str, request: Message, clock: Clock, timeout_s: float | None = None) -> Iterator[Message]:
    """Ask the daemon of this state folder, and hear its answers to the end.

    Raises `ConnectionError` where none listens or it ends meanwhile, `TimeoutError` when the time is over.
    """
    ends_s = None if timeout_s is None else clock.monotonic_s() + timeout_s
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            with _short_path(folder) as path:
                connection.connect(path)
        except TimeoutError:
            raise
        except OSError as failure:
            raise ConnectionError(str(failure)) from None
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as lines:
            while (line := lines.readline()).endswith(b"\n"):  # half a line is a daemon's last words
                message: Message = json.loads(line)
                yield message
                if message.get("event") == "done":
                    return
                if ends_s is not None:
                    connection.settimeout(max(0.001, ends_s - clock.monotonic_s()))
    raise ConnectionError("the daemon hung up")


def listens(folder: str) -> bool:
    """Whether a daemon can be asked there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, _short_path(folder) as path:
        connection.setblocking(False)
        return connection.connect_ex(path) in (0, errno.EAGAIN)  # EAGAIN: others stand in line


@contextlib.contextmanager
def _short_path(folder: str) -> Iterator[str]:
    """A socket's path may have 107 bytes, a state folder's more: it is reached through a descriptor of the folder."""
    path = os.path.join(folder, _NAME)
    if len(os.fsencode(path)) < 108:
        yield path
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{_NAME}"
    finally:
        os.close(descriptor)
