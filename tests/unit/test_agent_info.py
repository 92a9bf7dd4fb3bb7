"""The information for an agent, from any server's text."""

from __future__ import annotations

from syncd.sandbox.mcp_servers import callable_servers

HOSTILE = {
    "git": "https://host/$(touch${IFS}x)?t='\"`id`",
    "GIT": "https://host/second",
    "a;b\nc": "http://host/x",
    "blank": "https://host/a b",
    "line": "https://host/\nexport PATH=",
    "other": "javascript:alert(1)",
    "none": "",
    "": "https://host/nameless",
}


def test_only_a_usable_address_is_passed_on() -> None:
    """A callable server has a name and a valid http address."""
    assert set(callable_servers(HOSTILE)) == {"git", "GIT", "a;b\nc"}
