"""A path that another kind of file blocks in the sandbox is named, and the others are synced."""

from __future__ import annotations

import pytest

from tests.system.rig import Rig


@pytest.mark.parametrize(("command", "by_daemon"), [("push", False), ("flush", True)])
def test_it_is_named(rig: Rig, command: str, *, by_daemon: bool) -> None:
    """The exit code is 75 with the path and what to do, and 0 once its place is free."""
    rig.write("d/ours", "here")
    rig.ok("push")
    (rig.sandbox.workspace / "d/theirs").write_text("the agent's")
    (rig.workspace / "d/ours").unlink()
    (rig.workspace / "d").rmdir()
    rig.write("d", "a file by now")
    rig.write("other", "here")
    if by_daemon:
        rig.up()
    ended = rig.run(command)
    assert ended.code == 75
    assert ended.err.splitlines()[-1].startswith("syncd: 'd' is not in the sandbox, where something else has")
    assert (rig.sandbox.workspace / "other").read_text() == "here"
    assert (rig.sandbox.workspace / "d/theirs").read_text() == "the agent's"
    assert any("'d' is not sent: in the sandbox a directory" in warning for warning in rig.status()["warnings"])
    (rig.sandbox.workspace / "d/theirs").unlink()
    rig.ok("push", "--force")
    rig.ok("flush")
    assert (rig.sandbox.workspace / "d").read_text() == "a file by now"
