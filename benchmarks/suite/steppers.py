"""One decode step in the ways that are compared: each class gives every row its next token, drawn from p."""

from collections.abc import Sequence
from typing import Any, Protocol, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_tslm.models import language_model as lm
from mlx_tslm.models.branch import ON_CPU
from mlx_tslm.models.cache import PromptCache
from mlx_tslm.models.cpu.elementwise import small_products
from mlx_tslm.models.soft_prompt import SoftPromptModel
from mlx_tslm.models.tree_decoder import ROOT, TreeDecoder
from mlx_tslm.sampling import Sampling
from mlx_tslm.stages.base import Prompt

_SAMPLING = Sampling()


class Stepper(Protocol):
    """What can take a decode step."""

    def step(self) -> None:
        """One token for every row."""


def repeat(stepper: Stepper, times: int) -> None:
    """So many steps."""
    for _ in range(times):
        stepper.step()


class SharedPrefix:
    """This package's way: all rows in one batch, the prompt's keys and values once."""

    def __init__(self, model: SoftPromptModel, prompt: PromptCache, rows: int) -> None:
        self.decoder = TreeDecoder(model.language_model, prompt)
        self._nodes = np.full(rows, ROOT, np.int32)
        self._next = 1
        self._rng = np.random.default_rng(0)

    def step(self) -> None:
        """One token for every row."""
        rows = len(self._nodes)
        uniforms = self._rng.random(rows, dtype=np.float32)
        tokens, log_p = _SAMPLING.draw(self.decoder.logits(self._nodes), uniforms)
        self.decoder.flush(tokens, log_p)
        nodes = np.arange(self._next, self._next + rows, dtype=np.int32)
        self._next += rows
        self.decoder.step(nodes, self._nodes, np.array(tokens))
        self.decoder.flush()
        self._nodes = nodes

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return self.decoder.nbytes


class CachedRow:
    """One rollout alone, with a KV cache: how `generate` decodes."""

    def __init__(self, model: SoftPromptModel, prompt: PromptCache) -> None:
        self._model, self._prompt = model.language_model, prompt
        self._rng = np.random.default_rng(0)
        self.restart()

    def restart(self) -> None:
        """Go back to the prompt, and make room for a rollout (the cache copies the prompt to grow)."""
        self._cache = self._prompt.fork()
        self._attend = lm.causal(self._model, self._cache)
        self._state = self._prompt.state
        self.step()

    def step(self) -> None:
        """One token."""
        uniform = self._rng.random(1, dtype=np.float32)
        token, _ = _SAMPLING.draw(lm.logits(self._model, self._state), uniform)
        self._state = lm.forward(self._model, lm.embed_tokens(self._model, token)[None], self._attend)[0]
        mx.eval(self._state, [(layer.keys, layer.values) for layer in self._cache])


class CopiedPrefix:
    """All rows in one batch through mlx-lm's own attention: the prompt's keys and values once for every row."""

    def __init__(self, model: SoftPromptModel, prompt: PromptCache, rows: int) -> None:
        self._model, self._prompt = model.language_model, prompt
        self._cache = cast(list[Any], prompt.fork())
        for layer in self._cache:
            layer.keys, layer.values = mx.repeat(layer.keys, rows, axis=0), mx.repeat(layer.values, rows, axis=0)
            mx.eval(layer.keys, layer.values)
        self._states = mx.repeat(prompt.state, rows, axis=0)
        self._rng = np.random.default_rng(0)

    def step(self) -> None:
        """One token for every row."""

        def attend(layer: int, attention: nn.Module, x: mx.array) -> mx.array:
            return attention(x, None, self._cache[layer])

        uniforms = self._rng.random(len(self._states), dtype=np.float32)
        tokens, _ = _SAMPLING.draw(lm.logits(self._model, self._states), uniforms)
        h = lm.embed_tokens(self._model, tokens)[:, None]
        self._states = lm.forward(self._model, h, attend)[:, 0]
        mx.eval(self._states, [(layer.keys, layer.values) for layer in self._cache])

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self._cache)


class Uncached:
    """One rollout alone without any cache: every token runs the whole prompt again, as SpecDiffTree does."""

    def __init__(self, model: SoftPromptModel, prompt: Prompt, tokens: int) -> None:
        self._model, self._prompt = model, prompt
        self._tokens = list(range(tokens))

    def step(self) -> None:
        """One token after `tokens` others."""
        mx.eval(self._model.score(self._prompt, self._tokens)[-1])


class BatchGeneration:
    """mlx-lm's BatchGenerator, every row with a copy of the prompt's cache.

    It runs on the default stream: on a CPU another stream is another thread with BLAS threads of its own, and with
    more of them than cores every matrix product of the process waits for its turn, ours among them.
    """

    def __init__(self, model: SoftPromptModel, prompt: PromptCache, rows: int, temperature: float) -> None:
        from mlx_lm.generate import BatchGenerator
        from mlx_lm.sample_utils import make_sampler

        self._generator = BatchGenerator(
            model.language_model,
            max_tokens=4096,
            sampler=make_sampler(temp=temperature),
            completion_batch_size=rows,
            prefill_batch_size=rows,
            stream=mx.default_stream(mx.default_device()),
        )
        caches: list[list[Any]] = [prompt.fork() for _ in range(rows)]
        self._generator.insert([[row] for row in range(rows)], caches=caches)
        while not self._generator.next()[1]:
            pass

    def step(self) -> None:
        """One token for every row."""
        self._generator.next()
        mx.synchronize()  # it begins the next token ahead, which must not run while something else is timed

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return self._generator.prompt_cache_nbytes


class MatrixProducts:
    """The floor: a step's matrix products alone, with the model's own weights.

    `parts` says which: "linears" of the layers, "head", "prefix" attention, "suffix" attention.
    """

    def __init__(
        self,
        model: SoftPromptModel,
        prompt: PromptCache | None,
        rows: int,
        suffix: int,
        parts: Sequence[str] = ("linears", "head", "prefix", "suffix"),
    ) -> None:
        layers = model.language_model.layers
        head = model.language_model.model.embed_tokens.weight
        pairs: list[tuple[mx.array, mx.array]] = []
        small: list[tuple[mx.array, mx.array]] = []
        inputs = {width: mx.random.normal((rows, width)) for width in _widths(layers, head)}
        for index, layer in enumerate(layers):
            attention, mlp = layer.self_attn, layer.mlp
            if "linears" in parts:
                modules = (
                    *(attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj),
                    *(mlp.gate_proj, mlp.up_proj, mlp.down_proj),
                )
                pairs += [(inputs[module.weight.shape[1]], module.weight.T) for module in modules]
            if prompt is not None and "prefix" in parts:
                keys, values = prompt.keys[index], prompt.values[index]
                folded = (keys.shape[0], rows * attention.n_heads // keys.shape[0])
                pairs += [
                    (mx.random.normal((*folded, keys.shape[-1])), keys.swapaxes(-1, -2)),
                    (mx.random.normal((*folded, keys.shape[1])), values),
                ]
            if prompt is not None and "suffix" in parts and suffix:
                heads, width = prompt.keys[index].shape[0], prompt.keys[index].shape[-1]
                group = (rows, heads, attention.n_heads // heads)
                own = mx.random.normal((rows, heads, suffix, width))
                small += [
                    (mx.random.normal((*group, width)), own.swapaxes(-1, -2)),
                    (mx.random.normal((*group, suffix)), own),
                ]
        if "head" in parts:
            pairs.append((inputs[head.shape[1]], head.T))
        mx.eval(pairs, small)
        self._pairs, self._small = pairs, small

    def step(self) -> None:
        """All products once."""
        mx.eval([left @ right for left, right in self._pairs])
        multiply = small_products if ON_CPU else mx.matmul
        mx.eval([multiply(left, right) for left, right in self._small])


def _widths(layers: Sequence[nn.Module], head: mx.array) -> set[int]:
    first = layers[0]
    modules = (first.self_attn.q_proj, first.self_attn.o_proj, first.mlp.down_proj)
    return {head.shape[1], *(module.weight.shape[1] for module in modules)}
