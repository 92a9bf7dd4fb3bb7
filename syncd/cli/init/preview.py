"""Shows what a first sync would send and what it would leave out, before anything is sent."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import click
from msgspec import Struct

from syncd.cli.init.questions import home_relative
from syncd.cli.options import CLOCK
from syncd.core.settings import Config
from syncd.core.text import shown_path
from syncd.model.manifest import Manifest

_SHOWN = 5
_WIDTH = 79
_WORDS = {
    "built-in": "by built-in rules, such as caches and other version control",
    "secrets": "as they look like secrets",
    "links": "as they are links that lead outside",
    "special files": "as they are sockets, FIFOs or devices",
    "long paths": "as their paths are too long",
    "unreadable": "as they cannot be read",
}


class Preview(Struct):
    """The result of a scan. `left_out` counts by the source of the rule; `secrets` are paths, each with its finding."""

    workspace: str
    manifest: Manifest
    left_out: dict[str, int]
    secrets: list[tuple[str, str]]
    refusal: str | None


def make_preview(config: Config) -> Preview:
    """Scan the workspace as a sync would, and send nothing. Raises `SyncdError`."""
    from syncd.archive.secret_files import exclude_secret_files  # noqa: PLC0415
    from syncd.cli.progress.display import ProgressDisplay  # noqa: PLC0415 - `init --help` needs none of it
    from syncd.daemon.build import excludes_for, reader_of, selection_of  # noqa: PLC0415
    from syncd.scan.limits import over_limit  # noqa: PLC0415
    from syncd.scan.scanner import Scanner  # noqa: PLC0415
    from syncd.selection.selection import Decision  # noqa: PLC0415

    named: list[tuple[str, str]] = []

    def note(path: str, is_dir: bool, decision: Decision) -> None:
        if decision.rule is not None and decision.rule.source == "secrets":
            named.append((f"{path}/" if is_dir else path, "by its name"))

    excludes = excludes_for(config, os.environ)
    with ProgressDisplay() as progress:
        progress.doing("scanning the workspace")
        scan = Scanner(
            config.workspace.path, selection_of(config, os.environ), None, note, personal_excludes=excludes
        ).scan()
        found = exclude_secret_files(scan, reader_of(config, CLOCK, os.environ))
    left_out = dict(scan.left_out)
    for word, number in (("secrets", len(found)), ("unreadable", len(scan.unread))):
        if number:
            left_out[word] = left_out.get(word, 0) + number
    secrets = [*named, *((path, str(secret)) for path, secret in found.items())]
    refusal = over_limit(scan.manifest, config.sync.max_snapshot_mib)
    return Preview(config.workspace.path, scan.manifest, left_out, secrets, refusal)


def show(preview: Preview, option: str) -> None:
    """Print the preview, no wider than 80 columns; `option` is the option that `syncd ls` needs."""
    width = min(shutil.get_terminal_size().columns - 1, _WIDTH)
    click.echo()
    click.secho(f"What a sync would send of {_end(home_relative(preview.workspace), width - 26)}", bold=True)
    for line in _lines(preview, width):
        click.echo(line)
    click.echo(f"  all of it: `syncd ls{option}`, `syncd ls --ignored{option}`")


def _lines(preview: Preview, width: int) -> Iterator[str]:
    from syncd.core.formatting import few, size  # noqa: PLC0415 - as above
    from syncd.model.entry import (  # noqa: PLC0415
        Kind,
        content_bytes,
        count_files,
    )
    from syncd.scan.limits import largest  # noqa: PLC0415

    entries = preview.manifest.values()
    files, folders = count_files(entries), sum(entry.kind is Kind.DIRECTORY for entry in entries)
    whole = size(content_bytes(entries))
    if not preview.manifest:
        yield "  nothing: no file is there, or all stay home"
    else:
        yield f"  {_count(files, 'file')} in {_count(folders, 'folder')}, {whole} before compression"
    if preview.refusal:
        yield f"  {click.style('too large', fg='red')}: raise sync.max_snapshot_mib, or leave something out"
    big = largest(preview.manifest, _SHOWN)
    if big:
        yield "  the largest:"
        sizes = [size(size_bytes) for _, size_bytes in big]
        column = max(map(len, sizes))
        for (path, _), text in zip(big, sizes, strict=True):
            yield f"    {text:>{column}}  {_end(shown_path(path), width - column - 6)}"
    if preview.left_out:
        yield "  stays home (a folder counts once, with all that is in it):"
        column = max(len(f"{number:,}") for number in preview.left_out.values())
        for word, number in sorted(preview.left_out.items(), key=lambda item: (-item[1], item[0])):
            yield f"    {number:>{column},}  {_WORDS.get(word, f'by {word}')}"
    if preview.secrets:
        yield f"  {click.style('looks like a secret', fg='yellow')}, and stays home:"
        lines = [f"{_end(shown_path(path), width - len(what) - 6)}: {what}" for path, what in preview.secrets]
        for line in few(lines, len(lines)):
            yield f"    {line}"


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def _end(path: str, room: int) -> str:
    """The path, or as much of its end as fits."""
    from syncd.cli.status.text import columns  # noqa: PLC0415 - as above

    if columns(path) <= room:
        return path
    while path and columns(path) > room - 1:
        path = path[1:]
    return f"…{path}"
