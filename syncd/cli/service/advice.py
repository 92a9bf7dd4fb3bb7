"""What a person should know of a machine that is to run the service; nothing of it is done for them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from urllib.parse import urlsplit

from syncd.cli.service.systemd import UserManager, user_name
from syncd.core.errors import SyncdError
from syncd.core.settings import Config, is_loopback

# What decides the way to the API and who is trusted there; each also in small letters.
_WAY = ("HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


def advice(
    manager: UserManager, config: Config, environ: Mapping[str, str], *, sandboxing: bool
) -> Iterator[tuple[str, str]]:
    """What is to be known, and what can be done about it."""
    if not sandboxing:
        what = "this machine refuses user namespaces, so the service runs without its sandbox"
        yield what, "once they are allowed, install again"
    if manager.lingers() is False:
        yield "it ends when you log out", f"sudo loginctl enable-linger {user_name()}"
    if not is_loopback(urlsplit(config.sandbox.base_url).hostname or ""):
        for name in unknown_to_service(environ, manager.environ):
            what = f"{name} is set here, and the service does not know it"
            yield what, f"put the line {name}=… into ~/.config/environment.d/syncd.conf, log in again and install again"
    yield from _watch_advice(config)


def unknown_to_service(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """The settings of the way to the API that this shell has and the service manager lacks."""
    return [
        name
        for name in _WAY
        if (here.get(name) or here.get(name.lower())) and not (there.get(name) or there.get(name.lower()))
    ]


def _watch_advice(config: Config) -> Iterator[tuple[str, str]]:
    from syncd.cli.check.finding import Grade  # noqa: PLC0415
    from syncd.cli.check.workspace_check import check_workspace  # noqa: PLC0415 - only `install` needs it
    from syncd.daemon.build import selection_of  # noqa: PLC0415

    # The service itself watches by now, so a second set of watches is not tried.
    with suppress(SyncdError):
        found = check_workspace(
            config.workspace.path, selection_of(config), config.sync.max_snapshot_mib, os.getpid()
        ).findings
        yield from ((it.what, it.remedy) for it in found if it.subject == "inotify" and it.grade is Grade.WARN)
