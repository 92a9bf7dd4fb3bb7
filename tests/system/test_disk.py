"""Disks that are full, read-only or broken, a machine without descriptors: reported in a line, then recovered.

The daemon gets a mount namespace of its own, so that its disk can be small. It is not notified when the cause ends.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.command import Running, works
from tests.system.rig import DEFAULTS, Rig

MIB = 1 << 20
NOISE = random.Random(1).randbytes(8 * MIB)


needs_mounts = pytest.mark.skipif(
    not works("unshare", "-m", "sh", "-c", "mount -t tmpfs none /mnt"), reason="this machine lets nobody mount a disk"
)


class Disk:
    """A disk of its own at a folder, for the daemon alone. `daemon` is set once it runs."""

    def __init__(self, folder: Path, size: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.daemon: Running | None = None
        self._holder: subprocess.Popen[bytes] | None = None
        script = f'mount -t tmpfs -o size={size},mode=700 none "$0" && exec "$@"'
        self.prefix: Sequence[str] = ("unshare", "-m", "--propagation", "private", "sh", "-c", script, str(folder))

    @contextmanager
    def held(self, place: Path) -> Iterator[Sequence[str]]:
        """Keep the disk without a daemon. Gives the prefix of a command that has it too, typed in that place."""
        with subprocess.Popen([*self.prefix, "sh", "-c", "echo && exec sleep 600"], stdout=subprocess.PIPE) as holder:
            self._holder = holder
            try:
                assert holder.stdout is not None
                holder.stdout.readline()  # it is mounted
                enter = ("nsenter", "-t", str(holder.pid), "-m")
                yield (*enter, "sh", "-c", 'cd "$0" && exec "$@"', str(place))
            finally:
                holder.kill()

    @property
    def seen(self) -> Path:
        """Return the folder as those see it who have the disk."""
        process = self.daemon or self._holder
        assert process is not None
        return Path(f"/proc/{process.pid}/root{self.folder}")

    def remount(self, options: str) -> None:
        """Change the size or mode under the running daemon."""
        assert self.daemon is not None
        command = ["nsenter", "-t", str(self.daemon.pid), "-m", "mount", "-o", f"remount,{options}", str(self.folder)]
        subprocess.run(command, check=True)

    def fill(self) -> Path:
        """Fill the free space with a file, and return it."""
        path = self.seen / "somebody-elses"
        with open(path, "wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass
        return path

    def files(self) -> list[str]:
        return sorted(name for _, _, names in os.walk(self.seen) for name in names)


def _failure(rig: Rig, *words: str) -> str:
    """Wait until the daemon retries for a reason with these words, and return its line."""

    def reported() -> str:
        error = rig.shown().get("last_error")
        return error["message"] if error and all(word in error["message"] for word in words) else ""

    message = rig.until(reported, f"a failure with {words}")
    assert "\n" not in message
    return message


@needs_mounts
def test_a_spool_too_small_for_a_change(rig: Rig) -> None:
    """A file larger than the free space is reported and not sent; with more space it is sent."""
    disk = Disk(rig.home / ".cache/syncd", "3m")
    rig.write("a", NOISE[:100_000])
    disk.daemon = rig.up(prefix=disk.prefix)
    uploads = rig.count("upload")
    rig.write("large", NOISE)
    message = _failure(rig, "No space left on device", str(disk.folder), "free some disk space")
    assert message.count(": ") <= 3
    rig.until(lambda: rig.status()["failures"] >= 3, "more tries")
    rig.until(lambda: all(name.endswith(".chunk") for name in disk.files()), "a spool without leftovers")
    assert rig.status()["state"] in ("retrying", "snapshotting")
    assert rig.count("upload") == uploads
    disk.remount("size=64m")
    rig.converged()
    rig.in_state("watching")
    assert rig.status()["last_error"] is None
    assert [name for name in disk.files() if not name.endswith(".chunk")] == ["chunk-index"]


@needs_mounts
def test_little_room_for_the_agents_versions(rig: Rig) -> None:
    """What has room is saved and overwritten; what has none stays there and is named, until there is room."""
    rig.configure(DEFAULTS)
    disk = Disk(rig.home / ".cache/syncd", "12m")
    for path in ("large", "small", "other"):
        rig.write(path, "as sent")
    disk.daemon = rig.up(prefix=disk.prefix)
    rig.ok("flush")
    agent = rig.agent
    agent.write("large", NOISE)
    agent.write("small", "the agent's version")
    for path in ("large", "small", "other"):
        rig.write(path, "mine")
    assert "large" in rig.ok("flush").err
    assert [agent.read(path) for path in ("large", "small", "other")] == [NOISE, b"mine", b"mine"]
    assert any("'large'" in warning and "room for" in warning for warning in rig.status()["warnings"])
    disk.remount("size=64m")
    rig.ok("flush")  # tries it at once
    paths = [path for each in rig.saved() for path in each["paths"]]
    assert sorted(paths) == ["large", "small"]
    rig.until(lambda: agent.holds("large", b"mine"), "the sync after the one that saved it")
    rig.in_state("watching")
    assert rig.status()["warnings"] == []


@needs_mounts
@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("diff",), 1),
        (("apply", "--yes"), 75),
        (("apply", "--dry-run", "--json"), 75),
        (("apply", "--branch", "agent"), 75),
        (("apply", "small"), 0),
    ],
)
def test_no_room_to_fetch_what_the_agent_wrote(rig: Rig, command: tuple[str, ...], code: int) -> None:
    """A command names the path that is not shown or applied, and that it has no room for it; a script can tell."""
    rig.configure(DEFAULTS)
    subprocess.run(["git", "init", "-q"], cwd=rig.workspace, check=True)
    for path in ("large", "small"):
        rig.write(path, "as sent")
    rig.ok("push")
    rig.agent.write("large", NOISE)
    rig.agent.write("small", "theirs")
    with Disk(rig.home / ".cache/syncd", "4m").held(rig.workspace) as prefix:
        done = rig.run(*command, prefix=prefix)
    assert done.code == code
    assert "large" in done.out + done.err or code == 0
    assert "not all is shown: this machine has room for " in done.told
    assert (code == 75) == ("not applied: large (its content could not be fetched)" in done.err)
    assert (rig.workspace / "small").read_text() == ("theirs" if command[-1] in ("--yes", "small") else "as sent")


@needs_mounts
def test_no_room_to_fetch_what_waits(rig: Rig) -> None:
    """`resolve` names what both sides changed and cannot be decided yet, and not what only the agent changed."""
    rig.configure(DEFAULTS)
    for path in ("both", "theirs"):
        rig.write(path, "as sent")
    rig.ok("push")
    rig.write("both", "mine")
    for path in ("both", "theirs"):
        rig.agent.write(path, NOISE)
    with Disk(rig.home / ".cache/syncd", "4m").held(rig.workspace) as prefix:
        listed = rig.run("resolve", "--json", prefix=prefix)
        decided = rig.run("resolve", "--theirs", "both", prefix=prefix)
    assert listed.code == 1, listed
    assert [(row["path"], row["reason"], row["choices"]) for row in json.loads(listed.out)["waiting"]] == [
        ("both", "its content could not be fetched", [])
    ]
    assert (decided.code, (rig.workspace / "both").read_text()) == (1, "mine")


def _small_state(rig: Rig) -> tuple[Disk, Sequence[str]]:
    """Sync a file with a small disk for the state. Gives it, and the prefix of a command that has it too."""
    rig.configure(DEFAULTS)
    disk = Disk(rig.home / ".local/state/syncd", "400k")
    rig.write("file", "as sent")
    disk.daemon = rig.start(prefix=disk.prefix)
    rig.until(lambda: _at_rest(disk, rig), "the first sync")
    return disk, ("nsenter", "-t", str(disk.daemon.pid), "-m")


@needs_mounts
def test_a_status_that_cannot_be_written(rig: Rig) -> None:
    """The daemon is asked for it: what waits for room is named all the same."""
    disk, enter = _small_state(rig)
    filler = disk.fill()
    agent = rig.agent
    agent.write("file", "the agent's version")
    rig.write("file", "mine")

    def warnings() -> str:
        return " ".join(json.loads(rig.run("status", "--json", prefix=enter).out)["warnings"])

    rig.until(lambda: "'file'" in warnings(), "a status that names it")
    assert "the status cannot be written" in warnings()
    assert "No space left on device" in warnings()
    assert agent.read("file") == b"the agent's version"
    filler.unlink()
    rig.write("other", "mine")
    rig.until(lambda: agent.holds("file", b"mine"), "the sync after the one that saved it")
    rig.until(lambda: not warnings(), "a status without it")


@needs_mounts
def test_a_state_that_cannot_be_recorded(rig: Rig) -> None:
    """Nothing is put there without a record, and what is uploaded is not uploaded again by each try."""
    disk, enter = _small_state(rig)
    filler, uploads = disk.fill(), rig.count("upload")
    rig.write("file", "mine")
    rig.until(lambda: json.loads(rig.run("status", "--json", prefix=enter).out)["failures"] >= 3, "three tries")
    assert (rig.count("upload"), rig.agent.read("file")) == (uploads + 1, b"as sent")
    filler.unlink()
    rig.until(lambda: rig.agent.holds("file", b"mine"), "the edit")


@needs_mounts
def test_no_command_takes_a_full_disk_for_an_empty_state(rig: Rig) -> None:
    """Each that needs it says that no space is left, and changes nothing; with space again all is known."""
    rig.configure(DEFAULTS)
    disk = Disk(rig.home / ".local/state/syncd", "400k")
    rig.write("file", "as sent")
    full = "No space left on device"
    with disk.held(rig.workspace) as enter:
        assert rig.run("push", prefix=enter).code == 0
        rig.agent.write("file", "the agent's version")
        assert rig.run("apply", "--yes", prefix=enter).code == 0
        rig.agent.write("file", "another one")
        rig.write("other", "mine")
        filler = disk.fill()
        for words in (
            ("diff",),
            ("apply", "--yes"),
            ("apply", "--undo"),
            ("resolve",),
            ("resolve", "file", "--theirs"),
            ("saved",),
            ("push",),
            ("flush",),
        ):
            done = rig.run(*words, prefix=enter)
            assert (done.code, done.out) == (75, ""), done
            assert full in done.told.splitlines()[-1]
        assert full in " ".join(rig.run("status", prefix=enter).out.split())
        assert any(full in each for each in json.loads(rig.run("status", "--json", prefix=enter).out)["warnings"])
        assert (rig.workspace / "file").read_text() == "the agent's version"
        filler.unlink()
        assert json.loads(rig.run("status", "--json", prefix=enter).out)["warnings"] == []
        assert rig.run("diff", prefix=enter).code == 1
        assert rig.run("apply", "--undo", prefix=enter).code == 0
    assert (rig.workspace / "file").read_text() == "as sent"


def test_a_status_that_could_never_be_written(rig: Rig) -> None:
    """The daemon is asked for it from its start on, whatever one that was killed has left."""
    rig.up().kill()
    (rig.state_folder / "status.json.new/in-the-way").mkdir(parents=True)
    daemon = rig.start()
    rig.until(lambda: rig.status()["pid"] == daemon.pid, "the daemon's own status")
    rig.until(lambda: rig.status()["state"] == "watching", "the first sync")
    rig.ok("status", "--check")
    daemon.kill()
    assert (rig.status()["running"], rig.status()["state"]) == (False, "stopped")


def _at_rest(disk: Disk, rig: Rig) -> bool:
    """True if the daemon reports that all is in the sandbox, without a warning."""
    try:
        status = json.loads((disk.seen / rig.state_folder.name / "status.json").read_text())
    except OSError:
        return False
    return status["state"] == "watching" and not status["pending"] and not status["warnings"] and status["syncs"] > 0


def _open_files(daemon: Running, soft: int) -> None:
    _, hard = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (min(soft, hard), hard))


@pytest.mark.parametrize("left", [0, 3])
def test_no_descriptors_left(rig: Rig, left: int) -> None:
    """Without descriptors nothing partial is sent and no CPU is used; with descriptors all is sent."""
    rig.fill(20)
    rig.write(".gitignore", "private\n")
    rig.write("folder1/private", "stays home")
    daemon = rig.up()
    uploads = rig.count("upload")
    used = max(int(name) for name in os.listdir(f"/proc/{daemon.pid}/fd"))
    _open_files(daemon, used + 1 + left)
    rig.write("folder1/new", "x")
    rig.until(lambda: "Too many open files" in daemon.err or rig.count("upload") > uploads, "the log line")
    asking = rig.background("push")  # a connection that is not accepted would wake the daemon without end
    assert asking.wait() in (0, 75)
    assert daemon.code is None
    _open_files(daemon, 65_536)
    rig.converged(without=lambda path: path.endswith("private"))
    assert "folder1/private" not in rig.there()
    rig.in_state("watching")


@pytest.mark.skipif(shutil.which("git") is None, reason="no git(1)")
def test_gits_configuration_breaks_before_a_reload(rig: Rig) -> None:
    """The reload is refused, as the excluded files are unknown, and the daemon goes on."""
    (rig.home / ".gitconfig").write_text("[include]\npath = included\n")
    (rig.home / "included").write_text("[core]\n\texcludesFile = ~/ignored\n")
    (rig.home / "ignored").write_text("private\n")
    rig.write("private", "stays home")
    rig.write("a")
    daemon = rig.up()
    (rig.home / ".gitconfig").write_text("[core\n")
    daemon.send(signal.SIGHUP)
    rig.until(lambda: "git cannot read its configuration" in daemon.err, "the refusal")
    rig.write("b")
    rig.until(lambda: "b" in rig.there(), "the change")
    assert "private" not in rig.there()
    refused = rig.run("ls")
    assert refused.code == 78
    assert "git config --list" in refused.err


@pytest.mark.parametrize("successor", [False, True], ids=["alone", "another daemon"])
def test_the_state_folder_is_removed_under_the_daemon(rig: Rig, successor: bool) -> None:
    """It begins with a new one, and sends each change once; where another daemon has that one, it ends."""
    rig.write("a")
    daemon = rig.up()
    rig.in_state("watching")
    shutil.rmtree(rig.state_folder)
    if successor:
        rig.up()
    uploads = rig.count("upload")
    rig.write("a", "changed")
    rig.converged()
    rig.in_state("watching")
    if successor:
        assert daemon.wait() == 75
    else:
        assert rig.count("upload") == uploads + 1
    assert rig.ok("status", "--check").out
    assert rig.ok("flush").told == ""
