"""What may be in one sandbox of ours: what is known to have arrived, and what was sent beyond that.

The *base* is what the sandbox has confirmed to hold. From before an initialize is requested until its answer is
recorded, the content is *uncertain*: a request whose answer is lost may have been carried out, so that the sandbox may
hold the new manifest, or half of it, and even a manifest equal to the base must be sent again.

What is gone here and was not removed there is a *leftover*. What arrived of it is `left`, a manifest beside the base;
what was sent and never answered stays in `maybe`.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Mapping, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from syncd.model.entry import ABSENT, ALL_BITS, Entry, same
from syncd.model.manifest import Difference, Manifest, directories_above, entry_changes, replaced_entries
from syncd.model.reconcile import left_over


class SandboxContent(Struct, frozen=True):
    """The known content of a sandbox.

    `base` is the last manifest that the sandbox was known to hold, empty unless one `is_known`. `left` is what arrived,
    is gone here and stayed there. `maybe` has the entries that were sent in archives whose initialize was not answered,
    as `with_sent` returns them; `resent`: these archives have some of `base`, too. `uncertain`: the sandbox may hold
    something else than `base`.
    """

    base: Manifest = field(default_factory=Manifest)
    maybe: tuple[Manifest, ...] = ()
    uncertain: bool = False
    left: Manifest = field(default_factory=Manifest)
    resent: bool = False
    is_known: bool = True

    @property
    def versions(self) -> tuple[Mapping[str, Entry], ...]:
        """The manifests of which each entry may be in the sandbox, the certain one first."""
        return self.base, self.left, *self.maybe

    @property
    def unanswered(self) -> tuple[Mapping[str, Entry], ...]:
        """The entries of archives that are not answered: they may be half unpacked, and may be unpacked yet."""
        sent = (self.base, *self.maybe) if self.resent else self.maybe
        return sent if self.uncertain else ()

    @property
    def leftovers(self) -> set[str]:
        """The paths that are gone here, and as which something of ours may still be there."""
        left = self.left, *self._unconfirmed
        return {path for manifest in left for path in manifest if path not in self.base}

    @property
    def _unconfirmed(self) -> tuple[Mapping[str, Entry], ...]:
        """The leftovers that were sent, and are not known to have arrived."""
        return () if self.uncertain else self.maybe

    def versions_of(self, path: str) -> list[Entry]:
        """The entries of ours that may be in the sandbox as this path."""
        return [manifest[path] for manifest in self.versions if path in manifest]

    def may_hold(self, path: str) -> bool:
        """True if some version of the path may have reached the sandbox, leftovers that arrived aside."""
        return any(path in manifest for manifest in (self.base, *self.maybe))

    def has_arrived(self, path: str) -> bool:
        """True if some version of ours is known to have been there as this path, and not only to have been sent."""
        return path in self.base or path in self.left

    def base_of(self, path: str) -> Entry | None:
        """The version that was put there as this path, also of one that was gone here meanwhile and stayed there.

        None if there is none, or several may be there.
        """
        entry: Entry | None = self.base.get(path)
        if entry is None and not any(path in manifest for manifest in self._unconfirmed):
            entry = self.left.get(path)
        return entry

    def is_as_base(self, path: str, entry: Entry) -> bool:
        """True if the entry is what was put there, so that a difference there is not of our making."""
        old = self.base_of(path)
        return old is not None and same(old, entry, ALL_BITS)

    def changed_in(self, entries: Iterable[tuple[str, Entry]]) -> set[str]:
        """The directories in which something is not as it was put there; none where nothing is known to be."""
        if not self.base:
            return set()
        return directories_above(path for path, entry in entries if not self.is_as_base(path, entry))

    @property
    def is_certain(self) -> bool:
        """True if the sandbox is known to hold `base`."""
        return self.is_known and not self.uncertain

    def may_differ(self, found: Difference) -> bool:
        """True unless the sandbox is known to hold the manifest that differs from `base` by `found`."""
        return not self.is_certain or bool(found.certain or found.to_read)

    def with_sent(self, sent: Manifest) -> SandboxContent:
        """Return what may be there once this is sent too; with the same object as `maybe` if that is nothing more."""
        replaced = sent.copy()
        if self.base:  # else all is new, and would be decoded here at once, in several times its memory
            replaced = Manifest({path: sent[path] for path in replaced_entries(self.base, sent)})
        resent = self.resent or len(replaced) < len(sent)
        return replace(self, maybe=_with_versions(self.maybe, replaced), uncertain=True, resent=resent)

    def with_base(self, base: Manifest) -> SandboxContent:
        """Return the content with another base; what unanswered archives have of the last one may still be there."""
        maybe = _with_versions(self.maybe, self.base) if self.resent else self.maybe
        return replace(self, base=base, maybe=maybe, resent=False)

    def without_taken_back(self, base: Manifest, paths: Collection[str]) -> SandboxContent:
        """Return the content with the base of before these paths were brought home: they are the agent's alone again.

        So they are where an archive that is not answered has them as well, and puts there what is there.
        """

        def is_back(path: str, entry: Entry) -> bool:
            return path in paths and self.is_as_base(path, entry)

        left = (Manifest({path: each for path, each in sent.items() if not is_back(path, each)}) for sent in self.maybe)
        return replace(self, base=base, maybe=tuple(filter(None, left)))

    def after_arrival(self, manifest: Manifest, gone: Collection[str], failed: Collection[str]) -> SandboxContent:
        """Return the content of a sandbox that holds the manifest, with nothing unanswered.

        `gone` were removed there, and `failed` could not be.
        """
        base, left, *maybe = (left_over(each, manifest, gone, failed) for each in self.versions)
        unconfirmed = tuple(Manifest(each) for each in maybe if each)
        return SandboxContent(manifest, unconfirmed, left=Manifest({**left, **base}))


UNKNOWN = SandboxContent(is_known=False)


class TakenPath(Struct, frozen=True):
    """A path, the entry that counted as sent before, and the one that does now; None: nothing.

    What `is_excluded` by the rules here and was asked for counts as sent no more: a sync would remove it there.
    """

    path: str
    before: Entry | None
    after: Entry | None
    is_excluded: bool = False


def with_taken(base: Manifest, taken: Sequence[TakenPath]) -> Manifest:
    """Return the base after these paths were taken; a row counts only while the base has what it says was before."""
    found = base.copy()
    for each in taken:
        if not is_as(found, each.path, each.before):
            continue
        if each.after is None or each.is_excluded:
            found.pop(each.path, None)
        else:
            found[each.path] = each.after
    return found


def is_as(base: Mapping[str, Entry], path: str, entry: Entry | None) -> bool:
    return same(base.get(path, ABSENT), ABSENT if entry is None else entry, ALL_BITS)


def _with_versions(unanswered: tuple[Manifest, ...], sent: Manifest) -> tuple[Manifest, ...]:
    """Return the unanswered entries with those that are `sent` now; the same object if it has them all.

    The first manifest has one version of each path, each further one another version of those that were sent in so
    many: archives that are sent again and again add only what is another one in them.
    """
    found: list[Manifest] = []
    for known in unanswered:
        more, left = known.copy(), Manifest()
        for path, old, entry in entry_changes(known, sent):
            if old is None:
                more[path] = entry
            elif not same(old, entry, ALL_BITS):
                left[path] = entry
        found.append(more if len(more) > len(known) else known)
        sent = left
    if sent:
        found.append(sent)
    is_same = len(found) == len(unanswered) and all(map(operator.is_, found, unanswered))
    return unanswered if is_same else tuple(found)
