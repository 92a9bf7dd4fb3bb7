"""Shows what a first sync would send and what it would leave out, before anything is sent."""

from __future__ import annotations

import click

from syncd.cli.init.dialog import home_relative
from syncd.cli.local_scan import scan_workspace
from syncd.cli.progress import ProgressDisplay
from syncd.core.formatting import counted, few, size
from syncd.core.settings import Config
from syncd.core.text import shown_path
from syncd.model.entry import count_files
from syncd.scan.exclusions import largest, over_limit

_LARGEST = 3


def show_preview(config: Config, option: str) -> bool:
    """Scan the workspace as a sync would, and print what it finds. True if there is something that can be sent.

    `option` is the option that `syncd ls` needs. Raises `SyncdError`.
    """
    with ProgressDisplay() as progress:
        progress.doing("scanning the workspace")
        found = scan_workspace(config)
    manifest, left_out = found.scan.manifest, found.left_out_count + len(found.scan.unread)
    secrets = [f"{shown_path(path)}: by its name" for path, _ in found.named_like_secrets]
    secrets += [f"{shown_path(path)}: {secret}" for path, secret in found.secrets.items()]
    files, whole = counted(count_files(manifest.values()), "file"), size(manifest.content_bytes)
    is_too_large = over_limit(manifest, config.sync.max_snapshot_mib) is not None
    click.echo()
    click.secho(f"What a sync would send of {home_relative(config.workspace.path)}", bold=True)
    click.echo(
        f"  {files}, {whole} before compression" if manifest else "  nothing: no file is there, or all stay home"
    )
    if is_too_large:
        click.echo(f"  {click.style('too large', fg='red')}: raise sync.max_snapshot_mib, or leave something out")
    for path, size_bytes in largest(manifest, _LARGEST) if is_too_large else ():
        click.echo(f"    {size(size_bytes)}  {shown_path(path)}")
    if left_out:
        click.echo(f"  {counted(left_out, 'more path')} stay home (a folder counts once, with all that is in it)")
    if secrets:
        click.echo(f"  {click.style('looks like a secret', fg='yellow')}, and stays home:")
        for line in few(secrets, len(secrets)):
            click.echo(f"    {line}")
    click.echo(f"  all of it: `syncd ls{option}`, `syncd ls --ignored{option}`")
    return bool(manifest) and not is_too_large
