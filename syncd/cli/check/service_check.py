"""Checks the systemd unit: its state, if it outlives a logout, and variables that it lacks and this shell has."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from urllib.parse import urlsplit

from syncd.cli.check.finding import Finding, Grade
from syncd.cli.options import config_path, option_for
from syncd.cli.service.command import InstalledService
from syncd.cli.service.report import PROPERTIES, report
from syncd.cli.service.systemd import UserManager, environment_in
from syncd.cli.service.unit import unit_of
from syncd.core.directories import default_config_path
from syncd.core.errors import ExitCode, SyncdError
from syncd.core.settings import Config, is_loopback

# The variables that decide the route to the API. A service does not get them from a shell.
_ROUTE_VARIABLES = ("HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


def service_of(config_file: str | None) -> InstalledService:
    """The unit of this configuration. Raises `SyncdError` if there is no systemd, or no unit for such a path."""
    path = config_path(config_file)
    unit = unit_of(path, os.path.dirname(default_config_path(os.environ)))
    return InstalledService(UserManager(os.environ), unit, path, option_for(path))


def service_findings(config_file: str | None, config: Config) -> Iterator[Finding]:
    """Findings about the unit. A missing unit is only a note, as other programs can start `syncd run`."""
    try:
        service = service_of(config_file)
        properties = service.manager.show(service.unit.name, (*PROPERTIES, "Environment"))
        stays_after_logout = service.manager.lingers()
    except SyncdError as failure:
        yield Finding("service", Grade.NOTE, failure.message)
        return
    key_file = config.sandbox.api_key_file
    now = report(service.unit, properties, service.option, key_file, _changed_at(key_file))
    installed = properties.get("LoadState") == "loaded"
    name = service.unit.name
    if not installed and now.state == "not installed":
        yield Finding("service", Grade.NOTE, f"{name} is not installed", f"to start it at every login: {now.remedy}")
        return
    what = "; ".join(filter(None, (f"{name}: {now.state}", now.last)))
    if now.exit_code is ExitCode.DONE:
        yield Finding("service", Grade.WARN if now.remedy else Grade.PASS, what, now.remedy)
        if stays_after_logout is False:
            yield Finding(
                "service",
                Grade.NOTE,
                "it ends when you log out",
                f"to keep it: sudo loginctl enable-linger {getpass.getuser()}",
            )
    else:
        yield Finding("service", Grade.WARN, what, now.remedy)
    if installed and not is_loopback(urlsplit(config.sandbox.base_url).hostname or ""):
        environ = service.manager.environ | environment_in(properties.get("Environment", "").replace(" ", "\n"))
        yield from _missing_variables(environ)


def _missing_variables(environ: dict[str, str]) -> Iterator[Finding]:
    for name in _ROUTE_VARIABLES:
        value = os.environ.get(name) or os.environ.get(name.lower())
        if value and not environ.get(name) and not environ.get(name.lower()):
            yield Finding(
                "service",
                Grade.WARN,
                f"{name} is set in this shell, but not for the service",
                f"put the line {name}=… into ~/.config/environment.d/syncd.conf, log in again and restart the service",
            )


def _changed_at(path: str) -> int:
    try:
        return int(os.stat(path).st_mtime)
    except OSError:
        return 0
