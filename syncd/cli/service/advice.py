"""Advice on the machine that runs the service: notes with remedies, which are left to the person."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from syncd.cli.service.systemd import UserManager, user_name
from syncd.core.settings import Config, is_loopback

# The proxy and the certificates for the API; each name also in lower case.
_NETWORK_VARIABLES = ("HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


def advice(
    manager: UserManager, config: Config, service_environ: Mapping[str, str], *, sandboxing: bool
) -> Iterator[tuple[str, str]]:
    """Each note with its remedy; `service_environ` is the environment that the service has."""
    if not sandboxing:
        what = "this machine refuses user namespaces, so the service runs without its sandbox"
        yield what, "once they are allowed, install again"
    if manager.lingers() is False:
        yield "it ends when you log out", f"sudo loginctl enable-linger {user_name()}"
    yield from route_advice(config, os.environ, service_environ)


def route_advice(config: Config, shell: Mapping[str, str], service: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """A note with its remedy for each variable of the route to the API that the shell has and the service lacks."""
    if is_loopback(urlsplit(config.sandbox.base_url).hostname or ""):
        return
    for name in _NETWORK_VARIABLES:
        is_set, is_known = ({*environ} & {name, name.lower()} for environ in (shell, service))
        if is_set and not is_known:
            what = f"{name} is set in this shell, but not for the service"
            yield what, f"put the line {name}=… into ~/.config/environment.d/syncd.conf, log in again and install again"
