"""The reference and the manual page tell what the program is now, and formatters take them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from syncd.cli.commands import COMMANDS, cli
from syncd.core.errors import ExitCode
from tests.repo.sources import sources
from tools.reference.__main__ import MADE
from tools.reference.facts import ENVIRONMENT, EXAMPLES, SIGNALS, common_options, own_options, verbs
from tools.reference.manual import manual, text

# Variables that the machine sets, or that a process sets for its own children: no user sets them for syncd.
_NOT_FOR_PEOPLE = {
    "AGENT_WORKSPACE": "set by the emulator for what it executes",
    "DBUS_SESSION_BUS_ADDRESS": "the session's",
    "GIT_CONFIG_GLOBAL": "git's",
    "GIT_DIR": "for children",
    "GIT_INDEX_FILE": "for children",
    "HOME": "the machine's",
    "LC_ALL": "for children: messages that can be read back",
    "JOURNAL_STREAM": "systemd's",
    "NOTIFY_SOCKET": "systemd's",
    "PATH": "the machine's",
    "DBUS_SYSTEM_BUS_ADDRESS": "the machine's",
    "PYTHONPATH": "for children",
    "SYSTEMD_PAGER": "for children",
    "TERM": "the terminal's",
    "WATCHDOG_PID": "systemd's",
    "WATCHDOG_USEC": "systemd's",
    "TZ": "the session's",
    "XDG_RUNTIME_DIR": "the session's",
}
_READ = re.compile(r"environ(?:ment)?(?:\.get\(|\[)\"([A-Z][A-Z_]+)\"|getenv\(\"([A-Z][A-Z_]+)\"")


@pytest.mark.parametrize("path", MADE)
def test_it_is_what_the_program_is(repo: Path, path: str) -> None:
    """Both files are as `python -m tools.reference` would write them now."""
    assert (repo / path).read_text("utf-8") == MADE[path](), f"{path}: run: python -m tools.reference"


def test_nothing_is_left_out(repo: Path) -> None:
    """Every verb and every option is on the page."""
    page = (repo / "docs/reference.md").read_text("utf-8")
    remedy = "tools/reference: have each verb and option written to docs/reference.md"
    assert {verb.path.split()[1] for verb in verbs()} == set(COMMANDS), remedy
    expected = [
        *(f"\n### {verb.path}\n" for verb in verbs()),
        *(f"\n- `{option.names}`: " for verb in verbs() for option in own_options(verb)),
        *(f"\n| `{option.names}` | " for option in common_options()),
        *(f"\n| {int(code)} | " for code in ExitCode),
    ]
    assert [words for words in expected if words not in page] == [], remedy


def test_each_signal_has_its_row(repo: Path) -> None:
    """The table has the signals that the daemon handles, and no others."""
    handled = set(re.findall(r"signal\.(SIG\w+): ", (repo / "syncd/core/signals.py").read_text("utf-8")))
    listed = {name for names, _ in SIGNALS for name in names.split(", ")}
    assert listed == handled, "tools/reference/facts.py: give SIGNALS the rows of syncd/core/signals.py"


def test_every_variable_is_documented() -> None:
    """A name that the source reads from the environment is in the reference, or no person's business."""
    read = {name for source in sources("syncd") for pair in _READ.findall(source.text) for name in pair if name}
    assert "NO_COLOR" in read
    unknown = read - {name for name, _ in ENVIRONMENT} - set(_NOT_FOR_PEOPLE)
    assert unknown == set(), "tools/reference/facts.py: explain it in ENVIRONMENT, or put it into _NOT_FOR_PEOPLE here"


@pytest.mark.parametrize("example", [example for example, _ in EXAMPLES])
def test_the_examples_are_commands(example: str) -> None:
    """Each example's verb takes the options that stand there."""
    for command in (words for words in example.split(" && ") if words.startswith("syncd ")):
        _, name, *words = shlex.split(command)
        with click.Context(cli, info_name="syncd") as context:
            verb = cli.get_command(context, name)
            assert verb is not None, f"tools/reference/facts.py, EXAMPLES: there is no command {name}"
            verb.make_context(name, words, parent=context)


def test_mandoc_takes_it() -> None:
    """The lint of one formatter finds nothing but that there is no date."""
    _needs("mandoc")
    said = _run(["mandoc", "-Tlint", "-W", "warning"], manual()).stdout
    found = [line for line in said.splitlines() if "missing date" not in line]
    assert found == [], "tools/reference/manual.py: write what mandoc takes"
    assert "WARNING" in _run(["mandoc", "-Tlint", "-W", "warning"], f"{manual()}.PQ\n").stdout  # it can fail


def test_groff_takes_it() -> None:
    """The other formatter warns of nothing."""
    _needs("groff")
    said = _run(["groff", "-ww", "-man", "-Tutf8"], manual()).stderr
    assert said == "", "tools/reference/manual.py: write what groff takes"
    assert _run(["groff", "-ww", "-man", "-Tutf8"], f"{manual()}.PQ\n").stderr != ""


def test_what_goes_in_comes_out() -> None:
    """Text that would be an order to the formatter, or be made prettier, can be copied from the page."""
    _needs("mandoc")
    odd = r"""'.a' .b \fB\e -x --y "z" ~/.c '^d' …é"""
    source = f".TH X 1 2026-01-01\n.SH NAME\nx \\- y\n.SH A\n.nf\n{text(odd)}\n{text('.SH not a heading')}\n.fi\n"
    shown = _run(["mandoc", "-Tutf8"], source).stdout
    plain = re.sub(".\b", "", shown)
    remedy = "tools/reference/manual.py, text: escape it"
    assert f" {odd}\n" in plain, remedy
    assert " .SH not a heading\n" in plain, remedy


def _run(command: list[str], page: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=page, capture_output=True, text=True, check=False, timeout=60)


def _needs(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not on this machine")
