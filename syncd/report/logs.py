"""Log lines on stderr: for people on a terminal, with priorities for the journal, as JSON on request.

Every record goes through one formatter, which removes secrets, keeps it on one line and shows no traceback.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum

from syncd.core.clock import day_and_time, stamp
from syncd.core.text import for_sandbox, one_line, redacted

_PRIORITIES = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}
_LONGEST = 2000


# The name of the sandbox that the task at work is about, where the workspace has several.
sandbox_in_logs: ContextVar[str] = ContextVar("sandbox_in_logs", default="")


@contextmanager
def of_all_in_logs() -> Iterator[None]:
    """Have no log line within name a sandbox, whatever the task is about that is at work."""
    token = sandbox_in_logs.set("")
    try:
        yield
    finally:
        sandbox_in_logs.reset(token)


class LogFormat(StrEnum):
    """The values of `--log-format`."""

    TEXT = "text"
    JSON = "json"


class _Formatter(logging.Formatter):
    def __init__(self, form: LogFormat, *, journal: bool) -> None:
        super().__init__()
        self._form = form
        self._journal = journal
        self.secrets: set[str] = set()

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            message += f" ({place_of(record.exc_info[1])})"
        for secret in ("", *self.secrets):
            message = redacted(message, secret)
        sandbox, message = sandbox_in_logs.get(), one_line(message, _LONGEST)
        message = for_sandbox(message, sandbox) if sandbox else message
        if self._form is LogFormat.JSON:
            line = json.dumps(
                {
                    "time": stamp(record.created),
                    "level": record.levelname.lower(),
                    "logger": record.name,
                    "message": message,
                    **({"sandbox": sandbox} if sandbox else {}),
                }
            )
        else:
            message = f"{sandbox}: {message}" if sandbox else message
            at = day_and_time(record.created)
            line = message if self._journal else f"{at} {record.levelname.lower():7} {message}"
        return f"<{_PRIORITIES.get(record.levelname, 6)}>{line}" if self._journal else line


_formatter: list[_Formatter] = []


def set_up_logs(level: str, form: LogFormat, environ: Mapping[str, str]) -> None:
    """Send all log lines of this level and above to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = _Formatter(form, journal=_under_journal(environ))
    handler.setFormatter(formatter)
    _formatter[:] = [formatter]
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # httpx logs every URL at INFO, httpcore every header at DEBUG: signed URLs and the key; so do their successors.
    for noisy in ("httpx", "httpcore", "httpx2", "httpcore2", "hpack", "watchdog"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    logging.captureWarnings(capture=True)
    logging.raiseExceptions = False  # a full disk under stderr must not end in tracebacks


def keep_out_of_logs(secret: str) -> None:
    """Remove this text from every line."""
    for formatter in _formatter:
        formatter.secrets.add(secret)


def _under_journal(environ: Mapping[str, str]) -> bool:
    """True if stderr is the journal itself (`$JOURNAL_STREAM`, systemd.exec(5))."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


def place_of(failure: BaseException) -> str:
    """The failure's type and its place in the code, instead of a traceback."""
    frame = failure.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    place = f" at {os.path.basename(frame.tb_frame.f_code.co_filename)}:{frame.tb_lineno}" if frame else ""
    return f"{type(failure).__name__}{place}"
