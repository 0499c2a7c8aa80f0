"""Hostile and damaged files: crafted ones, and mutations of valid ones."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.reliability.cases import Run, case
from mlx_tslm.errors import TSLMError

TESTS = Path(__file__).parents[2] / "tests"


def _sound(run: Run) -> tuple[Path, Path, Path]:
    """A checkpoint, a base LLM, and the model converted from them."""
    sys.path.insert(0, str(TESTS))
    from tiny import write_base, write_checkpoint

    from mlx_tslm import conversion

    base = write_base("llama", run.folder / "base")
    checkpoint = write_checkpoint("llama", run.folder / "tiny.pt", lora=4, max_patches=32)
    conversion.convert(checkpoint, run.folder / "model", llm=str(base))
    return checkpoint, base, run.folder / "model"


def _try_all(run: Run, source: Path, use: Callable[[Path], object], number: int, mutations: int) -> None:
    from damage import at_random, fault, of_folder

    crafted = list(of_folder(source))
    random.Random(7).shuffle(crafted)
    for damage in crafted[:number]:
        run.count("damages tried")
        run.check(not (wrong := fault(source, damage, run.folder / "damaged", use)), wrong)
    for seed in range(mutations):
        run.count("mutations tried")
        run.check(not (wrong := fault(source, at_random(source, seed), run.folder / "damaged", use)), wrong)


@case("Hostile files", "A damaged or edited model folder is used, or refused by one line that names the file.")
def damaged_models(run: Run) -> None:
    """Everything in tests/damage.py, and random mutations."""
    import mlx_tslm

    *_, model = _sound(run)
    _try_all(run, model, mlx_tslm.load, *((30, 10) if run.short else (10_000, 1000)))


@case("Hostile files", "A damaged or edited base LLM is used, or refused by one line that names the file.")
def damaged_bases(run: Run) -> None:
    """The same, as `convert` and `train` read it."""
    from mlx_tslm.conversion.base import open_base
    from mlx_tslm.models.tokenizer import read_tokenizer

    def use(folder: Path) -> None:
        base = open_base(folder, "base")
        read_tokenizer(folder, base.config)
        base.weights()

    _, base, _ = _sound(run)
    _try_all(run, base, use, *((30, 10) if run.short else (10_000, 1000)))


@case("Hostile files", "A mutated checkpoint is read right or refused in one line; nothing in it runs.")
def mutated_checkpoints(run: Run) -> None:
    """Bytes changed, cut out and doubled, most of them in the description and the directory."""
    from mlx_tslm.conversion.checkpoint import open_checkpoint

    checkpoint, *_ = _sound(run)
    whole, rng = checkpoint.read_bytes(), random.Random(11)
    ends = [*range(20_000), *range(len(whole) - 20_000, len(whole))]
    for _ in range(20 if run.short else 20_000):
        content = bytearray(whole)
        at, length = rng.choice(ends), rng.choice([1, 2, 8, 64])
        match rng.choice(["change", "change", "drop", "double"]):
            case "change":
                for place in range(at, min(at + length, len(content))):
                    content[place] = rng.randrange(256)
            case "drop":
                del content[at : at + length]
            case _:
                content[at:at] = content[at : at + length]
        path = run.folder / "mutated.pt"
        path.write_bytes(content)
        run.count("mutations tried")
        try:
            open_checkpoint(path)
            run.count("of them read")
        except TSLMError as error:
            run.check("\n" not in str(error) and "mutated.pt" in str(error), str(error)[:300])
        except Exception as error:
            run.check(False, f"{type(error).__name__}: {error}")
