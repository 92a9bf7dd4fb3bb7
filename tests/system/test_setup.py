"""A sandbox is set up before the agent starts: `sandbox.setup`, `syncd setup`, and who waits for it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.system.rig import DEFAULTS, SANDBOX, Rig

ONCE, TWICE = "be", "bebe"


class There:
    """A workspace with a set-up, whose begins and ends are noted beside the workspace there, as b and e.

    It ends only once there is the file `go` beside it, if it is `held`.
    """

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.beside = rig.sandbox.folder
        for path in ("app.py", "deps.lock", "notes"):
            rig.write(path, f"{path}\n")

    def configure(self, script: str = ":", held: bool = False, **keys: object) -> None:
        wait = "until [ -e ../go ]; do sleep 0.05; done" if held else ":"
        command = ["sh", "-c", f"echo b >>../ran; {wait}; ({script}); code=$?; echo e >>../ran; exit $code"]
        own = {f"sandbox.{name}": value for name, value in keys.items()}
        self.rig.configure({**DEFAULTS, "sandbox.setup": command, "sandbox.setup_files": ["*.lock"], **own})

    def begun(self, script: str = ":", **keys: object) -> None:
        """Start a daemon, and wait until it runs a set-up that is held."""
        self.configure(script, held=True, **keys)
        self.rig.up()
        self.until_ran("b")

    @property
    def ran(self) -> str:
        return self.text("ran").replace("\n", "")

    def text(self, name: str) -> str:
        """Return what a set-up wrote beside the workspace there; empty if there is nothing."""
        path = self.beside / name
        return path.read_text() if path.exists() else ""

    def until_ran(self, ran: str) -> None:
        self.rig.until(lambda: self.ran == ran, f"it to have run as {ran}, not {self.ran}")

    def go(self) -> None:
        (self.beside / "go").touch()

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.rig.status()["setup"]
        return status

    def until_state(self, state: str) -> dict[str, Any]:
        self.rig.until(lambda: self.rig.shown().get("setup", {}).get("state") == state, f"the set-up to be {state}")
        return self.status()


@pytest.fixture
def there(rig: Rig) -> There:
    return There(rig)


# -- when it runs


def test_when_it_runs(rig: Rig, there: There) -> None:
    """After the first sync, in the workspace with all files; then after each sync that changed or removed one
    of setup_files, not for another file, a touch or a restart.
    """
    there.configure("pwd >../where; ls >../names; echo $AGENT_WORKSPACE >../variable; cat *.lock >>../locks")
    rig.up()
    rig.ok("flush")
    assert there.text("where") == there.text("variable") == f"{rig.sandbox.workspace}\n"
    assert there.text("names") == "app.py\ndeps.lock\nnotes\n"
    for path in ("notes", "deps.lock.txt"):
        rig.write(path, "edit\n")
        rig.ok("flush")
    rig.restart()
    rig.ok("flush")
    assert there.ran == ONCE
    for _ in range(2):
        rig.write("deps.lock", "second\n")
        rig.ok("flush")
    assert (there.ran, there.text("locks")) == (TWICE, "deps.lock\nsecond\n")
    (rig.workspace / "deps.lock").unlink()
    rig.ok("flush", "--no-setup")
    there.until_ran(TWICE + ONCE)


def test_it_runs_after_the_agents_version_gave_way(rig: Rig, there: There) -> None:
    """Where `push --force` has put ours in its place, of one of setup_files; what was missing there is only filled."""
    there.configure()
    rig.ok("push")
    rig.agent.write("notes", "the agent's\n")
    rig.ok("push", "--force")
    assert there.ran == ONCE
    rig.agent.write("deps.lock", "the agent's\n")
    rig.ok("push")
    assert there.ran == ONCE
    rig.ok("push", "--force")
    assert there.ran == TWICE
    rig.agent.delete("deps.lock")
    rig.ok("push", "--force")
    assert there.ran == TWICE


def test_it_delays_no_sync(rig: Rig, there: There) -> None:
    """Edits arrive while it runs; a flush that gives up says what it waited for; all changes of its files meanwhile are
    one more run.
    """
    there.begun()

    def tells_it() -> bool:
        gave_up = rig.run("flush", "--timeout", "1")
        assert gave_up.code == 75
        return "(setting up: sh -c" in gave_up.told  # a busy machine may not come so far in a second

    rig.until(tells_it, "a flush that waits for the set-up")
    for content in ("1\n", "2\n", "3\n"):
        rig.write("deps.lock", content)
        rig.ok("flush", "--no-setup")
        assert (rig.sandbox.workspace / "deps.lock").read_text() == content
    assert there.ran == "b"
    there.go()
    rig.ok("flush")
    assert there.ran == TWICE


@pytest.mark.parametrize(
    "how", ["emptied", "emptied before an edit", "moved", "released", "configured later", "another command"]
)
def test_it_runs_anew(rig: Rig, there: There, how: str) -> None:
    """In a sandbox that was emptied or is another one, and where another set-up is configured."""
    if how == "configured later":
        rig.configure(DEFAULTS)
        rig.ok("push")
    there.configure()
    if how == "emptied before an edit":  # a whole archive fills it anyway
        rig.config_file.write_text(rig.config_file.read_text().replace('"auto"', '"full"'))
    if how != "configured later":
        rig.ok("push")
        assert there.ran == ONCE
    (there.beside / "ran").unlink(missing_ok=True)
    if how == "emptied":
        rig.sandbox.reset()
    elif how == "emptied before an edit":
        rig.sandbox.reset()
        rig.write("notes", "edit\n")
    elif how == "released":
        rig.ok("sandbox", "release", "--yes", SANDBOX)
        rig.emulator.create_sandbox(SANDBOX)
    elif how == "another command":
        there.configure("true")
    elif how == "moved":
        other = rig.emulator.create_sandbox("other")
        there.configure(id="other")
        rig.ok("push")
        assert (other.folder / "ran").read_text() == "b\ne\n"
        assert there.ran == ""
        there.configure()
    rig.ok("push")
    assert there.ran == ONCE


def test_one_that_is_emptied_beside_the_daemon(rig: Rig, there: There) -> None:
    """It is filled and set up again, though only the look that follows the agent notices that."""
    there.configure(follow_seconds=5)
    rig.up()
    rig.ok("flush")
    (there.beside / "ran").unlink()
    rig.sandbox.reset()
    there.until_ran(ONCE)


# -- who waits


@pytest.mark.parametrize("command", ["push", "flush"])
@pytest.mark.parametrize("daemon", [True, False])
def test_commands_wait_for_it(rig: Rig, there: There, command: str, daemon: bool) -> None:
    """`push` and `flush` end when it has ended, with and without a daemon; with `--no-setup` they do not wait."""
    there.configure(held=daemon)
    if daemon:
        rig.start()
    rig.ok(command, "--no-setup")
    if daemon:
        there.until_ran("b")
        waiting = rig.background(command)
        rig.until(lambda: rig.count("execution-logs") > 3, "looks at it")
        assert waiting.code is None
        there.go()
        assert waiting.wait() == 0
    else:
        assert there.ran == ""
        assert there.status()["state"] == "none"
        rig.ok(command)
    assert there.ran == ONCE
    assert there.status()["state"] == "done"


# -- how it fails


def test_it_fails(rig: Rig, there: There) -> None:
    """The commands end with 75 and its last lines, again and again; syncing goes on; its files run it anew."""
    there.configure("echo first; echo last-line >&2; grep -q good deps.lock || exit 3")
    rig.up()
    for command in ("flush", "flush", "push"):
        failed = rig.run(command)
        assert failed.code == 75
        assert re.search(
            r"first\nlast-line\n.*set-up of the sandbox \(sh -c .*\) ended with 3: `syncd setup`", failed.err
        )
    assert there.ran == ONCE
    status = there.status()
    assert (status["state"], status["exit_code"], status["why"]) == ("failed", 3, "ended with 3")
    assert "ended with 3" in rig.ok("status").out
    rig.write("notes", "edit\n")
    assert rig.run("flush").code == 75
    rig.converged()
    rig.restart()
    assert rig.run("flush").code == 75
    assert there.ran == ONCE
    rig.write("deps.lock", "good\n")
    rig.ok("flush")
    assert there.ran == TWICE
    assert there.status()["exit_code"] == 0
    assert rig.status()["warnings"] == []


@pytest.mark.parametrize("seen", ["by a flush", "by a look that follows", "while it runs"])
def test_it_removes_what_was_sent(rig: Rig, there: There, seen: str) -> None:
    """What was sent comes again, once; it is named, and not run again before it is corrected or asked for."""
    waits = "; until [ -e ../end ]; do sleep 0.05; done" if seen == "while it runs" else ""
    there.configure(f"rm -rf ./*{waits}", held=True, follow_seconds=5 if seen == "by a look that follows" else 0)
    rig.up()
    sent = rig.sandbox.workspace / "app.py"
    rig.ok("flush", "--no-setup")
    there.go()
    if seen == "by a look that follows":
        there.until_state("failed")
        rig.until(sent.exists, "what was sent to be there again")
    if seen == "while it runs":
        rig.until(lambda: not sent.exists(), "what was sent to be gone")
        rig.ok("flush", "--no-setup")
        assert sent.exists()
        (there.beside / "end").touch()
    for _ in range(3):
        failed = rig.run("flush")
        assert failed.code == 75
        assert "removed nearly all that was sent: it is not run again before you correct it" in failed.err
    assert (there.ran, sent.exists()) == (ONCE, True)
    rig.restart()
    rig.sandbox.reset()
    assert (rig.run("flush").code, sent.exists(), there.ran) == (75, True, ONCE)
    assert rig.run("setup").code == 1
    assert there.ran == TWICE
    there.configure()
    rig.ok("reload")
    rig.ok("flush")
    assert (there.ran, sent.exists(), rig.status()["warnings"]) == (ONCE * 3, True, [])


def test_the_service_ends_it(rig: Rig, there: There) -> None:
    """An execution that ends without a report was ended by the service, which is told with the seconds."""
    there.begun()
    for execution in [*rig.sandbox._executions.values()]:
        execution.kill()
    status = there.until_state("failed")
    assert re.fullmatch(r"was ended by the service after \d+ s", status["why"])
    assert status["exit_code"] is None
    assert rig.run("flush").code == 75


def test_it_cannot_be_run(rig: Rig, there: There) -> None:
    """Where no program runs, the sync arrives and the commands end with 75; it is run as soon as that is possible."""
    there.configure(agent_changes="overwrite", deletions="keep")
    rig.faults("execute: 501 always")
    rig.up()
    assert rig.run("flush").code == 75
    rig.converged()
    assert "could not be run" in there.until_state("failed")["why"]
    assert rig.run("setup").code == 75
    rig.emulator.faults.clear()
    rig.ok("flush")
    assert there.ran == ONCE


# -- by hand


@pytest.mark.parametrize("daemon", [True, False])
def test_by_hand(rig: Rig, there: There, daemon: bool) -> None:
    """`syncd setup` runs it now, shows its output as it comes, and ends with 0 or 1; what it did is not done again."""
    there.configure("echo out; echo err >&2; cat deps.lock; [ -e ../good ]", held=True)
    there.go()
    if daemon:
        rig.up()
    assert rig.run("push").code == 75
    (there.beside / "go").unlink()
    by_hand = rig.background("setup")
    there.until_ran(ONCE + "b")
    there.go()
    assert by_hand.wait() == 1
    assert by_hand.out == "out\nerr\ndeps.lock\n"
    assert "ended with 1" in by_hand.err
    (there.beside / "good").touch()
    rig.ok("setup")
    rig.ok("push")
    assert there.ran == ONCE * 3
    assert there.status()["state"] == "done"


def test_its_output(rig: Rig, there: There) -> None:
    """The first line is there before the last, and nothing that a terminal obeys, and no signature of a URL. Of more
    than it shows, begin and end are shown, whatever its bytes are, and it counts as what it ended with.
    """
    there.configure("true")
    rig.up()
    rig.ok("flush")
    wait = "until [ -e ../more ]; do sleep 0.05; done"
    there.configure(rf"printf '\033[31mred\033[0m\a\n'; {wait}; seq -f 'line %g' 30000")
    rig.ok("reload")
    shown = rig.background("setup")
    rig.until(lambda: shown.out == "red\\x07\n", "the first line")
    (there.beside / "more").touch()
    assert shown.wait() == 0
    assert shown.out.splitlines()[1:] == [f"line {number}" for number in range(1, 30001)]
    there.configure(r"echo https://x/?X-Goog-Signature=a; tr '\0' '\1' </dev/zero | head -c 3000000; printf '\nlast\n'")
    rig.ok("reload")
    lines = rig.ok("setup").out.splitlines()
    assert (lines[0], lines[-1]) == ("https://x/", "last")
    assert any(re.fullmatch(r"\[\d+ bytes are left out\]", line) for line in lines)
    assert there.status()["state"] == "done"


def test_without_a_daemon_it_makes_nothing_pending(rig: Rig, there: There) -> None:
    """`syncd setup` by itself leaves what is known of the changes here as it was."""
    there.configure()
    rig.ok("push")
    rig.ok("setup")
    assert rig.status()["pending"] is False
    rig.write("notes", "edit\n")
    rig.faults("initialize: 422")
    assert rig.run("push").code != 0
    rig.ok("setup")
    assert rig.status()["pending"] is True


@pytest.mark.parametrize("daemon", [True, False])
def test_an_outage_meanwhile(rig: Rig, there: There, daemon: bool) -> None:
    """Who waits for it is told, once, that nobody can ask how far it is; its end is told all the same."""
    there.configure("echo last", held=True)
    if daemon:
        rig.up()
    waiting = rig.background("push")
    rig.until(lambda: "setting up" in waiting.err and there.ran, "the push to wait for it")
    rig.faults("execution-logs: 503 x2")
    rig.until(lambda: rig.count("execution-logs", 503) == 2, "looks that fail")
    there.go()
    assert waiting.wait() == 0
    told = re.findall("cannot ask how far the set-up is .*503.*; attempt 2 in [1-9] s\nsetting up: sh -c", waiting.err)
    assert len(told) == 1, waiting.err
    if daemon:
        assert rig.daemons[0].err.count("cannot ask how far the set-up is") == 1


def test_by_hand_while_it_runs(rig: Rig, there: There) -> None:
    """It waits for the one that is running, and runs it once more."""
    there.begun()
    by_hand = rig.background("setup")
    flush = rig.background("flush")
    rig.until(lambda: flush.code is None and rig.count("execution-logs") > 4, "both to wait")
    assert there.ran == "b"
    there.go()
    assert (by_hand.wait(), flush.wait()) == (0, 0)
    assert there.ran == TWICE


@pytest.mark.parametrize("daemon", [True, False])
def test_by_hand_where_it_cannot_be(rig: Rig, there: There, daemon: bool) -> None:
    """Without a set-up it ends with 78, and before anything was sent with 75; each says what to do."""
    rig.configure(DEFAULTS)
    if daemon:
        rig.up()
        there.configure()
        told = rig.run("setup")  # the daemon still has the old configuration
        assert (told.code, "reload" in told.told) == (78, True)
        rig.configure(DEFAULTS)
    told = rig.run("setup")
    assert told.code == 78
    assert "sandbox.setup" in told.told
    rig.ok("flush")
    assert there.status() == {"state": "none", "at": None, "exit_code": None, "seconds": None, "command": "", "why": ""}
    if not daemon:
        there.configure(id=rig.emulator.create_sandbox("empty").id)
        told = rig.run("setup")
        assert (told.code, "`syncd push`" in told.told) == (75, True)


# -- what is told


def test_what_status_tells(rig: Rig, there: There) -> None:
    """What is running, and for how long; then when it ended, and how long it took."""
    there.configure(held=True)
    rig.up()
    running = there.until_state("running")
    assert re.search(r"set-up +setting up: sh -c .*, \d:\d\d", " ".join(rig.ok("status").out.split("\n")))
    assert (running["exit_code"], running["seconds"]) == (None, None)
    assert running["command"].startswith("sh -c")
    there.go()
    done = there.until_state("done")
    assert done["exit_code"] == 0
    assert done["seconds"] >= 0
    assert done["at"] == running["at"]
    assert rig.status()["sandboxes"][0]["setup"] == done
    assert re.search(r"set-up +sh -c", rig.ok("status").out)


# -- several


def test_each_of_several(rig: Rig, there: There) -> None:
    """Each sandbox has its own, none waits for another, and each is named."""
    other = rig.emulator.create_sandbox("other")
    there.configure()
    fails = ["sh", "-c", "echo b >>../ran; until [ -e ../go ]; do sleep 0.05; done; echo why; exit 9"]
    config = rig.config_file.read_text()
    rig.config_file.write_text(f'{config}sandboxes.blue.id = "other"\nsandboxes.blue.setup = {json.dumps(fails)}\n')
    daemon = rig.up()
    rig.ok("flush", "--sandbox", "main")
    assert there.ran == ONCE
    assert rig.run("setup").code == 2
    rig.ok("setup", "--sandbox", "main")
    assert there.ran == TWICE
    (other.folder / "go").touch()
    failed = rig.run("flush")
    assert failed.code == 75
    assert "why\n" in failed.err
    assert re.search(r"blue: the set-up .* ended with 9: `syncd setup --sandbox blue`", failed.err)
    assert [each["setup"]["state"] for each in rig.status()["sandboxes"]] == ["done", "failed"]
    assert rig.run("setup", "--sandbox", "blue").code == 1
    for line in ("blue: setting up", "blue: the set-up ended with 9", "blue: set-up: why"):
        assert line in daemon.err
    for _ in ("the daemon's answer", "without one"):
        assert "9: `syncd setup --sandbox blue` runs" in rig.run("flush", "--sandbox", "blue").told
        rig.kill()
    assert there.ran == TWICE


def test_one_without_a_key(rig: Rig, there: There) -> None:
    """By hand it ends as a push does: what is missing is the key, of which its status says no failed set-up."""
    rig.emulator.create_sandbox("other")
    there.configure()
    config = rig.config_file.read_text()
    rig.config_file.write_text(f'{config}sandboxes.blue.id = "other"\n')
    rig.ok("push")
    rig.config_file.write_text(f'{rig.config_file.read_text()}sandboxes.blue.api_key_file = "{rig.home}/missing"\n')
    rig.start()
    rig.in_state("held")
    failed = rig.run("setup", "--sandbox", "blue")
    assert (failed.code, "no API key" in failed.err) == (78, True), failed
    assert [each["setup"]["state"] for each in rig.status()["sandboxes"]] == ["done", "done"]


# -- what dies


@pytest.mark.parametrize("then", ["run", "push", "setup"])
def test_what_dies_meanwhile(rig: Rig, there: There, then: str) -> None:
    """After a kill -9 in its middle it is told as running no more, and run anew, once the first one has ended there:
    never two at a time.
    """
    there.begun("cat deps.lock >../last")
    there.until_state("running")
    rig.kill()
    assert there.status()["state"] == "none"
    executed = rig.count("execute", 200)
    again = rig.background(then)
    rig.until(lambda: rig.count("execute", 200) > executed, "the next one")
    assert there.ran == "b"
    there.go()
    if then == "run":
        rig.ok("flush")
    else:
        assert again.wait() == 0
    assert there.ran == TWICE
    assert there.text("last") == "deps.lock\n"
    assert there.status()["state"] == "done"


def test_processes_that_die_one_after_the_other(rig: Rig, there: There) -> None:
    """What they asked for behind the run under way is not run once nobody waits for it: a flush ends after the last."""
    there.begun()
    for _ in range(3):
        rig.kill()
        executed = rig.count("execute", 200)
        rig.background("run")
        rig.until(lambda executed=executed: rig.count("execute", 200) > executed + 1, "the next one")  # type: ignore[misc]
    there.go()
    rig.ok("flush")
    assert there.ran == TWICE
    rig.sandbox.wait()
    assert there.ran == TWICE


def test_a_reload_meanwhile(rig: Rig, there: There) -> None:
    """A reload in its middle leaves it to the daemon after that, and who waits for it waits on, however long it takes:
    no command goes on by itself in the daemon's place.
    """
    asked, hold = rig.with_slow_git()
    there.begun()
    del rig.environ["PATH"]
    push = rig.background("push")
    rig.until(lambda: "setting up" in push.err, "the push to wait")
    asked.unlink()
    hold.touch()
    there.configure(held=True, setup_timeout_seconds=100)
    reload = rig.background("reload")
    rig.until(asked.exists, "the daemon to read its configuration")
    hold.unlink()
    assert reload.wait() == 0
    there.until_state("running")
    assert rig.shown()["pid"] == rig.daemons[0].pid
    there.go()
    assert push.wait() == 0
    assert there.ran == TWICE


def test_a_sandbox_that_is_removed_meanwhile(rig: Rig, there: There) -> None:
    """Who waits for its set-up is told that it is configured no more, and where to see which are.

    It waits for the daemon, which has read its configuration anew before `sandbox add` ends.
    """
    blue = rig.emulator.create_sandbox("box-blue")
    there.begun()
    rig.ok("sandbox", "add", "blue", "--id", "box-blue")
    push = rig.background("push", "--sandbox", "blue")
    rig.until(lambda: "setting up" in push.err, "the push to wait")
    rig.ok("sandbox", "remove", "blue", "--yes")
    assert push.wait() == 78
    assert "no sandbox here is named 'blue': `syncd status`" in push.err
    for folder in (there.beside, blue.folder):
        (folder / "go").touch()


def test_a_sandbox_that_ends_meanwhile(rig: Rig, there: There) -> None:
    """Who waits for its set-up is answered where no other one can be acquired."""
    rig.configure({"sandbox.acquire.servers": ["git"], "sandbox.setup": ["sleep", "600"]})
    rig.up()
    push = rig.background("push")
    rig.until(lambda: "setting up" in push.err, "the push to wait")
    rig.faults("acquire: 402 always", "execution-logs: delay 100 always", "initialize: gone")
    rig.write("notes", "edit\n")
    assert push.wait() == 78
    assert "the account pays for no further sandbox" in push.err


def test_an_interrupted_push(rig: Rig, there: There) -> None:
    """It says what may go on there; the next one runs it anew."""
    there.configure(held=True)
    push = rig.background("push")
    there.until_ran("b")
    assert push.stop() == 75
    assert "stopped while setting up" in push.err
    there.go()
    rig.ok("push")
    assert there.ran.endswith(ONCE)
    assert "bb" not in there.ran


# -- what it makes


def test_what_it_makes_is_the_agents_side(rig: Rig, there: There) -> None:
    """What the rules exclude stays there; a lock file that it rewrote is a change, which runs nothing once at home."""
    rig.write(".gitignore", "modules/\n")
    there.configure("mkdir -p modules; echo x >modules/x; echo rewritten >>deps.lock; echo new >made")
    rig.up()
    rig.ok("flush")
    shown = rig.run("diff", "--name-only")
    assert (shown.code, shown.out) == (1, "deps.lock\nmade\n")
    rig.write("notes", "edit\n")
    rig.ok("flush")
    agent = rig.agent
    assert agent.read("deps.lock") == b"deps.lock\nrewritten\n"
    rig.ok("apply", "--yes")
    rig.ok("flush")
    rig.restart()
    rig.ok("flush")
    assert (rig.workspace / "deps.lock").read_text() == "deps.lock\nrewritten\n"
    assert not (rig.workspace / "modules").exists()
    assert agent.read("modules/x") == b"x\n"
    assert there.ran == ONCE
