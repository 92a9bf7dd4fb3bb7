"""A workspace on a FUSE file system, or with one in it: what is changed behind the kernel's back arrives."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.rig import DEFAULTS, Rig


class Bindfs:
    """A FUSE file system that shows the files of a directory; what changes there directly brings no event here."""

    def __init__(self, source: Path, point: Path) -> None:
        self.point = point
        command = ("bindfs", "-f", str(source), str(point))
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    @property
    def is_mounted(self) -> bool:
        return self.process.poll() is None and os.path.ismount(self.point)

    def kill(self) -> None:
        """Let its files be unreachable: the transport endpoint is not connected."""
        self.process.kill()
        self.process.wait()

    def unmount(self) -> None:
        """Unmount it, dead or alive."""
        subprocess.run(["umount", "--lazy", self.point], check=False, capture_output=True)
        self.process.terminate()  # it does not end by itself where another mount namespace has a copy of the mount
        self.process.wait()


def _works() -> str:
    """Return why no FUSE file system can be mounted here; "" if one can."""
    if shutil.which("bindfs") is None or not os.path.exists("/dev/fuse"):
        return "bindfs or /dev/fuse is missing"
    if os.geteuid() != 0:
        return "only root may mount"
    return ""


pytestmark = pytest.mark.skipif(bool(_works()), reason=_works() or "it can be mounted")


@pytest.fixture
def mount(rig: Rig) -> Iterator[Callable[[Path, Path], Bindfs]]:
    """Mount a directory at a point, which is unmounted at the end."""
    mounted: list[Bindfs] = []

    def begin(source: Path, point: Path) -> Bindfs:
        bindfs = Bindfs(source, point)
        mounted.append(bindfs)
        rig.until(lambda: bindfs.is_mounted or bindfs.process.poll() is not None, "the mount")
        if not bindfs.is_mounted:
            pytest.skip("FUSE file systems cannot be mounted here")
        return bindfs

    yield begin
    rig.close()
    for bindfs in mounted:
        bindfs.unmount()


def test_a_shared_mount_in_the_workspace(rig: Rig, mount: Callable[[Path, Path], Bindfs]) -> None:
    """It is polled from the next scan on; while it is dead or unmounted, nothing of it is removed in the sandbox."""
    rig.configure({**DEFAULTS, "workspace.git": "none"})
    source, point = rig.home / "source", rig.workspace / "data"
    for folder in (source / "deep/empty", point):
        folder.mkdir(parents=True)
    (source / "deep/file").write_text("one\n")
    rig.write("local", "here")
    rig.up()

    def warned(words: str) -> None:
        rig.until(lambda: any(words in warning for warning in rig.shown()["warnings"]), f"the warning {words}")

    def nothing_is_removed(content: str) -> None:
        rig.write("local", content)
        rig.until(lambda: (rig.sandbox.workspace / "local").read_text() == content, "the local change")
        assert (rig.sandbox.workspace / "data/deep/file").read_text() == "two\n"

    first = mount(source, point)
    rig.ok("flush")
    warned("'data' is polled")
    (source / "deep/file").write_text("two\n")
    (source / "deep/empty/new").write_text("new")
    rig.converged()
    first.kill()
    warned("'data' cannot be read")
    nothing_is_removed("while it is dead")
    first.unmount()
    rig.run("flush")
    warned("what was mounted at 'data' is missing")
    nothing_is_removed("while it is missing")
    mount(source, point)
    (source / "deep/file").write_text("three\n")
    rig.ok("flush")
    rig.converged()
    rig.in_state("watching")


def test_a_shared_workspace(rig: Rig, mount: Callable[[Path, Path], Bindfs]) -> None:
    """All of it is polled, without a state, a log line or a request where nothing changed; dead, it is held."""
    source = rig.home / "source"
    source.mkdir()
    (source / "file").write_text("one\n")
    whole = mount(source, rig.workspace)
    daemon = rig.up()
    assert any("the workspace is polled" in warning for warning in rig.shown()["warnings"])
    (source / "file").write_text("other\n")
    rig.converged()
    rig.in_state("watching")
    since, lines, requests = rig.shown()["state_since"], daemon.err, len(rig.emulator.request_log.entries())
    wakeups = daemon.wakeups()
    rig.until(lambda: daemon.wakeups() > wakeups, "a poll")
    assert (rig.shown()["state_since"], daemon.err) == (since, lines)
    assert len(rig.emulator.request_log.entries()) == requests
    (source / "file").unlink()
    (source / "another").write_text("x")
    rig.until(lambda: rig.there().get("another"), "another change")
    whole.kill()
    rig.in_state("held")
    assert rig.there().get("another")
