"""`syncd emulator`: an emulator of the sandbox API on this machine, to try syncd without an account."""

from __future__ import annotations

import os
import shlex
import signal
from contextlib import closing, suppress
from math import inf
from pathlib import Path

import click

from syncd.cli.options import CLOCK, interruptible
from syncd.core.api_key import key_in_file
from syncd.core.errors import NeedsPerson, Stop, TryLater
from syncd.core.text import shown_path
from syncd.emulator import EmulatedSandbox, Emulator, RequestRecord
from syncd.emulator.bucket import MAX_LIFETIME_S
from syncd.emulator.emulator import KEY_FILE

_FIRST_SANDBOX = "box"  # known before it starts: a script can configure it


@click.command("emulator")
@click.option("--data", "data_dir", type=click.Path(path_type=Path), required=True, help="Folder for its data.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Its port; 0: any free one.")
@click.option(
    "--api-key-file",
    "key_file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="File with the key to accept; default: the last one, or a new one.",
)
@click.option(
    "--url-lifetime",
    "url_lifetime_s",
    metavar="SECONDS",
    type=click.IntRange(1, MAX_LIFETIME_S),
    default=1800,
    help="Lifetime of signed URLs.",
)
def command(*, data_dir: Path, port: int, key_file: str | None, url_lifetime_s: int) -> None:
    """Emulate Klavis' sandboxes and their storage on loopback, until interrupted.

    \b
    syncd emulator --data ~/syncd-cloud --port 8765

    Prints its address, the file of its key and its sandbox, then a line a request to stderr. The next start finds its
    data again. Its sandboxes confine nothing: who has the key runs programs as you.
    """
    api_key = key_in_file(key_file, f"the API key file {key_file!r}").reveal() if key_file else ""
    _refuse_foreign_folder(data_dir)
    emulator = Emulator(data_dir, port=port, api_key=api_key, url_lifetime_s=url_lifetime_s, clock=CLOCK, observer=_log)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has a background job ignore it
    with interruptible() as waiter, suppress(Stop), closing(emulator):
        try:
            emulator.start()
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            if error.filename is None:
                raise TryLater(f"port {port} cannot be used ({reason})", "name another with --port") from error
            raise NeedsPerson(f"{error.filename} cannot be used ({reason})", "name another with --data") from error
        known = emulator.sandboxes()
        click.echo(_introduction(emulator, known[-1] if known else emulator.create_sandbox(_FIRST_SANDBOX)))
        waiter.sleep(inf)


def _refuse_foreign_folder(data_dir: Path) -> None:
    """Raise `NeedsPerson` for a folder with other files: it would be made private, and files written into it."""
    try:
        foreign = any(data_dir.iterdir()) and not (data_dir / KEY_FILE).exists()
    except FileNotFoundError:
        return
    except OSError as error:
        raise NeedsPerson(f"{data_dir} cannot be used ({error.strerror})", "name another with --data") from error
    if foreign:
        raise NeedsPerson(f"{data_dir} holds other files", "name an empty or new folder with --data")


def _introduction(emulator: Emulator, sandbox: EmulatedSandbox) -> str:
    key_file = shown_path(str(emulator.data_dir / KEY_FILE))
    return f"""\
base URL   {emulator.base_url}
key file   {key_file}
sandbox    {sandbox.id}
workspace  {shown_path(str(sandbox.workspace))}

# Next: syncd init --id {sandbox.id} --base-url {emulator.base_url} --api-key-file {shlex.quote(key_file)}
"""


def _log(entry: RequestRecord) -> None:
    click.echo(shown_path(str(entry)), err=True)
