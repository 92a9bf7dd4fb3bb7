"""The tools, and how each is started. What goes over TCP is counted by a proxy, in both directions."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from xml.sax.saxutils import quoteattr

from tests.emulator import Emulator
from tests.system.rig import KEY
from tools.bench.daemons import configured
from tools.bench.measure import REPO
from tools.bench.peer import Ground, Peer, Processes, Running, free_port, started
from tools.bench.trees import content_bytes
from tools.bench.wire import Meter, emulator_counted, forwarded

_UNISON_WAITS_S = 0.5  # `delay` in its src/fsmonitor/watchercommon.ml
_PUSH = "git add -A && git commit -qm 'one edit' && git push -q origin HEAD:main"
_LOOP = (
    'while inotifywait -q -r -e create,delete,modify,attrib,move,close_write "$TREE"; do sleep "$QUIET_S"; '
    'tar czf "$TARGET/new" -C "$TREE" . && mv "$TARGET/new" "$TARGET/archive"; done'
)
# Neither discovery nor relays nor reports; 127.0.0.1:9 is where nobody is.
_SYNCTHING = """<configuration version="37">
<folder id="tree" path={path} fsWatcherEnabled="true" fsWatcherDelayS="{quiet_s:g}">
<device id="{ids[0]}"/><device id="{ids[1]}"/></folder>
<device id="{ids[0]}"><address>tcp://127.0.0.1:9</address></device>
<device id="{ids[1]}"><address>tcp://127.0.0.1:{to_port}</address></device>
<gui enabled="false"/>
<options><listenAddress>tcp://127.0.0.1:{port}</listenAddress>
<globalAnnounceEnabled>false</globalAnnounceEnabled><localAnnounceEnabled>false</localAnnounceEnabled>
<relaysEnabled>false</relaysEnabled><natEnabled>false</natEnabled>
<crashReportingEnabled>false</crashReportingEnabled><urAccepted>-1</urAccepted>
<autoUpgradeIntervalH>0</autoUpgradeIntervalH><reconnectionIntervalS>1</reconnectionIntervalS>
</options></configuration>"""


def _syncd(keys: dict[str, object]) -> Callable[[Ground], AbstractContextManager[Running]]:
    @contextmanager
    def running(ground: Ground) -> Iterator[Running]:
        meter = Meter()
        with emulator_counted(meter), Emulator(ground.home / "cloud", api_key=KEY) as emulator:
            quiet = {"sync.debounce_seconds": ground.quiet_s, "sync.max_wait_seconds": 15.0}
            rig = configured(ground.home / "rig", ground.source, emulator, {**quiet, **keys})
            there = dataclasses.replace(ground, target=rig.sandbox.workspace)
            with started(ground, rig.environment()) as processes:
                processes.start(sys.executable, "-m", "syncd", "run", cwd=REPO)
                yield Running(processes, there.is_there, lambda: meter.count)

    return running


@contextmanager
def _rsync_server(ground: Ground, meter: Meter) -> Iterator[tuple[Processes, str]]:
    """Give the processes, with an rsync daemon that writes to the target, and its URL."""
    config = ground.home / "rsyncd.conf"
    config.write_text(
        f"address = 127.0.0.1\nuse chroot = no\nreverse lookup = no\nuid = {os.getuid()}\ngid = {os.getgid()}\n"
        f"[target]\npath = {ground.target}\nread only = no\n"
    )
    with started(ground) as processes:
        port = free_port()
        processes.start("rsync", "--daemon", "--no-detach", f"--config={config}", f"--port={port}")
        processes.await_port(port)
        with forwarded(port, meter) as counted:
            yield processes, f"rsync://127.0.0.1:{counted}/target/"


@contextmanager
def _rsync(ground: Ground) -> Iterator[Running]:
    meter = Meter()
    with _rsync_server(ground, meter) as (processes, url):
        command = ("rsync", "-a", "--delete", f"{ground.source}/", url)
        yield Running(processes, ground.is_there, lambda: meter.count, command)


@contextmanager
def _lsyncd(ground: Ground) -> Iterator[Running]:
    meter, config, rsync = Meter(), ground.home / "lsyncd.lua", json.dumps(shutil.which("rsync"))
    with _rsync_server(ground, meter) as (processes, url):
        config.write_text(
            "settings { nodaemon = true }\n"
            f"sync {{ default.rsync, source = {json.dumps(str(ground.source))}, target = {json.dumps(url)}, "
            f"delay = {ground.quiet_s:g}, rsync = {{ archive = true, binary = {rsync} }} }}\n"
        )
        processes.start("lsyncd", str(config))
        yield Running(processes, ground.is_there, lambda: meter.count)


@contextmanager
def _syncthing(ground: Ground) -> Iterator[Running]:
    """Run two instances."""
    meter, homes = Meter(), (ground.home / "here", ground.home / "there")
    with started(ground) as processes:
        ids = []
        for home in homes:
            processes.output("syncthing", "generate", f"--home={home}")
            ids += re.findall('<device id="([^"]+)"', (home / "config.xml").read_text())[:1]
        ports = free_port(), free_port()
        with forwarded(ports[1], meter) as counted:
            for number, tree in enumerate((ground.source, ground.target)):
                (tree / ".stfolder").mkdir()
                text = _SYNCTHING.format(
                    path=quoteattr(str(tree)),
                    quiet_s=ground.quiet_s,
                    ids=ids,
                    port=ports[number],
                    to_port=(counted, 9)[number],
                )
                (homes[number] / "config.xml").write_text(text)
                words = ("--no-browser", "--no-restart", "--no-upgrade")
                processes.start("syncthing", "serve", f"--home={homes[number]}", *words)
            yield Running(processes, ground.is_there, lambda: meter.count)


@contextmanager
def _unison(ground: Ground) -> Iterator[Running]:
    """Run it with its file monitor, to a second one."""
    meter, port = Meter(), free_port()
    with started(ground) as processes:
        there = {"UNISON": str(ground.home / "there")}
        processes.start("unison", "-socket", str(port), "-listen", "127.0.0.1", env=there)
        processes.await_port(port)
        with forwarded(port, meter) as counted:
            target = f"socket://127.0.0.1:{counted}/{ground.target}"
            words = ("-batch", "-auto", "-confirmbigdel=false", "-repeat", "watch")
            processes.start("unison", str(ground.source), target, *words, env={"UNISON": str(ground.home / "here")})
            yield Running(processes, ground.is_there, lambda: meter.count)


@contextmanager
def _restic(ground: Ground) -> Iterator[Running]:
    """Back up to a repository on the same disk; bytes are how much that grows."""
    repository = ("restic", "-q", "-r", str(ground.target))
    with started(ground, {"RESTIC_PASSWORD": "x"}) as processes:

        def is_there(victim: str) -> bool:
            path = ground.source / victim
            return processes.output(*repository, "dump", "latest", str(path)) == path.read_bytes()

        processes.output(*repository, "init")
        command = (*repository, "backup", str(ground.source))
        yield Running(processes, is_there, lambda: content_bytes(ground.target), command)


@contextmanager
def _git(ground: Ground) -> Iterator[Running]:
    """Push to a `git daemon`."""
    meter, port = Meter(), free_port()
    with started(ground) as processes:

        def git(*words: str) -> bytes:
            return processes.output("git", *words, cwd=ground.source)

        def is_there(victim: str) -> bool:
            there = git("--git-dir", str(ground.target), "show", f"main:{victim}")
            return there == (ground.source / victim).read_bytes()

        git("init", "-q", "--bare", str(ground.target))
        git("init", "-q")
        # Without the last two it would go on in the background, in a session of its own.
        settings = {"user.name": "x", "user.email": "x@example.org", "gc.auto": "0", "maintenance.auto": "0"}
        for key, value in settings.items():
            git("config", "--global", key, value)
        words = ("--export-all", "--enable=receive-pack", f"--base-path={ground.target.parent}", f"--port={port}")
        processes.start("git", "daemon", "--listen=127.0.0.1", *words)
        processes.await_port(port)
        with forwarded(port, meter) as counted:
            git("remote", "add", "origin", f"git://127.0.0.1:{counted}/{ground.target.name}")
            git("commit", "-qm", "nothing yet", "--allow-empty")
            yield Running(processes, is_there, lambda: meter.count, ("sh", "-c", _PUSH), ground.source)


@contextmanager
def _shell_loop(ground: Ground) -> Iterator[Running]:
    """Wait for a change and the quiet time, and pack everything, for a folder on the same disk."""
    archive, sizes = ground.target / "archive", [0]

    def is_there(victim: str) -> bool:
        if found := archive.exists():
            sizes.append(archive.stat().st_size)
            archive.unlink()
        return found

    with started(ground) as processes:
        settings = {"TREE": str(ground.source), "QUIET_S": f"{ground.quiet_s:g}", "TARGET": str(ground.target)}
        processes.start("sh", "-c", _LOOP, env=settings)
        yield Running(processes, is_there, lambda: sum(sizes))


UNISON = Peer("Unison", ("unison", "unison-fsmonitor"), _unison, _UNISON_WAITS_S)
SYNCTHING = Peer("Syncthing", ("syncthing",), _syncthing)
# The others are compared with the first. The emulator's own CPU is not in syncd's.
PEERS = (
    Peer("syncd", (), _syncd({})),
    Peer("syncd, no look", (), _syncd({"sandbox.agent_changes": "overwrite"})),
    Peer("syncd, full", (), _syncd({"sync.archive": "full"})),
    Peer("lsyncd", ("lsyncd", "rsync"), _lsyncd),
    SYNCTHING,
    UNISON,
    Peer("rsync -a", ("rsync",), _rsync, 0.0),
    Peer("restic backup", ("restic",), _restic, 0.0),
    Peer("git push", ("git",), _git, 0.0),
    Peer("inotifywait; tar", ("inotifywait", "tar"), _shell_loop),
)
