"""The decisions of one sync: must anything be sent, and is a partial archive enough."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from syncd.scan.manifest import Difference, Entry, Manifest


@dataclass(frozen=True)
class SandboxContent:
    """The known content of a sandbox.

    `base` is the last manifest that the sandbox was known to hold, None if there is none. `possibly_applied` are the
    entries that were sent after it and whose initialize was not answered. `uncertain`: the sandbox may hold something
    else than `base`.
    """

    base: Manifest | None = None
    possibly_applied: Manifest = field(default_factory=dict)
    uncertain: bool = False

    @property
    def versions(self) -> tuple[Manifest, Manifest]:
        """The manifests of which each entry may be in the sandbox, the certain one first."""
        return self.base or {}, self.possibly_applied

    @property
    def expected(self) -> Collection[str]:
        """The paths that are in the sandbox unless someone there removed them; none if a reset may have done so."""
        return () if self.uncertain else self.versions[0].keys()

    def may_hold(self, path: str) -> bool:
        """True if some version of the path may have reached the sandbox."""
        return any(path in manifest for manifest in self.versions)

    def may_differ(self, found: Difference) -> bool:
        """True unless the sandbox is known to hold the manifest that differs from `base` by `found`."""
        return self.uncertain or found.certain or bool(found.uncertain)


def partial_paths(manifest: Mapping[str, Entry], found: Difference) -> frozenset[str] | None:
    """The paths of a partial archive: those that differ, and the smallest entry, as a server may refuse an empty one.

    None if it would lack nothing: such an archive is whole, and proves nothing about partial ones. Directories come
    with the paths in them.
    """
    smallest = min(manifest, key=lambda path: manifest[path].size_bytes)
    paths = frozenset({*found.added, *found.changed, *found.uncertain, smallest})
    with_directories = set(paths)
    for path in paths:
        while path := path.rpartition("/")[0]:
            with_directories.add(path)
    return paths if any(path not in with_directories for path in manifest) else None
