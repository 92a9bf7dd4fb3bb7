"""`syncd push`: syncs once, by the daemon if one runs, else by itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import click
from msgspec import Struct

from syncd.cli.options import config_option, config_path, configured, json_option, option_for
from syncd.core.errors import Stop, TryLater
from syncd.core.settings import Config
from syncd.core.text import shown_path


class PushResult(Struct, frozen=True):
    """The result of a push, which `--json` prints. `is_first`: no earlier sync was known, and no daemon runs."""

    result: dict[str, Any]
    is_first: bool = False


@click.command("push")
@config_option
@click.option(
    "--force", is_flag=True, help="Read every file; even if nothing changed, and even if the workspace is nearly empty."
)
@json_option
def command(config_file: str | None, force: bool, as_json: bool) -> None:
    """Sync once, now, and wait until the sandbox has it.

    Up to two more syncs follow while files change as they are read; if one still does, it is named, with exit code 75.
    """
    pushed = push(configured(config_file), force)
    if as_json:
        click.echo(json.dumps(pushed.result))
    else:
        click.echo(summary(pushed))
    sys.stdout.flush()
    tell_held(pushed.result)
    if pushed.is_first and not as_json:
        click.echo(next_step(option_for(config_path(config_file))), err=True)


def next_step(option: str) -> str:
    """The next step after a first sync; `option` is the ` --config FILE` that commands need."""
    return f"next: `syncd service install{option}` keeps it in sync from now on"


def tell_held(result: Mapping[str, Any]) -> None:
    """Name on stderr the paths that stay as they are in the sandbox."""
    from syncd.core.formatting import counted  # noqa: PLC0415 - `push --help` needs none of it

    named = result.get("held", ())
    for path in named:
        click.echo(f"held: {shown_path(path)} was changed here and in the sandbox: `syncd apply` merges it", err=True)
    more = result.get("held_count", 0) - len(named)
    if more > 0:
        click.echo(f"held: {counted(more, 'more path')}: `syncd apply` merges them", err=True)


def push(config: Config, force: bool) -> PushResult:
    """Sync once and show the progress. Raises `SyncdError`; that of an interrupt says what state it leaves."""
    from syncd.cli.daemon_client import ask_daemon, ask_or_do  # noqa: PLC0415 - after the configuration is known to be right
    from syncd.cli.progress import ProgressDisplay  # noqa: PLC0415

    with ProgressDisplay() as progress:
        request = {"do": "push", "force": force}
        try:
            done = ask_or_do(
                lambda: ask_daemon(config, request, display=progress), lambda: _push_standalone(config, force, progress)
            )
        except KeyboardInterrupt:
            raise TryLater("stopped waiting; the daemon goes on", "see `syncd status`") from None
        except Stop:
            raise _stopped(progress.doing_now) from None
        return done if isinstance(done, PushResult) else PushResult(done)


def _push_standalone(config: Config, force: bool, progress: Any) -> PushResult:
    from syncd.archive.snapshotter import SyncMode  # noqa: PLC0415
    from syncd.cli.standalone_sync import sync_alone  # noqa: PLC0415
    from syncd.daemon.sync_requests import described  # noqa: PLC0415
    from syncd.report.logs import LogFormat, set_up_logs  # noqa: PLC0415

    set_up_logs("error", LogFormat.TEXT, {})
    outcome = sync_alone(config, SyncMode.FORCED if force else SyncMode.CHANGED, progress)
    is_first = outcome.sync is not None and outcome.change is None
    return PushResult(described(outcome), is_first)


def _stopped(doing: str) -> TryLater:
    """The error of an interrupt. An interrupted upload changes nothing: only initialize changes the sandbox."""
    if doing.startswith("initializing"):
        return TryLater(f"stopped while {doing}, which may be done all the same", "`syncd push` makes sure")
    return TryLater(f"stopped while {doing}; the sandbox is unchanged", "`syncd push` sends it")


def summary(pushed: PushResult) -> str:
    """The result in one line, for people."""
    from syncd.core.formatting import size  # noqa: PLC0415 - `push --help` needs none of it

    sync = pushed.result["sync"]
    if sync is None and pushed.result.get("held"):
        return "nothing was sent: the sandbox holds all but what is held"
    if sync is None:
        return f"nothing to do: the sandbox holds {_all_files(pushed.result['files'])}"
    files = "1 file" if sync["files"] == 1 else f"{sync['files']:,} files"
    changes = _changes(pushed.result.get("change"))
    return f"synced {files}{changes}, {size(sync['archive_bytes'])}, in {sync['seconds']:.2f} s"


def _all_files(number: int) -> str:
    return "the one file" if number == 1 else f"all {number:,} files"


def _changes(change: dict[str, int] | None) -> str:
    """The changes since the last sync; "" for a first sync, and for a daemon of a version that does not send them."""
    if change is None:
        return ""
    counted = (("new", "added"), ("changed", "changed"), ("removed", "removed"))
    words = ", ".join(f"{change[name]:,} {word}" for word, name in counted if change[name])
    return f" ({words})" if words else ""
