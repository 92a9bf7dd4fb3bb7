"""`syncd check`: everything that a sync needs is tested, each failure has a remedy, and nothing is changed."""

from __future__ import annotations

import json
import os
import re

import pytest

from tests.system.command import Finished
from tests.system.rig import KEY, Rig

_LINE = re.compile(r"^(pass|note|warn|fail)  (\w+)", re.MULTILINE)


def test_all_is_well(rig: Rig) -> None:
    """Without a failure it ends with 0, asks for the sandbox, and creates no file; a daemon's watches count once."""
    rig.fill(3)
    done = rig.ok("check")
    assert _found(done) == {
        "configuration": "pass",
        "key": "pass",
        "directory": "pass",
        "inotify": "pass",
        "folders": "pass",
        "api": "pass",
        "sandbox": "pass",
        "clock": "pass",
    }
    assert "3 files in 4 directories" in done.out
    assert "~/.config/syncd/api-key (mode 0600)" in done.out
    assert rig.emulator.request_log.ops() == ["get"]
    assert not (rig.home / ".local").exists()
    assert not (rig.home / ".cache").exists()
    assert "\x1b" not in done.out
    rig.up()
    assert set(_found(rig.ok("check")).values()) == {"pass"}


@pytest.mark.parametrize(("status", "code", "grade"), [(401, 78, "fail"), (404, 78, "fail"), (503, 75, "")])
def test_what_the_api_refuses(rig: Rig, status: int, code: int, grade: str) -> None:
    """A refusal needs a person (78); a busy server does not (75). The clock is compared in either case."""
    rig.write("a")
    rig.faults(f"get: {status}")
    done = rig.run("check")
    assert done.code == code, done
    assert _found(done).get("sandbox", "") == grade
    assert _found(done)["clock"] == "pass"
    assert "to do:" in done.out
    assert rig.count("get") == 1


def test_each_failure_is_shown(rig: Rig) -> None:
    """One failure does not hide the next; one that needs a person (78) outweighs one that may end by itself (75). A
    configuration that cannot be used is the only finding; a file in the place of the state folder is named.
    """
    rig.write("a")
    rig.configure({"sync.archive": "half"})
    done = rig.run("check")
    assert (done.code, _found(done)) == (78, {"configuration": "fail"})
    assert 'sync.archive = "half"' in done.out
    rig.configure()
    rig.environ["XDG_STATE_HOME"] = str(rig.key_file)
    done = rig.run("check")
    assert (done.code, _found(done)["folders"]) == (78, "fail")
    assert "~/.config/syncd/api-key is no writable folder)" in done.out
    assert "XDG_STATE_HOME" in done.out
    done = rig.run("history")
    assert (done.code, "see `syncd check`" in done.err) == (78, True)
    del rig.environ["XDG_STATE_HOME"]
    rig.emulator.close()
    done = rig.run("check")
    found = _found(done)
    assert (done.code, found["directory"], found["api"], found["clock"]) == (75, "pass", "fail", "note")
    (rig.workspace / "a").unlink()
    rig.workspace.rmdir()
    os.chmod(rig.key_file, 0o644)
    done = rig.run("check")
    os.chmod(rig.key_file, 0o600)
    found = _found(done)
    assert (done.code, found["key"], found["directory"], found["api"]) == (78, "fail", "fail", "note")
    assert "chmod 600 ~/.config/syncd/api-key" in done.out


def test_for_scripts(rig: Rig) -> None:
    """`--json` prints one document with every finding, with the exit code of the text; neither shows the key."""
    (rig.workspace / KEY).symlink_to("/etc")  # a warning names it
    shown = [rig.ok("check", *option).out for option in ((), ("--json",))]
    assert [("[key]" in each, KEY in each) for each in shown] == [(True, False), (True, False)]
    (rig.workspace / KEY).unlink()
    os.chmod(rig.key_file, 0o644)
    done = rig.run("check", "--json")
    os.chmod(rig.key_file, 0o600)
    document = json.loads(done.out)
    assert (done.code, document["exit_code"], document["version"]) == (78, 78, 1)
    found = {row["subject"]: row for row in document["findings"]}
    assert all(set(row) == {"subject", "grade", "what", "remedy"} for row in document["findings"])
    assert found["key"]["grade"] == "fail"
    assert found["key"]["remedy"].startswith("run `chmod 600 ")


def test_a_sandbox_that_is_acquired(rig: Rig) -> None:
    """Before the first sync the account is asked and nothing is acquired; after it, the time to live is shown."""
    rig.write("a")
    rig.configure({"sandbox.acquire.ttl_seconds": 3600})
    done = rig.ok("check")
    assert _found(done)["sandbox"] == "note"
    assert "the first sync acquires one" in done.out
    assert rig.emulator.request_log.ops() == ["list"]
    rig.ok("push")
    done = rig.ok("check")
    assert _found(done)["sandbox"] == "pass"
    assert re.search(r"; (59 min|1 h) more, and the next one is acquired", done.out)
    rig.faults("get: 404")
    assert "is gone: the next sync acquires another" in rig.ok("check").out


def test_what_is_a_warning(rig: Rig) -> None:
    """A link that leads outside, a key with quotes around it, and a configuration or a key folder that others may write
    to, each with its remedy, do not fail the check; a workspace without a file has its own.
    """
    os.symlink("/etc", rig.workspace / "out")
    os.chmod(rig.config_file, 0o620)
    os.chmod(rig.key_file.parent, 0o777)
    done = rig.ok("check")
    assert "'out' leads outside" in done.out
    assert re.search(r"warn  directory +0 files .*: nothing to send\n +to do: +run `syncd ls --excluded`", done.out)
    assert "chmod go-w ~/.config/syncd/config.toml\n" in done.out
    assert "chmod go-w ~/.config/syncd\n" in done.out
    rig.environ["KLAVIS_API_KEY"] = f'"{KEY}"'
    done = rig.run("check")
    assert re.search(r"warn  key +found in \$KLAVIS_API_KEY: quotes.*\n +to do: +leave nothing there", done.out)
    assert KEY not in done.out


@pytest.mark.parametrize("end", ["", "/x", "?x", "#x", "@x"])
def test_a_proxy(rig: Rig, end: str) -> None:
    """The one that requests go through is named, without its password, and one that is not used is not."""
    rig.write("a")
    rig.configure({"sandbox.base_url": "https://api.example"})
    rig.environ["https_proxy"] = f"http://me:hush{end}@127.0.0.1:9"
    done = rig.run("check")
    assert (done.code, _found(done)["api"]) == (75, "fail")
    assert "https://api.example through 127.0.0.1:9: " in done.out
    assert re.search(r"\n +to do: .*sandbox.base_url with `syncd config edit`\n", done.out)
    assert "hush" not in done.out
    rig.configure()
    rig.environ["http_proxy"] = rig.environ["https_proxy"]
    assert "through" not in rig.ok("check").out  # the API is on this machine


@pytest.mark.parametrize(("skew_s", "grade"), [(-86_400, "warn"), (30, "pass"), (600, "warn")])
def test_the_clock(rig: Rig, skew_s: int, grade: str) -> None:
    """One that is off by a minute or more is a warning, never a failure."""
    rig.write("a")
    rig.faults(f"any: skew {skew_s}")
    done = rig.ok("check")
    assert _found(done)["clock"] == grade
    assert ("timedatectl" in done.out) == (grade == "warn")


@pytest.mark.parametrize(("more", "colours"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_on_a_terminal(rig: Rig, more: dict[str, str], colours: bool) -> None:
    """Only the first word of a line has a colour, if any."""
    rig.fill(3)
    (rig.workspace / "out").symlink_to("/etc")
    with rig.terminal("check", **{"TERM": "xterm", **more}) as terminal:
        assert terminal.finish() == 0
    screen = terminal.written.decode()
    assert ("\x1b" in screen) == colours
    assert all(screen_line.count("\x1b") <= 3 for screen_line in screen.splitlines())


def _found(done: Finished) -> dict[str, str]:
    """Subject to grade, by the first line about each."""
    found: dict[str, str] = {}
    for word, subject in _LINE.findall(done.out):
        found.setdefault(subject, word)
    return found
