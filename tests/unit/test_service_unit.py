"""The systemd unit for a machine and a configuration."""

from __future__ import annotations

import re

import pytest

from syncd.cli.options import shipped
from syncd.cli.service.systemd import (
    environment_in,
    fitted,
    is_unchanged,
    settings_for,
    unit_of,
    with_digest,
)
from syncd.core.errors import ConfigError

FOLDER = "/home/dev/.config/syncd"


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
