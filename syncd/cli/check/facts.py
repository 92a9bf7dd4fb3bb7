"""Facts of a machine and a configuration for a bug report, none of them about the person."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, get_origin, get_type_hints

from msgspec import Struct

from syncd import __version__
from syncd.core.settings import SECTIONS, Config
from syncd.watch.inotify_limits import instance_limit, watch_limit
from syncd.watch.mounts import filesystem_type

Row = tuple[str, str]

_LIBRARIES = (
    "certifi",
    "click",
    "crc32c",
    "h11",
    "httpcore",
    "httpx",
    "isal",
    "jeepney",
    "msgspec",
    "pyperscan",
    "tenacity",
    "watchdog",
    "zlib-ng",
)
_VARIABLES = (
    *("KLAVIS_API_KEY", "CREDENTIALS_DIRECTORY", "STATE_DIRECTORY", "CACHE_DIRECTORY", "INVOCATION_ID"),
    *("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"),
    *("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "NO_COLOR", "PYTHONPATH"),
)
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,30}")
_PUBLIC_URLS = ("https://api.klavis.ai", "https://api.eu.klavis.ai")


def machine_facts(systemd: int, workspace: str | None) -> Iterator[Row]:
    """Versions and limits. `systemd` is its version, 0 if it does not answer."""
    yield "syncd", __version__
    yield "python", f"{platform.python_implementation()} {platform.python_version()}"
    yield "in a venv", _yes(sys.prefix != sys.base_prefix)
    for name in _LIBRARIES:
        yield name, _version(name)
    kernel = re.match(r"[0-9.]+", platform.release())
    wsl = ", in WSL" if "microsoft" in platform.release().lower() else ""
    yield "kernel", f"{platform.system()} {kernel[0] if kernel else '?'}{wsl}"
    yield "machine", f"{platform.machine()}, {os.cpu_count()} processors"
    yield "distribution", _distribution()
    yield "container", _yes(os.path.exists("/run/.containerenv") or os.path.exists("/.dockerenv"))
    yield "systemd", str(systemd) if systemd else "does not answer"
    yield "watches", str(watch_limit()[0] or "no limit known")
    yield "instances", str(instance_limit() or "no limit known")
    if workspace is not None:
        yield "file system", filesystem_type(workspace) or "unknown"
    yield "encoding", f"{sys.getfilesystemencoding()}, {sys.stdout.encoding}"


def environment_facts() -> Iterator[Row]:
    """The variables that are set, without their values."""
    for name in _VARIABLES:
        if name in os.environ:
            yield name, "set" if os.environ[name] else "set, but empty"


def config_facts(config: Config) -> Iterator[Row]:
    """Every key: numbers, switches and choices with their values, of other keys only if, or how much, they are set."""
    for section in SECTIONS:
        yield from _keys(section, getattr(config, section))


def _keys(section: str, keys: Struct) -> Iterator[Row]:
    types = get_type_hints(type(keys))
    for name in keys.__struct_fields__:
        value = getattr(keys, name)
        if isinstance(value, Struct):
            yield from _keys(f"{section}.{name}", value)
        elif isinstance(value, bool | int | float):
            yield f"{section}.{name}", str(value).lower()
        elif get_origin(types[name]) is Literal or value in _PUBLIC_URLS:
            yield f"{section}.{name}", str(value)
        elif isinstance(value, tuple):
            yield f"{section}.{name}", f"{len(value)} texts"
        else:
            yield f"{section}.{name}", "set" if value else "not set"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _distribution() -> str:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return "unknown"
    words = [word for word in (release.get("ID", ""), release.get("VERSION_ID", "")) if _NAME.fullmatch(word)]
    return " ".join(words) or "unknown"


def _yes(fact: bool) -> str:
    return "yes" if fact else "no"
