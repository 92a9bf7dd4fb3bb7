"""The facts of a machine and a configuration that a bug report needs, none of them about the person."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from syncd import __version__
from syncd.cli.check.anonymizer import Anonymizer
from syncd.core.settings import SECTIONS, AcquireKeys, Config
from syncd.watch.inotify_limits import instance_limit, watch_limit
from syncd.watch.mounts import filesystem_type

Row = tuple[str, str]

_LIBRARIES = (
    "ahocorasick-rs",
    "certifi",
    "click",
    "google-crc32c",
    "h11",
    "httpcore",
    "httpx",
    "isal",
    "jeepney",
    "msgspec",
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
_OFFICIAL = ("https://api.klavis.ai", "https://api.eu.klavis.ai")


def machine_facts(systemd: int, workspace: str | None) -> Iterator[Row]:
    """Versions and limits; `systemd` is its version, 0 where there is none."""
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
    yield "systemd", str(systemd) if systemd else "none that answers"
    yield "watches", str(watch_limit()[0] or "no limit known")
    yield "instances", str(instance_limit() or "no limit known")
    if workspace is not None:
        yield "file system", filesystem_type(workspace) or "unknown"
    yield "encoding", f"{sys.getfilesystemencoding()}, {sys.stdout.encoding}"


def environment_facts() -> Iterator[Row]:
    """Which variables are set; their values are a person's own."""
    for name in _VARIABLES:
        if name in os.environ:
            yield name, "set" if os.environ[name] else "set, but empty"


def config_facts(config: Config, anonymizer: Anonymizer) -> Iterator[Row]:
    """Every key as it is understood: numbers, switches and choices as they are, of all else only how much there is."""
    for section in SECTIONS:
        keys = getattr(config, section)
        for key in keys.__struct_fields__:
            yield from _key(f"{section}.{key}", getattr(keys, key), anonymizer)


def _key(name: str, value: Any, anonymizer: Anonymizer) -> Iterator[Row]:
    if isinstance(value, AcquireKeys):
        yield f"{name}.servers", anonymizer.text(", ".join(value.servers))
        yield f"{name}.ttl_seconds", str(value.ttl_seconds)
    elif isinstance(value, tuple):
        yield name, f"{len(value)} texts"
    elif value is None:
        yield name, "not set"
    elif isinstance(value, bool | int | float):
        yield name, str(value).lower()
    elif name == "sandbox.base_url" and value in _OFFICIAL:
        yield name, value
    else:
        yield name, anonymizer.text(str(value))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _distribution() -> str:
    try:
        told = platform.freedesktop_os_release()
    except OSError:
        return "unknown"
    words = [word for word in (told.get("ID", ""), told.get("VERSION_ID", "")) if _NAME.fullmatch(word)]
    return " ".join(words) or "unknown"


def _yes(fact: bool) -> str:
    return "yes" if fact else "no"
