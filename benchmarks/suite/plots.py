"""Plots of growth as SVG: small panels with logarithmic axes."""

import sys
from collections.abc import Sequence

from benchmarks.suite.measure import Spread, values
from benchmarks.suite.measurements import Measurements, variants
from benchmarks.suite.scaling import SWEEPS
from mlx_tslm.charts import Line, Panel, chart


def scaling_plot(one: Measurements, name: str, title: str, unit: float) -> str:
    """A panel a sweep: median and range of a value (`seconds`, `added_memory`), in multiples of `unit`.

    A dashed line shows what linear growth from the first point would be.
    """
    panels: list[Panel] = []
    for sweep in SWEEPS:
        points: list[tuple[float, Spread]] = []
        for _, rounds in one.cases("scaling", f"scaling-{sweep}"):
            for variant in variants(rounds):
                numbers = [number / unit for number in values(rounds, variant, name)]
                if numbers and min(numbers) > 0:
                    points.append((float(variant), Spread.of(numbers)))
        if len(points) > 1:
            panels.append(_panel(sweep, points))
    return chart(title, panels)


def png(svg: str) -> bytes:
    """The picture as PNG, at twice its size; needs the extra `plots`."""
    import resvg_py

    font = "Arial" if sys.platform == "darwin" else "DejaVu Sans"  # a family that is not there is not drawn well
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=2, sans_serif_family=font))


def _panel(sweep: str, points: Sequence[tuple[float, Spread]]) -> Panel:
    sizes = [size for size, _ in points]
    start = points[0][1].median
    linear = Line(
        [(sizes[0], start), (sizes[-1], start * sizes[-1] / sizes[0])], colour="#bbb", dots=False, dashed=True
    )
    spans = [(spread.low, spread.high) for _, spread in points]
    measured = Line([(size, spread.median) for size, spread in points], spans=spans)
    return Panel([linear, measured], sweep, log_x=True, log_y=True, x_ticks=sizes)
