"""Small worlds: all that can become of one path and what is in it, with a death at each commit of the sync.

A world is the kind of the path where it was sent, what a person and the agent made of it since, the moment at which the
agent did, the settings, the commit before or after which the daemon dies, and what happens before the next one has
synced: nothing, another edit, a revert, or one of the agent's. Recovery is by ordinary syncs alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, product

# What a person makes of the path, by its kind; `{}` is the number of the text.
_HERE = {
    "nothing": "remove('p')",
    "file": "remove('p')\nwrite('p', 8, {})",
    "folder": "remove('p')\nmkdir('p')\nwrite('p/c', 8, {})",
    "link": "remove('p')\nsymlink('p', 'q')",
}
_SAME = {"same": ""}
_AGENTS = {
    "nothing": "agent_removes('p')",
    "file": "agent_removes('p')\nagent_writes('p', {})",
    "folder": "agent_removes('p')\nagent_makes_folder('p', {})",
    "link": "agent_links('p', 'q')",
}
_MOMENTS = ("before the edit", "during the upload")
# Uploaded, marked, a removal announced, recorded: no sync of one path commits more often.
_DEATHS = (None, *product(range(1, 5), ("before", "after")))
_THEN = {
    "nothing": "",
    "an edit": "write('q', 8, 90)\nwrite('p', 8, 91)",
    "a revert": None,
    "the agent writes": "agent_writes('p', 92)\nwrite('q', 8, 93)",
}
_SETTINGS = tuple(product(("mirror", "keep"), ("save", "hold")))


_CHANGES = tuple(pair for pair in product(_SAME | _HERE, _SAME | _AGENTS) if pair != ("same", "same"))
COUNT = len(_HERE) * len(_CHANGES) * len(_MOMENTS) * len(_SETTINGS) * len(_DEATHS) * len(_THEN)


def worlds(first: int = 0, every: int = 1) -> Iterator[tuple[str, str]]:
    """Yield each `every`-th world from number `first` on: its description, and its scenario."""
    found = product(_HERE, _CHANGES, _MOMENTS, _SETTINGS, _DEATHS, _THEN)
    for base, (here, there), moment, settings, death, then in islice(found, first, None, every):
        words = f"{base} was sent; here {here}, there {there} {moment}; {settings}; dies {death}; then {then}"
        yield words, _scenario(base, here, there, moment, settings, death, then)


def _scenario(
    base: str, here: str, there: str, moment: str, settings: tuple[str, str], death: tuple[int, str] | None, then: str
) -> str:
    deletions, agent_changes = settings
    sent = _HERE[base].format(1)
    agents = (_SAME | _AGENTS)[there].format(3)
    steps = [f"settings('{deletions}', 'auto', 0, 0, 1.0, '{agent_changes}')", "write('q', 8, 0)", sent, "rest(1.0)"]
    steps.append("wait_idle()")
    if moment == "before the edit":
        steps.append(agents)
    else:
        for name, _, args in (step.partition("(") for step in agents.splitlines()):
            steps.append(f"at_request('upload', 'after', '{name}', {args.rstrip(')')},)")
    if death is not None:
        steps.append(f"die_at_commit{death!r}")
    # Without an edit of the path, the sync is one of another file.
    steps += [(_SAME | _HERE)[here].format(2), "write('q', 8, 4)", "wait_idle()"]
    steps += [sent if then == "a revert" else _THEN[then] or "", "wait_idle()"]
    return "\n".join(filter(None, steps)) + "\n"
