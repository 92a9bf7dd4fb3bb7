"""The state of one sandbox: what may be there of ours, in memory and recorded.

What may be there is recorded before an initialize is requested, and with it in one transaction the mark that the
content is uncertain.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from syncd.core.errors import SyncWarning
from syncd.core.settings import MAIN
from syncd.core.text import counted
from syncd.model.entry import Entry, Kind
from syncd.model.manifest import Manifest, without_stamps
from syncd.remote.target import Target
from syncd.sandbox.sandbox_content import UNKNOWN, SandboxContent, TakenPath, with_taken
from syncd.sandbox.seen_paths import SeenPaths
from syncd.store.manifests import ManifestRows
from syncd.store.state_db import Record, StateDb, required_record

_LEFT, _BASE, _FIRST_MAYBE = -1, 0, 1
_SENT_ANEW = "everything is compared and sent anew once"


class _Base(Struct, frozen=True):
    """The facts recorded beside the base's manifest. `revision` is another one for each manifest.

    `searched` is the digest of the search for secrets that its contents passed.
    """

    searched: str
    revision: str = field(name="identity")


class _Leftovers(Struct, frozen=True):
    """What is known of leftovers beside their entries."""

    secret: frozenset[str] = frozenset()
    unremoved: dict[str, str] = field(default_factory=dict)


def last_target(db: StateDb, name: str = MAIN) -> Target | None:
    """Return the sandbox that something was sent to last, answered or not, under that name of the configuration."""
    return _last(db, _owner(name)).load()


def ending_targets(db: StateDb, name: str = MAIN) -> Record[list[tuple[Target, float]]]:
    """Return the record of the sandboxes of that name that end, each with its end by the wall clock."""
    return _ending(db, _owner(name))


def recorded_names(db: StateDb) -> set[str]:
    """Return the names under which something was ever sent to a sandbox, and that were not forgotten."""
    return {_name(owner) for owner in _owners(db)}


def forget_name(db: StateDb, name: str) -> None:
    """Forget the sandboxes of that name, but for what was saved of them. Raises `OSError`."""
    with db.transaction():
        _last(db, _owner(name)).remove()
        _ending(db, _owner(name)).remove()
        db.forget_owners_but(_kept(db))


class SandboxState:
    """The state of one sandbox.

    `content` is all that may be there. `secret` are leftovers in which a secret was found later: a person is warned of
    them until they are removed there. `unremoved` could not be removed there, with the reason. `seen` has what stays as
    it is there.
    """

    def __init__(self, db: StateDb, target: Target, searched: str = "", name: str = MAIN) -> None:
        """`searched` is the digest of the search for secrets that contents pass, empty if none is made.

        `name` is that of the configuration.
        """
        self.db = db
        self._name = name
        self.target = target
        self.content = UNKNOWN
        self.secret: frozenset[str] = frozenset()
        self.unremoved: dict[str, str] = {}
        self.seen = SeenPaths(db, target.owner)
        self.warnings: list[SyncWarning] = []  # about what could not be read
        # While a look that follows is under way: of each archive that arrived meanwhile, what it went over.
        self.overwritten: list[Callable[[str], bool]] | None = None
        self._searched = searched
        self._rows = ManifestRows(db, target.owner)
        self._base = Record(db, "base", _Base, _SENT_ANEW, target.owner)
        self._mark = Record(db, "uncertain", bool, _SENT_ANEW, target.owner)
        cost = "what was deleted here and is still there, secrets too, has no warning"
        self._leftovers = Record(db, "leftovers", _Leftovers, cost, target.owner)
        self._released = Record(db, "released", bool, "its end is told of as a loss", target.owner)
        self.is_released = False  # it was given back, and nothing arrived there since
        self._is_marked = False
        self.revision = ""  # of the base that this process read or recorded last, empty if it knows none
        self._in_rows: Manifest | None = None  # the base as it is recorded, as far as this process knows
        self._torn: tuple[str, ...] | None = None
        self.read()

    @property
    def torn(self) -> tuple[str, ...]:
        """Files of the base that changed while they were read: their copy may be half old and half new."""
        if self._torn is None:
            files = self.content.base.items()
            self._torn = tuple(path for path, entry in files if entry.kind is Kind.FILE and not entry.digest)
        return self._torn

    @property
    def was_changed(self) -> bool:
        """True if another process changed the base since this one read or recorded it, or if the record was damaged."""
        recorded = self._base.load() if self.revision else None
        if recorded is None:
            return self.revision != "" and self.db.warning is not None
        return recorded.revision != self.revision

    def read(self) -> None:
        """Read what is recorded.

        Entries whose contents were not searched by today's rules come without their stamps: they are read again.
        """
        could_not_mark = self.content.uncertain and not self._is_marked and not self.is_released
        is_marked = self._mark.exists
        self.is_released = self._released.exists
        last = last_target(self.db, self._name)
        # Where another one was in use, nobody knows what became of this one meanwhile.
        was_left = last is not None and not last.same_sandbox(self.target)
        self._is_marked = is_marked and not was_left  # the next mark records which one is in use, too
        recorded, self._in_rows = self._base.load(), None
        self.revision = "" if recorded is None else recorded.revision
        self.warnings = [self.db.warning] if self.db.warning and recorded is None else []
        left, maybe = self._read_beside_base()
        base = None if recorded is None else self._read_base(recorded)
        self.content = SandboxContent(
            base=Manifest() if base is None else base,
            maybe=maybe,
            uncertain=is_marked or could_not_mark or self.is_released or was_left,
            left=left,
            resent=is_marked and self._mark.load() is not False,
            is_known=base is not None,
        )
        leftovers = self._leftovers.load() or _Leftovers()
        self.secret, self.unremoved = leftovers.secret, leftovers.unremoved
        self.seen.read()
        self._torn = None

    def _read_base(self, recorded: _Base) -> Manifest | None:
        try:
            manifest, damaged = self._rows.load(_BASE)
        except OSError as failure:
            self.warnings = [_damage(f"cannot be read ({failure.strerror})")]
            return None
        if damaged:
            self.warnings = [_damage(f"was damaged ({counted(len(damaged), 'folder')})")]
        else:
            self._in_rows = manifest.copy()
        if self._searched not in ("", recorded.searched):
            manifest = without_stamps(manifest)
        return manifest

    def _read_beside_base(self) -> tuple[Manifest, tuple[Manifest, ...]]:
        """Read what is left over, and what may be there."""
        left, maybe = Manifest(), list[Manifest]()
        with contextlib.suppress(OSError):
            left = self._rows.load(_LEFT)[0]
            while manifest := self._rows.load(_FIRST_MAYBE + len(maybe))[0]:
                maybe.append(manifest)
        return left, tuple(maybe)

    def renew_base(self, base: Manifest) -> None:
        """Have the base be this manifest, which has the same entries, perhaps without their stamps."""
        self.content = replace(self.content, base=base)

    def share(self, base: Manifest) -> None:
        """Have the base, as recorded, be this manifest, which is equal to it and shares its memory with others."""
        self.renew_base(base)
        if self._in_rows is not None:
            self._in_rows = base.copy()

    # -- an archive on its way

    def mark_uncertain(self, sent: Manifest | None = None) -> None:
        """Record that from now on the sandbox may hold something else than the base, such as what is `sent` now.

        It is durable when this returns, and counts as ours in later processes too. Raises `TryLater`; then nothing must
        be requested.
        """
        before = self.content
        self.content = now = replace(before, uncertain=True)
        now = now if sent is None else now.with_sent(sent)
        if self._is_marked and now.maybe is before.maybe and now.resent is before.resent:
            return
        with required_record("nothing is sent"), self.db.transaction():
            self._record_last()
            self._mark.save(now.resent)
            if now.maybe is not before.maybe:
                self._save_maybe(now.maybe, before.maybe)
        self._is_marked, self.content = True, now

    def _save_maybe(self, maybe: Sequence[Manifest], recorded: Sequence[Manifest] = ()) -> None:
        """Record what may be there, in the transaction that is open; `recorded` is what is known to be so far."""
        self._rows.forget(_FIRST_MAYBE + len(maybe))
        for number, manifest in enumerate(maybe):
            before = recorded[number] if number < len(recorded) else None
            self._rows.save(_FIRST_MAYBE + number, manifest, before)

    def mark_released(self) -> None:
        """Record that the sandbox was given back: nothing is in sync there, nor to be saved. Raises `OSError`."""
        self.note_released()
        self._released.save(True)

    def note_released(self) -> None:
        """Note that it was given back, as another process recorded."""
        self.content, self.is_released = replace(self.content, uncertain=True), True

    # -- the base

    def note_arrived(
        self,
        manifest: Manifest,
        torn: Collection[str] = (),
        *,
        gone: Collection[str] = (),
        secret_files: Collection[str] = (),
    ) -> None:
        """Note that the sandbox holds the manifest, and that no request is unanswered.

        `gone` were removed there. `secret_files` are not sent because of a secret in them.
        """
        self.content = self.content.after_arrival(manifest, gone, self.unremoved)
        self._is_marked = self.is_released = False
        self._torn = tuple(path for path in torn if path in manifest)
        self.secret = frozenset({*self.secret, *secret_files} & self.content.leftovers)

    @property
    def is_doubted(self) -> bool:
        """True while the sandbox counts as certain in this process alone."""
        return self._is_marked and not self.content.uncertain

    def doubt(self) -> None:
        """Have the record that follows keep the mark, as the archive may have taken away what it lacked.

        This process goes on to find that out. Where it ends before, the next one sends the whole.
        """
        self._is_marked = True

    def end_doubt(self) -> None:
        """Record that the sandbox has what the archive lacked."""
        if self.is_doubted:
            self._is_marked = False
            with contextlib.suppress(OSError):  # then the next process sends the whole
                self._mark.remove()

    def record(self, beside: Callable[[], None] = lambda: None) -> None:
        """Record what arrived last, what is left over, what stays there and what is `beside`, in one transaction.

        Raises `OSError`, also where it cannot be committed; this process is certain of it all the same.
        """
        with self._recording(self.content.base, self._searched):
            if not self._is_marked:
                self._mark.remove()
            self._released.remove()
            self._save_maybe(self.content.maybe)
            self._record_last()
            self._record_rest()
            beside()

    def record_taken(self, taken: Sequence[TakenPath], differing: Collection[str] = ()) -> None:
        """Have what was brought home count as sent, or what was taken back not any more. Raises `OSError`.

        A path counts only while the base is as `taken` says; a sync that came in between knows better. What is
        uncertain stays uncertain. None of the paths stays there any more, but for `differing` ones, which the next look
        finds to be changed. What is there against the rules is the agent's own, and no leftover.
        """
        with self.db.transaction():
            self.read()
            recorded = self._base.load()
            paths = {each.path for each in taken}
            self.seen.taken(paths)
            self.unremoved = {path: why for path, why in self.unremoved.items() if path not in paths}
            self.seen.changed.update(differing)
            self._forget_left({each.path for each in taken if each.is_excluded})
            if self.content.is_known and recorded is not None:
                before, base = self.content, with_taken(self.content.base, taken)
                now = before.without_taken_back(base, differing) if differing else before.with_base(base)
                self.content = now
                with self._recording(base, recorded.searched):
                    if now.resent is not before.resent:
                        self._mark.save(now.resent)
                    self._save_maybe(now.maybe, before.maybe)
                    self._record_rest()
            else:
                self._record_rest()

    def put_back(self, returned: Mapping[str, Entry]) -> None:
        """Have what stayed there while it was gone here count again as what was put there."""
        base = self.content.base | returned
        self.content = replace(self.content, base=base)
        self._forget_left(returned)
        # The next process finds it out as this one did.
        with contextlib.suppress(OSError), self._recording(base, self._searched):
            self._record_rest()

    def _forget_left(self, paths: Collection[str]) -> None:
        left = {path: entry for path, entry in self.content.left.items() if path not in paths}
        self.content = replace(self.content, left=Manifest(left))
        self.secret = self.secret.difference(paths)

    def _record_rest(self) -> None:
        """Record what is left over, and what stays there, in the transaction that is open. Raises `OSError`."""
        # There may be many, and an edit changes few.
        self._rows.save(_LEFT, self.content.left, self._rows.load(_LEFT)[0])
        self._leftovers.save(_Leftovers(self.secret, self.unremoved))
        self.seen.save()

    def forget(self) -> None:
        """Forget what is there beyond the base: the sandbox does not exist any more."""
        self.content, self.secret, self.unremoved = replace(self.content, left=Manifest()), frozenset(), {}
        self.seen.forget()
        with contextlib.suppress(OSError), self.db.transaction():
            self._record_rest()

    @contextlib.contextmanager
    def _recording(self, manifest: Manifest, searched: str) -> Iterator[None]:
        """Record the base, and in one transaction what is changed within. Raises `OSError`."""
        in_rows, self._in_rows = self._in_rows, None
        base = _Base(searched, secrets.token_hex(8))
        with self.db.transaction():
            recorded = self._base.load()
            is_ours = recorded is not None and recorded.revision == self.revision
            self._rows.save(_BASE, manifest, in_rows if is_ours else None)
            self._base.save(base)
            yield
        self.revision, self._in_rows = base.revision, manifest.copy()

    def _record_last(self) -> None:
        last = last_target(self.db, self._name)
        if last == self.target:
            return
        _last(self.db, _owner(self._name)).save(self.target)
        if last is not None and not last.same_sandbox(self.target):
            self.db.forget_owners_but(_kept(self.db) | {last.owner})


# The names of the configuration are owners of rows too; those of sandboxes begin with their API's address.
_OF_NAME = "name "


def _owner(name: str) -> str:
    return "" if name == MAIN else f"{_OF_NAME}{name}"


def _name(owner: str) -> str:
    return owner.removeprefix(_OF_NAME) or MAIN


def _owners(db: StateDb) -> list[str]:
    """Return the owners under which a last sandbox is recorded."""
    query = "SELECT o.name FROM owners o JOIN records r ON r.owner = o.number WHERE r.name = 'last'"
    return [owner for (owner,) in db.rows(query)]


def _kept(db: StateDb) -> set[str]:
    """Return the owners of what is still in use, under any name."""
    kept = set()
    for owner in _owners(db):
        last, ending = _last(db, owner).load(), _ending(db, owner).load() or ()
        kept |= {owner, *(each.owner for each in (last, *(target for target, _ in ending)) if each is not None)}
    return kept


def _last(db: StateDb, owner: str) -> Record[Target]:
    return Record(db, "last", Target, "the sandbox of the last sync is not known", owner)


def _ending(db: StateDb, owner: str) -> Record[list[tuple[Target, float]]]:
    cost = "what an agent writes at its sandbox's end is not saved"
    return Record(db, "ending", list[tuple[Target, float]], cost, owner)


def _damage(what: str) -> SyncWarning:
    remedy = "nothing to do, as what is not known is compared and sent anew; deletions in it stay in the sandbox"
    return SyncWarning("state", f"the record of what was sent {what}", remedy)
