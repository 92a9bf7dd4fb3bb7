"""Errors that only a person can fix end a new daemon, and hold a running one."""

from __future__ import annotations

import signal

import pytest

from tests.system.rig import DEFAULTS, KEY, Rig


@pytest.mark.parametrize(("op", "status"), [("upload-url", 403), ("initialize", 422)])
def test_a_refusal_at_the_start_ends_with_78(rig: Rig, op: str, status: int) -> None:
    """There is one request, and one line that says why and what to do; so it is of a push."""
    rig.write("a")
    rig.faults(f"{op}: {status} always")
    daemon = rig.start("--log-level", "error")
    assert daemon.wait() == 78
    assert rig.count(op) == 1
    (line,) = daemon.err.splitlines()
    assert str(status) in line
    assert ": " in line
    assert rig.status()["state"] == "stopped"
    assert rig.status()["pending"] is True
    pushed = rig.run("push")
    assert (pushed.code, pushed.out, str(status) in pushed.err.splitlines()[-1]) == (78, "", True)


def test_a_key_written_for_its_file_is_not_shown(rig: Rig) -> None:
    """Whoever writes the key for `api_key_file`, or into the address, finds it in no output."""
    as_path, as_list, as_user = str(rig.home / f"{KEY}-0123"), [KEY], f"https://{KEY}@api.example.com"
    for key, value, commands in (
        ("api_key_file", as_path, ("push", "run", "check")),
        ("api_key_file", as_list, ("run",)),
        ("base_url", as_user, ("push", "check")),
    ):
        rig.configure({f"sandbox.{key}": value})
        for command in commands:
            done = rig.run(command)
            assert (done.code, KEY in done.out + done.err) == (78, False), (key, command)


@pytest.mark.parametrize("command", ["push", "run"])
def test_an_id_that_was_mistyped_first(rig: Rig, command: str) -> None:
    """Nothing was ever sent there: once it is corrected, nothing tells of work that was lost there."""
    rig.write("a")
    rig.configure({**DEFAULTS, "sandbox.id": "no-such-id"})
    assert rig.background(command).wait() == 78
    rig.configure(DEFAULTS)
    rig.up()
    rig.ok("flush")
    assert (rig.status()["warnings"], rig.status()["last_error"]) == ([], None)
    assert "no-such-id" not in rig.daemons[-1].err


@pytest.mark.parametrize("status", [401, 404])
def test_a_later_refusal_is_held(rig: Rig, status: int) -> None:
    """One request, state `held`, the change pending; further changes cause no requests; a flush says why."""
    rig.write("a")
    daemon = rig.up()
    rig.faults(f"initialize: {status} always")
    rig.write("a", "changed")
    document = rig.status_in("held")
    assert document["pending"] is True
    assert document["last_error"]["step"] == "initialize"
    assert str(status) in document["last_error"]["message"]
    rig.write("b", "more")
    refused = rig.count("initialize", status)
    assert refused == 1
    flushed = rig.run("flush")
    assert flushed.code == 78
    assert str(status) in flushed.err
    assert rig.count("initialize", status) == refused + 1, "more requests than the flush asked for"
    assert daemon.code is None
    rig.emulator.faults.clear()
    daemon.send(signal.SIGHUP)
    rig.converged()
    assert rig.status_in("watching")["last_error"] is None


def test_a_new_key_ends_a_hold(rig: Rig) -> None:
    """The key file is checked while its key is refused, so a good key in it is enough."""
    rig.write("a")
    rig.up()
    rig.write_key("some-other-key")
    rig.daemons[0].send(signal.SIGHUP)
    rig.write("a", "changed")
    rig.in_state("held")
    rig.write_key(KEY)
    rig.converged()
    rig.in_state("watching")


@pytest.mark.parametrize("status", [429, 501])
def test_a_command_that_asks_once(rig: Rig, status: int) -> None:
    """What the service cannot do now is one line, with what to do next."""
    rig.configure({**DEFAULTS, "sandbox.setup": ["true"], "retry.give_up_after_seconds": 1})
    rig.write("a")
    rig.ok("push")
    rig.faults(f"any: {status} always")
    for command in ("setup", "diff", "apply", "verify", "pull there", "sandbox list", "sandbox show", "flush"):
        done = rig.run(*command.split())
        assert (done.code, str(status) in done.told) == (75, True), done
        assert done.told.endswith("see `syncd check`\n"), done
