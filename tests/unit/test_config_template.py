"""The example configuration filled with values keeps its comments and reads back as these values."""

from __future__ import annotations

import tomllib

import pytest

from syncd.cli.config import toml
from syncd.cli.init import filled
from syncd.core.errors import ConfigError

EXAMPLE = """\
# About the whole.
[workspace]
# About the path.
# path = "~/code"

ignore = []
[sandbox]
# id = "yours"
# [sandbox.acquire]
# ttl_seconds = 7200
[sync]
ignore = 1
"""


def test_each_value_is_on_its_own_line() -> None:
    """A key is set where it is shown, commented or not, in its own table only; all else stays."""
    text = filled(EXAMPLE, {"workspace.path": "/x", "workspace.ignore": ("*.o", "a b")})
    assert text == EXAMPLE.replace('# path = "~/code"', 'path = "/x"').replace("ignore = []", 'ignore = ["*.o", "a b"]')


def test_a_key_that_is_not_shown_is_an_error() -> None:
    """A key that the example does not show is an error; its value is not lost silently."""
    with pytest.raises(KeyError):
        filled(EXAMPLE, {"sync.unheard_of": 1})


@pytest.mark.parametrize(
    "value",
    ["", 'a "quoted" \\ one', "tab\tline\nbell\x07del\x7f", "naïve 文字 😀", True, 0, 7200, 1.5, 1e-7, [], ["a", "b"]],
)
def test_values_round_trip(value: object) -> None:
    """TOML reads back the values that were written, whatever is in them."""
    assert tomllib.loads(f"v = {toml(value, 'v')}") == {"v": value}


def test_a_name_that_is_no_unicode_is_refused() -> None:
    """A path that is not UTF-8 cannot be in a TOML file; the error names the key."""
    with pytest.raises(ConfigError, match=r'workspace\.path = "/x/\\udce9"'):
        toml("/x/\udce9", "workspace.path")
