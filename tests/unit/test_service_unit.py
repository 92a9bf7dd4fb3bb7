"""The systemd unit for a machine and a configuration, and systemd's properties in words."""

from __future__ import annotations

import re

import pytest

from syncd.cli.options import shipped
from syncd.cli.service.systemd import (
    Unit,
    environment_in,
    fitted,
    is_unchanged,
    report,
    settings_for,
    unit_of,
    with_digest,
)
from syncd.core.errors import ConfigError

FOLDER = "/home/dev/.config/syncd"
PLAIN = Unit("syncd.service", "syncd.service", "/home/dev/.config/systemd/user")


@pytest.mark.parametrize(
    ("file", "unit"),
    [
        ("config.toml", "syncd.service"),
        ("work.toml", "syncd@work.service"),
        ("my-work_2.eu.toml", "syncd@my-work_2.eu.service"),
    ],
)
def test_a_configuration_names_its_unit(file: str, unit: str) -> None:
    """The default configuration has the plain unit, another one an instance of the template."""
    assert unit_of(f"{FOLDER}/{file}", FOLDER).name == unit


@pytest.mark.parametrize("file", ["a b.toml", "a@b.toml", "..", "work.conf", "sub/work.toml", "ä.toml", "a%b.toml"])
def test_a_configuration_that_no_unit_can_name(file: str) -> None:
    """It is refused with what to do, before anything is written."""
    with pytest.raises(ConfigError) as refused:
        unit_of(f"{FOLDER}/{file}", FOLDER)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("version", "there", "absent"),
    [
        (257, ["Type=notify-reload", "RestartSteps=8"], ["ExecReload="]),
        (253, ["Type=notify-reload", "RestartSec=15"], ["ExecReload=", "RestartSteps=", "RestartMaxDelaySec="]),
        (249, ["Type=notify\n", "ExecReload=kill -HUP $MAINPID", "RestartSec=15"], ["notify-reload", "RestartSteps="]),
    ],
)
def test_an_older_systemd(version: int, there: list[str], absent: list[str]) -> None:
    """Directives that it does not know are replaced."""
    for file in ("syncd.service", "syncd@.service"):
        lines = [line for line in fitted(shipped(file), "/python", version).splitlines() if not line.startswith("#")]
        text = "\n".join(lines)
        assert all(word in text for word in there)
        assert not any(word in text for word in absent)


@pytest.mark.parametrize(
    ("version", "state_home", "folder"),
    [(257, "", "%S/syncd"), (252, "", "%h/.local/state/syncd"), (252, "/my state/50%", '"/my state/50%%/syncd"')],
)
def test_the_state_folder_of_an_older_systemd(version: int, state_home: str, folder: str) -> None:
    """Before 254 a user's %S was the configuration folder, so the paths are written in full."""
    for file in ("syncd.service", "syncd@.service"):
        text = fitted(shipped(file), "/python", version, state_home)
        settings = [line for line in text.splitlines() if not line.startswith("#")]
        assert f"ReadWritePaths={folder} %C/syncd" in settings
        assert f"ExecStartPre=+mkdir -p -m 0700 -- {folder} %C/syncd" in settings
        assert any("%S" in line for line in settings) == (version >= 254)


def test_the_seal_shows_any_change() -> None:
    """A text as written or as shipped is recognised; one with another line or without its head is not."""
    text = fitted(shipped("syncd.service"), "/python", 257)
    written, original = with_digest(text, "syncd"), shipped("syncd.service")
    assert is_unchanged(written, original)
    assert is_unchanged(original, original)
    changed = (written + "Nice=5\n", written.replace("LimitCORE=0", "LimitCORE=1"), text, "")
    assert not any(is_unchanged(each, original) for each in changed)


def test_the_manager_s_environment() -> None:
    """A variable is written plainly, or quoted if it has a blank or a quote."""
    text = "A=/home/dev\nB=$'/home/a b/it\\'s'\nC=\nD=$'x\\\\n\\ny'\nE=a=b\n"
    wanted = {"A": "/home/dev", "B": "/home/a b/it's", "C": "", "D": "x\\n\ny", "E": "a=b"}
    assert environment_in(text) == wanted


def test_a_key_file_of_its_own() -> None:
    """It is loaded from its place and hidden there, instead of the usual one."""
    lines = _drop_in(key_file="/keys/100%.key").splitlines()
    assert lines.index("LoadCredential=") < lines.index("LoadCredential=klavis-api-key:/keys/100%%.key")
    assert lines.index("InaccessiblePaths=") < lines.index('InaccessiblePaths="-/keys/100%%.key"')


@pytest.mark.parametrize("key_file", ["/my keys/key", "/back\\slash", "/home/a b/.config/syncd/api-key"])
def test_a_key_file_that_systemd_cannot_load(key_file: str) -> None:
    """The service reads it itself: the unit neither loads nor hides it."""
    text = _drop_in(key_file=key_file)
    assert "LoadCredential=\n" in text
    assert "InaccessiblePaths=\n" in text
    assert key_file not in text


@pytest.mark.parametrize(("path", "private"), [("/tmp/work", False), ("/var/tmp/a/b", False), ("/tmpfiles", True)])
def test_a_workspace_among_temporary_files(path: str, private: bool) -> None:
    """The unit makes a workspace below /tmp visible."""
    assert ("PrivateTmp=no" not in _drop_in(visible=(path,))) == private


def test_a_machine_without_namespaces() -> None:
    """All directives that need a namespace are switched off, and no others."""
    text = _drop_in(sandboxing=False)
    for file in ("syncd.service", "syncd@.service"):
        names = {line.partition("=")[0] for line in shipped(file).splitlines() if not line.startswith("#")}
        sandboxing = {
            name for name in names if re.match(r"(Private|Protect)[A-Z]|\w+Paths$|CapabilityBoundingSet", name)
        }
        assert {line.partition("=")[0] for line in text.splitlines() if "=" in line and line[0] != "#"} == sandboxing


def _drop_in(
    key_file: str = f"{FOLDER}/api-key", visible: tuple[str, ...] = ("/home/dev/work",), sandboxing: bool = True
) -> str:
    return settings_for(key_file, usual_key_file=f"{FOLDER}/api-key", visible=visible, sandboxing=sandboxing)


@pytest.mark.parametrize(
    ("prepared", "words"),
    [
        ("code=exited ; status=243", ["exit 243", "systemd cannot read the API key file", "read /key"]),
        ("code=exited ; status=1", ["folders cannot be made", "restart syncd"]),
        ("code=exited ; status=0", ["SIGKILL", "by itself"]),
        ("code=(null) ; status=0/0", ["SIGKILL", "by itself"]),
    ],
)
def test_what_comes_before_the_daemon(prepared: str, words: list[str]) -> None:
    """If a command before the daemon fails, the daemon's last exit is not shown as the cause."""
    reported = {"LoadState": "loaded", "ActiveState": "activating", "SubState": "auto-restart"}
    reported |= {"ExecMainCode": "2", "ExecMainStatus": "9"}
    reported["ExecStartPre"] = f"{{ path=mkdir ; argv[]=+mkdir -p ; ignore_errors=no ; pid=7 ; {prepared} }}"
    found = report(PLAIN, reported, "", "/key", 0)
    text = f"{found.state}; {found.last}; {found.remedy}"
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize(
    ("properties", "code", "words"),
    [
        ("ActiveState=active MainPID=7", 0, ["running as process 7"]),
        ("ActiveState=active MainPID=7 NeedDaemonReload=yes", 0, ["daemon-reload"]),
        ("ActiveState=active MainPID=7 StatusText=held", 0, ["running as process 7: held", "syncd status"]),
        ("ActiveState=active ExecMainStartTimestamp=@99", 0, ["key file changed", "restart syncd"]),
        ("ActiveState=active ExecMainStartTimestamp=@100", 0, ["running"]),
        ("ActiveState=failed ExecMainCode=1 ExecMainStatus=78", 78, ["exit 78", "syncd check", "restart syncd"]),
        ("ActiveState=active UnitFileState=disabled", 0, ["next login", "enable syncd"]),
        ("ActiveState=active UnitFileState=enabled", 0, ["running"]),
        ("ActiveState=activating SubState=auto-restart ExecMainCode=1 ExecMainStatus=1", 78, ["install syncd again"]),
        ("ActiveState=activating SubState=auto-restart ExecMainCode=1 ExecMainStatus=2", 78, ["syncd service install"]),
        ("LoadState=bad-setting ActiveState=inactive", 78, ["not understand", "verify syncd.service", "daemon-reload"]),
        ("ActiveState=failed ExecMainCode=1 ExecMainStatus=203", 78, ["cannot be run", "syncd service install"]),
        ("ActiveState=failed ExecMainCode=1 ExecMainStatus=217", 78, ["user namespaces", "syncd service install"]),
        ("ActiveState=failed ExecMainCode=2 ExecMainStatus=9 NRestarts=3", 78, ["SIGKILL", "3 restarts", "logs"]),
        ("ActiveState=failed Result=watchdog", 78, ["watchdog"]),
        ("ActiveState=activating SubState=auto-restart ExecMainCode=1 ExecMainStatus=75", 75, ["exit 75", "by itself"]),
        ("ActiveState=activating SubState=start", 75, ["starting"]),
        ("ActiveState=deactivating SubState=stop-sigterm", 75, ["stopping"]),
        ("ActiveState=inactive", 75, ["stopped", "restart syncd"]),
        ("LoadState=not-found ActiveState=inactive", 78, ["not installed", "syncd service install"]),
        ("LoadState=masked ActiveState=inactive", 78, ["masked", "systemctl --user unmask syncd"]),
        ("", 78, ["not installed"]),
    ],
)
def test_the_state_in_words(properties: str, code: int, words: list[str]) -> None:
    """Each state has its exit code, its cause and the next command."""
    reported = {"LoadState": "loaded"} if properties else {}
    reported |= dict(word.split("=", 1) for word in properties.split())
    found = report(PLAIN, reported, "", "/key", 100)
    assert found.exit_code == code
    text = f"{found.state}; {found.last}; {found.remedy}"
    assert [word for word in words if word not in text] == []
    assert ("key file changed" in text) == ("key file changed" in words)
