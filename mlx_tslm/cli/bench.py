"""`bench`: the door to `benchmarks/` of a checkout, which measures this machine and makes the tables."""

import importlib.util
import sys
from pathlib import Path
from typing import Annotated

import typer

from mlx_tslm.cli.terminal import console, if_interrupted, status
from mlx_tslm.cli.words import Command, Group, examples
from mlx_tslm.errors import TSLMError

app = typer.Typer(
    cls=Group,
    help="Measure speed and memory, and make the tables from the raw results.",
    epilog=examples("mlx-tslm bench run --suite quick", "mlx-tslm bench table"),
    no_args_is_help=True,
)


@app.command(
    cls=Command,
    epilog=examples("mlx-tslm bench run --suite quick", "mlx-tslm bench run --only decoding --backends mlx,torch"),
)
def run(
    suite: Annotated[str, typer.Option("--suite", help="quick (some minutes), or full.")] = "quick",
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", help="conversion, decoding, search, scaling, stages or torch. Repeatable.", show_default="all"
        ),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(
            "--shape",
            help="Of the random LLM: SmolLM2-135M, Llama-3.2-1B, Llama-3.2-1B-bf16.",
            show_default="SmolLM2-135M; on a GPU Llama-3.2-1B-bf16",
        ),
    ] = None,
    backends: Annotated[
        str, typer.Option("--backends", help="mlx, or mlx,torch to compare with PyTorch.", metavar="NAME[,NAME]")
    ] = "mlx",
    stages: Annotated[str, typer.Option("--stages", help="Whose prompts: 1-5, 2, or 1,3.")] = "1-5",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the raw results.")] = Path(
        "benchmarks/results"
    ),
) -> None:
    """Measure what has not been measured yet; a run that was stopped goes on where it was."""
    _suite()
    from benchmarks.suite import run as runner
    from benchmarks.suite import suites
    from mlx_tslm.cli.options import warn_without_blas

    warn_without_blas()
    with if_interrupted("what was measured is kept; the same command goes on from there"):
        folder = runner.run(
            suites.get(suite, shape),
            output,
            only or (),
            [name.strip() for name in backends.split(",")],
            stages,
            lambda text: status.print(text, soft_wrap=True),
        )
    console.print(f"raw results in {folder}", soft_wrap=True)


@app.command(cls=Command, epilog=examples("mlx-tslm bench table --check"))
def table(
    check: Annotated[bool, typer.Option("--check", help="Change nothing; fail where a table is stale.")] = False,
    root: Annotated[Path, typer.Option("--root", help="The checkout that holds benchmarks/.")] = Path(),
) -> None:
    """Rewrite the tables of benchmarks/README.md and README.md, and the plots, from the raw results."""
    _suite()
    from benchmarks.suite import readme

    changed = readme.stale(root) if check else readme.write(root)
    for path in changed:
        console.print(f"{path} {'differs from its raw data' if check else 'written'}", soft_wrap=True)
    if not changed:
        console.print("every table agrees with its raw data")
    if check and changed:
        raise typer.Exit(1)


def _suite() -> None:
    """Make `benchmarks` importable, wherever the command was typed: it is no part of the installed package.

    Raises:
        TSLMError: this is no checkout.
    """
    if "benchmarks" in sys.modules:
        return
    folder = Path(__file__).parents[2] / "benchmarks"
    if not (folder / "suite").is_dir():
        raise TSLMError(
            "`mlx-tslm bench` needs a checkout: git clone the repository, `pip install -e .` in it, and try again"
        )
    spec = importlib.util.spec_from_file_location("benchmarks", folder / "__init__.py")
    assert spec is not None and spec.loader is not None
    sys.modules["benchmarks"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["benchmarks"])
