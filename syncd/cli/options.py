"""Options that several commands share, and the configuration that a command works with."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click

from syncd.core.clock import SystemClock
from syncd.core.directories import default_config_path
from syncd.core.settings import Config, load_config

CLOCK = SystemClock()

config_option = click.option(
    "--config",
    "config_file",
    metavar="FILE",
    type=click.Path(),
    help="The configuration file; default: ~/.config/syncd/config.toml.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="For scripts: one JSON document on stdout.")


def logging_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--log-level` and `--log-format`."""
    level = click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        default="info",
        show_default=True,
        help="The least that is logged.",
    )
    form = click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="How log lines look on stderr.",
    )
    return level(form(command))


def config_path(config_file: str | None) -> str:
    """The file that `--config` names, or the default one."""
    return os.path.abspath(config_file or default_config_path(os.environ))


def configured(config_file: str | None) -> Config:
    """The configuration. Raises `ConfigError`."""
    return load_config(config_path(config_file))
