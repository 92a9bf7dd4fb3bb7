"""The rules of the side-by-side measurement: its table, what is skipped, and the CPU time of sessions."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from tests.bench.peers import rules
from tests.bench.peers.rules import Figures, ProcessUsage
from tests.bench.peers.syncthing import configured
from tests.bench.table import Line, Printer, Row, Skipped


def test_a_row_has_the_median_time_and_the_means_of_cpu_and_bytes() -> None:
    """One slow edit of three moves neither time; CPU and bytes are shared out among the edits."""
    row = rules.row("rsync -a", Figures((1.5, 1.2, 30.0), 1.0, 0.6, 3_000), "a run")
    assert row.split("  ")[0] == "rsync -a"
    assert row.split()[2:] == ["1.50", "s", "500", "ms", "200", "ms", "1,000", "a", "run"]


def test_what_cannot_be_counted_is_a_dash() -> None:
    """Without a count of bytes there is no figure, and no zero."""
    assert rules.row("x", Figures((1.0,), 0.0, 0.1, None), "").split()[-1] == "-"


def test_columns_stand_below_their_names() -> None:
    """The head and a row end their columns at the same places."""
    names, _, line = rules.head().split("\n")
    row = rules.row("x", Figures((1.0,), 0.0, 0.1, 5), "note")
    ends = [place for place, sign in enumerate(line) if sign == "-" and line[place + 1 : place + 2] != "-"]
    for end in ends[1:5]:
        assert row[end] != " "
        assert row[end + 1] == " "
    assert names[ends[4] + 1 :].strip() == ""


@pytest.mark.parametrize(
    ("name", "missing", "said"),
    [
        ("Syncthing", ["syncthing"], "Syncthing: not installed, skipped"),
        ("lsyncd", ["rsync"], "lsyncd: rsync not installed, skipped"),
        ("lsyncd", ["lsyncd", "rsync"], "lsyncd: lsyncd and rsync not installed, skipped"),
    ],
)
def test_what_is_not_installed_is_skipped_by_name(name: str, missing: list[str], said: str) -> None:
    """The line names the tool, and the commands if they have other names."""
    assert rules.skipped(name, missing) == said


def test_a_title_says_what_was_the_same_for_all() -> None:
    """Tree, edits, quiet time and the machine's load stand above the table."""
    title = rules.title(5_000, 70_000_000, 10, 1.0, 2, 0.5)
    assert "5,000 files, 70.0 MB; 10 edits of one line; quiet time 1 s; 2 cores, load 0.5" in title


def test_a_process_is_read_whatever_its_name_is() -> None:
    """Spaces and brackets in a command's name do not move the fields."""
    stat = "12 (a) b (c) S 1 12 7 0 -1 4194560 1 2 3 4 100 20 3 4 20 0 1 0 5 6 7"
    assert rules.process_usage(stat) == ProcessUsage(session=7, ticks=127)


def test_only_the_sessions_of_a_tool_count() -> None:
    """Processes of other sessions are somebody else's."""
    usages = (ProcessUsage(7, 10), ProcessUsage(7, 5), ProcessUsage(8, 1), ProcessUsage(9, 100))
    assert rules.session_ticks(usages, frozenset({7, 8})) == 16


def test_syncthing_reaches_nobody_but_its_peer() -> None:
    """A generated configuration keeps its own settings, and loses its folders, discovery, relays and reports."""
    generated = (
        '<configuration version="37"><folder id="default" path="~/Sync"/><device id="A"/><gui enabled="true"/>'
        "<options><listenAddress>default</listenAddress><relaysEnabled>true</relaysEnabled>"
        "<maxSendKbps>7</maxSendKbps></options></configuration>"
    )
    devices = {"A": "", "B": "tcp://127.0.0.1:2"}
    made = ET.fromstring(configured(generated, "/tree", "tcp://127.0.0.1:1", devices, 0.5))
    assert made.attrib == {"version": "37"}
    assert [(each.get("path"), each.get("fsWatcherDelayS")) for each in made.iter("folder")] == [("/tree", "0.5")]
    assert [each.text for each in made.iter("listenAddress")] == ["tcp://127.0.0.1:1"]
    assert [each.text for each in made.iter("relaysEnabled")] == ["false"]
    assert [each.text for each in made.iter("maxSendKbps")] == ["7"]
    assert [each.get("enabled") for each in made.iter("gui")] == ["false"]
    assert all((each.text or "").startswith("tcp://127.0.0.1:") for each in made.iter("address"))


def test_the_head_stands_above_the_rows_that_have_its_columns(capsys: pytest.CaptureFixture[str]) -> None:
    """A table with other columns gets no head of ratios, and the rows after it get theirs again."""
    printer = Printer()
    printer.print([Line("another table")])
    printer.print([Row("a", "", "1 s"), Skipped("b", "no git")])
    printer.print([Line("another table"), Row("c", "", "2 s")])
    first = [line.split()[0] for line in capsys.readouterr().out.splitlines() if not line.startswith("-")]
    assert first == ["another", "measure", "a", "b", "another", "measure", "c"]
