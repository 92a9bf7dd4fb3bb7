"""Processes forked from an interpreter that has loaded what they run: loading is most of what a short one costs.

Run as a program with a socket's number and what it is for, it is that interpreter. It reports the number and the end of
each process. What matters to a start (another locale, a program before it) has none.
"""

from __future__ import annotations

import atexit
import gc
import os
import pickle
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import CodeType, ModuleType
from weakref import finalize

_MOST_BYTES = 1 << 20
_LOADED = {
    "syncd": ("syncd.daemon.build", "syncd.cli.commands", "syncd.cli.run", "syncd.cli.push"),
    "main.py": ("syncd.sandbox.executions",),
}
# The seconds by which the clock of a program in the sandbox is ahead of this machine's.
AHEAD = "CLOCK_AHEAD_S"
_USUAL = {"LANG": "C.UTF-8"}
_AT_START = ("LANG", "LC_", "PYTHON", "LD_")


def may_be_preloaded(env: Mapping[str, str]) -> bool:
    """True if an interpreter that has started with the usual environment would have started so with this one."""
    return {name: value for name, value in env.items() if name.startswith(_AT_START)} == _USUAL


class Preloaded:
    """A program in a process that has loaded it; as much of `subprocess.Popen` as is used here, in any thread.

    The first of `args` is `syncd`, or `main.py` for one that runs in the sandbox, in the folder `cwd`.
    """

    def __init__(self, args: Sequence[str], env: Mapping[str, str], cwd: Path | str, standard: Sequence[int]) -> None:
        """Start it with these descriptors as stdin, stdout and stderr."""
        self._name = args[0]
        self.returncode: int | None = None
        self._lock = threading.Lock()
        self._reports, reporting = os.pipe()
        finalize(self, os.close, self._reports)  # not at the report of the end: another thread may wait for it, too
        request = pickle.dumps((list(args), dict(env), str(cwd)))
        socket.send_fds(_interpreter(args[0]), [request], [*standard, reporting])
        os.close(reporting)
        self.pid = int(self._report())

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        if self.returncode is None and select.select([self._reports], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, and return the exit code. Raises `subprocess.TimeoutExpired`."""
        if self.returncode is None:
            if not select.select([self._reports], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self._name, timeout or 0)
            with self._lock:
                if self.returncode is None:
                    self.returncode = os.waitstatus_to_exitcode(int(self._report()))
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, if it has not ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # its interpreter has waited for it, and reports that in a moment
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL, if it has not ended."""
        self.send_signal(signal.SIGKILL)

    def _report(self) -> bytes:
        report = b""
        while not report.endswith(b"\n"):
            block = os.read(self._reports, 1)  # the next report may be there already
            if not block:
                raise ChildProcessError("the preloaded interpreter ended")
            report += block
        return report


@cache
def _interpreter(name: str) -> socket.socket:
    """Start the interpreter of this process for such programs, which ends with it."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.preloaded", str(its.fileno()), name],
            cwd=Path(__file__).parents[1],
            env={"PATH": os.environ.get("PATH", os.defpath), **_USUAL},
            pass_fds=[its.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _serve(connection: socket.socket) -> list[str]:
    """Fork a process for each request, and return the command's arguments in it."""
    running: dict[int, tuple[int, int]] = {}  # by what tells of the end
    events = select.poll()
    events.register(connection, select.POLLIN)
    while True:
        for ready, _ in events.poll():
            if ready in running:
                events.unregister(ready)
                command, report = running.pop(ready)
                with suppress(BrokenPipeError):  # nobody has waited for it
                    os.write(report, b"%d\n" % os.waitpid(command, 0)[1])
                os.close(report)
                os.close(ready)
                continue
            message, descriptors, _, _ = socket.recv_fds(connection, _MOST_BYTES, 4)
            if not message:
                os._exit(0)
            args, env, cwd = pickle.loads(message)
            *standard, report = descriptors
            command = os.fork()
            if command == 0:
                connection.close()
                _become(env, cwd, standard)
                return list(args)
            os.write(report, b"%d\n" % command)
            tells = os.pidfd_open(command)
            running[tells] = command, report
            events.register(tells, select.POLLIN)
            for descriptor in standard:
                os.close(descriptor)


def _become(env: Mapping[str, str], cwd: str, standard: Sequence[int]) -> None:
    """Make this process one that was just started: with nothing of its parent's but the modules."""
    os.setsid()  # no terminal but the one that it is given
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
    os.closerange(3, 1 + max(int(name) for name in os.listdir("/proc/self/fd")))
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    os.chdir(cwd)
    sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]


def _run_command() -> None:
    """Run syncd, and end without taking the interpreter apart: that would first copy what is shared with the parent."""
    codes: list[int] = []

    def end() -> None:
        for code in codes:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(code)

    atexit.register(end)  # the first one runs last
    try:
        runpy.run_module("syncd", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        codes.append(ended.code)  # type: ignore[arg-type]
        raise


def _run_in_sandbox() -> None:
    """Run the `main.py` of this folder, which need not be compiled if it is one of ours."""
    source = Path("main.py").read_bytes()
    code = _compiled().get(source) or compile(source, "main.py", "exec")
    if AHEAD in os.environ:
        ahead_s, real = float(os.environ[AHEAD]), time.time  # noqa: TID251
        time.time = lambda: real() + ahead_s  # noqa: TID251
    sys.path[0] = os.getcwd()
    sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
    main = sys.modules["__main__"] = ModuleType("__main__")
    main.__file__ = "main.py"
    try:
        exec(code, main.__dict__)
    except Exception:
        traceback.print_exc()
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)


@cache
def _compiled() -> dict[bytes, CodeType]:
    executions = sys.modules["syncd.sandbox.executions"]
    sources = map(executions.program_text, [(), *((verb,) for verb in ("look", "run", "commit", "log"))])
    return {source: compile(source, "main.py", "exec") for source in sources}


def _main() -> None:
    number, name = sys.argv[1:]
    for each in _LOADED[name]:
        __import__(each)
    if name == "main.py":
        _compiled()
    else:  # so that the built-in rules are compiled
        sys.modules["syncd.selection.secret_scanner"].secret_forms()
        sys.modules["syncd.selection.selection"].Selection().root().decide("name", is_dir=False)
    gc.freeze()  # else each process copies all of it at its first collection
    sys.argv = _serve(socket.socket(fileno=int(number)))
    if name == "main.py":
        _run_in_sandbox()
    else:
        _run_command()


if __name__ == "__main__":
    _main()
