"""The process's own clock, environment and interrupt, which most components need."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from syncd.core.clock import Clock
from syncd.core.interrupt import Interrupt


class RuntimeContext(Struct, frozen=True):
    """The process's clock, its environment variables, and the request to end."""

    clock: Clock
    environ: Mapping[str, str]
    interrupt: Interrupt
    excludes: str | None = None  # path of the user's own git exclude file; None: ask git
