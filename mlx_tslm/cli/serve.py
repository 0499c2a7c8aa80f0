"""`serve`: a model behind OpenAI's endpoint."""

from typing import Annotated

import typer

from mlx_tslm.cli.terminal import status
from mlx_tslm.cli.words import examples
from mlx_tslm.errors import TSLMError

EXAMPLES = examples("mlx-tslm serve demo", "mlx-tslm serve stage5 --host 0.0.0.0 --api-key SECRET")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A converted folder, `demo`, `stage1` … `stage5`, or an `OpenTSLM/…` name."
        ),
    ],
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; any but this machine's own needs --api-key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8080,
    api_key: Annotated[
        str | None,
        typer.Option("--api-key", envvar="MLX_TSLM_API_KEY", help="What clients have to send as a bearer token."),
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option("--cors", help="Another site whose pages may call the server. Repeatable.", metavar="ORIGIN"),
    ] = None,
    width: Annotated[int, typer.Option("--width", min=1, max=256, help="Answers under way at once.")] = 16,
    memory: Annotated[
        float, typer.Option("--memory", min=0, help="GB of prompts that are kept read.", metavar="GB")
    ] = 2.0,
) -> None:
    """Answer OpenAI's clients about recordings: http://127.0.0.1:8080/v1."""
    if host not in _LOOPBACK and not api_key:
        raise TSLMError(f"--host {host} is open to other machines: give an --api-key")
    try:
        from mlx_tslm.serve.run import run
    except ImportError as error:
        raise TSLMError(f'{error.name} is missing; serving needs an extra: pip install "mlx-tslm[serve]"') from None

    def ready(address: str) -> None:
        status.print(f"{model} answers at {address}/v1; Ctrl-C ends", soft_wrap=True)

    run(model, host, port, api_key, tuple(cors or ()), width, int(memory * 1e9), ready)
