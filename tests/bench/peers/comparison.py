"""All tools, one after the other, each with a copy of the same tree and folders of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench import trees
from tests.bench.fixtures import Fixtures
from tests.bench.peers import rsync, rules, runs, shell_loop, syncd, syncthing, unison
from tests.bench.peers.measurement import measured
from tests.bench.peers.peer import Deadline, Ground, Peer, PeerFailed
from tests.bench.table import Line

PEERS = (
    rsync.LSYNCD,
    syncthing.SYNCTHING,
    unison.UNISON,
    rsync.RSYNC,
    runs.RESTIC,
    runs.GIT,
    shell_loop.SHELL_LOOP,
    syncd.AUTO,
    syncd.OVERWRITE,
    syncd.FULL,
)
_EDITED = "edited"
_LINES = 100


def rows(fixtures: Fixtures) -> Iterator[Line]:
    """Side by side with lsyncd, Syncthing, Unison, rsync, restic, git and a shell loop; a table of its own."""
    names = fixtures.sizes.peers or ("",)
    peers = [peer for peer in PEERS if peer.name.startswith(names)]
    for files in fixtures.sizes.peer_files:
        yield from compared(fixtures, peers, files)


def compared(fixtures: Fixtures, peers: Sequence[Peer], files: int) -> Iterator[Line]:
    """Give the table of a tree of so many files, a line as soon as it is measured."""
    sizes = fixtures.sizes
    tree = trees.packages(fixtures.folder("peers") / "tree", files)
    probe, *victims = _with_files_to_edit(tree, sizes.peer_edits + 1)
    size_bytes = trees.content_bytes(tree)
    load = os.getloadavg()[0]
    yield Line(rules.title(files, size_bytes, len(victims), sizes.peer_quiet_s, os.cpu_count() or 1, load))
    yield Line(rules.head())
    for peer in peers:
        if missing := peer.missing():
            yield Line(rules.skipped(peer.name, missing))
            continue
        folder = fixtures.folder("peers/one")
        shutil.copytree(tree, folder / "source")
        for name in ("target", "home"):
            (folder / name).mkdir()
        os.sync()  # or the kernel still writes the copy out while the first edits are timed
        deadline = Deadline(sizes.peer_limit_s)
        ground = Ground(folder / "source", folder / "target", folder / "home", sizes.peer_quiet_s, deadline)
        try:
            yield Line(rules.row(peer.name, measured(peer, ground, probe, victims), peer.note))
        except PeerFailed as failure:
            yield Line(rules.failed(peer.name, str(failure)))
        except Exception as failure:  # one tool that fails must not cost the figures of the others
            yield Line(rules.failed(peer.name, repr(failure)))
    shutil.rmtree(fixtures.scratch / "peers")


def _with_files_to_edit(tree: Path, count: int) -> list[str]:
    """Add so many texts, each in a folder of its own, and return their paths: no tool excludes these."""
    paths = [f"{_EDITED}/{number}/notes.txt" for number in range(count)]
    for path in paths:
        (tree / path).parent.mkdir(parents=True)
        (tree / path).write_text("".join(f"line {line} of {path}\n" for line in range(_LINES)))
    return paths
