"""The PUT of an archive of chunks, over loopback to a server that drops it."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator

from syncd.archive.archive_format import Codec
from syncd.archive.chunk_store import TARGET_BYTES, Archive, ChunkStore
from syncd.archive.packer import ChunkWriter, Compressor
from syncd.core.waiter import Interrupt, Waiter
from syncd.remote.bucket import Bucket, Throttle
from syncd.remote.http_client import HttpClient
from syncd.remote.upload_url import UploadUrl
from tests.bench import null_server
from tests.bench.fixtures import Fixtures, lacks
from tests.bench.stopwatch import CLOCK, Elapsed, Stopwatch, command, fresh
from tests.bench.table import Row, Skipped, alone, compared

TIMES = 3
_MIB = 1 << 20


def _archive(spool: str, mib: int) -> Archive:
    store = ChunkStore(spool)
    store.open()
    content = random.Random(0)
    written = []
    with Compressor(Codec.FAST, store) as compressor:
        for number in range(mib * _MIB // TARGET_BYTES):
            written.append(ChunkWriter(compressor))
            written[-1].write(content.randbytes(TARGET_BYTES))
            written[-1].end(f"{number:064x}")
    return Archive.of(chunk.piece for chunk in written)


def put(url: str, spool: str, mib: int, whole: str) -> list[Elapsed]:
    """Measure some uploads; the archive is left at `whole` too, as one file."""
    logging.disable()  # that this server tells no checksum is known
    archive = _archive(spool, mib)
    with open(whole, "wb") as file:
        file.writelines(archive.blocks(_MIB))
    bucket = Bucket(HttpClient(Waiter(Interrupt(), CLOCK)), Throttle())
    took = []
    for _ in range(TIMES):
        watch = Stopwatch()
        bucket.put(UploadUrl(url, CLOCK.boottime_s() + 3600, 3600), archive, lambda _: None)
        took.append(watch.took())
    return took


def rows(fixtures: Fixtures) -> Iterator[Row | Skipped]:
    """Upload: PUT of an archive of pieces over loopback, checksums and all, against curl -T of one file."""
    title = f"upload, {fixtures.sizes.upload_mib} MiB over loopback"
    whole = fixtures.scratch / "whole"
    ours: list[Elapsed] = []
    curl: list[Elapsed] = []
    with null_server.apart() as url:
        for _ in range(fixtures.sizes.rounds):
            ours += fresh(put, url, str(fixtures.folder("pieces")), fixtures.sizes.upload_mib, str(whole))
            if not lacks("curl"):
                line = ("curl", "-sf", "-H", "Expect:", "-T", str(whole), url)
                curl += [command(line) for _ in range(TIMES)]
    for unit, short in (("wall_s", "wall"), ("cpu_s", "CPU")):
        mine = [getattr(each, unit) for each in ours]
        if curl:
            yield compared(f"{title}: {short}", "curl -T", mine, [getattr(each, unit) for each in curl])
        else:
            yield alone(f"{title}: {short}", mine)
    whole.unlink()
