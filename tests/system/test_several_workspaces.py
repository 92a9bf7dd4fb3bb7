"""Several workspaces: the current directory decides the configuration, and `status --all` shows them all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from syncd.core.config_file import load_config
from tests.system.rig import DEFAULTS, Rig
from tests.system.trees import tree


def _add(rig: Rig, name: str, workspace: Path, sandbox: str) -> Path:
    """Write a configuration like the rig's for another workspace, which is made."""
    rig.emulator.create_sandbox(sandbox)
    file = rig.further(f"{name}.toml", workspace, sandbox)
    assert load_config(str(file)).sandbox.id == sandbox
    return file


def _has(shown: str, words: str) -> bool:
    """True if the words are shown, wherever lines are wrapped."""
    return "".join(words.split()) in "".join(shown.split())


def _rows(rig: Rig) -> dict[str, dict[str, Any]]:
    document = json.loads(rig.ok("status", "--all", "--json").out)
    assert document["version"] == 1
    return {row["name"]: row for row in document["workspaces"]}


@pytest.fixture
def site(rig: Rig) -> Path:
    """A second workspace, of site.toml."""
    site = rig.home / "site"
    _add(rig, "site", site, "site-box")
    (site / "page").write_text("text")
    return site


def test_a_command_takes_the_workspace_that_it_is_in(rig: Rig, site: Path) -> None:
    """A push in a workspace sends that one, to its own sandbox; elsewhere config.toml's is sent."""
    (site / "deep").mkdir()
    done = rig.run("push", place=site / "deep")
    assert (done.code, done.err.count("config")) == (0, 0), done
    assert rig.count("initialize", 200) == 1
    assert rig.emulator.request_log.entries()[-1].path.count("site-box")
    assert (_rows(rig)["site"]["syncs"], _rows(rig)["config"]["syncs"]) == (1, 0)
    rig.write("a")
    rig.ok("push")
    assert (_rows(rig)["site"]["syncs"], _rows(rig)["config"]["syncs"]) == (1, 1)


def test_the_overview_names_each_file(rig: Rig, site: Path) -> None:
    """Where no daemon has run, too, and whatever bytes its name has."""
    odd = os.fsdecode(b"a\xff")
    files = {name: str(rig.config_file.with_name(f"{name}.toml")) for name in ("config", "site", odd)}
    _add(rig, odd, rig.home / "odd", "odd-box")
    assert {name: row["config"] for name, row in _rows(rig).items()} == files


def test_what_writes_takes_no_workspace_that_it_is_not_in(rig: Rig, site: Path) -> None:
    """Outside of every workspace it ends with 2 and changes nothing, whatever its options; with --config it works."""
    rig.configure(DEFAULTS)
    rig.write("a", "as sent")
    rig.write("b", "as sent")
    rig.ok("push")
    rig.agent.write("a", "the agent's")
    rig.agent.write("b", "the agent's")
    rig.write("b", "mine")
    rig.ok("push")
    (saved,) = rig.saved()
    (rig.home / "elsewhere").mkdir()
    before = tree(rig.workspace)
    for words in (
        ("apply", "--yes"),
        ("apply", "--dry-run"),
        ("apply", "--undo"),
        ("apply", "--branch", "agent"),
        ("resolve",),
        ("resolve", str(rig.workspace / "b"), "--theirs"),
        ("saved", "restore", saved["id"], "--here"),
    ):
        done = rig.run(*words, place=rig.home / "elsewhere")
        assert (done.code, done.out) == (2, ""), done
        assert "in no workspace; run `cd ~/work`, or name it with `--config config`" in done.err
    assert tree(rig.workspace) == before
    for words in (("saved",), ("saved", "show", saved["id"]), ("diff",)):
        assert rig.run(*words, place=rig.home / "elsewhere").code in (0, 1)
    assert rig.run("apply", "--yes", "--config", "config", place=rig.home / "elsewhere").code == 0
    assert (rig.workspace / "a").read_text() == "the agent's"
    assert rig.run("apply", "--yes", place=site).code == 78  # nothing was sent from there
    rig.config_file.unlink()
    assert rig.run("apply", "--yes", place=rig.home).code == 2
    rig.config_file.write_text("no TOML")
    assert rig.run("apply", "--yes", place=rig.home).code == 78


def test_a_terminal_is_told_the_configuration(rig: Rig, site: Path) -> None:
    """One that is there and that the current directory does not name: another than config.toml, and that elsewhere."""
    for directory, name in ((rig.workspace, None), (rig.home, "config"), (site, "site")):
        with rig.terminal("ls", columns=100, place=directory) as shown:
            assert shown.finish() == 0
            told = f"syncd: the configuration is ~/.config/syncd/{name}.toml"
            assert _has(shown.text, told) == (name is not None)
    rig.config_file.unlink()
    with rig.terminal("ls", columns=100, place=rig.home) as shown:
        assert (shown.finish(), shown.text.startswith("syncd: no configuration file at")) == (78, True)


def test_names_of_configurations(rig: Rig, site: Path) -> None:
    """`--config site` names the file in the configuration folder; a name that is none lists those that are. A suggested
    command has it where it would take another one. Of two for one workspace a command there names both, with 78.
    """
    assert json.loads(rig.ok("status", "--json", "--config", "site").out)["workspace"] == str(site)
    done = rig.run("status", "--config", "sight")
    told = "the names are config, site; `syncd init --config sight` writes it"
    assert (done.code, told in done.err) == (78, True), done
    (rig.home / "sight").touch()
    assert "write ./sight" in rig.run("status", "--config", "sight").err
    for directory, name, option in (
        (site, "config", "--config ~/.config/syncd/config.toml"),
        (site, "site", ""),
        (rig.home, "site", "--config ~/.config/syncd/site.toml"),
        (rig.home, "config", ""),
    ):
        assert _has(rig.run("status", "--config", name, place=directory).out, f"`syncd run {option}`")
    _add(rig, "again", site, "again-box")
    done = rig.run("status", place=site)
    assert (done.code, "again.toml" in done.err, "site.toml" in done.err) == (78, True, True)
    assert rig.run("status", "--config", "again", place=site).code == 0
    rig.ok("status")


def test_all_workspaces(rig: Rig, site: Path) -> None:
    """A running one, a stopped one and a broken one have a line each, and a document each."""
    rig.write("a")
    daemon = rig.up()
    rig.config_file.with_name("broken.toml").write_text("[workspace]\npath = 1\n")
    text = rig.ok("status", "--all").out
    head, config, broken, other, problem = text.splitlines()
    assert head.split() == ["NAME", "STATE", "LAST", "SYNC", "WAITING", "WORKSPACE"]
    assert "~/work" in config
    assert "in sync" in config
    assert "broken" in broken
    assert "broken.toml: workspace.path = 1: must be" in problem
    assert ("~/site" in other, "not running" in other, "never" in other) == (True, True, True)
    rows = _rows(rig)
    assert list(rows) == ["config", "broken", "site"]
    assert rows["config"] == {**rig.status(), "config": str(rig.config_file), "name": "config"}
    assert set(rows["broken"]) == {"config", "name", "error"}
    assert rows["site"]["workspace"] == str(site)
    daemon.kill()
    assert "in sync" not in rig.ok("status", "--all").out


def test_all_are_watched(rig: Rig, site: Path) -> None:
    """A pipe gets a document for each change: a sync, and a configuration that comes."""
    watching = rig.background("status", "--all", "--json", "--watch")
    rig.until(lambda: watching.out.count("\n") == 1, "the first document")
    assert rig.run("push", place=site).code == 0
    rig.until(lambda: '"syncs":1' in watching.out, "the sync")
    _add(rig, "third", rig.home / "third", "third-box")
    rig.until(lambda: '"name":"third"' in watching.out, "the new one")


# -- init


def test_init_of_one_more(rig: Rig, site: Path) -> None:
    """Where there is a configuration it names the option, by which one more is made."""
    new = rig.home / "new"
    new.mkdir()
    rig.emulator.create_sandbox("new")
    flags = ("--id", "new", "--base-url", rig.emulator.base_url, "--path", str(new))
    refused = rig.run("init", *flags)
    assert (refused.code, "`syncd init --config NAME` writes another" in refused.err) == (78, True)
    rig.ok("init", "--config", "new", *flags)
    config = load_config(str(rig.config_file.with_name("new.toml")))
    assert (config.workspace.path, config.sandbox.id) == (str(new), "new")


def test_init_makes_no_two_for_one_workspace(rig: Rig, site: Path) -> None:
    """It is refused, by any way to the directory."""
    (rig.home / "link").symlink_to(site)
    for path in (site, rig.home / "link"):
        done = rig.run("init", "--config", "again", "--path", str(path), "--id", "again")
        assert done.code == 78
        assert "site.toml syncs" in done.err
    assert not rig.config_file.with_name("again.toml").exists()
