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
    """What it names comes and goes with its lines; an edit of what it brought in is sent like any other."""
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


def test_who_is_told(rig: Rig) -> None:
    """`explain` names the line, and says where the file stands."""
    _fill(rig)
    rig.ok("push")
    rig.write(".worktreeinclude", "# what the tests need\n*.log\n/data/\n*.py\n")
    for path, said in {
        "sub/b.log": "sub/b.log (brought back by .worktreeinclude:2: *.log)\nin the sandbox: not yet sent",
        "data/d/x.csv": "data/d/x.csv (brought back by .worktreeinclude:3: /data/)\nin the sandbox: not yet sent",
        "src/a.py": "src/a.py (no rule matches it)\nin the sandbox: as sent",
    }.items():
        assert rig.ok("explain", str(rig.workspace / path)).out == f"included: {said}\n"
