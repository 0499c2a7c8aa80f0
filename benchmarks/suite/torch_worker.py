"""What PyTorch does in the benchmarks, in a process of its own: in one, its threads and MLX's wait for each other.

`python -m benchmarks.suite.torch_worker SHAPE` builds the random model of that shape, then reads a line of JSON a
call, `{"what": …, "prompt": positions, …}`, and answers each with a line: `{"seconds": …, "values": {…}}`.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import mlx.core as mx
import numpy as np
import torch
from mlx.utils import tree_flatten
from torch import Tensor
from transformers.cache_utils import StaticCache

from benchmarks.suite.shapes import SHAPES, prompt_of, random_model
from mlx_tslm.system.memory import peak_resident
from mlx_tslm.torch_backend.decoding import PathDecoder
from mlx_tslm.torch_backend.model import TorchModel, TorchPrompt

_SPARE = 64  # steps that a static cache has room for


def torch_model(shape: str) -> TorchModel:
    """The benchmarks' random model; MLX draws its weights, and lets them go."""
    model = random_model(SHAPES[shape])
    parameters = cast(list[tuple[str, mx.array]], tree_flatten(model.parameters()))
    weights = {
        name: torch.from_numpy(np.array(array.astype(mx.float32))).to(
            getattr(torch, str(array.dtype).rpartition(".")[2])
        )
        for name, array in parameters
    }
    return TorchModel(model.config, model.tokenizer, None, weights)


class Work:
    """The calls, each timed within; what they need is made before, and once."""

    def __init__(self, model: TorchModel) -> None:
        self._model = model
        self._read = cache(lambda prompt: model.prefill(self._prompt(prompt)))
        self._static = cache(self._fill)

    def prefill(self, prompt: int) -> float:
        """Read a prompt."""
        asked = self._prompt(prompt)
        return self._timed(lambda: self._model.prefill(asked))

    def step(self, prompt: int, rows: int, before: int) -> float:
        """One token for each of `rows` answers with a static cache, `before` tokens behind the prompt."""
        step = self._static(prompt, rows, before)
        return self._timed(step)

    def job(self, prompt: int, rows: int, tokens: int) -> float:
        """transformers' `generate`: read the prompt and sample `rows` answers of so many tokens."""
        model, asked = self._model, self._prompt(prompt)

        def generate() -> None:
            embeddings = model.embed(asked).embeddings
            model.language_model.generate(
                inputs_embeds=embeddings,
                attention_mask=torch.ones(embeddings.shape[:2], dtype=torch.long, device=model.device),
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                num_return_sequences=rows,
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                pad_token_id=model.tokenizer.eos_token_id,
            )

        return self._timed(generate)

    def cached(self, prompt: int, tokens: int) -> float:
        """One rollout of so many tokens behind a prompt that was read, with a KV cache."""
        return self._rollout(self._read(prompt), tokens)

    def uncached(self, prompt: int, tokens: int) -> float:
        """So many tokens of one rollout without a cache, each with a pass over the whole prompt."""
        read = self._read(prompt)
        return self._rollout(TorchPrompt(read.fed, read.state, None), tokens)

    def _rollout(self, read: TorchPrompt, tokens: int) -> float:
        decoder = PathDecoder(self._model, read)

        def rollout() -> None:
            for node in range(tokens):
                row = self._model.language_model.lm_head(decoder.state(node)).float()
                token = torch.multinomial(torch.softmax(row, dim=-1), 1)
                decoder.step(np.array([node + 1]), np.array([node]), token[0].cpu().numpy())

        return self._timed(rollout)

    def _fill(self, prompt: int, rows: int, before: int) -> Callable[[], None]:
        model, read = self._model, self._read(prompt)
        assert read.cache is not None
        static = StaticCache(config=model.language_model.config, max_cache_len=prompt + before + _SPARE)
        for layer, own in zip(static.layers, read.cache.layers, strict=True):
            layer.update(own.keys.expand(rows, -1, -1, -1), own.values.expand(rows, -1, -1, -1))
        states = read.state.expand(rows, -1)

        def step() -> None:
            nonlocal states
            logits = model.language_model.lm_head(states).float()
            tokens = torch.multinomial(torch.softmax(logits, dim=-1), 1)[:, 0]
            states = self._advance(tokens, static)

        for _ in range(before):
            step()
        return step

    def _advance(self, tokens: Tensor, static: StaticCache) -> Tensor:
        embeddings = self._model.embed_tokens(tokens.tolist())[:, None]
        return self._model.language_model.model(
            inputs_embeds=embeddings, cache=static, use_cache=True
        ).last_hidden_state[:, 0]

    def _prompt(self, positions: int) -> Any:
        return prompt_of(self._model, positions)

    def _timed(self, call: Callable[[], Any]) -> float:
        started = time.perf_counter()
        call()
        if self._model.device.type == "cuda":
            torch.cuda.synchronize()
        elif self._model.device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter() - started


@torch.inference_mode()
def main() -> None:
    """Answer calls until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print must not come between the answers
    work = Work(torch_model(sys.argv[1]))
    for line in sys.stdin:
        call = json.loads(line)
        seconds = getattr(work, call.pop("what"))(**call)
        print(
            json.dumps({"seconds": seconds, "values": {"peak_resident": peak_resident()}}), file=answers, flush=True
        )


if __name__ == "__main__":
    main()
