"""`syncd verify`: whether the sandbox's workspace equals this one, by what the sandbox gives away. Changes nothing."""

from __future__ import annotations

import json
import os

import click

from syncd.base.text import shown_path
from syncd.commands.options import CLOCK, config_option, configured, json_option


@click.command("verify")
@config_option
@json_option
def command(config_file: str | None, as_json: bool) -> int:
    """Compare the workspace with the sandbox's, byte for byte.

    Ends with 0 if they are equal, with 1 if a path is missing there, different, or only there.
    """
    config = configured(config_file)
    from syncd.commands.downloading import read_dump  # noqa: PLC0415
    from syncd.effects.git_config import personal_excludes  # noqa: PLC0415
    from syncd.effects.preview import take_secrets_out  # noqa: PLC0415
    from syncd.effects.scan import Scanner  # noqa: PLC0415
    from syncd.effects.verification import verify  # noqa: PLC0415
    from syncd.process.wiring import reader_of, selection_of  # noqa: PLC0415

    workspace = config.workspace.path
    scan = Scanner(workspace, selection_of(config), personal_excludes=personal_excludes(os.environ)).scan()
    take_secrets_out(scan, reader_of(config, CLOCK, os.environ))
    found = read_dump(config, lambda packed, check: verify(workspace, scan.manifest, packed, check))
    lists = {"missing": found.missing, "different": found.different, "only_there": found.only_there}
    equal = not any(lists.values())
    if as_json:
        click.echo(json.dumps({"equal": equal, "files": len(scan.manifest), **lists}))
    else:
        for word, paths in lists.items():
            for path in paths:
                click.echo(f"{word.replace('_', ' '):10}  {shown_path(path)}")
        click.echo(
            _summary(lists) if not equal else f"equal: {len(scan.manifest)} paths are in the sandbox as they are here"
        )
    return 0 if equal else 1


def _summary(lists: dict[str, list[str]]) -> str:
    return ", ".join(f"{len(paths)} {word.replace('_', ' ')}" for word, paths in lists.items())
