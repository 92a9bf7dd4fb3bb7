"""Makes a throw-away machine of new namespaces, and becomes its systemd: the first process of `machine.Machine`.

Runs as process 1 of its own PID, mount, network, UTS, IPC and cgroup namespace, as root. All that it mounts and writes
is in that mount namespace, in memory: nothing is left when its last process ends, and the host never sees any of it.
Standard library only. Arguments: the plan, as JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

SYSTEMD = ("/usr/lib/systemd/systemd", "/lib/systemd/systemd")
# What a boot in a container leaves out: the clock, modules, raw devices, the kernel's log, the network's set-up.
WITHOUT = "-sys_time,-sys_module,-sys_rawio,-syslog,-net_admin,-mac_admin,-mac_override,-wake_alarm,-block_suspend,-bpf"
# Nothing but what a user's service manager needs: whatever else is switched on at this machine stays off in there.
TARGET = """\
[Unit]
Description=A user's service manager and nothing else
Requires=sysinit.target dbus.socket systemd-logind.service
After=sysinit.target dbus.socket systemd-logind.service
AllowIsolate=yes
"""
KNOBS = ("sys", "irq", "bus", "fs")  # below /proc: the kernel's, which it shares with the host
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}


def main() -> None:
    """Set up the machine from the host's root, and start its systemd."""
    plan: dict[str, Any] = json.loads(sys.argv[1])
    work = Path(plan["work"])
    mount("tmpfs", work, "tmpfs", "mode=755,size=1g")
    root, upper, scratch = work / "root", work / "upper", work / "scratch"
    for folder in (root, upper, scratch):
        folder.mkdir()
    mount("overlay", root, "overlay", f"lowerdir=/,upperdir={upper},workdir={scratch}")
    kernel_file_systems(root)
    build(root, plan)
    for outside, inside in plan["shown"].items():
        show(root, outside, inside)
    for inside, outside in plan["bound"].items():
        (root / inside.lstrip("/")).mkdir(parents=True, exist_ok=True)
        mount(outside, root / inside.lstrip("/"), "", "bind")
    subprocess.run(["hostname", "throw-away"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=False)
    old = root / "old"
    old.mkdir()
    os.chdir(root)
    subprocess.run(["pivot_root", ".", "old"], check=True)
    os.chroot(".")
    os.chdir("/")
    subprocess.run(["umount", "--lazy", "/old"], check=True)
    os.rmdir("/old")
    # On metal systemd shares the root itself; in a container it expects that done, or mounts reach no service.
    subprocess.run(["mount", "--make-rshared", "/"], check=True)
    systemd = next(path for path in SYSTEMD if os.path.exists(path))
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    environment = {"container": "tests", "PATH": os.defpath, "LANG": "C.UTF-8"}
    start = [
        "setpriv",
        "--bounding-set",
        WITHOUT,
        "--",
        systemd,
        "--system",
        "--show-status=no",
        "--log-target=journal",
    ]
    os.execvpe("setpriv", start, environment)


def mount(source: str, target: Path, kind: str, options: str) -> None:
    """Mount one file system; an empty kind is given by the options."""
    of_kind = ["-t", kind] if kind else []
    subprocess.run(["mount", *of_kind, "-o", options, source, str(target)], check=True)


def kernel_file_systems(root: Path) -> None:
    """Mount the machine's own /proc, /sys, /dev, /run and /tmp, with read-only kernel settings."""
    mount("proc", root / "proc", "proc", "nosuid,nodev,noexec")
    for name in KNOBS:
        knob = root / "proc" / name
        if knob.exists():
            mount(str(knob), knob, "", "bind")
            remount(knob, "noexec")
    mount("sysfs", root / "sys", "sysfs", "ro,nosuid,nodev,noexec")
    mount("cgroup2", root / "sys/fs/cgroup", "cgroup2", "nosuid,nodev,noexec")
    mount("tmpfs", root / "dev", "tmpfs", "mode=755,nosuid,size=1m")
    for name, numbers in DEVICES.items():
        os.mknod(root / "dev" / name, stat.S_IFCHR | 0o666, os.makedev(*numbers))
        os.chmod(root / "dev" / name, 0o666)
    for name in ("pts", "shm"):
        (root / "dev" / name).mkdir()
    mount("devpts", root / "dev/pts", "devpts", "newinstance,nosuid,noexec,mode=620,ptmxmode=666,gid=5")
    mount("tmpfs", root / "dev/shm", "tmpfs", "mode=1777,nosuid,nodev")
    os.symlink("pts/ptmx", root / "dev/ptmx")
    os.symlink("/proc/self/fd", root / "dev/fd")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"/proc/self/fd/{number}", root / "dev" / name)
    mount("tmpfs", root / "run", "tmpfs", "mode=755,nosuid,nodev")
    mount("tmpfs", root / "tmp", "tmpfs", "mode=1777,nosuid,nodev")
    # A user namespace gets no /proc of its own unless a whole one is in sight somewhere.
    whole = root / "run/whole-proc"
    whole.mkdir(mode=0o700)
    mount("proc", whole, "proc", "nosuid,nodev,noexec")


def remount(path: Path, *more: str) -> None:
    """Make a mount read-only."""
    subprocess.run(["mount", "-o", ",".join(("remount,bind,ro,nosuid,nodev", *more)), str(path)], check=True)


def build(root: Path, plan: dict[str, Any]) -> None:
    """Set up an account with lingering, a journal, a host name, and no services of the host."""
    etc = root / "etc"
    name, uid = plan["user"], plan["uid"]
    (etc / "fstab").write_text("")
    for folder in (etc, root / "var"):  # or systemd prepares caches as after an upgrade
        (folder / ".updated").touch()
    (etc / "machine-id").write_text(uuid.uuid4().hex + "\n")
    add(etc / "passwd", f"{name}:x:{uid}:{uid}::/home/{name}:/bin/sh\n")
    add(etc / "group", f"{name}:x:{uid}:\n")
    add(etc / "shadow", f"{name}:*:19000:0:99999:7:::\n")
    for units in ("system", "user"):
        shutil.rmtree(etc / "systemd" / units, ignore_errors=True)
        (etc / "systemd" / units).mkdir(parents=True)
    (etc / "systemd/system/default.target").write_text(TARGET)
    shutil.rmtree(root / "var/log/journal", ignore_errors=True)
    (root / "var/log/journal").mkdir(parents=True)
    linger = root / "var/lib/systemd/linger"
    shutil.rmtree(linger, ignore_errors=True)
    linger.mkdir(parents=True)
    (linger / name).touch()
    shutil.rmtree(root / "home", ignore_errors=True)
    (root / "home").mkdir()


def add(file: Path, line: str) -> None:
    """Add one more account."""
    with file.open("a") as out:
        out.write(line)


def show(root: Path, outside: str, inside: str) -> None:
    """Make the interpreter and the checkout visible to an account."""
    place = root / inside.lstrip("/")
    for folder in reversed(place.parents):
        if folder.is_relative_to(root) and folder != root:
            folder.mkdir(exist_ok=True)
            os.chmod(folder, folder.stat().st_mode | 0o111)
    if not place.exists():  # on another file system than the root, or in another place
        place.mkdir()
        mount(outside, place, "", "bind")
        remount(place)  # its libraries are mapped to be run


if __name__ == "__main__":
    main()
