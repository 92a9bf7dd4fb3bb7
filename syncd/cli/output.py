"""The standard streams, what is laid out for a terminal, and how much a person wants to be told.

No failure of a stream ends a command: what was asked is done, whoever reads its output. A line has colours, which
`written` takes out for a pipe. The words carry the meaning and the colours only help, so that it reads the same there.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import select
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, TextIO

import click

from syncd.core.errors import ExitCode
from syncd.core.text import countdown, counted, duration, one_line, redacted, shown_path, size

if TYPE_CHECKING:
    from syncd.archive.extraction import Extracted
    from syncd.sync.status_document import Progress

_NARROWEST = 40
_DUMB = ("", "dumb", "unknown")
_VERBOSITY = f"{__name__}.verbosity"  # in the context of click
_COMMAND = re.compile(r"`[^`]+`")
_NO_BREAK = "\0"  # no text that is shown has it
_LEAST_COLUMNS = 8
_LEAST_BAR, _LONGEST_BAR = 6, 30
_GAP = "  "


def print_path(path: str, rest: str = "") -> None:
    """Print a line with a path in it: its bytes for a script, escaped for a terminal."""
    if sys.stdout.isatty():
        click.echo(shown_path(path) + rest)
    else:
        sys.stdout.buffer.write(os.fsencode(f"{path}{rest}\n"))


def home_relative(text: str) -> str:
    """Return a path, or a text with paths, for people: with `~` for the home directory, where no quotation begins."""
    home = os.path.expanduser("~")
    for each in (home, os.path.realpath(home)):
        text = re.sub(rf"(?<![^\s(`]){re.escape(each)}(?=/)", "~", text)
    return shown_path(text)


def tell_extracted(verb: str, extracted: Extracted, destination: str, *, as_json: bool, **about: str) -> None:
    """Print what was put into a folder, as JSON with what it is about, and on stderr what was left out."""
    for line in extracted.left_out:
        click.echo(f"not {verb}: {line}", err=True)
    if extracted.unnamed:
        click.echo(f"not {verb}: {extracted.unnamed:,} more", err=True)
    if as_json:
        counts = {"files": extracted.files, "bytes": extracted.content_bytes}
        click.echo(json.dumps({**about, **counts, "left_out": extracted.left_out, "unnamed": extracted.unnamed}))
    elif verbosity() >= 0:
        amount = f"{counted(extracted.files, 'file')}, {counted(extracted.content_bytes, 'byte')}"
        click.echo(f"{verb} {amount}, into {shown_path(destination)}")


def is_screen(stream: TextIO) -> bool:
    """True if the stream is a terminal on which a line can be drawn over."""
    return stream.isatty() and os.environ.get("TERM", "") not in _DUMB


def terminal_size(stream: TextIO) -> os.terminal_size:
    """The columns and rows of a stream's terminal; 80 and 24 if unknown."""
    with contextlib.suppress(OSError, ValueError):
        columns, rows = os.get_terminal_size(stream.fileno())
        return os.terminal_size((columns or 80, rows or 24))
    return os.terminal_size((80, 24))


def text_width(stream: TextIO, most: int) -> int:
    """The columns that a line may take: on a terminal all but the last, and never more than so many."""
    return min(most, max(_NARROWEST, terminal_size(stream).columns - 1)) if is_screen(stream) else most


def may_colour() -> bool:
    """True if a terminal may be written to in colour: it has some, and $NO_COLOR is unset or empty (no-color.org)."""
    return os.environ.get("TERM", "") not in _DUMB and not os.environ.get("NO_COLOR")


class Tone(Enum):
    """The role of a piece of text, with its colour, of the eight that every terminal has.

    Its text colour, white, black and dim are not used, as the background is unknown.
    """

    PLAIN = ""
    STRONG = "bold"
    GOOD = "green"
    BUSY = "cyan"
    ATTENTION = "yellow"
    BAD = "red"


MARK, TURNING = "●", "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_FULL, _EMPTY = "━", "─"


def styled(text: str, tone: Tone) -> str:
    """The text with the colour of its role, for a terminal of 16 colours."""
    colour = None if tone is Tone.STRONG else tone.value
    return text if tone is Tone.PLAIN else click.style(text, fg=colour, bold=True)


def wrapped(text: str, width: int, first: str, indent: int, tone: Tone = Tone.PLAIN) -> list[str]:
    """The text for people after `first`, wrapped to lines of at most `width` letters, the later ones indented.

    A `command` in it stays on one line, to be copied.
    """
    before = click.unstyle(first)
    rows = textwrap.wrap(
        _COMMAND.sub(lambda found: found[0].replace(" ", _NO_BREAK), home_relative(text)),
        max(width, indent + _LEAST_COLUMNS),
        initial_indent=before,
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
    )
    head, *rest = (row.replace(_NO_BREAK, " ") for row in rows or [before])
    return [
        f"{first}{styled(head[len(before) :], tone)}".rstrip(),
        *(f"{row[:indent]}{styled(row[indent:], tone)}" for row in rest),
    ]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table's lines: each column is as wide as its widest cell, and the last one is free."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [_GAP.join(map(str.ljust, row, widths)).rstrip() for row in rows]


def bar(progress: Progress, width: int) -> str:
    """A bar with its figures in at most `width` columns; the least important figure goes first.

    A figure that is not known yet keeps its place, so that nothing moves. Of an unknown total there are figures alone.
    """
    rate, left_s, total_bytes = progress.bytes_per_second, progress.seconds_left, progress.total_bytes
    speed = f"{'' if rate is None else f'{size(int(rate))}/s':>11}"
    if not total_bytes:
        return f"{size(progress.done_bytes)}{_GAP}{speed}"[: max(0, width)].rstrip()
    figures = [
        f"{min(100, 100 * progress.done_bytes // total_bytes):3}%",
        f"{'' if left_s is None else f'{countdown(left_s)} left':>9}",
        f"{size(progress.done_bytes):>9} of {size(total_bytes)}",
        speed,
    ]
    if progress.total_files is not None:
        files = counted(progress.total_files, "file")
        figures.append(f"{progress.done_files or 0:>{files.index(' ')},} of {files}")
    shown = ""
    for figure in figures:
        if len(shown) + len(_GAP) + len(figure) + _LEAST_BAR > width:
            break
        shown += _GAP + figure
    room = max(0, min(_LONGEST_BAR, width - len(shown)))
    full = min(room, room * progress.done_bytes // total_bytes)
    return f"{styled(_FULL * full, Tone.GOOD)}{_EMPTY * (room - full)}{shown}".rstrip()


def next_attempt(attempt: int, wait_s: float, gives_up_in_s: float | None = None) -> str:
    """The plan after a failure: `attempt 6 in 9 s, gives up in 4:40`."""
    when = f"in {duration(wait_s + 0.999)}" if wait_s > 0 else "now"
    return f"attempt {attempt} {when}" + ("" if gives_up_in_s is None else f", gives up in {countdown(gives_up_in_s)}")


def written(line: str, stream: TextIO) -> str:
    """The line as it goes to this stream: with colours on a terminal that has some."""
    return line if stream.isatty() and may_colour() else click.unstyle(line)


class CommandGroup(click.Group):
    """Shows its help where no command is named, and each command's whole sentence, which click would cut."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and self.no_args_is_help and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(ExitCode.WRONG_USAGE)
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, each.get_short_help_str(200)) for name, each in sorted(self.commands.items())])


def verbosity_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--quiet` and `--verbose`, which hold wherever they stand on the command line."""

    def note(context: click.Context, option: click.Parameter, value: int) -> None:
        if value:
            context.meta[_VERBOSITY] = -1 if option.name == "quiet" else int(value)

    quiet = click.option(
        "-q",
        "--quiet",
        is_flag=True,
        expose_value=False,
        callback=note,
        help="No progress and no summary; errors only.",
    )
    verbose = click.option(
        "-v", "--verbose", count=True, expose_value=False, callback=note, help="Tell more on stderr; -vv: even more."
    )
    return quiet(verbose(command))


def verbosity() -> int:
    """The verbosity that was asked for: -1 with --quiet, 1 with -v, 2 with -vv; else 0."""
    context = click.get_current_context(silent=True)
    asked: int = 0 if context is None else context.meta.get(_VERBOSITY, 0)
    return asked


def log_level(otherwise: str) -> str:
    """The level of the log of a command, which has one only if a person asks for more than `otherwise`."""
    return {1: "info", 2: "debug"}.get(min(verbosity(), 2), otherwise)


class _OutputFile(io.FileIO):
    """stdout or stderr. What cannot be written is dropped; `failure` is the last reason."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        """Write what can be written, and return as if all of it was."""
        try:
            while (written := super().write(data)) is None:  # another program made it non-blocking
                select.select([], [self], [])
        except OSError as failure:
            self.failure = failure
            return len(data)
        return written


def open_standard_streams() -> None:
    """Open those that are closed on /dev/null, and let a write to stdout and stderr raise nothing.

    Otherwise the next file that is opened would be taken for one of them: a log line would go into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - open to the end
    sys.stdout, sys.stderr = _opened(1, sys.stdout), _opened(2, sys.stderr)


def _opened(number: int, before: Any) -> io.TextIOWrapper:
    """The stream of this descriptor, with the properties of the interpreter's own; it has none where it was closed."""
    return io.TextIOWrapper(
        io.BufferedWriter(_OutputFile(number, "w", closefd=False)),
        encoding=before.encoding if before else "utf-8",
        errors="backslashreplace",
        line_buffering=before.line_buffering if before else False,
        write_through=before.write_through if before else False,
    )


def stdout_failure() -> OSError | None:
    """The reason why something could not be written to stdout, if there was one."""
    sys.stdout.flush()
    raw = getattr(sys.stdout.buffer, "raw", None)
    return raw.failure if isinstance(raw, _OutputFile) else None


def paged(lines: Iterable[bytes]) -> None:
    """Print these lines: on a terminal by the person's pager, if there is one."""
    import shlex  # noqa: PLC0415 - `--version` needs none of it
    import shutil  # noqa: PLC0415
    import subprocess  # noqa: PLC0415

    sys.stdout.flush()
    words: list[str] = []
    if is_screen(sys.stdout):
        with contextlib.suppress(ValueError):  # a quotation without an end
            words = shlex.split(os.environ.get("PAGER", "less -FRX"))
    if words and shutil.which(words[0]):
        with (
            contextlib.suppress(BrokenPipeError),  # the person has seen enough
            subprocess.Popen(words, stdin=subprocess.PIPE) as process,
        ):
            assert process.stdin is not None  # noqa: S101 - opened with a pipe
            process.stdin.writelines(lines)
    else:
        sys.stdout.buffer.writelines(lines)


def print_error(text: str) -> None:
    """Print a failure: one line without secrets."""
    print(f"syncd: {home_relative(one_line(redacted(text), 1000))}", file=sys.stderr)


def print_internal_error(failure: BaseException | None) -> None:
    """Print where this program failed, without texts and values, which may hold a signed URL."""
    from syncd.report.logs import place_of  # noqa: PLC0415

    if failure is not None and not isinstance(failure, SystemExit):
        print_error(f"internal error ({place_of(failure)}): please report it")
