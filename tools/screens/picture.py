"""A terminal's screen as an SVG without external resources, with every character in its cell in any font."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

import pyte

_CELL_WIDTH, _CELL_HEIGHT, _MARGIN = 8.4, 18, 16
_BASELINE = 13
_FONTS = "ui-monospace, 'DejaVu Sans Mono', 'Cascadia Mono', Menlo, Consolas, monospace"
# Light and dark, each readable on its own ground; a terminal's names for its 16 colours. pyte calls yellow brown.
GROUND = ("#fbfbfa", "#1b1d21")
INK = ("#24292f", "#d5d9de")
COLOURS = {
    "red": ("#b3261e", "#ff8a80"),
    "green": ("#1a6b2d", "#7bd88f"),
    "brown": ("#7d5600", "#e5c07b"),
    "blue": ("#0b57b0", "#82b4ff"),
    "magenta": ("#8a2c8f", "#d8a0e0"),
    "cyan": ("#0b6671", "#6fd3dd"),
    "black": ("#24292f", "#8b929a"),
    "white": ("#57606a", "#d5d9de"),
}
_GAP = re.compile(r"\S+(?: \S+)*")


@dataclass(frozen=True)
class Run:
    """Adjacent characters with the same attributes."""

    column: int
    text: str
    look: str


def svg(screen: pyte.Screen, title: str) -> str:
    """Return the screen without the empty rows at its end. `title` is its text alternative."""
    rows = [list(_runs(screen, row)) for row in range(screen.lines)]
    while rows and not rows[-1]:
        rows.pop()
    lines = [line for number, runs in enumerate(rows) for line in _drawn(number, runs)]
    width = 2 * _MARGIN + screen.columns * _CELL_WIDTH
    height = 2 * _MARGIN + len(rows) * _CELL_HEIGHT
    used = sorted({name for runs in rows for run in runs for name in run.look.split() if name != "bold"})
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{_style(used)}</style>",
            f'<rect class="ground" width="{width:g}" height="{height:g}" rx="8"/>',
            *lines,
            "</svg>",
            "",
        )
    )


def _runs(screen: pyte.Screen, row: int) -> Iterator[Run]:
    cells = [screen.buffer[row][column] for column in range(screen.columns)]
    for look, group in groupby(enumerate(cells), key=lambda cell: _look(cell[1])):
        run = list(group)
        text = "".join(cell.data for _, cell in run)
        # Spaces between runs are left to the place of the next one: renderers disagree on them.
        for found in _GAP.finditer(text):
            yield Run(run[0][0] + found.start(), found.group(), look)


def _look(cell: pyte.screens.Char) -> str:
    colour = cell.bg if cell.reverse and cell.bg != "default" else cell.fg
    colour = colour.removeprefix("bright")
    names = [colour] if colour in COLOURS else []
    return " ".join(names + ["bold"] * cell.bold)


def _drawn(row: int, runs: Sequence[Run]) -> Iterator[str]:
    y = _MARGIN + row * _CELL_HEIGHT + _BASELINE
    for run in runs:
        x = _MARGIN + run.column * _CELL_WIDTH
        look = f' class="{run.look}"' if run.look else ""
        length = f'textLength="{len(run.text) * _CELL_WIDTH:g}" lengthAdjust="spacingAndGlyphs"'
        yield f'<text x="{x:g}" y="{y}" {length}{look}>{escape(run.text, quote=False)}</text>'


def _style(used: Sequence[str]) -> str:
    def palette(mode: int) -> str:
        colours = "".join(f".{name}{{fill:{COLOURS[name][mode]}}}" for name in used)
        return f".ground{{fill:{GROUND[mode]}}}text{{fill:{INK[mode]}}}{colours}"

    text = f"text{{font:14px {_FONTS};white-space:pre}}.bold{{font-weight:bold}}"
    return f"{text}{palette(0)}@media (prefers-color-scheme:dark){{{palette(1)}}}"
