"""The managed file's part in a configuration, as values: what came from it, and what its ceiling holds."""

from __future__ import annotations

from msgspec import Struct

# A constant: whoever could name another file, by an option or in the environment, could lift the ceiling.
MANAGED_FILE = "/etc/syncd/managed.toml"


class CeilingPattern(Struct, frozen=True):
    """A pattern of `ceiling.ignore`, and where it is written; the line is None if it was not found."""

    file: str
    line: int | None
    pattern: str


class Managed(Struct, frozen=True):
    """The part that the managed file has in a configuration; keys are named as in a person's file.

    `defaults` have their value from it, `ceiling` are held by its ceiling, `narrowed` had another value in the person's
    file, which the ceiling took back.
    """

    file: str
    defaults: tuple[str, ...] = ()
    ceiling: tuple[str, ...] = ()
    narrowed: tuple[str, ...] = ()

    def summary(self) -> str:
        """The file with the keys that it is about, in one line."""
        kinds = (("holds", self.ceiling), ("gives", self.defaults), ("overrides your", self.narrowed))
        does = [f"{verb} {', '.join(keys)}" for verb, keys in kinds if keys]
        return f"{self.file} {'; '.join(does) or 'holds and gives nothing here'}"
