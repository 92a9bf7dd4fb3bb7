"""Two workspaces cannot have one sandbox: each would overwrite the other's files, and call that in sync."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.system.command import Finished, Running
from tests.system.rig import SANDBOX, Rig

SHARED = "name one sandbox, box, for different workspaces"


def configure(rig: Rig, name: str, sandbox: str = SANDBOX, slash: str = "") -> Path:
    """Write a configuration of another workspace."""
    file = rig.further(name, rig.home / "site", sandbox, rig.emulator.base_url + slash)
    (rig.home / "site/page").write_text("text")
    return file


@pytest.fixture
def first(rig: Rig) -> Running:
    """The daemon of the first workspace, which was synced."""
    rig.write("a")
    return rig.up()


def test_the_second_is_refused(rig: Rig, first: Running) -> None:
    """By all that syncs, however the API's address is written there; the first goes on."""
    site = configure(rig, "site.toml", slash="/")
    for command in ("run", "flush", "check"):
        done = rig.run(command, "--config", str(site))
        said = done.out + done.err
        assert (done.code, SHARED in said, "site.toml" in said, "config.toml" in said) == (78, True, True, True), done
    assert rig.ok("status", "--all").out.count(SHARED) == 1
    rows = json.loads(rig.ok("status", "--all", "--json").out)["workspaces"]
    assert [SHARED in row["warnings"][-1] for row in rows] == [True, True]
    rig.write("b")
    rig.ok("flush")
    assert set(rig.there()) == {"a", "b"}


def test_a_running_one_is_known_by_its_process(rig: Rig, first: Running) -> None:
    """Wherever the configurations are. One that does not run does not count."""
    away = rig.home / "away"
    away.mkdir()
    elsewhere = configure(rig, f"{away}/any.toml")
    rig.config_file.rename(away / "moved.toml")
    for done in (rig.run("run", "--config", str(elsewhere)), init(rig)):
        told = done.err.replace(" ~/", f" {rig.home}/")
        assert (done.code, told.count(f"another syncd syncs {rig.workspace}")) == (78, 1), done
    first.stop()
    rig.ok("push", "--config", str(elsewhere))


def test_a_reload_to_it_is_refused(rig: Rig, first: Running) -> None:
    """So is its addition. The old configuration stays, also if the other one has not been synced yet."""
    rig.emulator.create_sandbox("site-box")
    site = configure(rig, "site.toml", "site-box")
    before = rig.config_file.read_bytes()
    added = rig.run("sandbox", "add", "blue", "--id", "site-box")
    assert (added.code, "site.toml" in added.err, rig.config_file.read_bytes()) == (78, True, before)
    rig.configure({"sandbox.id": "site-box"})
    first.send(signal.SIGHUP)
    rig.until(lambda: "the new configuration is refused, the old one stays" in first.err, "the refusal")
    rig.write("b")
    rig.until(lambda: "b" in rig.there(), "a sync to the old sandbox")
    site.unlink()
    first.send(signal.SIGHUP)
    rig.until(lambda: "configuration read anew" in first.err, "the reload")


def test_of_two_new_ones_the_first_has_it(rig: Rig) -> None:
    """It keeps it when no daemon runs. `init` names it; two configurations of one workspace are no others."""
    site = configure(rig, "site.toml")
    rig.config_file.with_name("copy.toml").write_text(rig.config_file.read_text())
    rig.ok("push", "--config", str(site))
    done = rig.run("push", "--config", str(rig.config_file))
    assert (done.code, SHARED in done.err) == (78, True), done
    assert set(rig.there()) == {"page"}
    site.unlink()
    rig.ok("push", "--config", "copy")
    done = init(rig)
    assert (done.code, done.err.count("\n"), "config.toml and" in done.err and "name one sandbox, box" in done.err) == (
        78,
        1,
        True,
    ), done


def init(rig: Rig) -> Finished:
    """Run `syncd init` for another workspace and the same sandbox; it writes nothing."""
    file = rig.config_file.with_name("new.toml")
    where = ("--base-url", rig.emulator.base_url, "--api-key-file", str(rig.key_file))
    done = rig.run("init", "--config", str(file), "--path", str(rig.home / "new"), "--id", "box", *where)
    assert not file.exists()
    return done
