"""The emulator of syncd as tests use it: with faults, hooks, a log of requests, and sandboxes that work otherwise.

Begins at `emulator`; `faults` is the language of what goes wrong.
"""

from __future__ import annotations

from tests.emulator.emulator import Emulator
from tests.emulator.faults import When
from tests.emulator.request_log import RequestRecord
from tests.emulator.sandbox import Sandbox

__all__ = ["Emulator", "RequestRecord", "Sandbox", "When"]
