"""`syncd init` writes a first configuration, by flags or questions, and never over another."""

from __future__ import annotations

import os
import re
import signal
import stat
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from syncd.core.config_file import load_config
from tests.system.rig import KEY, Rig
from tests.system.terminal import Terminal

# The words of each question, in their order.
QUESTIONS = ("Directory to", "Region", "one when needed]:", "API key (")


@pytest.fixture
def bare(rig: Rig) -> Rig:
    """A home without a configuration."""
    rig.bare()
    rig.config_file.parent.rmdir()
    rig.environ |= {"TERM": "xterm-256color", "TZ": "Etc/UTC"}
    return rig


def test_flags_make_a_configuration_that_works(bare: Rig, repo: Path) -> None:
    """The flags' values are in the file, the rest is the example's, and other commands use it."""
    flags = ("--path", str(bare.workspace), "--id", "box", "--base-url", bare.emulator.base_url)
    key_file = bare.home / "keys/one"
    done = bare.ok("init", *flags, "--region", "asia", "--api-key-file", str(key_file))
    config = load_config(str(bare.config_file))
    assert (config.workspace.path, config.sandbox.id) == (str(bare.workspace), "box")
    assert (config.sandbox.region, config.sandbox.api_key_file) == ("asia", str(key_file))
    example = (repo / "config.example.toml").read_text("utf-8").splitlines()
    written = bare.config_file.read_text("utf-8").splitlines()
    filled = ('# path = "~/code/project"', '# id = "your-sandbox-id"')
    assert [line for line in written if line.startswith("#")] == [
        line for line in example if line.startswith("#") and line not in filled
    ]
    assert stat.S_IMODE(bare.config_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(bare.config_file.parent.stat().st_mode) == 0o700
    assert "syncd check" in done.out
    assert "install -m 600 /dev/null" in done.out
    bare.ok("ls")


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        ((), 2, "--path and --id must be given"),
        (("--path", "work"), 2, "--path and --id must be given"),
        (("--path", "work", "--id", ""), 2, "It is empty"),
        (("--path", "work", "--id", "box", "--region", "mars"), 2, "'mars' is not one of 'us', 'asia'"),
        (("--path", "work", "--id", "box", "--base-url", "http://api.example"), 78, "sandbox.base_url"),
        (("--path", ".", "--id", "box"), 78, "is the home directory itself"),
        (("--path", "work", "--id", "box", "--sync-debounce-seconds", "5"), 2, "no such option"),
    ],
)
def test_bad_flags_write_nothing(bare: Rig, flags: Sequence[str], code: int, words: str) -> None:
    """Missing and invalid values give the usual message, and no file is written."""
    done = bare.run("init", *flags)
    assert done.code == code, done
    assert words in done.err
    assert not bare.config_file.exists()


def test_it_never_overwrites(rig: Rig) -> None:
    """An existing configuration is unchanged, and the message comes before any question."""
    before = rig.config_file.read_bytes()
    done = rig.run("init", "--path", "work", "--id", "other")
    assert done.code == 78
    assert "~/.config/syncd/config.toml is there already" in done.err
    assert rig.config_file.read_bytes() == before


@pytest.mark.parametrize("flags", [(), ("--no-store-key",)])
def test_a_script_stores_the_key_of_its_environment(bare: Rig, flags: Sequence[str]) -> None:
    """A service does not see $KLAVIS_API_KEY, so its key is stored in the key file, 0600, unless refused."""
    bare.environ["KLAVIS_API_KEY"] = KEY
    done = bare.ok("init", "--path", "work", "--id", "box", "--base-url", bare.emulator.base_url, *flags)
    assert KEY not in done.out + done.err
    if flags:
        assert not bare.key_file.exists()
        assert "which a service does not see" in done.out
    else:
        assert bare.key_file.read_text() == f"{KEY}\n"
        assert stat.S_IMODE(bare.key_file.stat().st_mode) == 0o600
        assert stat.S_IMODE(bare.key_file.parent.stat().st_mode) == 0o700


def test_the_key_lies_beside_the_configuration(bare: Rig) -> None:
    """With another `$XDG_CONFIG_HOME` the key file is there too; the configuration names it, and commands find it."""
    folder = bare.home / "other place/syncd"
    bare.environ |= {"XDG_CONFIG_HOME": str(folder.parent), "KLAVIS_API_KEY": KEY}
    place = ("--path", str(bare.workspace), "--id", "box", "--base-url", bare.emulator.base_url)
    done = bare.ok("init", *place)
    assert "wrote ~/other place/syncd/api-key\n" in done.out
    assert tomllib.loads((folder / "config.toml").read_text())["sandbox"]["api_key_file"] == f"{folder}/api-key"
    assert not (bare.home / ".config/syncd").exists()
    del bare.environ["KLAVIS_API_KEY"]
    bare.write("a.txt")
    bare.ok("push")
    text = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(re.sub(r"api_key_file = .*\n", "", text))
    bare.ok("push", "--force")


@pytest.mark.parametrize(
    ("key", "sandbox", "code", "words"),
    [
        ("another-key", "box", 78, "refused the key from $KLAVIS_API_KEY (401"),
        (KEY, "gone", 78, "Klavis knows no sandbox 'gone' (404"),
        (KEY, "box", 0, ""),
    ],
)
def test_what_the_api_refuses_is_not_written(bare: Rig, key: str, sandbox: str, code: int, words: str) -> None:
    """Key and id are tried by one request that changes nothing; a refusal is the answer, and no file is there then."""
    bare.environ["KLAVIS_API_KEY"] = key
    done = bare.run("init", "--path", "work", "--base-url", bare.emulator.base_url, "--id", sandbox)
    assert done.code == code, done
    assert done.told.count("\n") == bool(words)
    assert words in done.err
    assert key not in done.out + done.err
    assert [bare.config_file.exists(), bare.key_file.exists()] == [code == 0] * 2
    assert bare.emulator.request_log.ops() == ["get"]


def test_an_api_that_does_not_answer(bare: Rig) -> None:
    """The configuration is written all the same, and it says what was not tried."""
    bare.environ["KLAVIS_API_KEY"] = KEY
    bare.emulator.faults.script("any: 503 always")
    done = bare.ok("init", "--path", "work", "--id", "gone", "--base-url", bare.emulator.base_url)
    assert "key and sandbox could not be tried" in done.err
    assert "`syncd check` tries them later" in " ".join(done.err.split())
    assert bare.config_file.exists()


def _finished(terminal: Terminal, answers: Iterable[str], questions: Iterable[str] = QUESTIONS) -> int:
    """Answer the first questions, and return the exit code."""
    for question, answer in zip(questions, answers, strict=False):
        terminal.answer(question, answer)
    return terminal.finish()


def test_the_whole_dialog(bare: Rig) -> None:
    """From nothing to a configuration that Klavis takes; no key is shown. An answer that is refused is asked for again,
    with the reason; what was answered before still counts.
    """
    (bare.home / "my work").mkdir()
    with bare.terminal("init", "--base-url", bare.emulator.base_url) as terminal:

        def refused(question: str, answer: str, words: str) -> None:
            terminal.answer(question, answer)
            terminal.until(lambda text: words in " ".join(text.split()), words)

        refused("Directory to", "~", 'workspace.path = "~": is the home directory itself')
        refused("Directory to", "not there", "~/work/not there is no directory: name one that is there")
        terminal.answer("Directory to", "~/my work")
        refused("Region", "mars", 'sandbox.region = "mars": must be "us" or "asia"')
        terminal.answer("Region", "asia")
        refused("one when needed]:", "..", 'sandbox.id = "..": must be the id of a sandbox')
        terminal.answer("one when needed]:", "box")
        terminal.answer("API key (", KEY)
        assert terminal.finish() == 0, terminal.text
    assert bare.emulator.request_log.ops() == ["get"]
    assert {"wrote ~/.config/syncd/api-key", "wrote ~/.config/syncd/config.toml"} <= set(terminal.text.splitlines())
    assert "  syncd check  " in terminal.text
    assert KEY not in terminal.text
    assert bare.key_file.read_text() == f"{KEY}\n"
    assert stat.S_IMODE(bare.key_file.stat().st_mode) == 0o600
    written = tomllib.loads(bare.config_file.read_text("utf-8"))
    assert written["workspace"]["path"] == "~/my work"
    assert (written["sandbox"]["id"], written["sandbox"]["region"]) == ("box", "asia")


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (["", "", "box", "two words"], "the API key from the prompt has blanks or characters that no key has"),
        (["", "", "box", "another-key"], "Klavis refused the key from the prompt (401, Invalid API key)"),
    ],
)
def test_an_answer_that_is_refused(bare: Rig, answers: list[str], words: str) -> None:
    """It ends with the reason, of Klavis too; nothing is written, and no key is shown."""
    with bare.terminal("init", "--base-url", bare.emulator.base_url) as terminal:
        assert _finished(terminal, answers) == 78, terminal.text
    assert words in terminal.text.replace("\n", "")
    assert not bare.config_file.parent.exists()
    assert answers[-1] not in terminal.text or len(answers) < 4


def test_enter_takes_what_is_offered(bare: Rig) -> None:
    """The current directory, the usual address and region; without an id a sandbox is acquired; the key comes later."""
    with bare.terminal("init") as terminal:
        assert _finished(terminal, [""] * 5, [QUESTIONS[0], "Klavis' address", *QUESTIONS[1:]]) == 0, terminal.text
    config = load_config(str(bare.config_file))
    sandbox = config.sandbox
    assert (config.workspace.path, sandbox.base_url) == (str(bare.workspace), "https://api.klavis.ai")
    assert (sandbox.id, sandbox.region) == (None, "us")
    assert sandbox.acquire
    assert sandbox.acquire.ttl_seconds == 7200
    assert "The API key is still missing" in terminal.text


@pytest.mark.parametrize("stored", ["", KEY, "the-key-from-before", "no key"])
def test_a_key_at_hand_is_not_asked_for(bare: Rig, stored: str) -> None:
    """That of $KLAVIS_API_KEY is stored; a key file that is there stays, and it is said if that has not this key."""
    if stored:
        bare.config_file.parent.mkdir()
        bare.write_key(stored)
    bare.environ["KLAVIS_API_KEY"] = KEY
    with bare.terminal("init", "--base-url", bare.emulator.base_url) as terminal:
        assert _finished(terminal, ("", "", "box")) == 0, terminal.text
    assert "API key (" not in terminal.text
    assert bare.key_file.read_text() == f"{stored or KEY}\n"
    assert ("has another key, or none" in terminal.text) == (stored not in ("", KEY))
    assert bare.emulator.request_log.ops() == ["get"]


@pytest.mark.parametrize("way", ["\x04", signal.SIGINT])
def test_it_can_be_aborted(bare: Rig, way: str | signal.Signals) -> None:
    """Ctrl-D or Ctrl-C at a question writes nothing, and says so."""
    with bare.terminal("init", columns=60) as terminal:
        terminal.answer("Directory to", "")
        terminal.asked("Klavis' address")
        terminal.type(way) if isinstance(way, str) else terminal.send(way)
        assert terminal.finish() == 75, terminal.text
    assert "Ctrl-C leaves, and\nnothing is written.\n\nDirectory" in terminal.text
    assert "\nsyncd: stopped; nothing was written" in terminal.text
    assert not bare.config_file.parent.exists()


@pytest.mark.parametrize("locale", ["C.UTF-8", "POSIX"])
def test_a_path_that_no_file_can_hold(bare: Rig, locale: str) -> None:
    """It is refused whatever the locale, and its control characters are escaped."""
    bare.environ["LC_ALL"] = locale
    with bare.terminal("init") as terminal:
        terminal.asked("Directory to")
        os.write(terminal._ours, b"\x1b[45mw\xff\n")
        terminal.until(lambda text: "must be valid UTF-8" in " ".join(text.split()), "the refusal")
    assert {cell.bg for row in terminal.screen.buffer.values() for cell in row.values()} == {"default"}


@pytest.mark.parametrize(
    ("locks", "setup"),
    [
        (["uv.lock"], ["uv", "sync", "--frozen"]),
        (["package-lock.json", "go.sum"], ["sh", "-c", "npm ci && go mod download"]),
    ],
)
def test_a_proposed_setup(bare: Rig, locks: list[str], setup: list[str]) -> None:
    """Where there is a lock file at the top, a set-up is proposed as a comment: it is off, and can be had as it stands
    there. Else the keys are there with their defaults.
    """
    bare.write("deep/package-lock.json")
    assert "runs code" not in bare.ok("init", "--path", "work", "--id", "box").out
    assert tomllib.loads(bare.config_file.read_text())["sandbox"]["setup"] == []
    bare.config_file.unlink()
    for name in locks:
        bare.write(name)
    told = bare.ok("init", "--path", "work", "--id", "box").out
    assert "runs code there only if you" in told
    assert all(name in told for name in locks)
    text = bare.config_file.read_text()
    assert "It runs code in the sandbox." in text
    assert tomllib.loads(text)["sandbox"].keys().isdisjoint({"setup", "setup_files"})
    sandbox = tomllib.loads(re.sub("^# (setup)", r"\1", text, flags=re.MULTILINE))["sandbox"]
    assert (sandbox["setup"], sandbox["setup_files"]) == (setup, locks)
