"""`syncd config` and `syncd reload`: one value, the whole file, and the daemon that is to know of it."""

from __future__ import annotations

import json
import shlex
import signal
from contextlib import closing
from pathlib import Path

import pytest

from syncd.core.directories import Lock
from tests.screens.terminal import Terminal
from tests.system.command import SYNCD
from tests.system.rig import Rig


def test_get(rig: Rig) -> None:
    """The value that counts, as text for a shell or as JSON; all of them without a key."""
    rig.configure({"workspace.ignore": ["*.tmp"], "sync.debounce_seconds": 2.5, "sandboxes.b.id": "box-b"})
    for key, text in (("sandbox.id", "box"), ("sync.debounce_seconds", "2.5"), ("workspace.ignore", '["*.tmp"]')):
        assert rig.ok("config", "get", key).out == f"{text}\n"
        assert json.loads(rig.ok("config", "get", key, "--json").out) in (text, 2.5, ["*.tmp"])
    assert rig.ok("config", "get", "retry.max_delay_seconds").out == "0.5\n"
    assert rig.ok("config", "get", "sandboxes.b.id").out == "box-b\n"
    listed = rig.ok("config", "get").out.splitlines()
    assert not any(line.startswith("sandboxes.main.") for line in listed)
    assert 'sandbox.region = "us"' in listed
    assert json.loads(rig.ok("config", "get", "--json").out)["workspace.ignore"] == ["*.tmp"]
    assert len(listed) == len(json.loads(rig.ok("config", "get", "--json").out))


def test_a_key_in_the_place_of_its_file_is_not_shown(rig: Rig) -> None:
    """Neither alone nor among the others."""
    rig.configure({"sandbox.api_key_file": "sk-live-123"})
    for args in ((), ("sandbox.api_key_file",), ("--json",)):
        said = rig.ok("config", "get", *args)
        assert "sk-live" not in said.out + said.err
        assert "…" in said.out or "\\u2026" in said.out
    assert "sk-live" not in rig.ok("config", "set", "sandbox.api_key_file", "sk-live-456").out


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (("sync.debounce_seconds", "3"), "sync.debounce_seconds", 3.0),
        (("workspace.use_gitignore", "false"), "workspace.use_gitignore", False),
        (("workspace.ignore", "*.tmp"), "workspace.ignore", ["*.tmp"]),
        (("workspace.ignore", "*.tmp", "/a b/"), "workspace.ignore", ["*.tmp", "/a b/"]),
        (("workspace.ignore", "[]"), "workspace.ignore", []),
        (("sandbox.id", "123"), "sandbox.id", "123"),
        (("sandboxes.b.id", "box-b"), "sandboxes.b.id", "box-b"),
        (("sandbox.deletions", "keep"), "sandbox.deletions", "keep"),
        (("workspace.path", "."), "workspace.path", None),
    ],
)
def test_set(rig: Rig, words: tuple[str, ...], key: str, value: object) -> None:
    """A text as it is typed, a number, a list by its elements, a path from here; comments stay."""
    rig.config_file.write_text(f"# mine\n{rig.config_file.read_text()}# the end\n")
    (rig.workspace / "below").mkdir()
    environ = {**rig.environment(), "PWD": str(rig.workspace / "below")}
    rig.environ = {"PWD": environ["PWD"]}
    prefix = ("env", "-C", str(rig.workspace / "below"))
    done = rig.run("config", "set", *words, prefix=prefix)
    assert (done.code, done.err) == (0, "")
    found = json.loads(rig.ok("config", "get", key, "--json").out)
    assert found == (str(rig.workspace / "below") if value is None else value)
    text = rig.config_file.read_text()
    assert text.startswith("# mine\n")
    assert "\n# the end\n" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("set", "sync.rescan_minutes", "often"), 'sync.rescan_minutes = "often": must be a number of minutes'),
        (("set", "sync.rescan_minutes", "-3"), 'sync.rescan_minutes = "-3": must be a number of minutes'),
        (("set", "sync.rescan_minuts", "3"), "sync.rescan_minuts: unknown key: did you mean rescan_minutes?"),
        (("set", "snyc.archive", "full"), "snyc: unknown section: did you mean sync?"),
        (("set", "a b", "3"), "'a b' is no key"),
        (("get", "sync.rescan"), '"sync.rescan" is no key of the configuration: did you mean sync.rescan_minutes?'),
        (("set", "workspace.ignore", "["), "workspace.ignore = ['[']: can match nothing"),
        (("set", "workspace.ignore", ""), "workspace.ignore = ['']: is blank"),
        (("set", "sync.rescan_minutes", "nan"), 'sync.rescan_minutes = "nan": must be a number of minutes'),
        (("get", "sandbox.acquire.servers"), "sandbox.acquire.servers has no value"),
        (("get", "xyz"), "name it as TABLE.KEY; tables are workspace, sandbox, sync, retry, notifications"),
    ],
)
def test_what_is_refused(rig: Rig, words: tuple[str, ...], said: str) -> None:
    """In one line with the reason; the file is as before."""
    before = rig.config_file.read_bytes()
    refused = rig.run("config", *words)
    assert (refused.code, refused.out, said in refused.err) == (78, "", True), refused.err
    assert len(refused.err.splitlines()) == 1
    assert rig.config_file.read_bytes() == before


def test_an_error_elsewhere_is_the_one_that_is_told(rig: Rig) -> None:
    """A value that is right does not take the blame for another one, and the one that is wrong can be mended."""
    rig.configure({"sync.rescan_minutes": "often", "sync.history_paths": True})
    refused = rig.run("config", "set", "sync.debounce_seconds", "1")
    assert (refused.code, 'rescan_minutes = "often"' in refused.err) == (78, True)
    rig.ok("config", "set", "sync.rescan_minutes", "5")
    rig.ok("config", "set", "sync.debounce_seconds", "1")


def edited_by(rig: Rig, script: str) -> None:
    """Have this shell script, whose $1 is the file, be the person's editor."""
    rig.environ["EDITOR"] = f"sh -c {shlex.quote(script)} editor"


def test_edit(rig: Rig) -> None:
    """What was written takes the file's place once it is valid; else it is kept beside it, and named."""
    edited_by(rig, 'echo "# new" >> "$1"')
    assert rig.ok("config", "edit").out == "wrote ~/.config/syncd/config.toml\n"
    assert rig.config_file.read_text().endswith("\n# new\n")
    before = rig.config_file.read_bytes()
    edited_by(rig, ":")
    assert rig.ok("config", "edit").err == "~/.config/syncd/config.toml is unchanged\n"
    edited_by(rig, "exit 3")
    left = rig.run("config", "edit")
    assert (left.code, left.err.endswith("ended with 3: nothing was changed\n")) == (78, True)
    assert [path.name for path in rig.config_file.parent.iterdir() if path.name.startswith(".")] == []
    edited_by(rig, 'echo "# mine" > "$1"; echo nonsense >> "$1"')
    refused = rig.run("config", "edit")
    assert (refused.code, "not valid TOML" in refused.err) == (78, True)
    draft = Path(refused.err.rsplit("what you wrote is in ", 1)[1].strip())
    assert draft.read_text() == "# mine\nnonsense\n"
    edited_by(rig, f'echo "# other" >> {shlex.quote(str(rig.config_file))}; echo "# mine" >> "$1"')
    raced = rig.run("config", "edit")
    assert (raced.code, "changed by another program meanwhile" in raced.err) == (78, True)
    assert rig.config_file.read_bytes() == before + b"# other\n"
    rig.environ["EDITOR"] = "/nonexistent/editor"
    missing = rig.run("config", "edit")
    assert (missing.code, "cannot be started" in missing.err) == (78, True)


@pytest.mark.parametrize("answer", ["n\n", "\x04", signal.SIGINT])
def test_edit_at_a_terminal(rig: Rig, answer: str | signal.Signals) -> None:
    """What is not valid is edited again; who does not want to is told where it is."""
    edited_by(rig, 'echo nonsense >> "$1"')
    with closing(Terminal(200, 24)) as terminal:
        terminal.start([*SYNCD, "config", "edit"], rig.environment() | {"TERM": "xterm"}, rig.workspace)
        terminal.until(lambda text: text.endswith("[Y/n]:"), "the question")
        terminal.type("y\n")
        terminal.until(lambda text: text.count("Edit it again? [Y/n]:") == 2, "it again")
        terminal.type(answer) if isinstance(answer, str) else terminal.send(answer)
        assert terminal.finish() == 78
    assert "nonsense" not in rig.config_file.read_text()
    (draft,) = rig.config_file.parent.glob(".config-*.toml")
    assert f"what you wrote is in {draft}" in terminal.text.replace("\n", "")
    assert draft.read_text().endswith("nonsense\nnonsense\n")


def test_a_daemon_is_told(rig: Rig) -> None:
    """`config set` names `reload`; that has the daemon move, and refuses a file that it could not read."""
    rig.write("a")
    rig.up()
    other = rig.home / "other"
    other.mkdir()
    told = rig.ok("config", "set", "workspace.path", str(other))
    assert "`syncd reload` has it read this" in told.err
    assert rig.ok("reload").out == "the daemon reads its configuration anew\n"
    rig.until(lambda: rig.run("status", "--check").code == 0, "the other workspace in sync")
    assert json.loads(rig.ok("status", "--json").out)["workspace"] == str(other)
    rig.config_file.write_text(rig.config_file.read_text() + "nonsense")
    refused = rig.run("reload")
    assert (refused.code, "not valid TOML" in refused.err, refused.out) == (78, True, "")
    rig.configure({"workspace.ignore": ["["]})
    refused = rig.run("reload")
    assert (refused.code, "can match nothing" in refused.err, refused.out) == (78, True, "")


def test_what_the_daemon_refused_is_a_warning(rig: Rig) -> None:
    """Why a SIGHUP was refused is named until a reload is accepted, which a key that is back brings by itself."""
    rig.write("a")
    daemon = rig.up()
    key_file = Path(rig.ok("config", "get", "sandbox.api_key_file").out.strip())
    moved = key_file.rename(key_file.with_name("moved"))
    daemon.send(signal.SIGHUP)
    rig.until(lambda: [each for each in rig.status()["warnings"] if "does not exist" in each], "the warning")
    moved.rename(key_file)
    rig.until(lambda: rig.status()["warnings"] == [], "the warning to go")
    rig.configure({"workspace.ignore": ["["]})
    daemon.send(signal.SIGHUP)
    rig.until(lambda: [each for each in rig.status()["warnings"] if "can match nothing" in each], "the warning")
    rig.configure()
    rig.ok("reload")
    rig.until(lambda: rig.status()["warnings"] == [], "the warning to go")


def test_a_daemon_with_an_odd_path_is_told(rig: Rig) -> None:
    """A tab in the workspace's path, which the status escapes, hides the daemon from nobody."""
    odd = rig.home / "a\tb"
    odd.mkdir()
    rig.configure({"workspace.path": str(odd)})
    rig.start()
    rig.until(lambda: rig.run("status", "--check").code == 0, "the daemon")
    assert rig.ok("reload").out == "the daemon reads its configuration anew\n"


def test_nobody_is_told(rig: Rig) -> None:
    """Without a daemon there is nothing to do."""
    assert rig.ok("reload").out == "no daemon is running; the next one reads it\n"


def test_a_reload_waits_for_a_command_that_writes(rig: Rig) -> None:
    """One may begin while the daemon reads its configuration; that is no reason to refuse the new one."""
    asked, hold = rig.with_slow_git()
    daemon = rig.up()
    asked.unlink()
    hold.touch()
    daemon.send(signal.SIGHUP)
    rig.until(asked.exists, "git to be asked")
    lock = Lock(str(rig.state_folder))
    lock.acquire()
    hold.unlink()
    rig.ok("status")  # meanwhile it asks for the lock
    lock.release()
    told = ("configuration read anew", "the new configuration is refused")
    assert rig.until(lambda: [each for each in told if each in daemon.err], "an answer") == [told[0]]
