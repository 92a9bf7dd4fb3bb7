"""An emulator of the sandbox API and its bucket: real HTTP on loopback, signed URLs that are verified and expire.

Begins at `emulator`; `faults` is the language of what goes wrong.
"""

from __future__ import annotations

from syncd.emulator.emulator import Emulator
from syncd.emulator.faults import Action, BadFault, Fault, When
from syncd.emulator.request_log import RequestRecord
from syncd.emulator.sandbox import Sandbox

__all__ = ["Action", "BadFault", "Emulator", "Fault", "RequestRecord", "Sandbox", "When"]
