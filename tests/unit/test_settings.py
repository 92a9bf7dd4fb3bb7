"""The configuration: values that are accepted, and the one-line error for every other."""

from __future__ import annotations

from typing import Any

import pytest

from syncd.core.config_file import load_config
from syncd.core.errors import ConfigError
from syncd.core.settings import AcquireKeys, check_config

GOOD: dict[str, Any] = {"workspace": {"path": "/srv/project"}, "sandbox": {"id": "box"}}


def with_key(section: str, key: str, value: Any) -> dict[str, Any]:
    """The smallest valid configuration with one value added or replaced."""
    return {**GOOD, section: {**GOOD.get(section, {}), key: value}}


def refusal(raw: dict[str, Any]) -> ConfigError:
    """Return the error for the configuration; it must be one line."""
    with pytest.raises(ConfigError) as caught:
        check_config(raw, "/etc/syncd.toml")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 78
    return caught.value


@pytest.mark.parametrize(
    ("section", "key", "value", "shown", "allowed"),
    [
        ("workspace", "path", "", '""', "not empty"),
        ("workspace", "path", "/", '"/"', "root directory"),
        ("workspace", "path", "~", '"~"', "home directory itself"),
        ("workspace", "path", "~/..", '"~/.."', "above your home"),
        ("workspace", "path", "a\0b", r'"a\x00b"', "without NUL"),
        ("workspace", "ignore", "*.tmp", '"*.tmp"', "list of patterns"),
        ("workspace", "use_gitignore", "yes", '"yes"', "true or false"),
        ("workspace", "git", "all", '"all"', '"baseline", "none" or "raw"'),
        ("workspace", "upload_secrets", None, "None", "true or false"),
        ("sandbox", "id", "", '""', "the id of a sandbox"),
        ("sandbox", "id", " ", '" "', "the id of a sandbox"),
        ("sandbox", "base_url", "ftp://api.klavis.ai", '"ftp://api.klavis.ai"', "https address"),
        ("sandbox", "base_url", "http://api.klavis.ai", '"http://api.klavis.ai"', "plain http would show the API key"),
        ("sandbox", "base_url", "http://0.0.0.0", "0.0.0.0", "plain http"),
        ("sandbox", "base_url", "http://localhost@example.com", '"http://…@example.com"', "https address"),
        ("sandbox", "base_url", "https://user:pw@example.com", '"https://…@example.com"', "https address"),
        ("sandbox", "base_url", "https://example.com/?a=b", '"https://example.com/?…"', "https address"),
        ("sandbox", "base_url", "https://example.com:65536", ":65536", "https address"),
        ("sandbox", "region", "eu", '"eu"', '"us" or "asia"'),
        ("sandbox", "deletions", "yes", '"yes"', '"keep" or "mirror"'),
        ("sandbox", "api_key_file", "", '""', "not empty"),
        ("sandbox", "api_key_file", "a\0b", r'"a\x00b"', "without NUL"),
        ("sandbox", "api_key_file", ["sk-5ecret"], 'sandbox.api_key_file = "…"', "path in quotes"),
        ("sync", "on_synced", "tell", '"tell"', "list of a program and its arguments"),
        ("sync", "on_synced", [""], "['']", "begin with the program"),
        ("sync", "on_synced", ["a", "b\0"], "x00", "without NUL"),
        ("sandbox", "setup", "npm ci", '"npm ci"', "list of a program and its arguments"),
        ("sandbox", "setup", [""], "['']", "begin with the program"),
        ("sandbox", "setup_files", "x", '"x"', "list of patterns"),
        ("sandbox", "setup_timeout_seconds", 4, "4", "from 5 to 86400"),
        ("sandbox", "acquire", 1, "1", "[sandbox.acquire]"),
        ("sync", "debounce_seconds", float("nan"), "nan", "from 0 to 86400"),
        ("sync", "debounce_seconds", True, "true", "from 0 to 86400"),
        ("sync", "rescan_minutes", 0, "0", "more than 0"),
        ("sync", "archive", "delta", '"delta"', '"auto" or "full"'),
        ("sync", "max_snapshot_mib", 1.5, "1.5", "whole number"),
        ("sync", "upload_limit_kib_per_second", -1, "-1", "0 for no limit"),
        ("retry", "max_delay_seconds", 86_401, "86401", "at most 86400"),
        ("retry", "give_up_after_seconds", "ever", '"ever"', "from 0 to 86400"),
    ],
)
def test_a_bad_value(section: str, key: str, value: Any, shown: str, allowed: str) -> None:
    """The error for each bad value names the key, the value and what is allowed, in one line."""
    text = str(refusal(with_key(section, key, value)))
    assert f"{section}.{key}" in text
    assert shown in text
    assert allowed in text


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({**GOOD, "synch": {}}, ("synch", "unknown section", "workspace, sandbox, sync, retry")),
        ({**GOOD, "sync": 5}, ("sync = 5", "must be a table", "[sync]")),
        (with_key("sync", "debounce", 1), ("sync.debounce", "unknown key", "debounce_seconds")),
        ({"sandbox": {"id": "box"}}, ("workspace.path is missing", "[workspace]")),
        ({"workspace": {"path": "/srv/project"}}, ("sandbox.id is missing", "[sandbox.acquire]")),
        (with_key("sandbox", "acquire", {}), ("sandbox.id", "not together with [sandbox.acquire]")),
        (with_key("sandbox", "acquire", {"ttl_seconds": 59}), ("sandbox.acquire.ttl_seconds = 59", "from 60 to 86400")),
        (with_key("sandbox", "acquire", {"ttl": 60}), ("sandbox.acquire.ttl", "unknown key", "ttl_seconds")),
        ({**GOOD, "a\nb": {}}, (r"a\nb: unknown section",)),
        (with_key("sync", "a\nb", 1), (r"sync.a\nb: unknown key",)),
        (with_key("sandbox", "region", "x\ny" * 100), ("sandbox.region", r"x\ny")),
    ],
)
def test_a_bad_shape(raw: dict[str, Any], words: tuple[str, ...]) -> None:
    """Unknown sections and keys, and missing or contradicting ones, are an error that says what is allowed."""
    text = str(refusal(raw))
    assert all(word in text for word in words), text


def test_the_error_shows_the_value_as_written() -> None:
    """The error shows letters of any language, and escapes control characters."""
    text = str(refusal(with_key("sandbox", "region", "Büro\x1b[2J")))
    assert "Büro" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("HTTP://[::1]:1/", "http://[::1]:1"),
        ("http://localhost:80", "http://localhost"),
        ("https://Example.com:443/api/", "https://example.com/api"),
    ],
)
def test_accepted_addresses(written: str, url: str) -> None:
    """Https is accepted for any address, plain http only for this machine; each address has one form."""
    assert check_config(with_key("sandbox", "base_url", written)).sandbox.base_url == url


def test_acquire_in_place_of_an_id() -> None:
    """A [sandbox.acquire] table replaces the id, and has its own defaults."""
    config = check_config({**GOOD, "sandbox": {"acquire": {"ttl_seconds": 60}}})
    assert config.sandbox.acquire == AcquireKeys(ttl_seconds=60)


def test_no_file() -> None:
    """The error for a missing file says how to make one."""
    with pytest.raises(ConfigError, match=r"file at /nowhere/x\.toml: run `syncd init --config /nowhere/x\.toml`,"):
        load_config("/nowhere/x.toml")


def test_a_further_sandbox_has_the_keys_of_the_first() -> None:
    """What `[sandboxes.NAME]` does not set counts as in `[sandbox]`, but which sandbox it is."""
    raw = {
        "workspace": {"path": "/w"},
        "sandbox": {"id": "a", "deletions": "keep", "api_key_file": "/k"},
        "sandboxes": {"blue": {"id": "b", "deletions": "mirror"}, "red-2": {"acquire": {}}},
    }
    config = check_config(raw, "/c/config.toml")
    assert list(config.sandboxes) == ["main", "blue", "red-2"]
    assert config.sandboxes["main"] == config.sandbox
    blue, red = config.for_sandbox("blue"), config.for_sandbox("red-2")
    assert (blue.sandbox_name, blue.sandbox.id, blue.sandbox.deletions) == ("blue", "b", "mirror")
    assert (red.sandbox.id, red.sandbox.deletions, red.sandbox.api_key_file) == (None, "keep", "/k")


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ([], "sandboxes = []: must be tables"),
        ({"main": {"id": "b"}}, 'sandboxes."main"'),
        ({"a b": {"id": "b"}}, 'sandboxes."a b"'),
        ({"b": 1}, "sandboxes.b = 1: must be a table"),
        ({"b": {}}, "sandboxes.b.id is missing"),
        ({"b": {"id": "b", "acquire": {}}}, "not together with [sandboxes.b.acquire]"),
        ({"b": {"id": "a"}}, "sandboxes.b.id = \"a\": 'main' has that sandbox"),
        ({"b": {"id": "x", "base_url": "https://A.b"}, "c": {"id": "x", "base_url": "https://a.b:443/"}}, "'b' has"),
        ({"b": {"id": "b", "colour": 1}}, "sandboxes.b.colour: unknown key"),
    ],
)
def test_a_bad_further_sandbox(others: Any, words: str) -> None:
    """The line names the table and what is allowed; two names never have one sandbox."""
    raw = {"workspace": {"path": "/w"}, "sandbox": {"id": "a"}, "sandboxes": others}
    assert words in str(refusal(raw))
