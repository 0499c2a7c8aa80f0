"""Tables, in Markdown, from raw samples alone."""

from collections.abc import Iterable, Mapping, Sequence
from math import log
from typing import Any, Literal

from rich.filesize import decimal

from benchmarks.suite import conversion, cost, scaling, search
from benchmarks.suite.measure import Spread, ratio, values
from benchmarks.suite.measurements import Measurements, variants
from benchmarks.suite.shapes import SHAPES

Rows = list[tuple[str, ...]]
_Point = tuple[float, Spread, Spread]  # a size, its seconds and its bytes


def machine_table(one: Measurements) -> str:
    """What the machine is, and under what load it measured."""
    last, all_of = one.machines[-1], one.machines
    names = ("python", "mlx", "mlx-lm", "numpy", "torch", "transformers", "mlx-tslm")
    versions = ", ".join(f"{name} {last[name]}" for name in names if last.get(name))
    loads = [machine["load"] for machine in all_of]
    commits = dict.fromkeys(machine["commit"] for machine in all_of if machine["commit"])
    rows: Rows = [
        ("chip", f"{last['chip']}, {last['cores']} cores, {decimal(int(last['memory']))}"),
        ("system", last["os"]),
        ("device, BLAS", f"{last['device']}, {last['blas'] or 'the reference BLAS: no figure here means much'}"),
        ("versions", versions + (f", commit {', '.join(commits)}" if commits else "")),
        ("load average before", f"{min(loads):.2f} … {max(loads):.2f}"),
    ]
    if last["power"]:
        rows.append(("power", last["power"]))
    return markdown(["machine", one.name], rows)


def conversion_table(one: Measurements) -> str:
    """Seconds and memory of each kind of output."""
    blocks = []
    for parameters, rounds in one.cases("conversion", "convert"):
        bare = values(rounds, conversion.LOADED, "peak_resident")
        rows: Rows = []
        for variant in variants(rounds):
            if variant == conversion.LOADED:
                continue
            written, peaks = values(rounds, variant, "bytes")[0], values(rounds, variant, "peak_resident")
            peak = Spread.of(peaks).median
            added = peak - Spread.of(bare).median
            seconds = Spread.of(values(rounds, variant))
            rows.append(
                (
                    variant,
                    decimal(int(written)),
                    seconds_text(seconds),
                    decimal(int(peak)),
                    decimal(int(added)),
                    f"{added / written:.2f}",
                )
            )
        shape = SHAPES[parameters["shape"]]
        headings = [
            f"{shape.name}, {shape.parameters / 1e6:.0f} M parameters, LoRA rank {parameters['lora_rank']} fused",
            ">output", ">seconds", ">peak memory", ">without imports", ">to output",
        ]  # fmt: skip
        blocks.append(markdown(headings, rows))
    return "\n\n".join(blocks)


def decoding_table(one: Measurements) -> str:
    """Limits, prompts, and one row at a time."""
    limits = one.limits()
    if limits is None:
        return ""
    top = max(limits.flops.values())
    rows: Rows = [("memory read", f"{limits.bandwidth / 1e9:.1f} GB/s")]
    rows += [(f"matrix products, M = {count}", f"{rate / 1e9:.0f} GFLOP/s") for count, rate in limits.flops.items()]
    blocks = [markdown(["this machine's limits (the best of all rounds)", ">"], rows)]
    rows = []
    for parameters, rounds in one.cases("decoding", "prefill"):
        shape, prompt = SHAPES[parameters["shape"]], parameters["prompt"]
        seconds = Spread.of(values(rounds, "mlx-tslm"))
        rate = cost.prefill_flops(shape, prompt) / seconds.median
        rows.append(
            (f"{shape.name}, {prompt} positions", seconds_text(seconds), f"{prompt / seconds.median:.0f}",
             f"{rate / 1e9:.0f}", f"{rate / top:.0%}")
        )  # fmt: skip
    blocks.append(
        markdown(["reading a prompt", ">seconds", ">positions/s", ">GFLOP/s", ">of the matrix limit"], rows)
    )
    rows = []
    for parameters, rounds in one.cases("decoding", "one-row"):
        shape, prompt, tokens = SHAPES[parameters["shape"]], parameters["prompt"], parameters["tokens"]
        each = Spread.of([seconds / tokens for seconds in values(rounds, "mlx-tslm")])
        parts = cost.decode_step(shape, cost.precision(shape), prompt, 1, tokens / 2)
        read = sum(part.nbytes for part in parts.values()) / each.median
        floor = ratio(rounds, "mlx-tslm", "matrix products alone")
        rows.append(
            (f"{shape.name}, {prompt} positions", seconds_text(each),
             f"{1 / each.median:.1f}", f"{read / 1e9:.1f}", f"{read / limits.bandwidth:.0%}", times_text(floor))
        )  # fmt: skip
    headings = [
        "decoding one row behind a prompt", ">seconds a token", ">tokens/s", ">GB/s", ">of memory's limit",
        ">time over its matrix products'",
    ]  # fmt: skip
    blocks.append(markdown(headings, rows))
    return "\n\n".join(blocks)


def scaling_table(one: Measurements) -> str:
    """A table a sweep, with the exponent of growth from one size to the next: 1 is linear."""
    blocks = []
    for sweep in scaling.SWEEPS:
        for parameters, rounds in one.cases("scaling", f"scaling-{sweep}"):
            rows: Rows = []
            before: _Point | None = None
            for variant in variants(rounds):
                if not values(rounds, variant):
                    continue
                now = (
                    float(variant),
                    Spread.of(values(rounds, variant)),
                    Spread.of(values(rounds, variant, "added_memory")),
                )
                growth = (_exponent(before, now, 1), _exponent(before, now, 2)) if before else ("", "")
                rows.append((variant, seconds_text(now[1]), growth[0], decimal(int(now[2].median)), growth[1]))
                before = now
            headings = [
                f"{sweep} ({where_text(parameters)})",
                ">seconds",
                ">exponent",
                ">memory added",
                ">exponent",
            ]
            blocks.append(markdown(headings, rows))
    return "\n\n".join(blocks)


def _exponent(before: _Point, now: _Point, which: Literal[1, 2]) -> str:
    growth = now[which].median / before[which].median if before[which].median else 1.0
    return f"{log(growth) / log(now[0] / before[0]):.2f}" if growth else ""


def cost_table(one: Measurements) -> str:
    """What the model of cost says of the steps that were measured."""
    limits = one.limits()
    if limits is None:
        return ""
    rows: Rows = []
    for parameters, rounds in one.cases("search", "decode-step"):
        shape = SHAPES[parameters["shape"]]
        parts = cost.decode_step(
            shape, cost.precision(shape), parameters["prompt"], parameters["rows"], search.ROLLOUT * 0.75
        )
        predicted = cost.step_seconds(parts, limits)
        floor = Spread.of(values(rounds, search.FLOOR)).median
        step = Spread.of(values(rounds, search.SHARED)).median
        rows.append(
            (where_text(parameters), decimal(int(sum(part.nbytes for part in parts.values()))),
             f"{sum(part.flops for part in parts.values()) / 1e9:.1f} GFLOP", short_text(predicted),
             f"{floor / predicted:.2f}", f"{step / predicted:.2f}")
        )  # fmt: skip
    headings = [
        "decode step", ">bytes read", ">operations", ">model's least time",
        ">matrix products measured, over it", ">whole step measured, over it",
    ]  # fmt: skip
    return markdown(headings, rows)


def predictions_table() -> str:
    """Least times of a step of a 1B model on Macs that were not measured."""
    shape, depth = SHAPES["Llama-3.2-1B"], 64
    rows: Rows = []
    for mac in cost.MACS:
        for precision in (cost.BFLOAT16, cost.FOUR_BIT):
            for prompt in (512, 3300):
                least = {
                    count: cost.step_seconds(cost.decode_step(shape, precision, prompt, count, depth), mac.limits)
                    for count in (1, 16, 32, 64)
                }
                rows.append(
                    (mac.name, precision.name, str(prompt), *(short_text(least[count]) for count in least),
                     f"{32 * least[1] / least[32]:.1f}",
                     decimal(int(cost.resident_bytes(shape, precision, prompt, 32 * 2 * depth))))
                )  # fmt: skip
    headings = [
        "PREDICTION, not measured", "weights", ">prompt", ">1 row", ">16 rows", ">32 rows", ">64 rows",
        ">32 rows against one at a time", ">memory",
    ]  # fmt: skip
    return markdown(headings, rows)


def where_text(parameters: Mapping[str, Any]) -> str:
    shown = {
        "rollouts": "{} rollouts", "rows": "{} rows", "width": "width {}", "prompt": "prompt {}",
        "tokens": "{} tokens", "depth": "{} tokens deep",
    }  # fmt: skip
    parts = [text.format(parameters[name]) for name, text in shown.items() if name in parameters]
    return ", ".join([parameters["shape"], *parts])


def times_text(found: Spread | None) -> str:
    if found is None:
        return ""
    digits = 0 if found.median >= 100 else 1
    return f"{found.median:,.{digits}f}x ({found.low:,.{digits}f} … {found.high:,.{digits}f}, {found.count})"


def short_text(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def seconds_text(found: Spread) -> str:
    if found.count == 1:
        return short_text(found.median)
    return f"{short_text(found.median)} ({short_text(found.low)} … {short_text(found.high)})"


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a heading that starts with ">" is of figures."""
    lines = [[heading.removeprefix(">") for heading in headings]]
    lines.append(["---:" if heading.startswith(">") else "---" for heading in headings])
    lines += [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
