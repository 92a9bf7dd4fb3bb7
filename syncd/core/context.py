"""What a process brings along for everything that it makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from syncd.core.clock import Clock
from syncd.core.interrupt import Interrupt


@dataclass(frozen=True)
class RuntimeContext:
    """What a process brings along: its clock, its environment, and how it is asked to end."""

    clock: Clock
    environ: Mapping[str, str]
    interrupt: Interrupt
    excludes: str | None = None  # the person's own exclude file; None: git is to be asked
