"""Where the time goes: a step by its operations, a search by its passes, and a growing prompt by phase."""

from collections.abc import Mapping, Sequence
from math import log

from benchmarks.suite import parts, search
from benchmarks.suite.measure import Spread, values
from benchmarks.suite.measurements import Measurements, Rounds
from benchmarks.suite.tables import Rows, markdown, seconds_text, short_text, where_text

_PHASES = ("prefill", "decode")


def profile_table(one: Measurements) -> str:
    """All three, for one machine."""
    return "\n\n".join(text for text in (_steps(one), _passes(one), _prompts(one)) if text)


def _steps(one: Measurements) -> str:
    """An operation a line, and for each number of rows its seconds and share of the step."""
    cases = one.cases("search", "step-parts")
    if not cases:
        return ""
    medians = [{name: _median(rounds, name) for name in (search.SHARED, *parts.NAMES)} for _, rounds in cases]
    for times in medians:
        times["the rest, or overlap: waiting, copies, Python"] = 2 * times[search.SHARED] - sum(times.values())
    rows: Rows = []
    for name in medians[0]:
        shares = [(short_text(times[name]), f"{times[name] / times[search.SHARED]:.0%}") for times in medians]
        rows.append((name, *(text for cell in shares for text in cell)))
    where = [text for parameters, _ in cases for text in (f">{where_text(parameters)}", ">of the step")]
    return markdown(["one decode step, each operation measured alone", *where], rows)


def _passes(one: Measurements) -> str:
    """The passes of whole searches by their number of rows."""
    rows: Rows = []
    for parameters, rounds in one.cases("search", "search"):
        for variant in (search.WAVES, search.ALONE):
            told = [measured[variant].values for measured in rounds]
            widths = sorted(int(name.removeprefix("passes_")) for name in told[0] if name.startswith("passes_"))
            for low, high in _ranges(widths, parameters["width"]):
                count = _total(told[:1], "passes", low, high)
                seconds = _total(told, "pass_seconds", low, high) / len(told)
                whole = Spread.of(values(rounds, variant)).median
                label = str(low) if low == high else f"{low} to {high}"
                rows.append(
                    (where_text(parameters), variant, label, f"{count:.0f}", short_text(seconds / count),
                     short_text(seconds), f"{seconds / whole:.0%}")
                )  # fmt: skip
    headings = [
        "forward passes of a search",
        "",
        ">rows",
        ">passes",
        ">seconds each",
        ">together",
        ">of the search",
    ]
    return markdown(headings, rows) if rows else ""


def _prompts(one: Measurements) -> str:
    """Reading the prompt and decoding behind it, as the prompt grows."""
    blocks = []
    for parameters, rounds in one.cases("scaling", "scaling-prompt"):
        rows: Rows = []
        before: tuple[float, ...] = ()
        for prompt in sorted(rounds[0], key=int):
            spreads = [Spread.of(values(rounds, prompt, f"seconds_{phase}")) for phase in _PHASES]
            now = (float(prompt), *(spread.median for spread in spreads))
            growth = [
                f"{log(b / a) / log(now[0] / before[0]):.2f}" for a, b in zip(before[1:], now[1:], strict=False)
            ]
            cells = zip(map(seconds_text, spreads), growth or [""] * len(spreads), strict=True)
            rows.append((prompt, *(text for cell in cells for text in cell)))
            before = now
        headings = [
            f"prompt ({where_text(parameters)})",
            ">reading it",
            ">exponent",
            ">decoding behind it",
            ">exponent",
        ]
        blocks.append(markdown(headings, rows))
    return "\n\n".join(blocks)


def _median(rounds: Rounds, variant: str) -> float:
    return Spread.of(values(rounds, variant)).median


def _ranges(widths: Sequence[int], width: int) -> list[tuple[int, int]]:
    """Ranges of rows that occur, as they occur: few rows, up to half, up to all but one, all."""
    edges = sorted({1, width // 4, width // 2, width - 1, width} - {0})
    found = []
    for below, edge in zip([0, *edges], edges, strict=False):
        inside = [rows for rows in widths if below < rows <= edge]
        if inside:
            found.append((inside[0], inside[-1]))
    return found


def _total(told: Sequence[Mapping[str, float]], what: str, low: int, high: int) -> float:
    return sum(one.get(f"{what}_{rows}", 0.0) for one in told for rows in range(low, high + 1))
