"""The managed file of a machine, with the real command: `/etc/syncd` is another folder in a mount namespace."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.system.rig import Rig

# An overlay, as the machine's own /etc may not have the folder that is mounted.
_MOUNT = (
    'mount -t tmpfs none "$0" && mkdir "$0/upper" "$0/work"'
    ' && mount -t overlay overlay -o "lowerdir=/etc,upperdir=$0/upper,workdir=$0/work" /etc'
    ' && mkdir -p /etc/syncd && mount --bind "$1" /etc/syncd && shift && exec "$@"'
)


@pytest.fixture
def machine(tmp_path: Path) -> tuple[str, ...]:
    """The words before a command, which has the folder `etc` in the place of `/etc/syncd`."""
    for name in ("etc", "memory"):
        (tmp_path / name).mkdir(mode=0o755)
    words = ("unshare", "-r", "-m", "sh", "-c", _MOUNT, str(tmp_path / "memory"), str(tmp_path / "etc"))
    tried = subprocess.run([*words, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no file system of its own for /etc: {tried.stderr.strip()}")
    return words


def write(machine: tuple[str, ...], text: str) -> None:
    """Write the managed file, over the one that is there."""
    path = Path(machine[-1]) / "managed.toml"
    path.write_text(text)
    path.chmod(0o644)


def test_a_managed_machine(rig: Rig, machine: tuple[str, ...]) -> None:
    """The ceiling holds for the daemon and for commands, by no variable it is another, and each of them names it."""
    write(machine, '[sync]\nrescan_minutes = 7\n[ceiling]\nignore = ["*.dump"]\nmax_snapshot_mib = 9\n')
    for path in ("a.txt", "b.dump", "c.draft"):
        rig.write(path)
    rig.write(".syncdignore", "!*.dump\n")
    rig.configure({"sync.max_snapshot_mib": 10})
    rig.environ |= {"SYNCD_MANAGED": "/dev/null", "XDG_CONFIG_DIRS": "/nowhere"}
    daemon = rig.up(prefix=machine)
    assert set(rig.there()) == {".syncdignore", "a.txt", "c.draft"}
    assert rig.shown()["managed"] == {
        "file": "/etc/syncd/managed.toml",
        "defaults": ["sync.rescan_minutes"],
        "ceiling": ["workspace.ignore", "sync.max_snapshot_mib"],
        "narrowed": ["sync.max_snapshot_mib"],
    }
    assert rig.shown()["left_out"]["managed"] == 1
    assert "managed     /etc/syncd/managed.toml holds workspace.ignore" in rig.run("status", prefix=machine).out
    explained = rig.run("explain", "work/b.dump", prefix=machine)
    assert explained.out == "excluded: b.dump, by /etc/syncd/managed.toml: *.dump\n"
    rig.write("large", bytes(10 << 20))
    refused = rig.run("push", prefix=machine)
    assert "raise sync.max_snapshot_mib, to what /etc/syncd/managed.toml allows at most" in refused.err
    (rig.workspace / "large").unlink()

    write(machine, '[ceiling]\nignore = ["*.dump", "*.draft"]\n')
    rig.write("d.txt")
    daemon.send(signal.SIGHUP)
    rig.until(lambda: rig.shown()["left_out"].get("managed") == 2, "the new ceiling")
    rig.until(lambda: rig.archived() == [".syncdignore", "a.txt", "d.txt"], "an archive without what it keeps home")

    write(machine, '[ceiling]\nagent_changes = ["save", "hold"]\n')
    daemon.send(signal.SIGHUP)
    refusal = 'sandbox.agent_changes = "overwrite": the ceiling of /etc/syncd/managed.toml does not allow it'
    rig.until(lambda: refusal in daemon.err, "the refusal")
    pushed = rig.run("push", "--config", str(rig.config_file), prefix=machine)
    assert pushed.code == 78
    assert refusal in pushed.err
    daemon.stop()


def test_a_managed_file_that_cannot_be_trusted(rig: Rig, machine: tuple[str, ...]) -> None:
    """If others than root can write it, or it cannot be read, every command ends with 78 and says what to do."""
    folder = Path(machine[-1])
    file = folder / "managed.toml"
    write(machine, "[ceiling]\nbase_urls = []\n")

    def refused(words: str) -> None:
        done = rig.run("ls", prefix=machine)
        assert done.code == 78
        assert words in done.err

    file.chmod(0o664)
    refused("syncd/managed.toml can be written by others than root (mode 0664): as this machine's administrator, sudo")
    file.chmod(0o644)
    folder.chmod(0o777)
    refused("the managed configuration /etc/syncd can be written by others")
    folder.chmod(0o755)
    file.write_bytes(b"\xff")
    refused("managed.toml is not valid TOML")
    file.write_text("[synch]\n")
    refused("/etc/syncd/managed.toml: synch: unknown section")
    file.unlink()
    file.symlink_to("managed.toml")
    refused("cannot be read (Too many levels")
    file.unlink()
    os.mkfifo(file, 0o644)
    refused("is no regular file")
    if os.getuid() == 0:
        file.unlink()
        file.write_text("")
        os.chown(file, 1, -1)
        refused("not to root: as this machine's administrator, sudo chown root /etc/syncd/managed.toml")
