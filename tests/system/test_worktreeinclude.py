"""`.worktreeinclude`: what git ignores and an agent needs is sent; a person is told of it."""

from __future__ import annotations

from tests.system.rig import DEFAULTS, Rig

HOME = {".env": "TOKEN=home\n", "own.log": "x\n", "node_modules/m.js": "x\n"}
BROUGHT = {"a.log": "x\n", "data/d/x.csv": "1\n", "sub/b.log": "x\n"}


def _fill(rig: Rig) -> None:
    rig.configure(DEFAULTS)
    rig.write(".gitignore", "*.log\ndata/\n.env\nnode_modules/\n")
    rig.write(".syncdignore", "own.log\n")
    for path, content in {**HOME, **BROUGHT, "src/a.py": "x\n"}.items():
        rig.write(path, content)


def test_a_running_daemon_follows_it(rig: Rig) -> None:
    """What it names comes and goes with its lines; an edit of what it brought in is sent like any other, and `explain`
    names the line.
    """
    _fill(rig)
    rig.up()
    assert not {*HOME, *BROUGHT} & {*rig.there()}
    rig.write(".worktreeinclude", "*.log\ndata/\n.env\nnode_modules/\n")
    rig.until(lambda: {*BROUGHT} <= {*rig.there()}, "what it brings in")
    rig.write("data/d/x.csv", "2\n")
    rig.until(lambda: rig.agent.holds("data/d/x.csv", b"2\n"), "the edit")
    rig.write(".worktreeinclude", "data/\n")
    rig.until(lambda: "a.log" not in rig.there(), "what it names no more to go")
    assert not {*HOME} & {*rig.there()}
    said = rig.ok("explain", str(rig.workspace / "data/d/x.csv")).out
    assert said.startswith("included: data/d/x.csv (brought back by .worktreeinclude:1: data/)\n")
