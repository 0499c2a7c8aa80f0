"""A small drawing of a series in a terminal."""

import numpy as np
from numpy.typing import ArrayLike

from mlx_tslm.errors import TSLMError
from mlx_tslm.series import check_series

# A braille cell is 2 dots wide and 4 high; its bits, from the top row down, for the left and the right column.
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))


def sparkline(values: ArrayLike, width: int = 60, height: int = 2) -> str:
    """Draw a series in braille dots, from its smallest to its largest value.

    Each column of dots spans all values of its stretch of time, so a narrow peak (a QRS complex) is never
    lost between samples, and neighbouring columns join. A constant series is a level line.

    Args:
        values: numbers `[T]`.
        width: characters a line, >= 1.
        height: lines, 1 to 4.

    Returns:
        `height` lines of `width` characters, joined by newlines.

    Raises:
        TSLMError: see `check_series`; a width or height out of range.
    """
    if width < 1 or not 1 <= height <= 4:
        raise TSLMError(f"a drawing has a width of at least 1 and 1 to 4 lines, not {width} x {height}")
    series = check_series(values)
    columns, levels = 2 * width, 4 * height
    edges = np.linspace(0, len(series) - 1, columns + 1)
    at_edges = np.interp(edges, np.arange(len(series)), series)
    low, high = np.minimum(at_edges[:-1], at_edges[1:]), np.maximum(at_edges[:-1], at_edges[1:])
    owner = np.minimum(np.arange(len(series)) * columns // max(len(series) - 1, 1), columns - 1)
    np.minimum.at(low, owner, series)
    np.maximum.at(high, owner, series)

    bottom, top = float(series.min()), float(series.max())
    if top > bottom:
        rows_low = np.rint((low - bottom) / (top - bottom) * (levels - 1)).astype(int)
        rows_high = np.rint((high - bottom) / (top - bottom) * (levels - 1)).astype(int)
    else:
        rows_low = rows_high = np.full(columns, (levels - 1) // 2)
    cells = np.zeros((height, width), dtype=int)
    for column in range(columns):
        for row in range(rows_low[column], rows_high[column] + 1):
            from_top = levels - 1 - row
            cells[from_top // 4, column // 2] |= _DOTS[column % 2][from_top % 4]
    return "\n".join("".join(chr(0x2800 + cell) for cell in line) for line in cells)
