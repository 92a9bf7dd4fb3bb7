"""The parts of a workspace that are on shared file systems, from lists of mounts as the kernel makes them."""

from __future__ import annotations

import pytest

from syncd.watch.mounts import LOCAL_FILESYSTEMS, filesystems, poll_interval_s, shared_warning

ROOT = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
WSL = (
    "63 54 8:32 / / rw,relatime - ext4 /dev/sdc rw,discard,errors=remount-ro,data=ordered\n"
    "77 63 0:39 / /mnt/c rw,noatime - 9p C:\\134 rw,aname=drvfs;path=C:\\;uid=1000;gid=1000,cache=5,trans=fd,rfd=8\n"
)
DOCKER = (
    "1108 720 0:62 / / rw,relatime master:180 - overlay overlay rw,lowerdir=/a:/b,upperdir=/c,workdir=/d\n"
    "1109 1108 0:65 / /proc rw,nosuid - proc proc rw\n"
    "1140 1108 0:44 /home/me/code /app rw,relatime - fakeowner /run/host_mark/home rw\n"
    "1141 1140 254:1 /docker/volumes/n/_data /app/node_modules rw,relatime master:2 - ext4 /dev/vda1 rw\n"
)


def at(place: str, filesystem: str, number: int = 90, parent: int = 22) -> str:
    """Return the line of a mount."""
    return f"{number} {parent} 0:50 / {place} rw - {filesystem} server:/ rw,hard\n"


def _shared(text: str, workspace: str) -> tuple[dict[str, str], set[str]]:
    found = filesystems(text.encode(), f"{workspace}/".encode())
    shared = {path: kind for path, kind in found.items() if kind not in LOCAL_FILESYSTEMS}
    return shared, found.keys() - shared.keys()


@pytest.mark.parametrize(
    ("mounts", "workspace", "shared", "local"),
    [
        pytest.param("a line of another form\n" + ROOT, "/work", {}, {""}, id="a local disk"),
        pytest.param(WSL, "/mnt/c/code", {"": "9p"}, set(), id="a drive of Windows in WSL 2"),
        pytest.param(DOCKER, "/app", {"": "fakeowner"}, {"node_modules"}, id="Docker Desktop"),
        pytest.param(DOCKER, "/app/node_modules", {}, {""}, id="a volume in a shared folder"),
        pytest.param(
            ROOT + at("/work", "nfs4") + at("/work/build", "tmpfs", 91, 90) + at("/work/build/cache", "cifs", 92, 91),
            "/work",
            {"": "nfs4", "build/cache": "cifs"},
            {"build"},
            id="NFS, with a local mount, and a share in that",
        ),
        pytest.param(
            ROOT + at("/work/a/b", "nfs4") + at("/work/a", "ext4", 91),
            "/work",
            {},
            {"", "a"},
            id="a share below a later mount, which hides it",
        ),
        pytest.param(
            ROOT + at("/work/net", "autofs") + at("/work/net", "nfs4", 91, 90),
            "/work",
            {"net": "nfs4"},
            {""},
            id="an automount in use",
        ),
        pytest.param(
            ROOT + at("/work/a\\040b\\134c\\012d\\377", "cifs"),
            "/work",
            {"a b\\c\nd\udcff": "cifs"},
            {""},
            id="escaped names",
        ),
        pytest.param(ROOT + at("/work/a\rb", "cifs"), "/work", {"a\rb": "cifs"}, {""}, id="a carriage return"),
        pytest.param(ROOT + at("/workshop", "nfs4") + at("/work-b", "nfs4", 91), "/work", {}, {""}, id="beside it"),
        pytest.param(
            "1 1 0:2 / / rw - rootfs rootfs rw\n" + at("/", "9p", 90, 1),
            "/work",
            {"": "9p"},
            set(),
            id="a virtual machine whose root is shared",
        ),
    ],
)
def test_shared_parts(mounts: str, workspace: str, shared: dict[str, str], local: set[str]) -> None:
    """What others can change without an event is found; what is hidden, beside it or known to be local is not."""
    assert _shared(mounts, workspace) == (shared, local)


def test_what_is_known_to_be_local() -> None:
    """What keeps its files on this machine; not what a host, another machine or a program shows, nor a new one."""
    assert {"ext4", "tmpfs", "overlay", "autofs", "fuseblk"} < LOCAL_FILESYSTEMS
    shared = {"9p", "virtiofs", "fakeowner", "fuse.grpcfuse", "prl_fs", "vboxsf", "nfs4", "cifs", "fuse", "newfs"}
    assert not shared & LOCAL_FILESYSTEMS


@pytest.mark.parametrize(
    ("path", "filesystem", "key", "words"),
    [
        ("", "9p", "shared:.", ("the workspace is polled", "(9p)", "in WSL, a virtual machine or a container")),
        ("a\nb", "nfs4", "shared:a\nb", ("'a\\nb' is polled", "(nfs4)", "local disk")),
    ],
)
def test_the_warning(path: str, filesystem: str, key: str, words: tuple[str, ...]) -> None:
    """It names the part, the file system and what to do."""
    warning = shared_warning(path, filesystem)
    assert warning.key == key
    assert all(word in str(warning) for word in words)


@pytest.mark.parametrize(("took_s", "interval_s"), [(0.0, 30.0), (1.5, 30.0), (2.0, 40.0), (30.0, 600.0)])
def test_poll_interval(took_s: float, interval_s: float) -> None:
    """Every half minute, and for at most a twentieth of the time."""
    assert poll_interval_s(took_s) == interval_s
