"""Advice on the machine that runs the service: notes with remedies, which are left to the person."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from urllib.parse import urlsplit

from syncd.cli.service.systemd import UserManager, user_name
from syncd.core.errors import SyncdError
from syncd.core.settings import Config, is_loopback

# The proxy and the certificates for the API; each name also in lower case.
_NETWORK_VARIABLES = ("HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


def advice(
    manager: UserManager, config: Config, environ: Mapping[str, str], *, sandboxing: bool
) -> Iterator[tuple[str, str]]:
    """Each note with its remedy."""
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


def unknown_to_service(shell: Mapping[str, str], manager: Mapping[str, str]) -> list[str]:
    """The variables for the network that the shell has and the service manager lacks."""
    return [
        name
        for name in _NETWORK_VARIABLES
        if (shell.get(name) or shell.get(name.lower())) and not (manager.get(name) or manager.get(name.lower()))
    ]


def _watch_advice(config: Config) -> Iterator[tuple[str, str]]:
    from syncd.cli.check.finding import Grade  # noqa: PLC0415
    from syncd.cli.check.workspace_check import check_workspace  # noqa: PLC0415 - only `install` needs it
    from syncd.daemon.build import selection_of  # noqa: PLC0415

    # The service itself watches already, so a second set of watches is not tried.
    with suppress(SyncdError):
        found = check_workspace(
            config.workspace.path, selection_of(config, os.environ), config.sync.max_snapshot_mib, os.getpid()
        ).findings
        yield from ((it.what, it.remedy) for it in found if it.subject == "inotify" and it.grade is Grade.WARN)
