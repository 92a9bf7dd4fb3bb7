"""Computes CRC-32C, the checksum that the bucket answers with, by the crc32c library.

The library's own `__init__` loads a command line and the metadata of all distributions: 10 ms and 2 MiB that no daemon
needs. So only its extension is loaded. `crc32c<3` is pinned, and importing this module fails if the extension is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from types import ModuleType


def _extension() -> ModuleType:
    package = find_spec("crc32c")
    spec = PathFinder.find_spec("_crc32c", package.submodule_search_locations) if package else None
    if spec is None or spec.loader is None:
        raise ImportError("the library crc32c, or its extension _crc32c, is missing: install syncd again")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_module = _extension()
# It takes the data and, where it goes on, the checksum of what came before.
crc32c: Callable[..., int] = _module.crc32c
# True if the processor computes it, which an x86-64 does with SSE4.2.
hardware_based: bool = _module.hardware_based
