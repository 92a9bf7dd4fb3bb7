"""The systemd unit for a machine and a configuration."""

from __future__ import annotations

import re

import pytest

from syncd.cli.options import shipped
from syncd.cli.service import SANDBOXING, fitted, is_as_written, switched_off, unit_of, with_digest
from syncd.core.errors import ConfigError

FOLDER = "/home/dev/.config/syncd"
FOLDERS = ("/home/dev/.local/state/syncd", "/my cache/50%/syncd")
FILES = ("syncd.service", "syncd@.service")


def unit(file: str = FILES[0], key_file: str = f"{FOLDER}/api-key", version: int = 257, *writable: str) -> str:
    """The unit as it is installed."""
    return fitted(
        shipped(file), python="/python", key_file=key_file, folders=FOLDERS, writable=writable, version=version
    )


def settings(text: str) -> list[str]:
    """The lines that count."""
    return [line for line in text.splitlines() if line and line[0] not in "#["]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("config.toml", "syncd.service"),
        ("work.toml", "syncd@work.service"),
        ("my-work_2.eu.toml", "syncd@my-work_2.eu.service"),
    ],
)
def test_a_configuration_names_its_unit(file: str, name: str) -> None:
    """The default configuration has the plain unit, another one an instance of the template."""
    assert unit_of(f"{FOLDER}/{file}", FOLDER).name == name


@pytest.mark.parametrize("file", ["a b.toml", "a@b.toml", "..", "work.conf", "sub/work.toml", "ä.toml", "a%b.toml"])
def test_a_configuration_that_no_unit_can_name(file: str) -> None:
    """It is refused with what to do, before anything is written."""
    with pytest.raises(ConfigError) as refused:
        unit_of(f"{FOLDER}/{file}", FOLDER)
    assert refused.value.hint


@pytest.mark.parametrize("file", FILES)
def test_an_older_systemd(file: str) -> None:
    """It has no notify-reload."""
    new, old = settings(unit(file)), settings(unit(file, version=252))
    assert {*new} - {*old} == {"Type=notify-reload"}
    assert {*old} - {*new} == {"Type=notify", "ExecReload=kill -HUP $MAINPID"}


@pytest.mark.parametrize("file", FILES)
def test_its_folders(file: str) -> None:
    """They are written in full, beside what else may be written to; before 254, %S was the configuration folder."""
    quoted = '"/home/dev/.local/state/syncd" "/my cache/50%%/syncd"'
    found = settings(unit(file, f"{FOLDER}/api-key", 257, "/work/.git/objects"))
    assert f'ReadWritePaths="-/work/.git/objects" {quoted}' in found
    assert f"ExecStartPre=+mkdir -p -m 0700 -- {quoted}" in found


def test_the_seal_shows_any_change() -> None:
    """A text as written or as shipped is recognised; one with another line or without its head is not."""
    text = unit()
    written, original = with_digest(text, "syncd"), shipped("syncd.service")
    assert is_as_written(written, original)
    assert is_as_written(original, original)
    changed = (written + "Nice=5\n", written.replace("LimitCORE=0", "LimitCORE=1"), text, "")
    assert not any(is_as_written(each, original) for each in changed)


@pytest.mark.parametrize("file", FILES)
def test_its_key_file(file: str) -> None:
    """It is loaded from its place and hidden there."""
    found = settings(unit(file, "/keys/100%.key"))
    assert "LoadCredential=klavis-api-key:/keys/100%%.key" in found
    assert 'InaccessiblePaths="-/keys/100%%.key"' in found


@pytest.mark.parametrize("key_file", ["/my keys/key", "/back\\slash", "/home/a b/.config/syncd/api-key"])
def test_a_key_file_that_systemd_cannot_load(key_file: str) -> None:
    """The service reads it itself: the unit neither loads nor hides it."""
    assert not [line for line in settings(unit(key_file=key_file)) if "Credential=" in line or "Inaccessible" in line]


@pytest.mark.parametrize("file", FILES)
def test_a_machine_without_namespaces(file: str) -> None:
    """All directives that need a namespace are switched off, and no others."""
    gone = {*settings(unit(file))} - {*settings(switched_off(unit(file), SANDBOXING))}
    names = {line.partition("=")[0] for line in settings(shipped(file))}
    needing = {name for name in names if re.match(r"(Private|Protect)[A-Z]|\w+Paths$|CapabilityBoundingSet", name)}
    assert {line.partition("=")[0] for line in gone} == needing
