"""Numbers at their ends: options, damaged weights, and the dtypes that models are stored in."""

from __future__ import annotations

import json
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.reliability.cases import Run, case
from benchmarks.reliability.children import call, command, warm_up
from benchmarks.reliability.jobs import AIRLINE

_ASKED = ("--series", str(AIRLINE), "--column", "Passengers", "--max-tokens", "4")
_GENERATE = {
    "--temperature": ("0", "1e-46", "1e-38", "1e38", "1e39", "1e300", "-1", "nan", "inf"),
    "--top-p": ("0", "1e-46", "1", "1.5", "-1", "nan"),
    "--top-k": ("0", "1", "1000000000", "-1"),
    "--seed": ("0", "-1", str(2**63), str(2**64), str(10**40)),
    "--max-tokens": ("0", "-1", "1", str(10**30)),
    "--rate": ("0", "-1", "1e-300", "1e9", "1e300", "nan", "inf"),
    "--source-rate": ("0", "-1", "1e-300", "1e300", "nan", "inf"),
    "--start": ("-1", "143", "1e300", "nan", "inf"),
    "--seconds": ("0", "-1", "1", "1e300", "nan", "inf"),
    "--question": ("", "\udcff", "\x00", "x" * 5000),
    "--channel": ("", "\udcff", "9" * 5000),
}
_SEARCH = {
    "--inverse-temperature": ("0", "1e-300", "1e300", "-1", "nan", "inf"),
    "--temperature": ("1e-46", "1e300"),
    "--top-p": ("1e-46",),
    "--explore": ("-1", "0", "1", "2", "nan"),
    "--num-rollouts": ("0", "-1", "1", str(10**30)),
    "--width": ("0", "1", str(10**30)),
    "--reward": ("format=nan", "format=inf", "format=1e308", "format=-1", "format="),
}
_LONGEST = 1200  # characters of an error


@case("Numbers", "An option at its end gives an answer or one line, never NaN and never a traceback.")
def options(run: Run) -> None:
    """Each value of each option of `generate` and `search`; what is saved must be JSON without NaN."""
    warm_up()
    home = _demo(run, "float32", "--dtype", "float32")
    tries = [("generate", (option, value)) for option, values in _GENERATE.items() for value in values]
    tries += [("search", (option, value)) for option, values in _SEARCH.items() for value in values]
    run.figures |= {"tried": 0, "answered": 0, "refused in one line": 0}
    for name, (option, value) in tries[:: 12 if run.short else 1]:
        more = (
            ("--json",) if name == "generate" else ("--num-rollouts", "2", "--width", "2", "--json", "found.json")
        )
        rate = ("--source-rate", "1") if option == "--rate" else ()
        arguments = (name, "--model", str(home), *_ASKED, *more, *rate, f"{option}={value}")
        ended = command(arguments, run.folder)
        run.count("tried")
        what = f"{name} {option} {value[:20]!r}"
        run.check("Traceback" not in ended.output, f"{what}: a traceback")
        if ended.code == 0:
            run.count("answered")
            text = (run.folder / "found.json").read_text() if name == "search" else ended.last_line
            run.check("NaN" not in text and "Infinity" not in text and json.loads(text), f"{what}: NaN in the JSON")
        elif run.check(ended.code == 2, f"{what}: ends with {ended.code}"):
            run.count("refused in one line")
            error = ended.output.rpartition("error: ")[2].strip()
            run.check(
                error and len(error) < _LONGEST and "\n" not in error, f"{what}: no one line: {error[:200]!r}"
            )


@case("Numbers", "A weight that is NaN or infinite ends in an error that names it.")
def damaged_weights(run: Run) -> None:
    """Each weight of each kind of a converted model in turn, NaN or infinite."""
    warm_up()
    home = _demo(run, "float32", "--dtype", "float32")
    names = call(lambda: sorted(_weights(home)), run.folder)
    kinds = {re.sub(r"layers\.\d+", "layers.N", name): name for name in names}  # one of all layers
    chosen = sorted(kinds.values())
    run.figures |= {"weights": 0, "named": 0}
    for number, name in enumerate(chosen[:: 9 if run.short else 1]):
        for value in ("nan", "inf"):
            broken = run.folder / f"broken-{number}-{value}"
            shutil.copytree(home, broken)
            call(partial(_damage, broken, name, float(value)), run.folder)
            ended = command(("generate", "--model", str(broken), *_ASKED), run.folder)
            run.count("weights")
            named = ended.code == 2 and name in ended.output and "Traceback" not in ended.output
            run.count("named", int(named))
            run.check(named, f"{name} {value}: {ended.code}, {ended.last_line[:200]}")
            shutil.rmtree(broken)


@case(
    "Numbers",
    "Models in bfloat16, float16, float32, 4 and 8 bits all answer; their distance from float32 is known.",
)
def dtypes(run: Run) -> None:
    """KL divergence of the next token from float32's, along captions; see also benchmarks/quantized.py."""
    warm_up()
    kinds = ("float32", "float16", "bfloat16")
    forms: dict[str, tuple[str, ...]] = {dtype: ("--dtype", dtype) for dtype in kinds}
    forms |= {f"{bits} bits in {dtype}": ("-q", bits, "--dtype", dtype) for bits in "84" for dtype in kinds}
    folders = {name: _demo(run, name.replace(" ", "-"), *options) for name, options in forms.items()}
    captions = 2 if run.short else 12
    for name, folder in folders.items():
        ended = command(("generate", "--model", str(folder), *_ASKED), run.folder)
        run.check(ended.code == 0, f"{name} does not answer: {ended.last_line}")
        if name != "float32":
            distance = call(partial(_distance, folders["float32"], folder, captions), run.folder)
            run.figures[f"{name}: nats from float32"] = distance
            run.check(distance < 0.02, f"{name} is {distance} nats from float32")


def _demo(run: Run, name: str, *options: str) -> Path:
    output = run.folder / name
    ended = command(("convert", "demo", "-o", str(output), *options), run.folder)
    run.check(ended.code == 0, f"convert demo {' '.join(options)}: {ended.last_line}")
    return output


def _weights(folder: Path) -> dict[str, Any]:
    from mlx_tslm.models.weights import read_weights

    return read_weights(folder)


def _damage(folder: Path, name: str, value: float) -> None:
    """Set one value of a tensor, in the middle of a row that is used."""
    import mlx.core as mx

    weights = _weights(folder)
    array = weights[name]
    flat = array.reshape(-1)
    weights[name] = mx.concatenate([mx.full((1,), value, array.dtype), flat[1:]]).reshape(array.shape)
    if "embed_tokens" in name:  # a token's row is read only where the token is
        weights[name] = mx.full(array.shape, value, array.dtype)
    mx.eval(weights)
    for file in folder.glob("*.safetensors"):
        file.unlink()
    (folder / "model.safetensors.index.json").unlink()
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})


def _distance(reference: Path, other: Path, captions: int) -> float:
    import mlx_tslm
    from benchmarks.quantized import divergence, log_probabilities

    exact, found = (log_probabilities(mlx_tslm.load(folder), captions, 24) for folder in (reference, other))
    return divergence(exact, found)
