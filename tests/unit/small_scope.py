"""A workspace, a sandbox and a state in memory, round the real sync and the real way home.

Real are `SandboxSync`, `SyncRound`, `Delivery`, `Looks`, `VersionSaver`, `find_agent_work`, `bring_home`, all plans,
and the state with its transactions, in a database in memory. Made up are the edges: what scans, packs and writes to the
workspace, the requests, the program that looks and removes, the store of saved versions, and git's merge. Each counts a
step after whatever it writes, so does each commit: at each one the process may die, and `Process.deaths` has what is
there then.
"""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import cache, partial
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from syncd.archive.chunk_store import Archive
from syncd.archive.packer import Packed
from syncd.archive.snapshotter import ScanResult, SyncMode
from syncd.core.api_key import ApiKey
from syncd.core.checksum import crc32c
from syncd.core.choices import ArchiveContent, Deletions
from syncd.core.clock import Moment
from syncd.core.settings import check_config
from syncd.core.signals import Interrupt
from syncd.core.waiter import Waiter
from syncd.merge.home import AgentSide, bring_home, make_plan, save_theirs, with_texts
from syncd.merge.path_changes import PathChange, check_plan
from syncd.merge.workspace_writer import Written
from syncd.model.entry import ABSENT, Entry, Kind, SeenEntry, same, with_copy
from syncd.model.manifest import Manifest, archive_order, difference
from syncd.model.reconcile import Forced, Home, PathOutcome, Policy
from syncd.remote.bucket import Throttle
from syncd.remote.failure import ApiStep, FailureAction, StepFailed
from syncd.remote.http_client import Response
from syncd.remote.target import Target
from syncd.remote.upload_url import UploadUrl, UploadUrlStore
from syncd.sandbox.executions import Executions, PendingRemoval, Purpose, Running, RunningLook
from syncd.sandbox.look_request import LookAction, LookRequest, LookResult, Obstacle
from syncd.sandbox.partial_archives import PartialArchives
from syncd.sandbox.protocol import Bounds
from syncd.sandbox.sandbox_state import SandboxState
from syncd.store.state_db import StateDb
from syncd.sync.agent_work import find_agent_work
from syncd.sync.outcome import Outcome
from syncd.sync.sandbox import Access, Sandbox
from syncd.sync.sync_once import SandboxSync
from syncd.sync.work_saver import WorkSaver
from tests.clock import ScriptedClock

Tree = Mapping[str, Entry]
TARGET = Target("https://api.klavis.ai", "box", "us")
DIRECTORY = Entry(Kind.DIRECTORY, 0o755)
_ARCHIVES: dict[bytes, Tree] = {}  # by their bytes, in whatever process they were packed
_RULES: Any = SimpleNamespace(exclude=lambda _path, _is_dir: False)
_NOWHERE = "/dev/null/no-folder"
_PURPOSE = Purpose(ApiStep.EXECUTION, "a look")
_URL = UploadUrl("https://storage.test/archive", 1e9, 1800.0)


_SIZES: dict[bytes, int] = {}  # of all files, by their digests


@cache
def file(text: str) -> Entry:
    _SIZES[sha256(text.encode()).digest()] = len(text)
    return Entry(Kind.FILE, 0o644, size_bytes=len(text), digest=sha256(text.encode()).digest())


@cache
def link(text: str) -> Entry:
    return Entry(Kind.SYMLINK, 0o777, target=text)


def _nothing(*_: object) -> None:
    pass


def content(entry: Entry) -> Entry:
    """Return what counts of a version that is saved."""
    return Entry(entry.kind, target=entry.target, digest=entry.digest)


class MemoryDb(StateDb):
    """The state's database, in memory."""

    def __init__(self, image: bytes = b"", step: Callable[[], None] = lambda: None) -> None:
        super().__init__(_NOWHERE)
        self._memory, self._step = sqlite3.connect(":memory:", isolation_level=None), step
        self._connection = self._memory
        self._committed: tuple[bytes, tuple[Any, ...]] | None = None
        if image:
            self._memory.deserialize(image)
        else:
            self._prepare(self._memory)

    def _open(self) -> sqlite3.Connection:
        return self._memory

    def _commit(self, connection: sqlite3.Connection) -> None:
        super()._commit(connection)
        self._committed = None
        self._step()

    @property
    def committed(self) -> tuple[bytes, tuple[Any, ...]]:
        """The image, and what is recorded in it, but for the number that each base has of its own."""
        if self._committed is None:
            records = []
            for owner, name, value in self.rows("SELECT owner, name, value FROM records ORDER BY owner, name"):
                known = {**msgspec.json.decode(value), "identity": ""} if name == "base" else value
                records.append((owner, name, msgspec.json.encode(known)))
            query = "SELECT owner, version, path, texts, encoded FROM directories ORDER BY owner, version, path"
            self._committed = self._memory.serialize(), (*records, *self.rows(query))
        return self._committed


class World(Struct, frozen=True):
    """What outlives a process: the workspace, the sandbox, the bucket, what is saved, and the state's image.

    `late` are removals that were started and have not run, and `late_archive` one that was to be initialized. Two with
    the same `facts` have the same state.
    """

    here: Tree
    there: Tree
    image: bytes
    bucket: bytes = b""
    saved: frozenset[tuple[str, Entry]] = frozenset()
    late: tuple[tuple[str, LookRequest], ...] = ()
    late_archive: bytes = b""
    facts: tuple[Any, ...] = ()

    @property
    def key(self) -> Any:
        """The same for two worlds that go on alike."""
        sides = frozenset(self.here.items()), frozenset(self.there.items())
        return *sides, self.bucket, self.saved, len(self.late), self.late_archive, self.facts


class Process:
    """One process of syncd, in its world; `destroyed` is told of what is lost there and `replaced` of that here."""

    def __init__(
        self,
        world: World,
        policy: Policy,
        deletions: Deletions,
        destroyed: Callable[[Process, str, Entry], None],
        replaced: Callable[[Process, str, Entry, Entry], None],
    ) -> None:
        self.here, self.there, self.bucket = dict(world.here), dict(world.there), world.bucket
        self.saved, self.late, self.late_archive = set(world.saved), dict(world.late), world.late_archive
        self.deaths: list[World] = []
        self.effects = 0
        self.is_late = False  # while what an earlier process had asked for is done
        self._destroyed, self._replaced = partial(destroyed, self), partial(replaced, self)
        self._db = MemoryDb(world.image, self.step)
        self._clock = ScriptedClock()
        self.waiter, self.connection = Waiter(Interrupt(), self._clock), None  # as the client of all connections
        folders, key = SimpleNamespace(state=_NOWHERE, spool=_NOWHERE), ApiKey("key", "the test")
        access = _Access(_config(policy, deletions), folders, self._db, key, self, Throttle())  # type: ignore[arg-type]
        self.sandbox = Sandbox(access, TARGET, f"{_NOWHERE}/copies")
        self.sandbox.saver.saved_versions = self._saved_versions
        self.base = dict(self.sandbox.state.content.base or {})  # at first
        self._sync = SandboxSync(self.sandbox, self._workspace, self._snapshotter, WorkSaver(access, self._workspace))

    @property
    def world(self) -> World:
        image, facts = self._db.committed
        late, saved = tuple(self.late.items()), frozenset(self.saved)
        return World(dict(self.here), dict(self.there), image, self.bucket, saved, late, self.late_archive, facts)

    def step(self) -> None:
        """Note that something was written: the process may die."""
        self.effects += 1
        self.deaths.append(self.world)

    def sync(self, mode: SyncMode = SyncMode.CHANGED) -> Outcome:
        observer = SimpleNamespace(to_scan=_nothing, scanned=_nothing, stage=_nothing, progressed=_nothing)
        observer.wait_out = lambda _, wait_s: self._clock.go_on(wait_s)
        return self._sync.run(mode, observer)  # type: ignore[arg-type]

    def apply(self, *, deletions: bool) -> None:
        """Bring home what was changed there, as the command does once it was agreed to."""
        sandbox, state, home, rules = self.sandbox, self.sandbox.state, self._home, _RULES
        work = find_agent_work(sandbox.looks, state.content, rules.exclude)
        side = AgentSide(home, sandbox, work, rules, rules.exclude, state.revision)
        done = bring_home(side, with_texts(home, make_plan(side, side.local(), deletions=deletions)))
        save_theirs(side, done.of(PathOutcome.CONFLICT))

    # -- the sandbox

    def put_there(self, path: str, entry: Entry) -> None:
        old = self.there.get(path, ABSENT)
        if not same(old, entry):
            self._destroyed(path, old)
        _put(self.there, path, entry)

    def exchange(self, *_: object, content: Iterable[bytes], **__: object) -> Response:
        """Answer an upload."""
        self.bucket = b"".join(content)
        self.step()
        checksum = base64.b64encode(crc32c(self.bucket, 0).to_bytes(4, "big")).decode()
        return Response(200, (("x-goog-hash", f"crc32c={checksum}"),), b"", 0.0, None)

    def initialize(self) -> None:
        """Extract the archive, before it one that came late; a removal that came late runs afterwards."""
        late, self.late_archive = self.late_archive, self.bucket
        self.step()
        self.late_archive = b""
        if late:
            self.is_late = True
            self._extract(late)
            self.is_late = False
        is_whole = self._extract(self.bucket)
        for name in [*self.late]:
            self.run_late(name)
        if not is_whole:
            raise StepFailed(ApiStep.INITIALIZE, FailureAction.RETRY, "not all can be extracted")

    def _extract(self, archive: bytes) -> bool:
        """Extract as GNU tar does; return False if not all can be."""
        is_whole = True
        for path, entry in _ARCHIVES[archive].items():
            folder, old = path.rpartition("/")[0], self.there.get(path, ABSENT)
            if folder and folder not in self.there:
                self.there[folder] = DIRECTORY
            is_on_way = not folder or self.there[folder].is_directory
            if not is_on_way or (old.is_directory and not entry.is_directory and holds_any(self.there, path)):
                is_whole = False
            elif not (old.is_directory and entry.is_directory):
                self.put_there(path, entry)
                self.step()
        return is_whole

    def run_late(self, name: str) -> None:
        self.is_late = True
        self.look(self.late.pop(name), _nothing)
        self.is_late = False

    def look(self, request: LookRequest, step: Callable[[], None]) -> LookResult:
        """Compare and remove as the program there does."""
        differing: dict[str, SeenEntry] = {}
        removed, kept, missing = [], [], 0
        blocked: dict[str, Obstacle] = {}
        for path, item in request.each():
            there, action = self.there.get(path, ABSENT), item.action
            is_gone, is_same = there.kind is Kind.ABSENT, any(same(there, version) for version in item.versions)
            if action is LookAction.EXISTS:
                missing += is_gone
            elif action is LookAction.PLACE:
                blocked |= self._obstacle(path, item.versions[0])
            elif action is not LookAction.REMOVE:
                if not is_same and not (is_gone and not item.versions):
                    differing[path] = _seen(there, is_fetched=action is LookAction.FETCH)
            elif not is_gone and not is_same:
                differing[path] = _seen(there, is_fetched=False)
            elif there.is_directory and holds_any(self.there, path):
                kept.append(path)
            else:
                removed.append(path)
                if not is_gone:
                    self.put_there(path, ABSENT)
                    step()
        beside = {p: _seen(e, is_fetched=True) for p, e in self.there.items() if p not in request.items}
        new = beside if request.find_new else {}
        return LookResult(differing, new, removed=removed, holding_more=kept, missing=missing, blocked=blocked)

    def _obstacle(self, path: str, wanted: Entry) -> dict[str, Obstacle]:
        place = path
        while place and place not in self.there:
            place = place.rpartition("/")[0]
        there = self.there.get(place, DIRECTORY)
        is_free = there.is_directory if place != path else there.is_directory is wanted.is_directory
        return {} if is_free else {place: Obstacle(there.kind)}

    # -- the workspace, what is kept of it, and what is saved

    @property
    def _workspace(self) -> Any:
        base_store = SimpleNamespace(get=_nothing, keep_replaced=_nothing, keep_sent=_nothing)
        turns = SimpleNamespace(waiter=self.waiter, base_store=base_store, sent_digests=set, snapshot_turn=nullcontext)
        turns.other_bases, turns.is_excluded = lambda _: [], lambda: _RULES.exclude
        return turns

    @property
    def _snapshotter(self) -> Any:
        def scan(base: Manifest | None, *_: object) -> ScanResult:
            found = Manifest(dict(self.here))
            return ScanResult(found, difference(base or Manifest(), found))

        def pack(manifest: Manifest, only: Collection[str] | None = None, *_: object) -> Packed:
            paths = sorted(manifest if only is None else manifest.keys() & {*only}, key=archive_order)
            entries = {path: manifest[path] for path in paths}
            packed = repr(entries).encode()
            _ARCHIVES[packed] = entries
            return Packed(_Archive(end=packed, size_bytes=len(packed)), manifest.copy())

        known = SimpleNamespace(unread=(), secret_files={}, scan=scan, pack=pack, release=_nothing)
        known.shared = known.forget_all_stamps = known.with_digests = lambda known: known
        known.resolved = lambda scanned, _: scanned
        return known

    @property
    def _saved_versions(self) -> Any:
        def save(_why: object, _sandbox_id: str, new: Mapping[str, SeenEntry], _bases: object) -> Any:
            self.saved |= {(path, content(entry)) for path, entry in new.items()}
            self.step()
            return SimpleNamespace(id="1", paths=new)

        def holders(wanted: Mapping[str, Entry]) -> dict[str, str]:
            return {path: "1" for path, there in wanted.items() if (path, content(there)) in self.saved}

        return SimpleNamespace(save=save, holders=holders, expire=_nothing, count=0)

    @property
    def _home(self) -> Any:
        def facts(*, deletions: bool) -> Home:
            below = [path.rpartition("/") for path in self.here]
            names_in = lambda folder: [name for above, _, name in below if above == folder]  # noqa: E731
            return Home(deletions, lambda path: self.here.get(path, ABSENT).target or None, names_in)

        def look(paths: Iterable[str]) -> dict[str, Entry]:
            return {path: self.here.get(path, ABSENT) for path in paths}

        sent_files = SimpleNamespace(base_store=SimpleNamespace(add=_nothing, get=_nothing))
        found = SimpleNamespace(facts=facts, rules=lambda: _RULES, sent_files=sent_files, scratch=_NOWHERE)
        found.writer = SimpleNamespace(look=look, write=self._write)
        found.without_unmounted = lambda plan: plan
        return found

    def _write(
        self, plan: Sequence[PathChange], _taken: object, record: Callable[[Written], None], *_: object
    ) -> Written:
        """Change the workspace as planned, and record it, as the writer does; nothing is taken back."""
        check_plan(plan)
        changes = sorted(plan, key=lambda change: archive_order(change.path))
        for change in reversed(changes):
            if change.clears:
                self._put_here(change.path, ABSENT)
        for change in changes:
            after = change.after
            if after.kind is Kind.FILE:
                after = replace(after, size_bytes=_SIZES[after.digest])
            if after.kind is not Kind.ABSENT:
                self._put_here(change.path, link(after.target) if after.kind is Kind.SYMLINK else after)
        written = Written(tuple(change.path for change in changes))
        with self._db.transaction():
            record(written)
        return written

    def _put_here(self, path: str, entry: Entry) -> None:
        old = self.here.get(path, ABSENT)
        assert not holds_any(self.here, path) or entry.is_directory, f"{path} is not empty"
        if not same(old, entry):
            self._replaced(path, old, entry)
        _put(self.here, path, entry)
        self.step()


def _put(tree: dict[str, Entry], path: str, entry: Entry) -> None:
    if entry.kind is Kind.ABSENT:
        tree.pop(path, None)
    else:
        tree[path] = entry


def holds_any(tree: Tree, folder: str) -> bool:
    return any(path.startswith(f"{folder}/") for path in tree)


def _seen(entry: Entry, *, is_fetched: bool) -> SeenEntry:
    return with_copy(entry, "copy" if is_fetched and entry.kind is Kind.FILE else "")


def image_of(base: Tree | None) -> bytes:
    """Return the image of the state after this was sent, by partial archives if need be; None: nothing was."""
    db = MemoryDb()
    if base is not None:
        state = SandboxState(db, TARGET)
        state.note_arrived(Manifest(dict(base)))
        state.record()
        PartialArchives(ArchiveContent.AUTO, TARGET, lambda _: LookResult(), db=db, clock=ScriptedClock()).ask_if_kept(
            "pq"
        )
    UploadUrlStore(db, TARGET, ScriptedClock()).save(_URL)
    return db.committed[0]


@cache
def _config(policy: Policy, deletions: Deletions) -> Any:
    sandbox = {"id": "box", "deletions": deletions.value, "follow_seconds": 0}
    if policy is not Forced.FORCE:
        sandbox["agent_changes"] = policy.value
    return check_config({"workspace": {"path": "/srv/workspace", "git": "none"}, "sandbox": sandbox})


class _Access(Access, frozen=True):
    def api(self, _: Target) -> Any:
        process: Any = self.client
        return SimpleNamespace(upload_url=lambda: _URL, initialize=process.initialize, sandbox=_nothing)

    def executions(self, target: Target) -> Executions:
        return _Executions(self.api(target), self.client, self.waiter, self.db, target)


class _Executions(Executions):
    """Executions that record removals as the real ones do, and run in the process; one that died may run late."""

    _client: Process  # type: ignore[assignment]

    def start_look(self, request: LookRequest, *_: object) -> RunningLook:
        to_remove = request.with_action(LookAction.REMOVE)
        name = f"removal of {to_remove}"
        if to_remove:
            self._note(PendingRemoval(name, frozenset(to_remove), 0.0, 0.0))
            self._client.late[name] = request
            self._client.step()
            del self._client.late[name]
        return RunningLook(Running(name, _PURPOSE, Bounds(0), Moment.now(self._clock)), request, 0.0, 0.0, 0.0)

    def finish_look(self, look: RunningLook, *_: object) -> LookResult:
        found = self._client.look(look.request, self._client.step)
        self._forget(look.running.name)
        return found

    def settle(self, wanted: Collection[str]) -> None:
        if self.pending is not None and self.pending.may_remove(wanted):  # they end while a sync waits for that
            for name in [*self._client.late]:
                self._client.run_late(name)
        super().settle(wanted)

    def _ask_time(self) -> None:
        self._ahead_s = 0.0

    def _is_over(self, pending: PendingRemoval) -> bool:
        return pending.name not in self._client.late if pending.name else not self._client.late


class _Archive(Archive, frozen=True):
    @property
    def key(self) -> str:
        return sha256(self.end).hexdigest()

    def blocks(self, _: int) -> Iterator[bytes]:
        yield self.end
