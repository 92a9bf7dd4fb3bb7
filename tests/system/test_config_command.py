"""`syncd config` and `syncd reload`: what counts, the file, and the daemon that is to know of it."""

from __future__ import annotations

import json
import select
import shlex
import signal
import socket
import tomllib
from pathlib import Path

import pytest

from syncd.daemon.control import _short_path
from tests.system.rig import Rig


def test_show(rig: Rig) -> None:
    """It is TOML: what counts, with where that is from if not from the file; but a key in the place of its file. A bad
    configuration is told as by any other command; `path` has the way to it.
    """
    rig.configure({"workspace.ignore": ["*.tmp"], "sync.debounce_seconds": 2.5, "sandboxes.b.id": "box-b"})
    shown = rig.ok("config", "show").out
    assert rig.ok("config").out == rig.ok("config", "--config", str(rig.config_file), "show").out == shown
    lines = shown.splitlines()
    assert lines[0] == "# ~/.config/syncd/config.toml"
    assert 'workspace.ignore = ["*.tmp"]' in lines
    assert "sync.rescan_minutes = 10.0  # default" in lines
    assert 'sandboxes.b.region = "us"  # as in [sandbox]' in lines
    values = tomllib.loads(shown)
    assert values["sandbox"]["id"] == "box"
    assert values["sync"]["debounce_seconds"] == 2.5
    assert values["sandboxes"]["b"]["id"] == "box-b"
    assert list(values["sandboxes"]) == ["b"]
    rig.configure({"sandbox.api_key_file": "sk-live-123"})
    said = rig.ok("config", "show")
    assert "sk-live" not in said.out + said.err
    assert 'sandbox.api_key_file = "…"' in said.out
    rig.configure({"sync.rescan_minutes": "often"})
    refused = rig.run("config", "show")
    assert (refused.code, refused.out, 'rescan_minutes = "often"' in refused.err) == (78, "", True)
    rig.configure({"workspace.ignore": ["["]})
    refused = rig.run("config", "show")
    assert (refused.code, refused.out, "`syncd config edit` opens it" in refused.err) == (78, "", True)
    assert rig.ok("config", "path").out == f"{rig.config_file}\n"


def edited_by(rig: Rig, script: str) -> None:
    """Have this shell script, whose $1 is the file, be the person's editor."""
    rig.environ["EDITOR"] = f"sh -c {shlex.quote(script)} editor"
    rig.environ["TMPDIR"] = str(rig.home)  # what is refused stays there


def test_edit(rig: Rig) -> None:
    """What was written takes the file's place once it is valid; else it is kept elsewhere, and named."""
    edited_by(rig, 'echo "# new" >> "$1"')
    assert rig.ok("config", "edit").out == "wrote ~/.config/syncd/config.toml\n"
    assert rig.config_file.read_text().endswith("\n# new\n")
    before = rig.config_file.read_bytes()
    edited_by(rig, ":")
    assert rig.ok("config", "edit").err == "~/.config/syncd/config.toml is unchanged\n"
    for failing in ("exit 3", 'rm "$1"'):
        edited_by(rig, failing)
        left = rig.run("config", "edit")
        assert (left.code, "nothing was changed, as the editor failed" in left.err) == (78, True)
    edited_by(rig, 'echo "# mine" > "$1"; echo nonsense >> "$1"')
    refused = rig.run("config", "edit")
    assert (refused.code, "not valid TOML" in refused.err) == (78, True)
    draft = draft_of(rig, refused.err)
    assert (draft.parent, draft.read_text()) == (rig.home, "# mine\nnonsense\n")  # the file's folder may be read-only
    edited_by(rig, f'echo "# other" >> {shlex.quote(str(rig.config_file))}; echo "# mine" >> "$1"')
    raced = rig.run("config", "edit")
    assert (raced.code, "changed by another program meanwhile" in raced.err) == (78, True)
    assert rig.config_file.read_bytes() == before + b"# other\n"
    rig.environ["EDITOR"] = "/nonexistent/editor"
    missing = rig.run("config", "edit")
    assert (missing.code, "/nonexistent/editor" in missing.err) == (78, True)


def draft_of(rig: Rig, error: str) -> Path:
    return Path(error.rsplit("what you wrote is in ", 1)[1].strip().replace("~", str(rig.home), 1))


@pytest.mark.parametrize("answer", ["n\n", "\x04", signal.SIGINT])
def test_edit_at_a_terminal(rig: Rig, answer: str | signal.Signals) -> None:
    """What is not valid is edited again; who does not want to is told where it is."""
    edited_by(rig, 'echo nonsense >> "$1"')
    with rig.terminal("config", "edit", columns=200, TERM="xterm") as terminal:
        terminal.answer("[Y/n]:", "y")
        terminal.until(lambda text: text.count("Edit it again? [Y/n]:") == 2, "it again")
        terminal.type(answer) if isinstance(answer, str) else terminal.send(answer)
        assert terminal.finish() == 78
    assert "nonsense" not in rig.config_file.read_text()
    assert draft_of(rig, terminal.text.replace("\n", "")).read_text().endswith("nonsense\nnonsense\n")


def test_a_daemon_is_told(rig: Rig) -> None:
    """`config edit` has it read what was written, and so does `reload`, which refuses a file that is not valid."""
    assert rig.ok("reload").out == "no daemon is running; the next one reads it\n"
    rig.write("a")
    rig.up()
    other = rig.home / "other"
    other.mkdir()
    edited_by(rig, f'sed -i "s|{rig.workspace}|{other}|" "$1"')
    assert rig.ok("config", "edit").out.endswith("\nthe daemon reads it anew\n")
    rig.until(lambda: rig.run("status", "--check").code == 0, "the other workspace in sync")
    assert json.loads(rig.ok("status", "--json").out)["workspace"] == str(other)
    assert rig.ok("reload").out == "the daemon reads its configuration anew\n"
    rig.config_file.write_text(rig.config_file.read_text() + "nonsense")
    refused = rig.run("reload")
    assert (refused.code, "not valid TOML" in refused.err, refused.out) == (78, True, "")
    rig.configure({"workspace.ignore": ["["]})
    refused = rig.run("reload")
    assert (refused.code, "can match nothing" in refused.err, refused.out) == (78, True, "")


def test_an_edit_by_hand_is_a_warning(rig: Rig) -> None:
    """Until a reload has it count: `status` names that, also of a daemon for which nothing else has happened."""
    rig.write("a")
    rig.up()
    rig.configure({"workspace.ignore": ["*.tmp"]})
    (warning,) = rig.status()["warnings"]
    assert warning == "the configuration was changed since the daemon read it: run `syncd reload`"
    rig.ok("reload")
    rig.until(lambda: rig.status()["running"] and rig.status()["warnings"] == [], "the end of the warning")


def test_a_refused_edit_that_was_mended_by_hand(rig: Rig) -> None:
    """What the file does not say any more is named no more: a reload has it count."""
    rig.write("a")
    daemon = rig.up()
    good = rig.config_file.read_text()
    rig.config_file.write_text(good + "[bogus]\n")
    daemon.send(signal.SIGHUP)
    rig.until(lambda: "bogus" in str(rig.shown()["warnings"]), "why it was refused")
    rig.in_state("watching")  # before, it would read a change of the file by itself
    rig.config_file.write_text(good)
    (warning,) = rig.status()["warnings"]
    assert warning == "the configuration was changed since the daemon read it: run `syncd reload`"


def test_what_the_daemon_refused_is_a_warning(rig: Rig) -> None:
    """Why a SIGHUP was refused is named until a reload is accepted, which a key that is back brings by itself."""
    rig.write("a")
    daemon = rig.up()
    moved = rig.key_file.rename(rig.key_file.with_name("moved"))
    daemon.send(signal.SIGHUP)
    rig.until(lambda: [each for each in rig.status()["warnings"] if "does not exist" in each], "the warning")
    moved.rename(rig.key_file)
    rig.until(lambda: rig.status()["warnings"] == [], "the warning to go")
    rig.configure({"workspace.ignore": ["["]})
    daemon.send(signal.SIGHUP)
    rig.until(lambda: [each for each in rig.status()["warnings"] if "can match nothing" in each], "the warning")
    rig.config_file.write_text("[")
    daemon.send(signal.SIGHUP)
    rig.until(lambda: daemon.err.count("not valid TOML") == 1, "the refusal")
    rig.key_file.write_bytes(rig.key_file.read_bytes())  # it is tried once more, and not on and on
    rig.until(lambda: daemon.err.count("not valid TOML") > 1, "another try")
    rig.write("b")
    rig.converged()
    assert daemon.err.count("not valid TOML") == 2
    rig.configure()
    rig.ok("reload")
    rig.until(lambda: rig.status()["warnings"] == [], "the warning to go")
    other = rig.home / "other"
    other.mkdir()
    rig.status_in("watching")
    rig.configure({"workspace.path": str(other), "sandbox.api_key_file": str(moved)})
    assert rig.ok("reload").out == "the daemon reads its configuration anew\n"  # it stays where it is
    rig.until(lambda: daemon.err.count("does not exist") == 2, "the refusal")


def test_a_reload_waits_for_what_is_written(rig: Rig) -> None:
    """No sync begins while a command writes to the workspace, also by no new configuration."""
    daemon = rig.up()
    with socket.socket(socket.AF_UNIX) as writer, _short_path(str(rig.state_folder)) as path:
        writer.connect(path)
        writer.sendall(b'{"do": "write", "sandbox": ""}\n')
        said = b""
        while b"ready" not in said:
            said += writer.recv(1 << 16)
        daemon.send(signal.SIGHUP)
        rig.ok("resume")
        rig.ok("resume")
        assert select.select([writer], [], [], 0) == ([], [], [])  # it is not closed
        assert "read anew" not in daemon.err
    rig.until(lambda: "configuration read anew" in daemon.err, "the reload")
    rig.write("a")
    rig.converged()
