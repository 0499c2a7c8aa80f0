"""Models of published shapes with random weights: honest for speed and memory, worthless for answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, cast

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from mlx_tslm.errors import TSLMError
from mlx_tslm.models.base import BaseModel
from mlx_tslm.models.config import EncoderConfig, ModelConfig
from mlx_tslm.models.soft_prompt import SoftPromptModel
from mlx_tslm.series import Series
from mlx_tslm.stages.base import Prompt

_LOGIT_DEVIATION = 6.5
"""A next token then has an entropy of about 2 nats at a vocabulary of 50 to 130 thousand."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama-shaped LLM with tied embeddings.

    Args:
        name: as the tables call it.
        hidden, layers, inner, heads, kv_heads, head_dim, vocab: as in a `config.json`.
        dtype: "float32", or "bfloat16".
    """

    name: str
    hidden: int
    layers: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    dtype: str = "float32"

    @property
    def linears(self) -> list[tuple[int, int]]:
        """One layer's linear maps, (in, out) each: q, k, v, o, gate, up, down."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return [
            (self.hidden, queries),
            (self.hidden, keys),
            (self.hidden, keys),
            (queries, self.hidden),
            (self.hidden, self.inner),
            (self.hidden, self.inner),
            (self.inner, self.hidden),
        ]

    @property
    def layer_parameters(self) -> int:
        """Weights of all layers' linear maps."""
        return self.layers * sum(map(prod, self.linears))

    @property
    def head_parameters(self) -> int:
        """Weights of the embedding table, which is the output head too."""
        return self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        """Weights of the whole LLM, norms left out."""
        return self.layer_parameters + self.head_parameters

    @property
    def kv_per_position(self) -> int:
        """Numbers that one position's keys and values take, in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim

    @property
    def kv_bytes(self) -> int:
        """Bytes that one position's keys and values take, in all layers."""
        return self.kv_per_position * getattr(mx, self.dtype).size

    def text_config(self) -> dict[str, Any]:
        """The `config.json` of such a model."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "intermediate_size": self.inner,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 8192,
            "rope_theta": 100000.0,
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": True,
            "vocab_size": self.vocab,
            "bos_token_id": self.vocab - 2,
            "eos_token_id": self.vocab - 1,
            "torch_dtype": "bfloat16",
        }


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("tiny", 64, 2, 128, 4, 2, 16, 512),
        Shape("SmolLM2-135M", 576, 30, 1536, 9, 3, 64, 49152),
        Shape("Llama-3.2-1B", 2048, 16, 8192, 32, 8, 64, 128256),
        Shape("Llama-3.2-1B-bf16", 2048, 16, 8192, 32, 8, 64, 128256, "bfloat16"),
    )
}


class SyntheticTokenizer:
    """A token a word, by its hash; enough to make prompts of a wanted length and to print answers."""

    def __init__(self, vocab: int) -> None:
        self.bos_token_id, self.eos_token_id = vocab - 2, vocab - 1
        self.pad_token_id = None
        self.all_special_ids = [self.bos_token_id, self.eos_token_id]

    def encode(self, text: str) -> list[int]:
        """BOS and one token a word."""
        return [self.bos_token_id, *(sum(word.encode()) % self.bos_token_id for word in text.split())]

    def decode(self, tokens: Sequence[int], skip_special_tokens: bool = False) -> str:
        """The ids, in figures."""
        shown = [one for one in tokens if not (skip_special_tokens and one in self.all_special_ids)]
        return " ".join(map(str, shown))


def random_model(shape: Shape, seed: int = 0) -> SoftPromptModel:
    """A model of that shape and the published encoder, every weight random; encoder and projector in float32.

    The final norm is scaled so that a next token has about the entropy of a trained model's: with the weights of
    a fresh initialisation no two rollouts would ever share a token.
    """
    model = SoftPromptModel(
        ModelConfig(shape.text_config(), EncoderConfig()),
        SyntheticTokenizer(shape.vocab),
    )
    keys = mx.random.split(mx.random.key(seed), 4096)
    weights = []
    parameters = cast(list[tuple[str, mx.array]], tree_flatten(model.parameters()))
    for (name, array), key in zip(parameters, keys, strict=False):
        if name.endswith("weight") and array.ndim >= 2:
            array = mx.random.normal(array.shape, key=key) / array.shape[-1] ** 0.5
        elif name.endswith("bias"):
            array = mx.zeros_like(array)  # not what MLX has drawn: the same model in every process
        weights.append((name, array))
    model.update(tree_unflatten(weights))
    norm = model.language_model.model.norm
    norm.weight = norm.weight * _LOGIT_DEVIATION  # rows of the embedding table have a norm of about 1
    model.language_model.set_dtype(getattr(mx, shape.dtype))
    model.eval()
    mx.eval(model.parameters())
    return model


def prompt_of(model: BaseModel, positions: int, seed: int = 0) -> Prompt:
    """A prompt of that many positions, half of it series; from 3000 on a 12-lead ECG of 1000 samples a lead."""
    leads = 12 if positions >= 3000 else 1
    samples = 1000 if leads == 12 else 4 * min(positions // 2, 1000)
    rng = np.random.default_rng(seed)
    series = [Series(f"lead {lead}", rng.standard_normal(samples)) for lead in range(leads)]
    taken = sum(len(model.tokenizer.encode(one.text)) + -(-len(one.values) // 4) for one in series)
    words = positions - taken - 2  # pre and post open with a BOS each
    if words < 1:
        least = positions - words + 1
        raise TSLMError(f"a prompt of {positions} positions is too short for its series; take {least} or more")
    return Prompt(" ".join(f"w{i * 7919 % 9973}" for i in range(words)), series, "")
