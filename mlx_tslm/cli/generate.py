"""`generate`: one answer, streamed."""

import math
from typing import Annotated

import typer
from rich.text import Text

from mlx_tslm.cli import options, outputs
from mlx_tslm.cli.reading import Reading
from mlx_tslm.cli.terminal import console, json_text, note, status
from mlx_tslm.cli.words import examples

EXAMPLES = examples(
    "mlx-tslm generate --model demo --series airline.csv",
    'mlx-tslm generate --model stage5 --series ecg/s0010_re --rate 100 --question "Is the rhythm regular?"',
    "mlx-tslm generate --model demo --series airline.csv --json - | jq .answer",
)


@options.expand
def generate(
    asking: options.Asking,
    reading: Reading,
    max_tokens: options.MaxTokens = 256,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0, help="0 is greedy.", rich_help_panel="Sampling")
    ] = 0.0,
    top_p: Annotated[
        float | None, typer.Option("--top-p", help="Keep the most probable mass.", rich_help_panel="Sampling")
    ] = None,
    top_k: options.TopK = None,
    seed: options.Seed = 0,
    json_file: outputs.JsonFile = None,
) -> None:
    """Answer a question about a recording."""
    from mlx_tslm.generation import check, stream_generate

    check(max_tokens, temperature, top_k, top_p, seed)
    outputs.check(json=json_file)
    asked = asking.ask(reading)
    tokens: list[int] = []
    logprob = drawn = 0.0
    text = ""
    for response in stream_generate(asked.model, asked.question, max_tokens, temperature, top_k, top_p, seed):
        tokens.append(response.token)
        logprob += response.model_logprob
        drawn += response.logprob
        text += response.text
        console.print(Text(response.text), end="", soft_wrap=True)
    answer, labels = asked.question.parse(text), asked.question.labels
    console.print()
    if labels and answer not in labels:
        asked.notes.append(f"no allowed answer: {answer or 'none was given'}")
        note(asked.notes[-1])
        answer = None
    status.print(
        f"{len(tokens)} tokens at {response.generation_tps:.0f}/s, prompt of {response.prompt_tokens} "
        f"positions at {response.prompt_tps:.0f}/s, {response.finish_reason}",
        style="dim",
    )
    if json_file is None:
        return
    outputs.write(
        json_file,
        json_text(
            {
                "text": text,
                "answer": answer,
                "tokens": tokens,
                "logprob": logprob if math.isfinite(logprob) else None,
                "logprob_under": f"{asked.model.sampling} of the model",
                "logprob_drawn": drawn,
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
        ),
        "the answer",
    )
