"""`syncd check`: each thing that a sync needs is tried, with a remedy where it fails, and nothing is changed."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from command import Finished
from rig import KEY, SANDBOX, Rig

from syncd.base.clock import SystemClock
from syncd.emulator import Emulator

_LINE = re.compile(r"^(pass|note|warn|fail)  (\w+)", re.MULTILINE)


def test_all_is_well(rig: Rig) -> None:
    """Where nothing is wrong it ends with 0, asks the API one question, and makes no file."""
    rig.fill(3)
    done = rig.ok("check")
    assert _found(done) == {
        "configuration": "pass",
        "key": "pass",
        "directory": "pass",
        "inotify": "pass",
        "state": "pass",
        "spool": "pass",
        "daemon": "note",
        "api": "pass",
        "sandbox": "pass",
        "clock": "pass",
    }
    assert "3 files in 4 directories" in done.out
    assert f"{rig.key_file} (mode 0600)" in done.out
    assert rig.emulator.journal.ops() == ["get"]
    assert not (rig.home / ".local").exists()
    assert not (rig.home / ".cache").exists()
    assert "\x1b" not in done.out


def test_a_bad_configuration_ends_it(rig: Rig) -> None:
    """A configuration that cannot be used is the one line there is."""
    rig.configure({"sync.archive": "half"})
    done = rig.run("check")
    assert (done.code, _found(done)) == (78, {"configuration": "fail"})
    assert 'sync.archive = "half"' in done.out


@pytest.mark.parametrize(
    ("status", "code", "grade"), [(401, 78, "fail"), (404, 78, "fail"), (503, 75, ""), (429, 75, "")]
)
def test_what_the_api_refuses(rig: Rig, status: int, code: int, grade: str) -> None:
    """A refusal needs a person (78); a server that is busy may pass (75). The clock is compared all the same."""
    rig.write("a")
    rig.faults(f"get: {status}")
    done = rig.run("check")
    assert done.code == code, done
    assert _found(done).get("sandbox", "") == grade
    assert _found(done)["clock"] == "pass"
    assert "to do:" in done.out
    assert rig.count("get") == 1


def test_offline_may_pass(rig: Rig) -> None:
    """Where nobody answers, everything at home is looked at all the same, and the end is 75."""
    rig.write("a")
    rig.emulator.close()
    done = rig.run("check")
    assert done.code == 75
    found = _found(done)
    assert (found["directory"], found["api"], found["clock"]) == ("pass", "fail", "note")


def test_each_failure_is_told(rig: Rig) -> None:
    """One failure does not hide the next, and what needs a person outweighs what may pass."""
    rig.workspace.rmdir()
    os.chmod(rig.key_file, 0o644)
    rig.emulator.close()
    done = rig.run("check")
    os.chmod(rig.key_file, 0o600)
    assert done.code == 78
    found = _found(done)
    assert (found["key"], found["directory"], found["api"]) == ("fail", "fail", "note")
    assert f"chmod 600 {rig.key_file}" in done.out


def test_a_clock_that_is_off_is_a_warning(rig: Rig, tmp_path: Path) -> None:
    """A machine an hour behind the server is told so, and nothing fails."""
    rig.write("a")
    with Emulator(tmp_path / "ahead", api_key=KEY, clock=_HourAhead()) as emulator:
        emulator.create_sandbox(SANDBOX)
        rig.configure({"sandbox.base_url": emulator.base_url})
        done = rig.ok("check")
    assert _found(done)["clock"] == "warn"
    assert re.search(r"(3,599|3,600|3,601) s behind", done.out)
    assert "timedatectl" in done.out


def test_a_workspace_that_is_too_large(rig: Rig) -> None:
    """Over the limit, the largest paths and the key are named, before any sync would refuse it."""
    rig.configure({"sync.max_snapshot_mib": 1})
    rig.write("data/big.bin", b"x" * (1 << 21))
    done = rig.run("check")
    assert done.code == 78
    assert "data/big.bin" in done.out
    assert "sync.max_snapshot_mib" in done.out


def test_what_stays_home_unasked_is_a_warning(rig: Rig) -> None:
    """A link that leads outside is named, and does not fail the check."""
    rig.write("a")
    os.symlink("/etc", rig.workspace / "out")
    done = rig.ok("check")
    assert "'out' leads outside" in done.out


def test_the_daemon_is_seen(rig: Rig) -> None:
    """A running daemon is named with its process; a held one is a warning."""
    rig.write("a")
    daemon = rig.up()
    done = rig.ok("check")
    assert f"running as process {daemon.pid}" in done.out
    rig.faults("any: 404 always")
    rig.write("b")
    rig.in_state("held")
    assert _found(rig.run("check"))["daemon"] == "warn"


def test_the_key_from_the_environment(rig: Rig) -> None:
    """A key in $KLAVIS_API_KEY is named by where it is, never shown, and wins over the file."""
    rig.write("a")
    rig.write_key("another-key")
    rig.environ["KLAVIS_API_KEY"] = KEY
    done = rig.ok("check")
    assert "found in $KLAVIS_API_KEY" in done.out


class _HourAhead(SystemClock):
    def wall_s(self) -> float:
        return super().wall_s() + 3600


def _found(done: Finished) -> dict[str, str]:
    """Subject to grade, as the first line about it says."""
    found: dict[str, str] = {}
    for word, subject in _LINE.findall(done.out):
        found.setdefault(subject, word)
    return found
