"""Charts as SVG, for people who have nothing but a browser: lines and points on linear or logarithmic axes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

INK, GREY, PALE = "#222", "#666", "#ddd"
COLOURS = ("#1f6f8b", "#c2410c", "#15803d", "#7c3aed", "#b45309", "#0f766e", "#be123c", "#475569")
_LEFT, _TOP, _RIGHT, _BOTTOM = 56, 52, 24, 46


@dataclass(frozen=True)
class Line:
    """Points of one kind, joined unless `joined` is False.

    Args:
        points: (x, y), x ascending.
        name: shown beside its end; "" for none.
        spans: (low, high) of each point's y, drawn as a bar; none where empty.
        colour: of the line and its points; grey and dashed for what is only there to compare with.
        dots: whether each point is marked.
        joined: whether points are joined.
        dashed: whether the line is.
    """

    points: Sequence[tuple[float, float]]
    name: str = ""
    spans: Sequence[tuple[float, float]] = ()
    colour: str = COLOURS[0]
    dots: bool = True
    joined: bool = True
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """One pair of axes with its lines.

    Args:
        lines: at least one, with a point at least.
        x_label, y_label: what the axes are.
        log_x, log_y: whether they are logarithmic; values must be positive then.
        x_ticks: where the x axis is labelled; the ends where empty.
        bottom, top: the y axis's ends where the data don't decide.
        width, height: of the space between the axes, in pixels.
    """

    lines: Sequence[Line]
    x_label: str = ""
    y_label: str = ""
    log_x: bool = False
    log_y: bool = False
    x_ticks: Sequence[float] = ()
    bottom: float | None = None
    top: float | None = None
    width: int = 230
    height: int = 190


def chart(title: str, panels: Sequence[Panel], note: str = "") -> str:
    """Draw panels side by side under a title, with a note below."""
    parts, left = [], _LEFT
    for panel in panels:
        parts.append(_panel(panel, left))
        left += panel.width + _RIGHT + _LEFT
    tallest = max((panel.height for panel in panels), default=0)
    height = _TOP + tallest + _BOTTOM + (18 if note else 0)
    if note:
        parts.append(text(_LEFT, height - 8, note, fill=GREY))
    return picture(max(left - _LEFT + 8, 2 * 16 + 7.6 * len(title)), height, title, parts)


def picture(width: float, height: float, title: str, parts: Iterable[str]) -> str:
    """An SVG document on white, with its title above."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="system-ui, sans-serif" font-size="12" fill="{INK}">'
        f'<title>{escape(title)}</title><rect width="100%" height="100%" fill="#fff"/>'
        f"{text(16, 24, title, font_size='14', font_weight='600')}\n" + "\n".join(parts) + "</svg>\n"
    )


def text(x: float, y: float, words: str, **attributes: str) -> str:
    """Words at a place; attributes of SVG with underscores for hyphens."""
    told = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in attributes.items())
    return f'<text x="{x:.0f}" y="{y:.0f}"{told}>{escape(words)}</text>'


def _panel(panel: Panel, left: float) -> str:
    xs = [x for line in panel.lines for x, _ in line.points]
    ys = [y for line in panel.lines for _, y in line.points]
    ys += [end for line in panel.lines for span in line.spans for end in span]
    low, high = min(ys), max(ys)
    if panel.log_y:
        low, high = 10.0 ** floor(log10(low)), high
    low, high = low if panel.bottom is None else panel.bottom, high if panel.top is None else panel.top
    ticks = [10.0**power for power in range(floor(log10(low)), floor(log10(high)) + 1)] if panel.log_y else None
    ticks = ticks or _round_steps(low, high)
    low, high = min(low, ticks[0]), high if panel.log_y else max(high, ticks[-1])

    def share(value: float, first: float, last: float, logarithmic: bool) -> float:
        if logarithmic:
            value, first, last = log10(value), log10(first), log10(last)
        return (value - first) / (last - first) if last > first else 0.5

    def at(x: float, y: float) -> tuple[float, float]:
        across = share(x, min(xs), max(xs), panel.log_x)
        return round(left + panel.width * across, 1), round(
            _TOP + panel.height * (1 - share(y, low, high, panel.log_y)), 1
        )

    parts = []
    for tick in ticks:
        _, y = at(xs[0], tick)
        parts.append(f'<path d="M{left:.1f} {y}H{left + panel.width:.1f}" stroke="{PALE}"/>')
        parts.append(text(left - 6, y + 4, f"{tick:g}", text_anchor="end", fill=GREY))
    for line in panel.lines:
        parts += _line(line, at)
    foot = _TOP + panel.height
    for tick in panel.x_ticks or sorted({min(xs), max(xs)}):
        parts.append(text(at(tick, low)[0], foot + 16, f"{tick:g}", text_anchor="middle", fill=GREY))
    parts.append(text(left + panel.width / 2, foot + 34, panel.x_label, text_anchor="middle", fill=GREY))
    parts.append(text(left - 6, _TOP - 10, panel.y_label, fill=GREY))
    return "\n".join(parts)


def _line(line: Line, at: Callable[[float, float], tuple[float, float]]) -> Iterable[str]:
    places = [at(x, y) for x, y in line.points]
    if line.joined:
        dash = ' stroke-dasharray="4 3"' if line.dashed else ""
        path = "L".join(f"{x} {y}" for x, y in places)
        yield f'<path d="M{path}" fill="none" stroke="{line.colour}" stroke-width="1.5"{dash}/>'
    for (x, _), (low, high) in zip(line.points, line.spans, strict=False):
        (across, bottom), (_, top) = at(x, low), at(x, high)
        yield f'<path d="M{across} {bottom}V{top}" stroke="{line.colour}"/>'
    for x, y in places if line.dots else ():
        yield f'<circle cx="{x}" cy="{y}" r="3" fill="{line.colour}"/>'
    if line.name:
        x, y = places[-1]
        yield text(x - 4, y - 6, line.name, fill=line.colour, text_anchor="end")


def _round_steps(low: float, high: float) -> list[float]:
    """Four to eight round numbers that span low to high."""
    width = max(high - low, 1e-12 * max(abs(high), 1.0))
    step = 10.0 ** floor(log10(width / 4))
    step *= next(factor for factor in (1, 2, 2.5, 5, 10) if width / (step * factor) <= 6)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, max(last, first + 1) + 1)]
