"""Whatever becomes of a command's output, what was asked is done: `syncd ls | head`, a cron job, a full disk."""

from __future__ import annotations

import os

import pytest

from tests.system.rig import Rig


@pytest.mark.parametrize(("files", "lines"), [(3000, 1), (1, 0)], ids=["more than fits into a pipe", "all buffered"])
def test_a_closed_pipe_is_no_failure(rig: Rig, files: int, lines: int) -> None:
    """A command whose output is not read any more ends with 0 and prints nothing."""
    for number in range(files):
        rig.write(f"a-file-with-quite-a-long-name-{number}", b"")
    with rig.piped("ls") as process:
        for _ in range(lines):
            process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


def redirected(how: str) -> tuple[str, ...]:
    """A prefix that starts the command with these redirections."""
    return ("sh", "-c", f'exec "$@" {how}', "sh")


def test_what_was_asked_is_done(rig: Rig) -> None:
    """Also without stdin, stdout and stderr, and with full ones; what could not be written is named."""
    named = (
        "syncd: the output cannot be written (No space left on device): write it elsewhere; what was asked is done\n"
    )
    for how, code in (
        (">&-", 0),
        ("2>&-", 0),
        ("<&- >&- 2>&-", 0),
        ("2>/dev/full", 0),
        (">/dev/full", 75),
        (">/dev/full 2>&1", 75),
    ):
        rig.write("a", how)
        pushed = rig.run("push", prefix=redirected(how))
        assert (rig.sandbox.workspace / "a").read_text() == how
        assert (pushed.code, pushed.err.endswith(named)) == (code, how == ">/dev/full"), how
    for how, code in (("<&- >&- 2>&-", 0), (">/dev/full", 75)):
        (rig.state_folder / "paused").unlink(missing_ok=True)
        assert rig.run("pause", prefix=redirected(how)).code == code
        assert (rig.state_folder / "paused").exists()


def test_the_daemon_without_descriptors(rig: Rig) -> None:
    """None of its files becomes its stdin, stdout or stderr."""
    rig.write("a")
    daemon = rig.up(prefix=redirected("<&- >&- 2>&-"))
    assert {os.readlink(f"/proc/{daemon.pid}/fd/{number}") for number in range(3)} == {os.devnull}
    rig.write("b")
    rig.ok("flush")
    assert daemon.stop() == 0
