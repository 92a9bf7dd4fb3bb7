"""The differences that a service may have from what syncd assumes of it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct


class Profile(Struct, frozen=True, forbid_unknown_fields=True):
    """The defaults are what syncd assumes. The probe finds out those of a service, and writes such a profile.

    An `extraction` as of `tar` skips what cannot be placed and fails at the end; as of `python`'s tarfile it writes
    through links and ends at the first failure; a `whole` one that fails changes nothing. Further executions than
    `executions_at_once` (None: no limit) are pending until another one has ended.
    """

    initialize: Literal["adds", "replaces"] = "adds"
    extraction: Literal["tar", "python", "whole"] = "tar"
    executions_at_once: Annotated[int, Meta(ge=1)] | None = None
    initialize_s: Annotated[float, Meta(ge=0, le=600)] = 0.0
