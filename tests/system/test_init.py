"""`syncd init`: a first configuration, by flags or by questions, and never over another."""

from __future__ import annotations

import os
import pty
import select
import stat
import subprocess
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from command import CLOCK, SYNCD
from rig import KEY, Rig

from syncd.base.config import load_config

_ANSWER_S = 20.0
_END_OF_INPUT = "\x04"


@pytest.fixture
def bare(rig: Rig) -> Rig:
    """A home in which nothing is set up yet."""
    rig.config_file.unlink()
    rig.key_file.unlink()
    rig.config_file.parent.rmdir()
    return rig


def test_flags_make_a_configuration_that_works(bare: Rig, repo: Path) -> None:
    """What the flags say is in the file, the rest is the example's, and the next verbs take it."""
    flags = ("--path", str(bare.workspace), "--id", "box", "--sandbox-base-url", bare.emulator.base_url)
    more = ("--workspace-ignore", "*.o", "--workspace-ignore", 'a "b"', "--workspace-include-git")
    done = bare.ok("init", *flags, *more, "--sync-debounce-seconds", "0.25", "--sync-rescan-minutes", "5")
    config = load_config(str(bare.config_file))
    assert config.workspace.path == str(bare.workspace)
    assert config.workspace.ignore == ("*.o", 'a "b"')
    assert config.workspace.include_git
    assert config.sync.debounce_seconds == 0.25
    example = (repo / "config.example.toml").read_text("utf-8").splitlines()
    written = bare.config_file.read_text("utf-8").splitlines()
    assert [line for line in written if line.startswith("#")] == [
        line for line in example if line.startswith("#") and not line.startswith(("# path = ", "# id = "))
    ]
    assert stat.S_IMODE(bare.config_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(bare.config_file.parent.stat().st_mode) == 0o700
    assert "syncd check" in done.out
    assert "install -m 600 /dev/null" in done.out
    bare.ok("ls")


def test_every_key_has_its_flag(bare: Rig) -> None:
    """Each key of the configuration can be set by a flag of its own name."""
    table: dict[str, dict[str, object]] = {
        "workspace": {"path": str(bare.workspace), "use_gitignore": False, "include_git": True, "upload_secrets": True},
        "sandbox": {"base_url": "https://api.example", "region": "asia", "api_key_file": "/k", "deletions": "mirror"},
        "sandbox.acquire": {"ttl_seconds": 61, "servers": ["one", "two"]},
        "sync": {
            "debounce_seconds": 2,
            "max_wait_seconds": 3.5,
            "rescan_minutes": 4,
            "archive": "changes",
            "max_snapshot_mib": 5,
            "upload_limit_kib_per_second": 6,
        },
        "retry": {"first_delay_seconds": 7, "max_delay_seconds": 8, "give_up_after_seconds": 9},
        "notifications": {"desktop": False, "after_minutes": 10},
    }
    flags: list[str] = []
    for name, keys in table.items():
        for key, value in keys.items():
            flag = f"--{name}-{key}".replace(".", "-").replace("_", "-")
            if isinstance(value, bool):
                flags.append(flag if value else f"--no-{flag[2:]}")
            else:
                flags += [
                    word for item in (value if isinstance(value, list) else [value]) for word in (flag, str(item))
                ]
    bare.ok("init", *flags)
    written = tomllib.loads(bare.config_file.read_text("utf-8"))
    assert written["sandbox"].pop("acquire") == table.pop("sandbox.acquire")
    assert written == {"workspace": {"ignore": [], "allow_secrets": [], **table.pop("workspace")}, **table}


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        ((), 2, "--path and --id must be given"),
        (("--path", "work"), 2, "--id must be given"),
        (("--path", "work", "--id", "box", "--sync-debounce-seconds", "soon"), 78, 'sync.debounce_seconds = "soon"'),
        (("--path", "work", "--id", "box", "--sync-debounce-seconds", "nan"), 78, 'sync.debounce_seconds = "nan"'),
        (("--path", "work", "--id", "box", "--sandbox-region", "mars"), 78, 'must be "us" or "asia"'),
        (("--path", ".", "--id", "box"), 78, "is the home directory itself"),
        (("--path", "work", "--id", "box", "--sandbox-acquire-ttl-seconds", "99"), 78, "keep one of them"),
    ],
)
def test_bad_flags_write_nothing(bare: Rig, flags: Sequence[str], code: int, words: str) -> None:
    """What is missing or cannot be is said as everywhere else, and no file is left."""
    done = bare.run("init", *flags)
    assert done.code == code, done
    assert words in done.err
    assert not bare.config_file.exists()


def test_a_number_may_be_a_sandbox_id(bare: Rig) -> None:
    """An id is a text, also where it looks like a number; a path is meant from where the command runs."""
    bare.ok("init", "--path", "work", "--id", "0042", "--config", "elsewhere/other.toml")
    config = load_config(str(bare.home / "elsewhere/other.toml"))
    assert (config.workspace.path, config.sandbox.id) == (str(bare.workspace), "0042")


def test_it_never_overwrites(rig: Rig) -> None:
    """A configuration that is there stays byte for byte, and that is said before anything is asked."""
    before = rig.config_file.read_bytes()
    done = rig.run("init", "--path", "work", "--id", "other")
    assert done.code == 78
    assert f"{rig.config_file} is there already" in done.err
    assert rig.config_file.read_bytes() == before


def test_it_asks_on_a_terminal(bare: Rig) -> None:
    """Path, id, region and key are asked for, a refused path again; the key is not shown, and kept 0600."""
    code, shown = _talk(
        bare,
        [("Directory", str(bare.home)), ("Directory", "work"), ("id", "box"), ("Region", ""), ("API key", KEY)],
    )
    assert code == 0, shown
    assert "home directory itself" in shown
    config = load_config(str(bare.config_file))
    assert (config.workspace.path, config.sandbox.id, config.sandbox.region) == (str(bare.workspace), "box", "us")
    assert bare.key_file.read_text() == f"{KEY}\n"
    assert stat.S_IMODE(bare.key_file.stat().st_mode) == 0o600
    assert KEY not in shown


def test_a_key_at_hand_is_not_asked_for(bare: Rig) -> None:
    """With $KLAVIS_API_KEY there is no question about the key, and it is written nowhere."""
    bare.environ["KLAVIS_API_KEY"] = KEY
    code, shown = _talk(bare, [("Directory", "work"), ("id", "box"), ("Region", "asia")])
    assert code == 0, shown
    assert "API key, for" not in shown
    assert not bare.key_file.exists()
    assert load_config(str(bare.config_file)).sandbox.region == "asia"


def test_a_key_file_is_never_overwritten(bare: Rig) -> None:
    """A key that is stored already is not asked for, and stays."""
    bare.config_file.parent.mkdir()
    bare.write_key("the-key-from-before")
    code, shown = _talk(bare, [("Directory", "work"), ("id", "box"), ("Region", "")])
    assert code == 0, shown
    assert bare.key_file.read_text() == "the-key-from-before\n"


def test_it_can_be_left(bare: Rig) -> None:
    """Left at a question with Ctrl-D, nothing was written, and that is said."""
    code, shown = _talk(bare, [("Directory", "work"), ("id", _END_OF_INPUT)])
    assert code == 75, shown
    assert "nothing was written" in shown
    assert not bare.config_file.exists()


def _talk(rig: Rig, turns: Sequence[tuple[str, str]]) -> tuple[int, str]:
    """`syncd init` on a terminal: each answer is given once its question stands there. Exit code and all shown."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*SYNCD, "init"],
        env=rig.environment(),
        cwd=rig.home,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown, seen = "", 0
    deadline_s = CLOCK.monotonic_s() + _ANSWER_S
    try:
        for question, answer in turns:
            while question not in shown[seen:] or not shown.rstrip(" ").endswith((":", "]:")):
                shown += _read(ours, deadline_s, shown)
            seen = len(shown)
            os.write(ours, answer.encode() + (b"" if answer == _END_OF_INPUT else b"\n"))
        while text := _read(ours, deadline_s, shown):
            shown += text
        return process.wait(_ANSWER_S), shown
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _read(descriptor: int, deadline_s: float, shown: str) -> str:
    """What comes next; empty at the end."""
    assert select.select([descriptor], [], [], max(0.0, deadline_s - CLOCK.monotonic_s()))[0], shown
    try:
        return os.read(descriptor, 4096).decode("utf-8", "replace")
    except OSError:  # EIO: the other side is closed
        return ""
