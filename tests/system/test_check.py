"""`syncd check`: everything that a sync needs is tested, each failure has a remedy, and nothing is changed."""

from __future__ import annotations

import json
import os
import re
import signal

import pytest

from tests.screens.terminal import Terminal
from tests.system.command import SYNCD, Finished
from tests.system.rig import KEY, SANDBOX, Rig

SAVE = {"sandbox.agent_changes": "save"}
_LINE = re.compile(r"^(pass|note|warn|fail)  (\w+)", re.MULTILINE)


def test_all_is_well(rig: Rig) -> None:
    """Without a failure it ends with 0, asks for the sandbox, looks there once, and creates no file."""
    rig.configure(SAVE)
    rig.fill(3)
    done = rig.ok("check")
    assert _found(done) == {
        "configuration": "pass",
        "key": "pass",
        "directory": "pass",
        "secrets": "pass",
        "inotify": "pass",
        "state": "pass",
        "spool": "pass",
        "daemon": "note",
        "service": "note",
        "api": "pass",
        "sandbox": "pass",
        "clock": "pass",
        "looks": "pass",
    }
    assert "3 files in 4 directories" in done.out
    assert f"{rig.key_file} (mode 0600)" in done.out
    looks = ["execution-upload-url", "execution-upload", "execute"]
    assert rig.emulator.request_log.ops()[:5] == ["get", *looks, "execution-logs"]
    assert rig.count("initialize") == rig.count("export-artifacts") == 0
    assert not (rig.home / ".local").exists()
    assert not (rig.home / ".cache").exists()
    assert "\x1b" not in done.out


def test_a_bad_configuration_ends_it(rig: Rig) -> None:
    """A configuration that cannot be used is the only finding."""
    rig.configure({"sync.archive": "half"})
    done = rig.run("check")
    assert (done.code, _found(done)) == (78, {"configuration": "fail"})
    assert 'sync.archive = "half"' in done.out


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


def test_offline(rig: Rig) -> None:
    """Without an answer of the API, all local checks are done, and the exit code is 75."""
    rig.write("a")
    rig.emulator.close()
    done = rig.run("check")
    assert done.code == 75
    found = _found(done)
    assert (found["directory"], found["api"], found["clock"]) == ("pass", "fail", "note")


def test_each_failure_is_shown(rig: Rig) -> None:
    """One failure does not hide the next; one that needs a person outweighs one that may end by itself."""
    rig.workspace.rmdir()
    os.chmod(rig.key_file, 0o644)
    rig.emulator.close()
    done = rig.run("check")
    os.chmod(rig.key_file, 0o600)
    assert done.code == 78
    found = _found(done)
    assert (found["key"], found["directory"], found["api"]) == ("fail", "fail", "note")
    assert f"chmod 600 {rig.key_file}" in done.out


def test_the_daemon_is_shown(rig: Rig) -> None:
    """A running daemon is shown with its process; one that hangs, or is held, is a warning."""
    rig.write("a")
    daemon = rig.up()
    done = rig.ok("check")
    assert f"running as process {daemon.pid}" in done.out
    daemon.send(signal.SIGSTOP)
    done = rig.ok("check")
    daemon.send(signal.SIGCONT)
    assert f"process {daemon.pid} does not answer" in done.out
    rig.faults("any: 404 always")
    rig.write("b")
    rig.in_state("held")
    assert _found(rig.run("check"))["daemon"] == "warn"


def test_for_scripts(rig: Rig) -> None:
    """`--json` prints one document with every finding, with the exit code of the text; neither shows the key."""
    rig.write(KEY, bytes(1 << 20))  # large enough to be named
    shown = [rig.ok("check", *option).out for option in ((), ("--json",))]
    assert [("/[key]" in each, KEY in each) for each in shown] == [(True, False), (True, False)]
    (rig.workspace / KEY).unlink()
    rig.workspace.joinpath(".env").write_text("A=1")
    os.chmod(rig.key_file, 0o644)
    done = rig.run("check", "--json")
    os.chmod(rig.key_file, 0o600)
    document = json.loads(done.out)
    assert (done.code, document["exit_code"], document["version"]) == (78, 78, 1)
    found = {row["subject"]: row for row in document["findings"]}
    assert all(set(row) == {"subject", "grade", "what", "remedy", "details"} for row in document["findings"])
    assert found["key"]["grade"] == "fail"
    assert found["key"]["remedy"].startswith("run `chmod 600 ")
    assert found["secrets"]["details"] == [".env: named like .env"]


def test_a_sandbox_that_is_acquired(rig: Rig) -> None:
    """Before the first sync the account is asked and nothing is acquired; after it, the time to live is shown."""
    rig.write("a")
    rig.configure({**SAVE, "sandbox.acquire.ttl_seconds": 3600})
    rig.config_file.write_text(rig.config_file.read_text().replace(f'sandbox.id = "{SANDBOX}"\n', ""))
    done = rig.ok("check")
    assert _found(done)["sandbox"] == "note"
    assert "the first sync acquires one" in done.out
    assert rig.emulator.request_log.ops() == ["list"]
    rig.ok("push")
    done = rig.ok("check")
    assert _found(done)["sandbox"] == "pass"
    assert _found(done)["looks"] == "pass"
    assert re.search(r"; (59 min|1 h) more, and the next one is acquired", done.out)
    rig.faults("get: 404")
    assert "is gone: the next sync acquires another" in rig.ok("check").out


def test_what_is_a_warning(rig: Rig) -> None:
    """A link that leads outside, secrets that are sent, and a configuration or a key folder that others may write to,
    each with its remedy, do not fail the check.
    """
    rig.write(".env", "A=1")
    os.symlink("/etc", rig.workspace / "out")
    rig.configure({"workspace.upload_secrets": True})
    os.chmod(rig.config_file, 0o620)
    os.chmod(rig.key_file.parent, 0o777)
    done = rig.ok("check")
    assert "'out' leads outside" in done.out
    assert _LINE.findall(done.out).count(("warn", "secrets")) == 1
    assert _found(done)["secrets"] == "warn"
    assert f"chmod go-w {rig.config_file}\n" in done.out
    assert f"chmod go-w {rig.key_file.parent}\n" in done.out


_SYSTEMCTL = """#!/bin/sh
case "$*" in
    *show-environment*) echo SSL_CERT_DIR=/etc ;;
    *" show "*) echo LoadState=loaded; echo ActiveState=active; echo "Environment=no_proxy=example A=b" ;;
esac
"""


def test_variables_that_a_service_lacks(rig: Rig) -> None:
    """Each variable for the route to the API that this shell has and the service manager lacks is a warning."""
    rig.write("a")
    (rig.home / "bin").mkdir()
    (rig.home / "bin/systemctl").write_text(_SYSTEMCTL)
    (rig.home / "bin/systemctl").chmod(0o700)
    rig.configure({"sandbox.base_url": "https://api.example"})
    rig.environ = {
        "PATH": f"{rig.home / 'bin'}:{os.environ['PATH']}",
        "https_proxy": "http://me:hush@127.0.0.1:9",
        "NO_PROXY": "example.com",
        "SSL_CERT_DIR": "/etc",
    }
    done = rig.run("check")
    assert done.code == 75, done
    assert "warn  service        HTTPS_PROXY is set in this shell, but not for the service\n" in done.out
    assert "NO_PROXY is" not in done.out
    assert "SSL_CERT_DIR is" not in done.out
    assert "requests go through 127.0.0.1:9\n" in done.out
    assert "check the network, the proxy 127.0.0.1:9 and" in done.out
    assert "hush" not in done.out
    assert _found(done)["certificates"] == "pass"


@pytest.mark.parametrize(("more", "colours"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_on_a_terminal(rig: Rig, more: dict[str, str], colours: bool) -> None:
    """Lines are wrapped to 80 columns under their text, and only the first word has a colour, if any."""
    rig.fill(3)
    rig.write("data/" + "long name " * 12 + "/big.bin", b"x" * (1 << 20))
    screen = _on_a_terminal(rig, {"TERM": "xterm", **more})
    plain = re.sub(r"\x1b\[[0-9]*m", "", screen)
    lines = plain.splitlines()
    assert "found in ~/.config/syncd/api-key (mode 0600)" in lines[1]
    assert max(map(len, lines)) <= 80
    assert ("\x1b" in screen) == colours
    starts = [line for line in lines if not re.match(r"(pass|note|warn|fail)  \w|all checks passed", line)]
    assert starts
    assert all(line.startswith(" " * 21) or "to do:  " in line for line in starts)
    assert all(screen_line.count("\x1b") <= 3 for screen_line in screen.splitlines())


def _on_a_terminal(rig: Rig, environ: dict[str, str]) -> str:
    terminal = Terminal()
    terminal.start([*SYNCD, "check"], {**rig.environment(), **environ}, rig.workspace)
    assert terminal.finish() == 0
    return terminal.written.decode()


def _found(done: Finished) -> dict[str, str]:
    """Subject to grade, by the first line about each."""
    found: dict[str, str] = {}
    for word, subject in _LINE.findall(done.out):
        found.setdefault(subject, word)
    return found
