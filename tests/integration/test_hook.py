"""The agent is notified of its sandbox: by a file with the MCP servers, and by the user's hook once a sandbox."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncd.core import hook
from syncd.core.clock import SystemClock
from syncd.core.hook import wait_for_hooks
from syncd.core.interrupt import Interrupt
from syncd.core.settings import check_config
from syncd.daemon.build import RuntimeContext, folders_of
from syncd.daemon.hooks import Hooks
from syncd.sandbox import agent_notifier
from syncd.sandbox.agent_notifier import AgentNotifier, agent_notifier_of
from tests.integration.sync_rig import Rig, rigged


class HookScript:
    """A hook script that records its environment and ends as set up."""

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
        """Let the script do this after it has recorded its run."""
        self.script.write_text(f'#!/bin/sh\n{{ echo "run $1"; env; }} >>"{self.notes}"\n{what}\n')
        self.script.chmod(0o755)

    @property
    def agent_notifier(self) -> AgentNotifier:
        """Return the notifier of the present process, in real time, as programs need."""
        if self._agent_notifier is None:
            config = check_config(self.rig.keys)
            context = RuntimeContext(SystemClock(), self.environ, Interrupt())
            folders = folders_of(config, self.rig.environ)
            client = self.rig.client
            hooks = Hooks(context)
            hooks.configure(config, folders)
            self._agent_notifier = agent_notifier_of(
                config, folders, hooks.on_sandbox_change, key=self.rig.key, context=context, client=client
            )
        return self._agent_notifier

    def sync(self) -> None:
        """Sync once, and notify."""
        self.rig.sync()
        self.agent_notifier.arrived(self.rig.cycle.target, self.rig.cycle.provider.acquired_sandbox)
        wait_for_hooks([self.agent_notifier], SystemClock(), Interrupt())

    def restart(self) -> None:
        """End the process, and begin another one."""
        self.agent_notifier.hook.terminate()
        self._agent_notifier = None
        self.rig.restart()

    def runs(self) -> list[dict[str, str]]:
        """Return what each run of the script recorded."""
        text = self.notes.read_text() if self.notes.exists() else ""
        return [dict(line.partition("=")[::2] for line in run.splitlines()) for run in text.split("run a b\n")[1:]]

    def warnings(self) -> str:
        """Return the warnings in `status`."""
        return "\n".join(map(str, self.agent_notifier.warnings))


@pytest.fixture
def hook_script(tmp_path: Path) -> Iterator[HookScript]:
    with rigged(tmp_path) as rig:
        del rig.keys["sandbox"]["id"]
        rig.keys["sandbox"]["acquire"] = {"servers": ["filesystem", "git"]}
        rig.write("a", "1")
        hook_script = HookScript(rig)
        yield hook_script
        hook_script.agent_notifier.hook.terminate()


def here(hook_script: HookScript) -> str:
    """Return the id of the present sandbox."""
    target = hook_script.rig.cycle.target
    return target.sandbox_id if target else ""


def test_the_hook_runs_once_for_each_sandbox(hook_script: HookScript) -> None:
    """It runs after the workspace is there, not at each sync, and not again in the next process."""
    hook_script.does(f'test -e "{hook_script.rig.emulator.data_dir}/sandboxes/$SYNCD_SANDBOX_ID/workspace/a" || exit 9')
    hook_script.sync()
    first = here(hook_script)
    hook_script.rig.write("a", "2")
    hook_script.sync()
    hook_script.restart()
    hook_script.sync()
    assert [run["SYNCD_SANDBOX_ID"] for run in hook_script.runs()] == [first]
    hook_script.rig.clock.go_on(7200)
    hook_script.sync()
    assert [run["SYNCD_SANDBOX_ID"] for run in hook_script.runs()] == [first, here(hook_script)]
    assert hook_script.warnings() == ""


def test_the_hooks_environment(hook_script: HookScript) -> None:
    """It has id, expiry, workspace and servers, but neither the key nor the daemon's own variables."""
    hook_script.environ |= {"NOTIFY_SOCKET": "@x", "CREDENTIALS_DIRECTORY": "/run/x"}
    hook_script.sync()
    (found,) = hook_script.runs()
    urls = {
        name: f"{hook_script.rig.emulator.base_url}/mcp/{here(hook_script)}/{name}" for name in ("filesystem", "git")
    }
    assert json.loads(found["SYNCD_MCP_SERVERS"]) == urls
    assert found["SYNCD_SANDBOX_EXPIRES_AT"] == "2026-11-24T15:20:11Z"
    assert (found["SYNCD_WORKSPACE"], found["HERE"]) == (str(hook_script.rig.workspace), "yes")
    assert found["SYNCD_MCP_FILE"] == str(hook_script.mcp_file)
    assert found["PWD"] == os.path.expanduser("~")
    assert not {"KLAVIS_API_KEY", "NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY"} & set(found)
    entries = {name: {"type": "http", "url": url} for name, url in urls.items()}
    assert json.loads(hook_script.mcp_file.read_text()) == {"mcpServers": entries}
    assert stat.S_IMODE(hook_script.mcp_file.stat().st_mode) == 0o600


def test_a_named_sandbox_is_asked_for_its_servers(hook_script: HookScript) -> None:
    """They are requested once a process, after the first sync; if that fails the hook runs without them in the end."""
    sandbox = hook_script.rig.keys["sandbox"]
    del sandbox["acquire"]
    hook_script.rig.emulator.create_sandbox("other", ["terminal"])
    sandbox["id"] = "other"
    hook_script.rig.emulator.faults.script("get: 500 x2")
    for number in (1, 2):
        hook_script.sync()
        assert hook_script.runs() == []
        assert "did not name" in hook_script.warnings(), number
    hook_script.sync()
    hook_script.sync()
    assert [json.loads(run["SYNCD_MCP_SERVERS"]) for run in hook_script.runs()] == [
        {"terminal": f"{hook_script.rig.emulator.base_url}/mcp/other/terminal"}
    ]
    assert hook_script.rig.asked().count("get") == 3
    assert hook_script.warnings() == ""


def test_unknown_servers_delay_nothing_for_long(hook_script: HookScript) -> None:
    """After three failed requests the hook runs without them; the file is not written."""
    sandbox = hook_script.rig.keys["sandbox"]
    del sandbox["acquire"]
    sandbox["id"] = "box"
    hook_script.rig.emulator.faults.script("get: 500 always")
    for _ in range(5):
        hook_script.sync()
    assert [run["SYNCD_MCP_SERVERS"] for run in hook_script.runs()] == ["{}"]
    assert not hook_script.mcp_file.exists()


def test_one_that_fails_is_run_three_times(hook_script: HookScript) -> None:
    """It runs at the next syncs, over restarts; the warning stays until it succeeds for another sandbox."""
    hook_script.does("exit 3")
    for number in range(5):
        hook_script.sync()
        assert "ended with 3" in hook_script.warnings()
        if number % 2:
            hook_script.restart()
            assert "ended with 3" in hook_script.warnings()
    assert len(hook_script.runs()) == 3
    assert "not run again" in hook_script.warnings()
    hook_script.does("")
    hook_script.rig.clock.go_on(7200)
    hook_script.sync()
    assert len(hook_script.runs()) == 4
    assert hook_script.warnings() == ""


def test_a_changed_hook_is_run_again(hook_script: HookScript) -> None:
    """Another command than the failed one starts afresh."""
    hook_script.rig.keys["sandbox"]["on_sandbox_change"] = ["/nowhere/at-all"]
    for _ in range(4):
        hook_script.sync()
    assert "cannot be started (No such file or directory)" in hook_script.warnings()
    hook_script.rig.keys["sandbox"]["on_sandbox_change"] = [str(hook_script.script), "a b"]
    hook_script.restart()
    assert hook_script.warnings() == ""
    hook_script.sync()
    assert len(hook_script.runs()) == 1


def test_an_interrupted_hook_is_run_again(hook_script: HookScript) -> None:
    """A process that ends leaves nothing running, and the next one runs it again, three times at most."""
    hook_script.does("sleep 60 & echo $! >>" + str(hook_script.rig.folder / "pids") + "; wait")
    pids = hook_script.rig.folder / "pids"
    for number in range(1, 5):
        hook_script.rig.sync()
        hook_script.agent_notifier.arrived(
            hook_script.rig.cycle.target, hook_script.rig.cycle.provider.acquired_sandbox
        )
        if number <= 3:
            while len(pids.read_text().split() if pids.exists() else []) < number:
                hook_script.agent_notifier.poll()
        hook_script.restart()
    assert len(hook_script.runs()) == 3
    assert "was interrupted each time; it is not run again" in hook_script.warnings()
    assert all(_ends(int(pid)) for pid in pids.read_text().split())


@pytest.mark.parametrize("deaf", ["", "trap '' TERM; "])
def test_a_hook_that_hangs_is_killed(hook_script: HookScript, monkeypatch: pytest.MonkeyPatch, deaf: str) -> None:
    """Its children are killed too, whether or not it handles SIGTERM."""
    monkeypatch.setattr(agent_notifier, "HOOK_TIMEOUT_S", 0.3)
    monkeypatch.setattr(hook, "GRACE_S", 0.2)
    pid = hook_script.rig.folder / "pid"
    hook_script.does(f'{deaf}sleep 60 & echo $! >"{pid}"; while :; do wait; sleep 1; done')
    hook_script.sync()
    assert "took longer" in hook_script.warnings()
    assert _ends(int(pid.read_text()))


def test_its_output_is_logged(hook_script: HookScript, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged line by line, without a server's URL, and bounded."""
    caplog.set_level("INFO", "syncd.hook")
    hook_script.does('echo "$SYNCD_MCP_SERVERS"; printf "\\033[31mred\\n"; printf "no end"; echo "loud" >&2')
    hook_script.sync()
    said = [record.getMessage() for record in caplog.records]
    assert "/mcp/" not in "\n".join(said)
    assert any("[URL of git]" in line for line in said)
    assert "on_sandbox_change: \\x1b[31mred" in said
    assert "on_sandbox_change: no endloud" in said
    caplog.clear()
    hook_script.does("head -c 3000000 /dev/zero | tr '\\0' x | fold -w 1000")
    hook_script.rig.clock.go_on(7200)
    hook_script.sync()
    assert len(caplog.records) == 101
    assert hook_script.warnings() == ""


def test_a_background_process_stays(hook_script: HookScript, caplog: pytest.LogCaptureFixture) -> None:
    """A hook may start an agent and end."""
    caplog.set_level("INFO", "syncd.hook")
    pid = hook_script.rig.folder / "pid"
    hook_script.does(f'printf started; sleep 60 & echo $! >"{pid}"')
    hook_script.sync()
    assert "on_sandbox_change: started" in caplog.messages
    number = int(pid.read_text())
    assert _alive(number)
    os.kill(number, 9)


def test_a_users_file_is_not_overwritten(hook_script: HookScript) -> None:
    """An existing file, or one edited since, stays; syncd recognises its own, also after a restart."""
    hook_script.mcp_file.write_text("mine")
    hook_script.sync()
    assert hook_script.mcp_file.read_text() == "mine"
    assert "syncd did not write" in hook_script.warnings()
    assert hook_script.runs()[0]["SYNCD_MCP_FILE"] == ""
    hook_script.mcp_file.unlink()
    hook_script.sync()
    first = hook_script.mcp_file.read_text()
    hook_script.restart()
    hook_script.rig.clock.go_on(7200)
    hook_script.sync()
    assert hook_script.mcp_file.read_text() != first
    assert hook_script.warnings() == ""
    hook_script.mcp_file.write_text(first + " ")
    hook_script.rig.clock.go_on(7200)
    hook_script.sync()
    assert hook_script.mcp_file.read_text() == first + " "


@pytest.mark.parametrize("kind", ["link", "folder", "fifo", "no parent"])
def test_another_kind_of_file_is_not_overwritten(hook_script: HookScript, kind: str) -> None:
    """It causes a warning, not a failure, and nothing is written elsewhere."""
    path = hook_script.mcp_file
    match kind:
        case "link":
            path.symlink_to(hook_script.rig.folder / "elsewhere")
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case _:
            hook_script.rig.keys["sandbox"]["mcp_file"] = str(hook_script.rig.folder / "none" / "agent.json")
    hook_script.rig.sync()
    before = set(hook_script.rig.folder.iterdir())
    hook_script.sync()
    assert "cannot be written" in hook_script.warnings()
    assert set(hook_script.rig.folder.iterdir()) - before == {hook_script.notes}
    assert not (hook_script.rig.folder / "elsewhere").exists()


def test_a_damaged_record_runs_the_hook_again(hook_script: HookScript) -> None:
    """It runs once more rather than never."""
    hook_script.sync()
    (note,) = (hook_script.rig.folder / "state").rglob("agent")
    note.write_bytes(b"rubbish")
    hook_script.restart()
    hook_script.sync()
    assert len(hook_script.runs()) == 2
    assert hook_script.warnings() == ""


def _ends(pid: int) -> bool:
    """True if it ends: a killed process takes a moment on a busy machine."""
    clock = SystemClock()
    ends_s = clock.monotonic_s() + 20
    while _alive(pid) and clock.monotonic_s() < ends_s:
        clock.sleep(0.01)
    return not _alive(pid)


def _alive(pid: int) -> bool:
    """True if it runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
