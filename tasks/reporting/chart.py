"""Draw the last runs as small bar charts in SVG."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape

from darkroom.tasks.reporting.history import PastRun, bar_heights
from darkroom.tasks.reporting.text import duration

WIDTH = 180
GAP = 26
TOP = 38
BOTTOM = 98
HEIGHT = 116
MIN_SLOTS = 12
MIN_HEIGHT = 1.5
"""Least height of the bar of a value above 0, so that it is visible."""

CUT = 7
"""Distance from the top of an outlier's bar to the gap in it."""

TEXT = "#7b828e"
BLUE, RED, GRAY, GREEN = "#4c7dff", "#e5484d", "#7b828e", "#2f9e6e"
"""Readable on the UI's light and dark backgrounds."""


@dataclass(frozen=True, slots=True)
class Series:
    """A figure of each run, oldest first; `shown` formats a value."""

    name: str
    values: tuple[float, ...]
    color: str
    shown: Callable[[float], str]


def draw_chart(runs: tuple[PastRun, ...]) -> bytes:
    """Return an SVG with a bar chart of each figure; `runs` are newest first, bars newest last.

    A bar with a gap near its top is an outlier: its value is greater than its height shows.
    """
    ordered = runs[::-1]
    panels = [
        Series("made", tuple(run.ok for run in ordered), BLUE, "{:,}".format),
        Series("failed", tuple(run.failed for run in ordered), RED, "{:,}".format),
        Series("took", tuple(run.seconds for run in ordered), GRAY, duration),
        Series("images/s", tuple(run.images_per_second for run in ordered), GREEN, "{:,.1f}".format),
    ]
    ends = (f"{ordered[0].started:%m-%d}", f"{ordered[-1].started:%m-%d}")
    width = len(panels) * (WIDTH + GAP) - GAP
    return "".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{HEIGHT}" '
            f'viewBox="0 0 {width} {HEIGHT}" font-family="system-ui, sans-serif" font-size="11" fill="{TEXT}">',
            *(_panel(series, ends, number * (WIDTH + GAP)) for number, series in enumerate(panels)),
            "</svg>",
        ]
    ).encode()


def _panel(series: Series, ends: tuple[str, str], left: int) -> str:
    last, most = series.shown(series.values[-1]), series.shown(max(series.values))
    return "".join(
        [
            f'<g transform="translate({left} 0)">',
            f'<text y="12" font-size="12" font-weight="600">{escape(series.name)}</text>',
            f'<text y="28">{escape(f"last {last}, most {most}")}</text>',
            *_bars(series),
            f'<path d="M0 {BOTTOM + 0.5}H{WIDTH}" stroke="{TEXT}" stroke-opacity="0.5"/>',
            f'<text y="{BOTTOM + 14}">{ends[0]}</text>',
            f'<text x="{WIDTH}" y="{BOTTOM + 14}" text-anchor="end">{ends[1]}</text>',
            "</g>",
        ]
    )


def _bars(series: Series) -> Iterator[str]:
    slot = WIDTH / max(MIN_SLOTS, len(series.values))
    left = WIDTH - slot * len(series.values)
    for number, height in enumerate(bar_heights(series.values)):
        if height > 0:
            x, width = left + (number + 0.15) * slot, 0.7 * slot
            px = max(MIN_HEIGHT, min(1.0, height) * (BOTTOM - TOP))
            pieces = [(TOP, CUT), (TOP + CUT + 3, BOTTOM - TOP - CUT - 3)] if height > 1 else [(BOTTOM - px, px)]
            for y, drawn in pieces:
                yield f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{drawn:.1f}" fill="{series.color}"/>'
