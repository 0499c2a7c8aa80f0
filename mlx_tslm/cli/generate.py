"""`generate`: one answer, streamed."""

from typing import Annotated

import typer
from rich.text import Text

from mlx_tslm.cli import options
from mlx_tslm.cli.reading import Reading
from mlx_tslm.cli.terminal import console, note, print_json, status


@options.expand
def generate(
    asking: options.Asking,
    reading: Reading,
    max_tokens: options.MaxTokens = 256,
    temperature: Annotated[
        float, typer.Option("--temperature", help="0 is greedy.", rich_help_panel="Sampling")
    ] = 0.0,
    top_p: Annotated[
        float | None, typer.Option("--top-p", help="Keep the most probable mass.", rich_help_panel="Sampling")
    ] = None,
    top_k: options.TopK = None,
    seed: options.Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Answer a question about a recording."""
    asked = asking.ask(reading, draw=not as_json)
    from mlx_tslm.generation import stream_generate

    tokens: list[int] = []
    logprob = 0.0
    text = ""
    for response in stream_generate(asked.model, asked.question, max_tokens, temperature, top_k, top_p, seed):
        tokens.append(response.token)
        logprob += response.logprob
        text += response.text
        if not as_json:
            console.print(Text(response.text), end="", soft_wrap=True)
    answer, labels = asked.question.parse(text), asked.question.labels
    if labels and answer not in labels:
        asked.notes.append(f"no allowed answer: {answer or 'none was given'}")
        answer = None
    if not as_json:
        console.print()
        if labels and answer is None:
            note(asked.notes[-1])
        status.print(
            f"{len(tokens)} tokens at {response.generation_tps:.0f}/s, prompt of {response.prompt_tokens} "
            f"positions at {response.prompt_tps:.0f}/s, {response.finish_reason}",
            style="dim",
        )
        return
    print_json(
        {
            "text": text,
            "answer": answer,
            "tokens": tokens,
            "logprob": logprob,
            "finish_reason": response.finish_reason,
            "prompt_tokens": response.prompt_tokens,
            "prompt_tps": response.prompt_tps,
            "generation_tps": response.generation_tps,
            "peak_memory": response.peak_memory,
            "stage": asked.question.stage.name if asked.question.stage else None,
            "settings": {
                "model": asking.model,
                "backend": asking.backend,
                "max_tokens": max_tokens,
                "temperature": temperature,
                "top_p": top_p,
                "top_k": top_k,
                "seed": seed,
            },
            "recordings": [recording.summary() for recording in asked.recordings],
            "notes": asked.notes,
        }
    )
