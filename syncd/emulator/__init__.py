"""An emulator of the sandbox API and its bucket: real HTTP on loopback, signed URLs that are verified and expire.

Begins at `emulator`. What a person can set, and each default, is in `cli.emulator`.
"""

from __future__ import annotations

from syncd.emulator.emulator import Emulator
from syncd.emulator.sandbox import EmulatedSandbox
from syncd.emulator.server import RequestRecord

__all__ = ["EmulatedSandbox", "Emulator", "RequestRecord"]
