"""An agent is told of its sandbox: by a file with the MCP servers, and by the person's hook, once for each sandbox."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.core.clock import SystemClock
from syncd.core.interrupt import Interrupt
from syncd.core.settings import check_config
from syncd.daemon.build import RuntimeContext, folders_of
from syncd.sandbox import hook
from syncd.sandbox.agent_notifier import AgentNotifier, agent_notifier_of
from tests.integration.sync_rig import Rig, rigged


class Agent:
    """Who is told: a script writes down what it finds in its environment, and ends as it is asked to."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.notes = rig.folder / "told"
        self.script = rig.folder / "tell-agent"
        self.mcp_file = rig.folder / "agent.json"
        self.does("")
        rig.keys["sandbox"] |= {"on_sandbox_change": [str(self.script), "a b"], "mcp_file": str(self.mcp_file)}
        self.environ = {**rig.environ, "PATH": os.environ["PATH"], "KLAVIS_API_KEY": "sk-never", "HERE": "yes"}
        self._agent_notifier: AgentNotifier | None = None

    def does(self, what: str) -> None:
        """The script does this after it has written down that it was run."""
        self.script.write_text(f'#!/bin/sh\n{{ echo "run $1"; env; }} >>"{self.notes}"\n{what}\n')
        self.script.chmod(0o755)

    @property
    def agent_notifier(self) -> AgentNotifier:
        """That of the process that lives now, in real time: programs run by no other."""
        if self._agent_notifier is None:
            config = check_config(self.rig.keys)
            context = RuntimeContext(SystemClock(), self.environ, Interrupt())
            folders = folders_of(config, self.rig.environ)
            client = self.rig.client
            self._agent_notifier = agent_notifier_of(config, folders, key=self.rig.key, context=context, client=client)
        return self._agent_notifier

    def sync(self) -> None:
        """One sync, and whatever is told after it."""
        self.rig.sync()
        self.agent_notifier.arrived(self.rig.cycle.target, self.rig.cycle.provider.acquired_sandbox)
        self.agent_notifier.wait(Interrupt())

    def restart(self) -> None:
        """The process ends, and another one begins."""
        self.agent_notifier.close()
        self._agent_notifier = None
        self.rig.restart()

    def runs(self) -> list[dict[str, str]]:
        """What each run of the script found."""
        text = self.notes.read_text() if self.notes.exists() else ""
        return [dict(line.partition("=")[::2] for line in run.splitlines()) for run in text.split("run a b\n")[1:]]

    def warnings(self) -> str:
        """What a person reads in `status`."""
        return "\n".join(map(str, self.agent_notifier.warnings))


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    with rigged(tmp_path) as rig:
        del rig.keys["sandbox"]["id"]
        rig.keys["sandbox"]["acquire"] = {"servers": ["filesystem", "git"]}
        rig.write("a", "1")
        agent = Agent(rig)
        yield agent
        agent.agent_notifier.close()


def here(agent: Agent) -> str:
    """The id of the sandbox that is ours now."""
    target = agent.rig.cycle.target
    return target.sandbox_id if target else ""


def test_it_is_told_once_of_each_sandbox(agent: Agent) -> None:
    """After the workspace is there, not at each sync, and not by the next process either."""
    agent.does(f'test -e "{agent.rig.emulator.data_dir}/sandboxes/$SYNCD_SANDBOX_ID/workspace/a" || exit 9')
    agent.sync()
    first = here(agent)
    agent.rig.write("a", "2")
    agent.sync()
    agent.restart()
    agent.sync()
    assert [run["SYNCD_SANDBOX_ID"] for run in agent.runs()] == [first]
    agent.rig.clock.go_on(7200)
    agent.sync()
    assert [run["SYNCD_SANDBOX_ID"] for run in agent.runs()] == [first, here(agent)]
    assert agent.warnings() == ""


def test_what_it_is_told(agent: Agent) -> None:
    """Id, end, workspace and servers; neither the key nor anything that speaks for the daemon."""
    agent.environ |= {"NOTIFY_SOCKET": "@x", "CREDENTIALS_DIRECTORY": "/run/x"}
    agent.sync()
    (found,) = agent.runs()
    urls = {name: f"{agent.rig.emulator.base_url}/mcp/{here(agent)}/{name}" for name in ("filesystem", "git")}
    assert json.loads(found["SYNCD_MCP_SERVERS"]) == urls
    assert found["SYNCD_SANDBOX_EXPIRES_AT"] == "2026-11-24T15:20:11Z"
    assert (found["SYNCD_WORKSPACE"], found["HERE"]) == (str(agent.rig.workspace), "yes")
    assert found["SYNCD_MCP_FILE"] == str(agent.mcp_file)
    assert found["PWD"] == os.path.expanduser("~")
    assert not {"KLAVIS_API_KEY", "NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY"} & set(found)
    entries = {name: {"type": "http", "url": url} for name, url in urls.items()}
    assert json.loads(agent.mcp_file.read_text()) == {"mcpServers": entries}
    assert stat.S_IMODE(agent.mcp_file.stat().st_mode) == 0o600


def test_a_named_sandbox_is_asked_for_its_servers(agent: Agent) -> None:
    """Once a process, after the first sync; where the API does not tell, the hook is run without them in the end."""
    sandbox = agent.rig.keys["sandbox"]
    del sandbox["acquire"]
    agent.rig.emulator.create_sandbox("other", ["terminal"])
    sandbox["id"] = "other"
    agent.rig.emulator.faults.script("get: 500 x2")
    for number in (1, 2):
        agent.sync()
        assert agent.runs() == []
        assert "did not name" in agent.warnings(), number
    agent.sync()
    agent.sync()
    assert [json.loads(run["SYNCD_MCP_SERVERS"]) for run in agent.runs()] == [
        {"terminal": f"{agent.rig.emulator.base_url}/mcp/other/terminal"}
    ]
    assert agent.rig.asked().count("get") == 3
    assert agent.warnings() == ""


def test_servers_that_nobody_tells_hold_nothing_up(agent: Agent) -> None:
    """After three vain questions the hook is run without them; the file is not written."""
    sandbox = agent.rig.keys["sandbox"]
    del sandbox["acquire"]
    sandbox["id"] = "box"
    agent.rig.emulator.faults.script("get: 500 always")
    for _ in range(5):
        agent.sync()
    assert [run["SYNCD_MCP_SERVERS"] for run in agent.runs()] == ["{}"]
    assert not agent.mcp_file.exists()


def test_one_that_fails_is_run_three_times(agent: Agent) -> None:
    """At the next syncs, over restarts; the warning stays until another sandbox is told well."""
    agent.does("exit 3")
    for number in range(5):
        agent.sync()
        assert "ended with 3" in agent.warnings()
        if number % 2:
            agent.restart()
            assert "ended with 3" in agent.warnings()
    assert len(agent.runs()) == 3
    assert "not run again" in agent.warnings()
    agent.does("")
    agent.rig.clock.go_on(7200)
    agent.sync()
    assert len(agent.runs()) == 4
    assert agent.warnings() == ""


def test_one_that_was_mended_is_run_again(agent: Agent) -> None:
    """Another command than the one that failed begins anew."""
    agent.rig.keys["sandbox"]["on_sandbox_change"] = ["/nowhere/at-all"]
    for _ in range(4):
        agent.sync()
    assert "cannot be started (No such file or directory)" in agent.warnings()
    agent.rig.keys["sandbox"]["on_sandbox_change"] = [str(agent.script), "a b"]
    agent.restart()
    assert agent.warnings() == ""
    agent.sync()
    assert len(agent.runs()) == 1


def test_one_that_was_broken_off_is_run_once_more(agent: Agent) -> None:
    """A process that ends in between leaves nothing behind, and the next one tells again; three times at most."""
    agent.does("sleep 60 & echo $! >>" + str(agent.rig.folder / "pids") + "; wait")
    pids = agent.rig.folder / "pids"
    for number in range(1, 5):
        agent.rig.sync()
        agent.agent_notifier.arrived(agent.rig.cycle.target, agent.rig.cycle.provider.acquired_sandbox)
        if number <= 3:
            while len(pids.read_text().split() if pids.exists() else []) < number:
                agent.agent_notifier.poll()
        agent.restart()
    assert len(agent.runs()) == 3
    assert "was interrupted each time; it is not run again" in agent.warnings()
    assert all(_ends(int(pid)) for pid in pids.read_text().split())


@pytest.mark.parametrize("deaf", ["", "trap '' TERM; "])
def test_one_that_hangs_is_ended(agent: Agent, monkeypatch: pytest.MonkeyPatch, deaf: str) -> None:
    """With what it started, whether or not it hears SIGTERM."""
    monkeypatch.setattr(hook, "TIMEOUT_S", 0.3)
    monkeypatch.setattr(hook, "GRACE_S", 0.2)
    pid = agent.rig.folder / "pid"
    agent.does(f'{deaf}sleep 60 & echo $! >"{pid}"; while :; do wait; sleep 1; done')
    agent.sync()
    assert "took longer" in agent.warnings()
    assert _ends(int(pid.read_text()))


def test_what_it_says_is_logged(agent: Agent, caplog: pytest.LogCaptureFixture) -> None:
    """Line by line, without a server's URL, and no more than a person wants to read."""
    caplog.set_level("INFO", "syncd.hook")
    agent.does('echo "$SYNCD_MCP_SERVERS"; printf "\\033[31mred\\n"; printf "no end"; echo "loud" >&2')
    agent.sync()
    said = [record.getMessage() for record in caplog.records]
    assert "/mcp/" not in "\n".join(said)
    assert any("[URL of git]" in line for line in said)
    assert "on_sandbox_change: \\x1b[31mred" in said
    assert "on_sandbox_change: no endloud" in said
    caplog.clear()
    agent.does("head -c 3000000 /dev/zero | tr '\\0' x | fold -w 1000")
    agent.rig.clock.go_on(7200)
    agent.sync()
    assert len(caplog.records) == 101
    assert agent.warnings() == ""


def test_one_started_in_the_background_stays(agent: Agent, caplog: pytest.LogCaptureFixture) -> None:
    """A hook may start an agent and end: that is what it is for."""
    caplog.set_level("INFO", "syncd.hook")
    pid = agent.rig.folder / "pid"
    agent.does(f'printf started; sleep 60 & echo $! >"{pid}"')
    agent.sync()
    assert "on_sandbox_change: started" in caplog.messages
    number = int(pid.read_text())
    assert _alive(number)
    os.kill(number, 9)


def test_a_persons_file_is_left_alone(agent: Agent) -> None:
    """One that was there, and one that was edited since; its own it knows, also after a restart."""
    agent.mcp_file.write_text("mine")
    agent.sync()
    assert agent.mcp_file.read_text() == "mine"
    assert "syncd did not write" in agent.warnings()
    assert agent.runs()[0]["SYNCD_MCP_FILE"] == ""
    agent.mcp_file.unlink()
    agent.sync()
    first = agent.mcp_file.read_text()
    agent.restart()
    agent.rig.clock.go_on(7200)
    agent.sync()
    assert agent.mcp_file.read_text() != first
    assert agent.warnings() == ""
    agent.mcp_file.write_text(first + " ")
    agent.rig.clock.go_on(7200)
    agent.sync()
    assert agent.mcp_file.read_text() == first + " "


@pytest.mark.parametrize("kind", ["link", "folder", "fifo", "no parent"])
def test_what_is_no_file_is_left_alone(agent: Agent, kind: str) -> None:
    """It costs a warning, not the sync, and nothing is written anywhere else."""
    path = agent.mcp_file
    match kind:
        case "link":
            path.symlink_to(agent.rig.folder / "elsewhere")
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case _:
            agent.rig.keys["sandbox"]["mcp_file"] = str(agent.rig.folder / "none" / "agent.json")
    agent.rig.sync()
    before = set(agent.rig.folder.iterdir())
    agent.sync()
    assert "cannot be written" in agent.warnings()
    assert set(agent.rig.folder.iterdir()) - before == {agent.notes}
    assert not (agent.rig.folder / "elsewhere").exists()


def test_damaged_notes_tell_once_more(agent: Agent) -> None:
    """Rather than never."""
    agent.sync()
    (note,) = (agent.rig.folder / "state").rglob("agent")
    note.write_bytes(b"rubbish")
    agent.restart()
    agent.sync()
    assert len(agent.runs()) == 2
    assert agent.warnings() == ""


def _ends(pid: int) -> bool:
    """Whether it ends: what was killed takes a moment to die on a busy machine."""
    clock = SystemClock()
    ends_s = clock.monotonic_s() + 20
    while _alive(pid) and clock.monotonic_s() < ends_s:
        clock.sleep(0.01)
    return not _alive(pid)


def _alive(pid: int) -> bool:
    """Whether it runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
