"""The lines of the log: without secrets, each one line, in the forms that are asked for."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest

from syncd.report.logs import LogFormat, keep_out_of_logs, sandbox_in_logs, set_up_logs


@contextmanager
def logged(level: str, form: LogFormat, environ: dict[str, str] | None = None) -> Iterator[StringIO]:
    """Return what is written to stderr, and restore the tests' logging."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, sys.stderr, logging.raiseExceptions
    levels = {
        name: logging.getLogger(name).level
        for name in ("httpx", "httpx2", "httpcore", "httpcore2", "hpack", "watchdog")
    }
    sys.stderr = StringIO()
    try:
        set_up_logs(level, form, environ or {})
        yield sys.stderr
    finally:
        logging.captureWarnings(capture=False)
        root.handlers[:], root.level, sys.stderr, logging.raiseExceptions = before
        for name, number in levels.items():
            logging.getLogger(name).setLevel(number)


def test_log_lines_hold_no_secret_and_no_line_end() -> None:
    """Key and signature are removed from every record, which is one line."""
    with logged("debug", LogFormat.TEXT) as stderr:
        keep_out_of_logs("sk-5ecret")
        logging.getLogger("syncd").info("key %s\nand https://h/?X-Goog-Signature=%s\x1b[2J", "sk-5ecret", "abc5ecret")
        for name in ("httpx", "httpx2", "httpcore.http11", "httpcore2.http11"):
            logging.getLogger(name).info("GET https://h/?X-Goog-Signature=5ecret")
        logging.getLogger("other").warning("Authorization: Bearer 5ecret")
        try:
            raise ValueError("5ecret in an exception")
        except ValueError:
            logging.getLogger("syncd").exception("internal error")
    lines = stderr.getvalue().splitlines()
    assert len(lines) == 3
    assert "5ecret" not in stderr.getvalue()
    assert "\x1b" not in stderr.getvalue()
    assert lines[2].endswith("(ValueError at test_logs.py:" + lines[2].rsplit(":", 1)[1])


def test_json_lines() -> None:
    """On request each line is an object with time, level, logger and message."""
    with logged("info", LogFormat.JSON) as stderr:
        logging.getLogger("syncd.x").warning('say "%s"', "ü\udcff")
        logging.getLogger("syncd.x").debug("not shown")
    line = json.loads(stderr.getvalue())
    assert (line["level"], line["logger"], line["message"]) == ("warning", "syncd.x", 'say "ü\\udcff"')
    assert line["time"].endswith("Z")


def test_lines_about_one_of_several_sandboxes() -> None:
    """They name it, and so do the commands in them."""
    before = sandbox_in_logs.set("blue")
    with logged("info", LogFormat.TEXT) as stderr:
        logging.getLogger("syncd").warning("changed there: `syncd diff` shows it")
    sandbox_in_logs.reset(before)
    assert stderr.getvalue().endswith(" blue: changed there: `syncd diff --sandbox blue` shows it\n")


@pytest.mark.usefixtures("far_from_utc")
def test_times_are_local() -> None:
    """A line for people has the time of this machine's zone."""
    with logged("info", LogFormat.TEXT) as stderr:
        record = {"msg": "x", "levelno": logging.INFO, "levelname": "INFO", "created": 86_400.0}
        logging.getLogger("syncd").handle(logging.makeLogRecord(record))
    assert stderr.getvalue() == "Fri 1970-01-02 14:00:00 info    x\n"


def test_a_foreign_journal_is_none(tmp_path: Path) -> None:
    """Lines have priorities only if stderr is the journal itself."""
    with logged("info", LogFormat.TEXT, {"JOURNAL_STREAM": "1:2"}) as stderr:
        logging.getLogger("syncd").error("x")
    assert not stderr.getvalue().startswith("<")
    script = (
        "import logging, os, sys\n"
        "from syncd.report.logs import LogFormat, set_up_logs\n"
        "status = os.fstat(2)\n"
        "set_up_logs('info', LogFormat.TEXT, {'JOURNAL_STREAM': f'{status.st_dev}:{status.st_ino}'})\n"
        "logging.getLogger('syncd').error('x')\n"
    )
    out = tmp_path / "out"
    with out.open("wb") as file:
        subprocess.run([sys.executable, "-c", script], stderr=file, check=True)
    assert out.read_text() == "<3>x\n"
