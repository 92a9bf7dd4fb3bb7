"""The table of `syncd status --all`: a line for each configuration, as wide as the terminal at most."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from syncd.cli.status.overview import ServiceState, WorkspaceRow
from syncd.cli.status.table import table
from syncd.cli.status.text import Tone, columns, plain
from syncd.sync.status_document import AgentStatus, State, Status
from tests.clock import NOON_S
from tests.unit.test_status_screen import NOTHING, WATCHING

HELD = replace(WATCHING, state=State.HELD, pending=True, agent=AgentStatus(held=("a", "b"), held_count=2, changed=3))
ROWS = (
    WorkspaceRow("/c/config.toml", "config", ServiceState.RUNNING, WATCHING),
    WorkspaceRow("/c/site.toml", "site", ServiceState.STOPPED, replace(NOTHING, workspace="/home/dev/web/site")),
    WorkspaceRow("/c/held.toml", "held", ServiceState.NONE, replace(HELD, workspace="/srv/文字")),
    WorkspaceRow("/c/bad.toml", "bad", ServiceState.NONE, error="/c/bad.toml is not valid TOML: line 1"),
)
TABLE = """
  NAME    WORKSPACE   STATE        LAST SYNC  WAITING                           SERVICE
* config  ~/code      watching     10 s ago   -                                 yes
* site    ~/web/site  not running  never      -                                 stopped
* held    /srv/文字   held         10 s ago   changes, 2 held, 3 changed there  no
* bad     broken: bad.toml is not valid TOML: line 1"""


def test_the_whole_table() -> None:
    """Columns are as wide as their texts, also in letters that take two columns."""
    assert "\n" + "\n".join(plain(line) for line in table(ROWS, "/home/dev", NOON_S)) == TABLE


@pytest.mark.parametrize("width", [40, 60, 79, 100])
def test_no_line_is_too_wide(width: int) -> None:
    """The workspace's beginning gives way first, then its column, then the end of the line; an error is wrapped."""
    lines = [plain(line) for line in table(ROWS, "/home/dev", NOON_S, width)]
    assert max(map(columns, lines)) <= width
    assert all(name in line for name, line in zip(("config", "site", "held", "bad"), lines[1:], strict=False))
    assert " ".join(" ".join(lines[4:]).split()) == "* bad broken: bad.toml is not valid TOML: line 1"
    assert ("WORKSPACE" in lines[0]) == (width > 79)


@pytest.mark.parametrize(
    ("status", "service", "tone"),
    [
        (WATCHING, ServiceState.NONE, Tone.GOOD),
        (replace(WATCHING, warnings=("x",)), ServiceState.NONE, Tone.ATTENTION),
        (replace(WATCHING, pending=True), ServiceState.NONE, Tone.BUSY),
        (replace(WATCHING, state=State.UPLOADING), ServiceState.NONE, Tone.BUSY),
        (replace(WATCHING, state=State.PAUSED), ServiceState.NONE, Tone.ATTENTION),
        (replace(WATCHING, responding=False), ServiceState.NONE, Tone.BAD),
        (HELD, ServiceState.RUNNING, Tone.BAD),
        (NOTHING, ServiceState.NONE, Tone.PLAIN),
        (NOTHING, ServiceState.STOPPED, Tone.ATTENTION),
        (None, ServiceState.NONE, Tone.BAD),
    ],
)
def test_the_mark_shows_how_it_is(status: Status | None, service: ServiceState, tone: Tone) -> None:
    """The colour is that of the state; a stopped service deserves a look."""
    _, line = table([WorkspaceRow("/c/a.toml", "a", service, status, error="x")], "/home/dev", NOON_S)
    assert line[0][1] is tone
