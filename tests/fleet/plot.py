"""Draws curves as an SVG picture, without a library: what the documents show of the fleet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 760, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 16, 34, 44
_COLOURS = ("#0a7f5a", "#c2571a", "#5b5bd6", "#777777")
_TICKS = 5


@dataclass(frozen=True)
class Curve:
    """A line through points of one x to the next, with its name."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Band:
    """A stretch of the x axis with a name."""

    name: str
    first: float
    last: float


def picture(
    title: str,
    x_name: str,
    y_name: str,
    curves: Sequence[Curve],
    bands: Sequence[Band] = (),
    y_span: tuple[float, float] | None = None,
) -> str:
    """Return the picture of the curves on common axes; that of y is as long as the curves need, or `y_span`."""
    xs = [x for curve in curves for x, _ in curve.points]
    ys = [y for curve in curves for _, y in curve.points]
    least_x, most_x = min(xs), max(xs)
    least_y, most_y = y_span or (min(0.0, *ys), max(ys) * 1.05 or 1.0)

    def x_of(x: float) -> float:
        return round(_LEFT + (x - least_x) / (most_x - least_x) * (_WIDTH - _LEFT - _RIGHT), 1)

    def y_of(y: float) -> float:
        return round(_HEIGHT - _BOTTOM - (y - least_y) / (most_y - least_y) * (_HEIGHT - _TOP - _BOTTOM), 1)

    parts = [f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>', _text(_LEFT, 20, title, "start", "bold")]
    for band in bands:
        width = x_of(band.last) - x_of(band.first)
        parts.append(
            f'<rect x="{x_of(band.first)}" y="{_TOP}" width="{width:.1f}" '
            f'height="{_HEIGHT - _TOP - _BOTTOM}" fill="#f0f0f0"/>'
        )
        parts.append(_text((x_of(band.first) + x_of(band.last)) / 2, _TOP + 14, band.name, "middle"))
    for tick in range(_TICKS + 1):
        x, y = least_x + tick * (most_x - least_x) / _TICKS, least_y + tick * (most_y - least_y) / _TICKS
        parts.append(f'<path d="M{_LEFT} {y_of(y)}H{_WIDTH - _RIGHT}" stroke="#dddddd"/>')
        parts.append(_text(_LEFT - 6, y_of(y) + 4, f"{y:,.3g}" if abs(y) < 10 else f"{y:,.0f}", "end"))
        parts.append(_text(x_of(x), _HEIGHT - _BOTTOM + 16, f"{x:,.0f}", "middle"))
    parts.append(_text((_LEFT + _WIDTH) / 2, _HEIGHT - 8, x_name, "middle"))
    parts.append(_text(_WIDTH - _RIGHT, 20, y_name, "end"))
    for number, curve in enumerate(curves):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(f"{x_of(x)},{y_of(y)}" for x, y in curve.points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        parts.append(_text(_WIDTH - _RIGHT - 6, _TOP + 16 + 16 * number, curve.name, "end", fill=colour))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">'
    return "\n".join([head, f"<title>{escape(title)}</title>", *parts, "</svg>", ""])


def _text(x: float, y: float, text: str, anchor: str, weight: str = "normal", fill: str = "#333333") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-family="sans-serif" font-size="12" '
        f'font-weight="{weight}" fill="{fill}">{escape(text)}</text>'
    )
