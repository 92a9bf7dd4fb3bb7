"""Renders progress as one line that fits the terminal: the least important figure is left out first."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

# For work without a known end; the second is for terminals with ASCII only.
_SPINNERS = ("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "|/-\\")
_TURNS_PER_S = 10
_BARS = (("━", "─"), ("#", "-"))
_LEAST_BAR, _LONGEST_BAR = 6, 40
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_DAY_S = 86_400
# The figures beside the bar, from the widest terminal to the narrowest.
_LAYOUTS = (
    ("percent", "files", "bytes", "speed", "left"),
    ("files", "bytes", "speed", "left"),
    ("percent", "bytes", "speed", "left"),
    ("percent", "bytes", "left"),
    ("percent", "left"),
    ("percent",),
)


class Work(Struct, frozen=True):
    """The progress of some work. Without a total the end is unknown; `seconds` is the time since it began."""

    word: str
    done_bytes: int = 0
    total_bytes: int = 0
    done_files: int = 0
    total_files: int = 0
    seconds: float = 0.0
    bytes_per_s: float | None = None
    seconds_left: float | None = None


def line(work: Work, width: int, *, ascii_only: bool = False) -> list[tuple[str, str]]:
    """The line in parts, each with its role: "word", "done" and "rest" of the bar, "figure"; at most `width` wide.

    As long as the totals stay, no figure moves when another one changes.
    """
    if work.total_bytes <= 0:
        return _cut(_without_end(work, ascii_only), width)
    figures = dict(_figures(work))
    word = f"{work.word:<9}"
    for layout in _LAYOUTS:
        shown = "".join(f"  {figures[name]}" for name in layout if name in figures)
        room = min(width - len(word) - len(shown) - 2, _LONGEST_BAR)
        if room >= _LEAST_BAR:
            full, empty = _BARS[int(ascii_only)]
            filled = min(room, room * work.done_bytes // work.total_bytes)
            return [
                (f"{word}  ", "word"),
                (full * filled, "done"),
                (empty * (room - filled), "rest"),
                (shown, "figure"),
            ]
    return _cut([(work.word, "word"), (f" {figures['percent']}", "figure")], width)


def plain(work: Work) -> str:
    """The progress as a line of a log."""
    if work.total_bytes > 0:
        figures = dict(_figures(work))
    else:
        figures = {"bytes": amount(work.done_bytes) if work.done_bytes else duration(work.seconds)}
    shown = (" ".join(figures[name].split()) for name in ("bytes", "files", "speed", "left") if name in figures)
    return f"{work.word}: " + ", ".join(figure for figure in shown if figure)


def _without_end(work: Work, ascii_only: bool) -> list[tuple[str, str]]:
    spinner = _SPINNERS[int(ascii_only)]
    turn = spinner[int(work.seconds * _TURNS_PER_S) % len(spinner)]
    figures = f"  {amount(work.done_bytes)}" if work.done_bytes else ""
    if work.done_bytes and work.bytes_per_s:
        figures += f"  {amount(work.bytes_per_s)}/s"
    return [(f"{turn} ", "done"), (work.word, "word"), (f"{figures}  {duration(work.seconds)}", "figure")]


def _figures(work: Work) -> Iterator[tuple[str, str]]:
    yield "percent", f"{min(100, 100 * work.done_bytes // work.total_bytes):3}%"
    power = _power(work.total_bytes)
    digits = 0 if power == 0 or work.total_bytes >= 99.95 * 1024**power else 1
    total = f"{work.total_bytes / 1024**power:.{digits}f}"
    done = f"{work.done_bytes / 1024**power:.{digits}f}"
    yield "bytes", f"{done:>{len(total)}}/{total} {_UNITS[power]}"
    if work.total_files:
        total = f"{work.total_files:,}"
        yield "files", f"{work.done_files:>{len(total)},}/{total} files"
    rate = f"{amount(work.bytes_per_s)}/s" if work.bytes_per_s is not None else ""
    yield "speed", f"{rate:>11}"
    left = f"{duration(work.seconds_left)} left" if work.seconds_left is not None else ""
    yield "left", f"{left:>9}"


def amount(size_bytes: float) -> str:
    """A number of bytes for people, in at most nine characters up to a PiB."""
    power = _power(size_bytes)
    return f"{size_bytes / 1024**power:.1f} {_UNITS[power]}" if power else f"{size_bytes:.0f} B"


def duration(seconds: float) -> str:
    """A time as `1:02`, `1:02:03`, or in days."""
    if seconds >= _DAY_S:
        return f"{min(seconds / _DAY_S, 999):.0f} d"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _power(size_bytes: float) -> int:
    """The power of 1,024 by which the number has at most three digits before the point."""
    power = 0
    while size_bytes >= 999.95 * 1024**power and power < len(_UNITS) - 1:
        power += 1
    return power


def _cut(components: list[tuple[str, str]], width: int) -> list[tuple[str, str]]:
    kept = []
    for text, role in components:
        kept.append((text[: max(0, width)], role))
        width -= len(text)
    return kept
