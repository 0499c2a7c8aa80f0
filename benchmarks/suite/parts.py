"""Where a decode step goes: its operations, each alone, with a step's shapes and as often as a step has them."""

from collections.abc import Callable, Mapping

import mlx.core as mx
import numpy as np
from mlx_lm.models.activations import swiglu

from benchmarks.suite.measure import Variant, timed
from benchmarks.suite.steppers import MatrixProducts
from mlx_tslm.models.branch import ON_CPU
from mlx_tslm.models.cache import PromptCache
from mlx_tslm.models.cpu.elementwise import joint_softmax_terms, silu
from mlx_tslm.models.soft_prompt import SoftPromptModel
from mlx_tslm.models.tree_decoder import FIRST_CAPACITY, SPARE
from mlx_tslm.sampling import Sampling

PRODUCTS = {
    "linear maps": "linears",
    "output head": "head",
    "attention to the prompt: products": "prefix",
    "attention to a row's own tokens: products": "suffix",
}
"""Names of the matrix products, with those of `MatrixProducts`."""
SOFTMAX, SILU, GLUE, KEPT, DRAW = "softmax", "SiLU", "norms, RoPE, sums", "keys and values kept", "draw"
NAMES = (*PRODUCTS, SOFTMAX, SILU, GLUE, KEPT, DRAW)


def calls(model: SoftPromptModel, prompt: PromptCache, rows: int, suffix: int) -> Mapping[str, Variant]:
    """For each of `NAMES`, what times it: `rows` rows with `suffix` tokens of their own behind the prompt."""
    llm = model.language_model
    attention, mlp = llm.layers[0].self_attn, llm.layers[0].mlp
    hidden, vocab = prompt.state.shape[-1], llm.model.embed_tokens.weight.shape[0]
    kv_heads, length, width = prompt.keys[0].shape
    normal = mx.random.normal
    x, inner = normal((rows, 1, hidden)), normal((rows, 1, mlp.up_proj.weight.shape[0]))
    queries, keys = normal((rows, attention.n_heads, 1, width)), normal((rows, kv_heads, 1, width))
    folded = (kv_heads, rows * attention.n_heads // kv_heads)
    far, near = normal((*folded, length)), normal((*folded, suffix))  # their exponentials replace them, as good
    pool, buffer = mx.zeros((FIRST_CAPACITY, kv_heads, width)), mx.zeros((rows, kv_heads, suffix + SPARE, width))
    logits, uniforms = normal((rows, vocab)), np.random.default_rng(0).random(rows, dtype=np.float32)
    index = mx.arange(rows)
    mx.eval(x, inner, queries, keys, far, near, pool, buffer, logits, index)

    def keep() -> None:
        for _ in ("keys", "values"):
            pool[index] = keys[:, :, 0]
            buffer[:, :, suffix : suffix + 1] = keys
            mx.eval(pool, buffer)

    def glue() -> None:
        norms = [llm.layers[0].input_layernorm(x) + x for _ in range(2)]
        mx.eval(norms, attention.rope(queries, offset=length), attention.rope(keys, offset=length))

    def softmax() -> None:
        if ON_CPU:
            joint_softmax_terms(far, near)
        else:
            mx.eval(mx.softmax(mx.concatenate([far, near], axis=-1), axis=-1, precise=True))

    a_layer: dict[str, Callable[[], object]] = {
        SOFTMAX: softmax,
        SILU: lambda: mx.eval(silu(inner) * inner if ON_CPU else swiglu(inner, inner)),
        GLUE: glue,
        KEPT: keep,
    }

    def in_all_layers(call: Callable[[], object]) -> Variant:
        return lambda: timed(lambda: [call() for _ in llm.layers])

    def product(part: str) -> Variant:
        products = MatrixProducts(model, prompt, rows, suffix, [part])
        return lambda: timed(products.step)

    return {
        **{name: product(part) for name, part in PRODUCTS.items()},
        **{name: in_all_layers(call) for name, call in a_layer.items()},
        DRAW: lambda: timed(lambda: mx.eval(Sampling().draw(logits, uniforms))),
    }
