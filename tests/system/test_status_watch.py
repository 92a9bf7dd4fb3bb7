"""`syncd status --watch` on a real terminal: it redraws in place, and the last screen stays."""

from __future__ import annotations

import os
import signal
import sys
import termios
from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.system.command import SYNCD
from tests.system.rig import Rig
from tests.system.terminal import Terminal

# A terminal of its own alone sends no Ctrl-C: it has to be the session's.
_TAKE_IT = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """A terminal of 80 by 24, with a prompt on its first line."""
    terminal = Terminal(80, 24)
    terminal.show("$ syncd status --watch\n")
    yield terminal
    terminal.close()


def watch(terminal: Terminal, rig: Rig, **environ: str) -> None:
    """Start it there."""
    env = {**rig.environment(), "TERM": "xterm", **environ}
    terminal.start([sys.executable, "-c", _TAKE_IT, *SYNCD, "status", "--watch"], env, rig.workspace)


def test_it_stays_in_its_place(rig: Rig, terminal: Terminal) -> None:
    """Syncs, a killed daemon, a new one and typed keys change lines in place; Ctrl-C leaves them there."""
    rig.write("a")
    rig.up()
    watch(terminal, rig)
    terminal.until(lambda text: text.startswith("● in sync") and "1 sync," in text, "a daemon at rest")
    rig.write("b")
    terminal.until(lambda text: text.startswith("● in sync") and "2 syncs," in text, "one more sync")
    terminal.type("\n\nrm -rf\n")
    rig.kill()
    terminal.until(lambda text: text.startswith("● not running: it ended unexpectedly"), "the daemon's death")
    rig.write("c")
    rig.up()
    terminal.until(lambda text: text.startswith("● in sync") and "1 sync," in text, "the next daemon")
    assert sum("workspace" in line for line in terminal.text.split("\n")) == 1  # nothing is there twice
    assert "rm -rf" not in terminal.text
    terminal.type("\x03")
    assert terminal.finish() == 0
    assert terminal.text.startswith("● in sync")


def test_a_key_ends_it(rig: Rig, terminal: Terminal) -> None:
    """At `q` it ends with 0, as all went well; the terminal has its settings again."""
    watch(terminal, rig)
    side = os.dup(terminal._ours)
    terminal.until(lambda text: "● not running: no daemon" in text, "the screen")
    terminal.type("xyq")
    assert terminal.finish() == 0
    assert terminal.text.startswith("● not running: no daemon")
    assert "xyq" not in terminal.text
    lines_and_echo = termios.ICANON | termios.ECHO
    assert termios.tcgetattr(side)[3] & lines_and_echo == lines_and_echo
    os.close(side)


def test_an_edited_configuration(rig: Rig, terminal: Terminal) -> None:
    """It shows the workspace of the new one."""
    rig.write("a")
    rig.up()
    watch(terminal, rig)
    terminal.until(lambda text: "● in sync" in text, "a daemon at rest")
    rig.configure({"workspace.path": str(rig.home / "other")})
    terminal.until(lambda text: "● not running: no daemon" in text, "the other workspace")
    rig.config_file.write_text("nonsense")
    rig.configure()
    terminal.until(lambda text: "● in sync" in text, "the first workspace again")


def test_after_the_shells_lines_and_at_a_signal(rig: Rig, terminal: Terminal) -> None:
    """It is in its place again after what the shell wrote at a Ctrl-Z; SIGTERM ends it as Ctrl-C does."""
    watch(terminal, rig)
    terminal.until(lambda text: text.startswith("● not running: no daemon"), "the screen")
    terminal.show("$ fg\n")
    terminal.until(lambda text: text.startswith("● not running: no daemon") and "$ fg" not in text, "the screen anew")
    terminal.send(signal.SIGTERM)
    assert terminal.finish() == 0


def test_on_a_pipe_only_changes_are_printed(rig: Rig) -> None:
    """Each document differs from the one before; an interrupt ends it."""
    rig.write("a")
    rig.up()
    watching = rig.background("status", "--watch", "--json")
    reported = rig.background("status", "--watch")
    rig.until(lambda: '"watching"' in watching.out and "● in sync" in reported.out, "the first documents")
    before = (watching.out, reported.out)
    looks = watching.wakeups() + 20
    rig.until(lambda: watching.wakeups() > looks, "some looks more")
    assert (watching.out, reported.out) == before
    rig.daemons[0].stop()
    rig.until(lambda: '"stopped"' in watching.out and "● not running" in reported.out, "the end of the daemon")
    assert watching.stop(signal.SIGINT) == 0
    assert reported.stop(signal.SIGINT) == 0
    lines = watching.out.splitlines()
    assert all(line != after for line, after in pairwise(lines))
    assert 2 <= reported.out.count("● ") < 10
    assert "\x1b" not in reported.out


def test_it_ends_with_its_reader(rig: Rig) -> None:
    """As of `syncd status --watch | head -1`, though nothing changes any more."""
    with rig.piped("status", "--watch") as watching:
        assert b"not running" in watching.stdout.readline()
        watching.stdout.close()
        assert watching.wait(60) == 0
