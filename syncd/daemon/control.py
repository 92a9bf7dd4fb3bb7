"""The control socket: a Unix socket in the state folder by which commands reach a running daemon.

Each message is a JSON object on a line. A client sends one request, `{"do": "push", "force": false}`, and receives
`{"event": "progress", …}` lines until the one `{"event": "done", "exit": 0, …}`. The folder is 0700 and the socket
0600: only the user who runs the daemon can connect.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
from collections.abc import Callable, Generator, Iterator
from math import inf
from typing import Any

from syncd.core.clock import SystemClock
from syncd.core.errors import ExitCode
from syncd.core.waiter import Waiter

_CLOCK = SystemClock()
_NAME = "control.sock"
# A request is short; a longer line is not from a client of ours.
_LONGEST_REQUEST = 4096
_MOST_CLIENTS = 128
_SILENCE_S = 2.0
_BLOCK = 1 << 16
_CUT = "[some output is not shown here, as it was not read in time]"

Message = dict[str, Any]


class Client:
    """One connected command."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._connection.setblocking(False)
        self._received = b""
        self.waits = True  # for an answer, as far as its events have told by now
        self._is_late = False  # so output is not sent

    def fileno(self) -> int:
        return self._connection.fileno()

    def request(self) -> Message | None:
        """The request, once its line is complete. Close the connection of a client that ends or sends no request."""
        has_ended = False
        try:
            while not has_ended and len(self._received) < _LONGEST_REQUEST:
                piece = self._connection.recv(_LONGEST_REQUEST)
                self._received += piece
                has_ended = not piece
        except BlockingIOError:
            pass
        except OSError:
            has_ended = True
        line, end, _ = self._received.partition(b"\n")
        message = None
        if end:
            self._received = b""
            with contextlib.suppress(ValueError, RecursionError):
                message = json.loads(line)
        is_valid = isinstance(message, dict)
        if has_ended or (end and not is_valid) or len(self._received) >= _LONGEST_REQUEST:
            self.close()
        return message if is_valid else None

    def send(self, message: Message) -> None:
        """Send a line. The connection of a client that does not read is closed: it must not block the daemon.

        Output is dropped before that, as a pager may wait for its reader, and the rest of the buffer is for the end.
        """
        if not self.waits:
            return
        if message.get("event") == "output":
            was_late, self._is_late = self._is_late, not self._has_room()
            if was_late and self._is_late:
                return
            if self._is_late:
                message = {**message, "text": _CUT}
        try:
            text = json.dumps(message, ensure_ascii=False)  # escapes would be twice as long, and names are any bytes
            self._connection.sendall(text.encode("utf-8", "surrogatepass") + b"\n")
        except OSError:
            self.close()

    def _has_room(self) -> bool:
        """Return True if most of the connection's buffer is free (the kernel's rule for a Unix socket)."""
        poll = select.poll()
        poll.register(self._connection, select.POLLOUT)
        return bool(poll.poll(0))

    def done(self, exit_code: ExitCode, message: str = "", **more: Any) -> None:
        """Send the last line, with the command's exit code, and close the connection."""
        self.send({"event": "done", "exit": exit_code, "message": message, **more})
        self.close()

    def ask_again(self) -> None:
        """Have it ask once more, as the daemon reads its configuration anew: that may have other sandboxes."""
        self.send({"event": "reloading"})
        self.close()

    def close(self) -> None:
        if self.waits:
            self.waits = False
            self._connection.close()


class ControlServer:
    """Listens for commands. To be opened only with the workspace's lock held."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._listener: socket.socket | None = None
        self._clients: list[Client] = []
        self._has_none_left = False  # no descriptor for a client, who would wake the daemon without end

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
            self._bound = os.stat(os.path.join(self._folder, _NAME))
            listener.listen(_MOST_CLIENTS)
        except BaseException as failure:
            listener.close()
            if isinstance(failure, OSError):
                failure.filename = self._folder  # a failed bind names no file
            raise
        self._listener = listener

    def filenos(self) -> list[int]:
        listener = [self._listener.fileno()] if self._listener and not self._has_none_left else []
        return listener + [client.fileno() for client in self._clients if client.waits]

    def requests(self) -> Iterator[tuple[Client, Message]]:
        """The requests that have come. A client stays connected until it is sent `done`."""
        self._clients = [client for client in self._clients if client.waits]
        while self._listener is not None:
            try:
                connection, _ = self._listener.accept()
            except OSError as failure:
                self._has_none_left = failure.errno in (errno.EMFILE, errno.ENFILE)
                break
            client = Client(connection)
            if len(self._clients) >= _MOST_CLIENTS:
                client.close()
            else:
                self._clients.append(client)
        for client in list(self._clients):
            if client.waits:
                message = client.request()
                if message is not None:
                    yield client, message

    def dismiss(self) -> None:
        """Have all clients ask again: the daemon reads its configuration anew."""
        for client in self._clients:
            client.ask_again()

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self._clients.clear()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            path = os.path.join(self._folder, _NAME)
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(path), self._bound):  # not another daemon's, in a new folder
                    os.unlink(path)


def ask(
    folder: str,
    request: Message,
    waiter: Waiter,
    timeout_s: float | None = None,
    on_silence: Callable[[], None] = lambda: None,
) -> Generator[Message]:
    """Send the daemon of this state folder a request, and yield its answers to the end.

    `on_silence` is called each time that nothing has come for two seconds. Raises `ConnectionError` where none listens
    or it ends meanwhile, `TimeoutError` when the time is over, `Stop`.
    """
    ends_s = inf if timeout_s is None else _CLOCK.monotonic_s() + timeout_s
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)  # a stopped daemon accepts nothing
        try:
            with _short_path(folder) as path:
                connection.connect(path)
        except OSError as failure:
            raise ConnectionError(str(failure)) from None
        connection.sendall(json.dumps(request).encode() + b"\n")
        received = b""
        while (left_s := ends_s - (now_s := _CLOCK.monotonic_s())) > 0:
            line, end, rest = received.partition(b"\n")
            if end:
                received = rest
                message: Message = json.loads(line)
                yield message
                if message.get("event") == "done":
                    return
            elif waiter.wait_ready(connection.fileno(), select.POLLIN, now_s + min(left_s, _SILENCE_S)):
                block = connection.recv(_BLOCK)
                if not block:  # half a line is the end of a killed daemon
                    raise ConnectionError("the daemon closed the connection")
                received += block
            elif left_s > _SILENCE_S:
                on_silence()
            else:
                break
    raise TimeoutError


def listens(folder: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, _short_path(folder) as path:
        connection.setblocking(False)
        return connection.connect_ex(path) in (0, errno.EAGAIN)  # EAGAIN: its queue is full


@contextlib.contextmanager
def _short_path(folder: str) -> Iterator[str]:
    """The socket's path, through a descriptor of the folder where it has more than the 107 bytes that are allowed."""
    path = os.path.join(folder, _NAME)
    if len(os.fsencode(path)) < 108:
        yield path
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{_NAME}"
    finally:
        os.close(descriptor)
