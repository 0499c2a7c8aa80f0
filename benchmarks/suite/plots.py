"""Plots of growth as SVG: small panels with logarithmic axes."""

import sys
from collections.abc import Sequence
from html import escape
from math import floor, log10

from benchmarks.suite.measure import Spread, values
from benchmarks.suite.measurements import Measurements, variants
from benchmarks.suite.scaling import SWEEPS

_WIDTH, _HEIGHT, _MARGIN, _GAP = 230, 190, 52, 26
_Point = tuple[float, Spread]


def scaling_plot(one: Measurements, name: str, title: str, unit: float) -> str:
    """A panel a sweep: median and range of a value (`seconds`, `added_memory`), in multiples of `unit`.

    A dashed line shows what linear growth from the first point would be.
    """
    panels: list[str] = []
    for sweep in SWEEPS:
        points: list[_Point] = []
        for _, rounds in one.cases("scaling", f"scaling-{sweep}"):
            for variant in variants(rounds):
                numbers = [number / unit for number in values(rounds, variant, name)]
                if numbers and min(numbers) > 0:
                    points.append((float(variant), Spread.of(numbers)))
        if len(points) > 1:
            panels.append(_panel(sweep, points, len(panels)))
    width, height = len(panels) * (_WIDTH + _MARGIN) + _GAP, _HEIGHT + 2 * _MARGIN
    style = (
        "<style>text{font:11px system-ui,sans-serif;fill:#555}.t{font-size:13px;fill:#222}"
        "line{stroke:#ddd}path{fill:none;stroke:#1f6f8b;stroke-width:2}.l{stroke:#bbb;stroke-width:1.5;"
        "stroke-dasharray:4 3}circle{fill:#1f6f8b}.r{stroke:#1f6f8b}</style>"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f'{style}<rect width="100%" height="100%" fill="#fff"/>'
        f'<text class="t" x="{_MARGIN}" y="20">{escape(title)}</text>{"".join(panels)}</svg>\n'
    )


def png(svg: str) -> bytes:
    """The picture as PNG, at twice its size; needs the extra `plots`."""
    import resvg_py

    font = "Arial" if sys.platform == "darwin" else "DejaVu Sans"  # a family that is not there is not drawn well
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=2, sans_serif_family=font))


def _panel(sweep: str, points: Sequence[_Point], index: int) -> str:
    left, top = _MARGIN + index * (_WIDTH + _MARGIN), _MARGIN
    sizes = [size for size, _ in points]
    linear = points[0][1].median * sizes[-1] / sizes[0]
    lows, highs = [spread.low for _, spread in points], [spread.high for _, spread in points]
    x0, x1 = log10(sizes[0]), log10(sizes[-1])
    y0, y1 = floor(log10(min(lows))), log10(max(*highs, linear))

    def at(size: float, value: float) -> tuple[float, float]:
        across = (log10(size) - x0) / (x1 - x0)
        up = (log10(value) - y0) / max(y1 - y0, 1e-9)
        return round(left + across * (_WIDTH - _GAP), 1), round(top + _HEIGHT * (1 - up), 1)

    parts = []
    for power in range(y0, floor(y1) + 1):
        _, y = at(sizes[0], 10.0**power)
        parts.append(f'<line x1="{left}" y1="{y}" x2="{left + _WIDTH - _GAP}" y2="{y}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{10.0**power:g}</text>')
    (xa, ya), (xb, yb) = at(sizes[0], points[0][1].median), at(sizes[-1], linear)
    parts.append(f'<path class="l" d="M{xa} {ya}L{xb} {yb}"/>')
    middle = [at(size, spread.median) for size, spread in points]
    parts.append(f'<path d="M{"L".join(f"{x} {y}" for x, y in middle)}"/>')
    for (size, spread), (x, y) in zip(points, middle, strict=True):
        low, high = at(size, spread.low)[1], at(size, spread.high)[1]
        parts.append(f'<line class="r" x1="{x}" y1="{low}" x2="{x}" y2="{high}"/><circle cx="{x}" cy="{y}" r="3"/>')
        parts.append(f'<text x="{x}" y="{top + _HEIGHT + 16}" text-anchor="middle">{size:g}</text>')
    middle_x = left + (_WIDTH - _GAP) / 2
    parts.append(f'<text x="{middle_x}" y="{top + _HEIGHT + 34}" text-anchor="middle">{escape(sweep)}</text>')
    return "".join(parts)
