"""`convert`: a PyTorch checkpoint becomes an MLX folder."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal

from mlx_tslm.cli.terminal import console, facts, if_interrupted, note, progress_bar, table
from mlx_tslm.cli.words import examples

if TYPE_CHECKING:
    from mlx_tslm.conversion import ConversionSummary
    from mlx_tslm.fetching.http import Progress

EXAMPLES = examples(
    "mlx-tslm convert demo",
    "mlx-tslm convert stage5 --base gemma-3-1b -q --q-bits 8 -o ecg-gemma",
    "mlx-tslm convert model_checkpoint.pt --llm path/to/Llama-3.2-1B -o mine --verify",
)
_QUANTIZATION = "Quantization"


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="`demo`, a stage (`stage1` … `stage5`), a Hub name, a recipe (.toml), or a checkpoint (.pt).",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write.", show_default="in the cache")
    ] = None,
    llm: Annotated[
        str | None,
        typer.Option("--llm", help="Base LLM: a Hugging Face folder or Hub name.", show_default="the recipe's"),
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(
            "--variant", help="sp (soft prompt) or flamingo.", show_default="what the file is; of a stage, sp"
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            help="llama-3.2-1b, llama-3.2-3b, gemma-3-270m or gemma-3-1b; or as --llm.",
            show_default="the recipe's first",
        ),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option("--file", help="The checkpoint in a Hub repository.", show_default="model_checkpoint.pt"),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option("--revision", help="Branch, tag or commit of the repository.", show_default="main"),
    ] = None,
    encoder_heads: Annotated[
        int | None,
        typer.Option("--encoder-heads", min=1, help="Which no checkpoint states.", show_default="8"),
    ] = None,
    lora_alpha: Annotated[
        float | None,
        typer.Option("--lora-alpha", min=1e-6, help="Where the checkpoint does not state it."),
    ] = None,
    quantize: Annotated[
        bool, typer.Option("--quantize", "-q", help="Quantize the LLM.", rich_help_panel=_QUANTIZATION)
    ] = False,
    q_bits: Annotated[
        int | None,
        typer.Option("--q-bits", help="4 or 8; implies -q.", show_default="4", rich_help_panel=_QUANTIZATION),
    ] = None,
    q_group_size: Annotated[
        int | None,
        typer.Option(
            "--q-group-size",
            help="Weights that share a scale: 32, 64 or 128; implies -q.",
            show_default="64",
            rich_help_panel=_QUANTIZATION,
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option("--dtype", help="Of the LLM: float32, float16 or bfloat16.", show_default="its own"),
    ] = None,
    fuse: Annotated[bool, typer.Option("--fuse/--no-fuse", help="Add LoRA to the weights, or keep it.")] = True,
    verify: Annotated[bool, typer.Option("--verify", help="Reload and compare every tensor.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a converted model that is there.")] = False,
) -> None:
    """Turn a PyTorch checkpoint of OpenTSLM into an MLX model."""
    from mlx_tslm import conversion

    if q_bits is None and (quantize or q_group_size is not None):
        q_bits = 4
    left = "nothing was written, and what was there is as it was; what was downloaded is kept"
    try:
        with if_interrupted(left), _progress() as report:
            summary = conversion.convert(
                source,
                output,
                llm=llm,
                variant=variant,
                base=base,
                file=file,
                revision=revision,
                encoder_heads=encoder_heads,
                lora_alpha=lora_alpha,
                quantize=q_bits,
                group_size=q_group_size or 64,
                dtype=dtype,
                fuse=fuse,
                verify=verify,
                force=force,
                progress=report,
                command=shlex.join(["mlx-tslm", *sys.argv[1:]]),
            )
    except conversion.AlreadyConverted as there:
        console.print(f"{there}; --force converts it anew", soft_wrap=True)
        return
    for text in summary.notes:
        note(text)
    if summary.comparisons:
        _show_comparisons(summary)
    _show_summary(summary)


@contextmanager
def _progress() -> "Iterator[Progress]":
    """One bar for each thing that is done, as it begins."""
    with progress_bar() as bars:
        tasks = {}

        def report(description: str, done: int, total: int | None) -> None:
            if description not in tasks:
                tasks[description] = bars.add_task(description, total=None)
            bars.update(tasks[description], completed=done, total=total)

        yield report


def _show_comparisons(summary: "ConversionSummary") -> None:
    rows = [
        (one.name, "×".join(map(str, one.shape)), one.dtype, f"{one.difference:.3g}") for one in summary.comparisons
    ]
    console.print(table(["tensor", "shape", "dtype", ">largest difference"], rows))
    exact = sum(one.difference == 0 for one in summary.comparisons)
    console.print(f"{len(rows)} tensors agree with their source, {exact} of them exactly\n")


def _show_summary(summary: "ConversionSummary") -> None:
    counts = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in summary.parameters.items())
    console.print(
        facts(
            [
                ("converted", f"{summary.source} ({decimal(summary.source_size)})"),
                ("joined with", f"{summary.base} ({_size(summary)})"),
                ("written to", f"{summary.path} ({decimal(summary.size)})"),
                ("parameters", counts),
                ("time, memory", f"{summary.seconds:.1f} s, peak {decimal(summary.peak_memory)}"),
            ]
        )
    )


def _size(summary: "ConversionSummary") -> str:
    """How much of the base LLM was read."""
    return decimal(summary.base_size) if summary.base_size else "its config and tokenizer"
