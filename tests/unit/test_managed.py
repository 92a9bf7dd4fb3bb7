"""The managed file: what becomes of a person's configuration under its defaults and its ceiling, or the error."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from syncd.core.config_file import ManagedLayer, check_managed, layered
from syncd.core.errors import ConfigError
from syncd.core.settings import Config

FILE = "/etc/syncd/managed.toml"
OWN: dict[str, Any] = {"workspace": {"path": "/srv/project"}, "sandbox": {"id": "box"}}
ALL = """\
[ceiling]
base_urls = ["https://api.klavis.ai", "https://api.eu.klavis.ai/"]
agent_changes = ["save", "hold"]
upload_secrets = false
ignore = ["/customers/", '*.dump']
max_snapshot_mib = 100
"""


def layer_of(text: str) -> ManagedLayer:
    """The layer of a managed file with this text."""
    return check_managed(tomllib.loads(text))


def under(managed: str, **tables: dict[str, Any]) -> Config:
    """The configuration of `OWN` with these keys, on a machine with this managed file."""
    raw = {name: {**OWN.get(name, {}), **tables.get(name, {})} for name in OWN | tables}
    return layered(raw, "/home/dev/config.toml", layer_of(managed))


def test_a_default_where_the_person_says_nothing() -> None:
    """A key has the person's value, else the managed one, else its own default; what is managed is named."""
    managed = "[sync]\ndebounce_seconds = 5\nmax_wait_seconds = 50\n[retry]\nfirst_delay_seconds = 3\n"
    config = under(managed, sync={"max_wait_seconds": 9})
    assert (config.sync.debounce_seconds, config.sync.max_wait_seconds, config.sync.rescan_minutes) == (5, 9, 10)
    assert config.retry.first_delay_seconds == 3
    assert config.managed is not None
    assert config.managed.defaults == ("sync.debounce_seconds", "retry.first_delay_seconds")
    assert config.managed.summary() == f"{FILE} gives sync.debounce_seconds, retry.first_delay_seconds"


def test_relative_paths_are_relative_to_the_managed_file() -> None:
    """A managed path is relative to its own folder."""
    config = under('[sandbox]\napi_key_file = "key"\n')
    assert config.sandbox.api_key_file == "/etc/syncd/key"


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("base_url", "https://api.example.com", 'ceiling.base_urls allows "https://api.klavis.ai", "https://api.eu'),
        ("base_url", "https://api.klavis.ai.example.com", "ceiling.base_urls"),
        ("base_url", "https://api.klavis.ai/other", "ceiling.base_urls"),
        ("base_url", "https://localhost.example.com", "ceiling.base_urls"),
        ("agent_changes", "overwrite", 'ceiling.agent_changes allows "save", "hold"'),
    ],
)
def test_a_choice_beyond_the_ceiling(key: str, value: str, words: str) -> None:
    """It is refused in one line with the key, the value, the managed file and what its ceiling allows."""
    with pytest.raises(ConfigError) as caught:
        under(ALL, sandbox={key: value})
    text = str(caught.value)
    assert f'sandbox.{key} = "{value}": the ceiling of {FILE} does not allow it: ' in text
    assert words in text
    assert caught.value.exit_code == 78


@pytest.mark.parametrize(
    "url", ["https://api.klavis.ai/", "https://api.eu.klavis.ai", "http://127.0.0.1:8080", "http://localhost"]
)
def test_addresses_within_the_ceiling(url: str) -> None:
    """A listed address is allowed, with a slash at its end or not, and so is this machine, where nothing leaves it."""
    assert under(ALL, sandbox={"base_url": url}).sandbox.base_url == url


def test_what_only_has_more_stay_home_is_applied() -> None:
    """Secrets and size are held to the ceiling, whatever the person's file says, and its keys are named."""
    config = under(
        ALL,
        workspace={"upload_secrets": True, "allow_secrets": ["*.pem"], "ignore": ["!*.dump"]},
        sync={"max_snapshot_mib": 101},
    )
    assert not config.workspace.upload_secrets
    assert config.workspace.allow_secrets == ()
    assert config.sync.max_snapshot_mib == 100
    assert config.always_ignored == ("/customers/", "*.dump")
    assert config.managed is not None
    assert config.managed.narrowed == ("workspace.upload_secrets", "workspace.allow_secrets", "sync.max_snapshot_mib")
    assert config.managed.ceiling == (
        "sandbox.base_url",
        "sandbox.agent_changes",
        "workspace.upload_secrets",
        "workspace.allow_secrets",
        "workspace.ignore",
        "sync.max_snapshot_mib",
    )


def test_a_person_may_be_stricter() -> None:
    """What keeps to the ceiling stays as it is, and nothing is said to be overridden."""
    config = under(ALL, sync={"max_snapshot_mib": 99}, sandbox={"agent_changes": "hold"})
    assert config.sync.max_snapshot_mib == 99
    assert config.managed is not None
    assert config.managed.narrowed == ()


def test_the_values_for_a_new_file() -> None:
    """A new configuration leaves out what the managed file gives, and what the ceiling would take back."""
    text = "[sync]\ndebounce_seconds = 5\nmax_snapshot_mib = 90\n[sandbox.acquire]\nttl_seconds = 60\n"
    expected = {"sync.debounce_seconds": 5, "sync.max_snapshot_mib": 90, "sandbox.acquire.ttl_seconds": 60}
    assert layer_of(text).values() == expected
    assert layer_of(f"{text}{ALL}".replace("= 100", "= 80")).values()["sync.max_snapshot_mib"] == 80


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[synch]\n", "synch: unknown section"),
        ("sync = 5\n", '"sync" must be a table'),
        ("ceiling = 5\n", "ceiling = 5: must be a table"),
        ("[sync]\ndebounce_seconds = -1\n", "sync.debounce_seconds = -1"),
        ("[sandbox]\ndeletions = 5\n", "sandbox.deletions = 5"),
        ('[workspace]\npath = "/srv"\n', 'workspace.path = "/srv": is no default for all'),
        ('[sandbox]\nid = "box"\n', "a [sandbox.acquire] table is for all"),
        ("[ceiling]\nbase_url = 1\n", "ceiling.base_url: unknown key"),
        ('[ceiling]\nbase_urls = "https://api.klavis.ai"\n', "a list of addresses"),
        ('[ceiling]\nbase_urls = ["api.klavis.ai"]\n', 'ceiling.base_urls = "api.klavis.ai"'),
        ('[ceiling]\nbase_urls = ["http://example.com"]\n', "plain http"),
        ('[ceiling]\nagent_changes = ["never"]\n', 'a list of "save", "hold" and "overwrite"'),
        ('[ceiling]\nignore = ["!a"]\n', "name what is excluded only"),
        ("[ceiling]\nmax_snapshot_mib = 0\n", "a whole number of MiB from 1"),
        ('[ceiling]\nbase_urls = ["https://api.eu.klavis.ai"]\n', 'sandbox.base_url = "https://api.klavis.ai"'),
        ('[ceiling]\nbase_urls = []\n[sandbox]\nbase_url = "https://a.example"\n', "ceiling.base_urls allows none"),
        ('[ceiling]\nagent_changes = ["hold"]\n', 'sandbox.agent_changes = "save"'),
    ],
)
def test_a_bad_managed_file(text: str, words: str) -> None:
    """The error names the key and what is allowed; a default beyond its own ceiling is one too."""
    with pytest.raises(ConfigError) as caught:
        layer_of(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
