"""`generate`: one answer, streamed."""

import json
from typing import Annotated

import typer
from rich.text import Text

from mlx_tslm.cli import options, reading
from mlx_tslm.terminal import console, status


def generate(
    model: options.Model,
    series: options.SeriesFiles,
    question: options.Question = None,
    stage: options.StageName = None,
    backend: options.Backend = "mlx",
    task: options.Task = None,
    answers: options.Answers = None,
    template_id: options.TemplateId = None,
    clinical_context: options.ClinicalContext = None,
    channel: options.Channels = None,
    rate: options.Rate = None,
    source_rate: options.SourceRate = None,
    start: options.Start = 0.0,
    seconds: options.Seconds = None,
    case: reading.Case = None,
    fill: reading.Fill = None,
    delimiter: reading.Delimiter = None,
    decimal: reading.Decimal = None,
    time: reading.Time = None,
    skip_lines: reading.SkipLines = 0,
    max_gb: reading.MaxGb = 1.0,
    max_tokens: options.MaxTokens = 256,
    temperature: Annotated[
        float, typer.Option("--temperature", help="0 is greedy.", rich_help_panel="Sampling")
    ] = 0.0,
    top_p: options.TopP = None,
    top_k: options.TopK = None,
    seed: options.Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Answer a question about a recording."""
    wording = {
        "task": task,
        "answers": answers,
        "template_id": template_id,
        "clinical_context": clinical_context,
    }
    how = reading.Reading(
        channel, rate, source_rate, start, seconds, fill, case, delimiter, decimal, time, skip_lines, max_gb
    )
    asked = options.ask(model, backend, series, question, stage, wording, how, draw=not as_json)
    from mlx_tslm.generation import stream_generate

    tokens: list[int] = []
    logprob = 0.0
    text = ""
    for response in stream_generate(asked.model, asked.prompt, max_tokens, temperature, top_k, top_p, seed):
        tokens.append(response.token)
        logprob += response.logprob
        text += response.text
        if not as_json:
            console.print(Text(response.text), end="", soft_wrap=True)
    answer = asked.stage.parse(text, asked.context.labels)
    if not as_json:
        console.print()
        status.print(
            f"[dim]{len(tokens)} tokens at {response.generation_tps:.0f}/s, prompt of {response.prompt_tokens} "
            f"positions at {response.prompt_tps:.0f}/s, {response.finish_reason}[/]"
        )
        return
    print(
        json.dumps(
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
                "stage": asked.stage.name,
                "settings": {
                    "model": model,
                    "backend": backend,
                    "max_tokens": max_tokens,
                    "temperature": temperature,
                    "top_p": top_p,
                    "top_k": top_k,
                    "seed": seed,
                },
                "recordings": [recording.summary() for recording in asked.recordings],
                "notes": asked.notes,
            },
            ensure_ascii=False,
        )
    )
