"""The process's own clock, environment and interrupt, which most components need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from syncd.core.clock import Clock
from syncd.core.interrupt import Interrupt


@dataclass(frozen=True)
class RuntimeContext:
    """The process's clock, its environment variables, and the request to end."""

    clock: Clock
    environ: Mapping[str, str]
    interrupt: Interrupt
    excludes: str | None = None  # path of the user's own git exclude file; None: ask git
