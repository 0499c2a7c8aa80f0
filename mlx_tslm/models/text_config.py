"""What a base LLM's `config.json` may say: one schema, with everything that has a say in the arithmetic.

A key is honoured (it goes to mlx-lm's model), or refused where its value would change the arithmetic in a way that
is not computed here, or harmless. Keys that are in none of these are named by `unknown`. Defaults, and which of two
spellings wins, are those of transformers, which mlx-lm's own differ from in places.
"""

import math
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from mlx_tslm.errors import TSLMError
from mlx_tslm.schema import Finite, Positive, validate

KINDS = ("llama", "gemma3_text")


def _refuse(value: object) -> object:
    raise ValueError("it changes the model's arithmetic in a way that is not supported")


Refused = Annotated[Any, AfterValidator(_refuse)]
Size = Annotated[int, Field(ge=1, le=1 << 20)]
TokenId = Annotated[int, Field(ge=0, lt=1 << 31)]
TokenIds = TokenId | list[TokenId] | None


@dataclass(frozen=True)
class Rope:
    """Rotary positions. `dynamic` and `longrope` depend on the length of the whole text, which a tree has not."""

    rope_type: Literal["default", "linear", "llama3", "yarn"] = "default"
    rope_theta: Positive | None = None
    factor: Positive | None = None
    original_max_position_embeddings: Size | None = None
    low_freq_factor: Positive | None = None
    high_freq_factor: Positive | None = None
    attention_factor: Positive | None = None
    beta_fast: Positive | None = None
    beta_slow: Positive | None = None
    mscale: Finite | None = None
    mscale_all_dim: Finite | None = None
    truncate: Literal[True] = True
    partial_rotary_factor: Annotated[float, Field(ge=1, le=1)] = 1
    finetuned: bool = True  # said by the first YaRN models, and without effect

    def __post_init__(self) -> None:
        needed = {"linear": ["factor"], "llama3": ["factor", "low_freq_factor", "high_freq_factor"]}
        for name in needed.get(self.rope_type, ["factor"] if self.rope_type == "yarn" else []):
            if getattr(self, name) is None:
                raise ValueError(f"rope_type {self.rope_type} needs {name}")
        if self.rope_type == "llama3" and self.low_freq_factor == self.high_freq_factor:
            raise ValueError("low_freq_factor and high_freq_factor must differ")

    def to_mlx(self, positions: int) -> dict[str, Any] | None:
        """mlx-lm's `rope_scaling`; `positions` is the context where the original one is not stated."""
        if self.rope_type == "default":
            return None
        scaling: dict[str, Any] = {"rope_type": self.rope_type, "factor": self.factor}
        if self.rope_type == "linear":
            return scaling
        scaling["original_max_position_embeddings"] = self.original_max_position_embeddings or positions
        if self.rope_type == "llama3":
            return scaling | {"low_freq_factor": self.low_freq_factor, "high_freq_factor": self.high_freq_factor}
        return scaling | {
            "beta_fast": self.beta_fast or 32, "beta_slow": self.beta_slow or 1, "mscale": self._mscale()
        }  # fmt: skip

    def _mscale(self) -> float:
        """YaRN's scale of queries and keys, as the number from which mlx-lm computes it."""
        assert self.factor is not None
        log = 0.1 * math.log(self.factor)
        wanted = self.attention_factor
        if wanted is None:
            both = self.mscale and self.mscale_all_dim
            wanted = (self.mscale * log + 1) / (self.mscale_all_dim * log + 1) if both and log > 0 else None  # type: ignore[operator]
        if wanted is None:
            return 1.0
        if log <= 0 and wanted != 1:
            raise TSLMError("rope_parameters: attention_factor needs a factor above 1")
        return (wanted - 1) / log if log > 0 else 1.0


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """What Llama and Gemma 3 have in common."""

    model_type: str
    vocab_size: Annotated[int, Field(ge=1, le=1 << 22)]
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Annotated[int, Field(ge=1, le=1024)]
    num_attention_heads: Annotated[int, Field(ge=1, le=4096)]
    num_key_value_heads: Annotated[int, Field(ge=1, le=4096)] | None = None
    head_dim: Annotated[int, Field(ge=2, le=4096, multiple_of=2)] | None = None
    rms_norm_eps: Annotated[float, Field(ge=0, lt=1)] = 1e-6
    max_position_embeddings: Annotated[int, Field(ge=1, le=1 << 31)] | None = None
    tie_word_embeddings: bool | None = None
    rope_theta: Positive | None = None
    rope_scaling: dict[str, Any] | None = None
    rope_parameters: dict[str, Any] | None = None
    original_max_position_embeddings: Size | None = None
    partial_rotary_factor: Annotated[float, Field(ge=1, le=1)] = 1
    rope_traditional: Literal[False] = False
    bos_token_id: TokenIds = None
    eos_token_id: TokenIds = None
    pad_token_id: TokenIds = None
    dtype: Literal["float32", "float16", "bfloat16", "auto"] | None = None
    torch_dtype: Literal["float32", "float16", "bfloat16", "auto"] | None = None
    sliding_window: Size | None = None
    layer_types: list[Literal["full_attention", "sliding_attention"]] | None = None
    quantization: Refused = None
    quantization_config: Refused = None

    def __post_init__(self) -> None:
        heads, groups = self.num_attention_heads, self.num_key_value_heads
        if self.hidden_size % heads:
            raise ValueError(f"num_attention_heads {heads} does not divide hidden_size {self.hidden_size}")
        if groups is not None and heads % groups:
            raise ValueError(f"num_attention_heads {heads} is no multiple of num_key_value_heads {groups}")
        if self.head_dim is None and self.hidden_size // heads % 2:
            raise ValueError(f"{heads} heads of {self.hidden_size // heads} are of an odd width")
        if self.layer_types is not None and len(self.layer_types) != self.num_hidden_layers:
            raise ValueError(
                f"layer_types names {len(self.layer_types)} layers, but num_hidden_layers is "
                f"{self.num_hidden_layers}"
            )

    def _shared(self) -> dict[str, Any]:
        names = (
            "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
            "num_attention_heads", "rms_norm_eps",
        )  # fmt: skip
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class Llama(TextConfig):
    """Llama 2 and 3."""

    hidden_act: Literal["silu", "swish"] = "silu"
    attention_bias: bool = False
    mlp_bias: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer_types and "sliding_attention" in self.layer_types:
            raise ValueError("layer_types: a Llama has full attention everywhere")

    def mlx_args(self) -> dict[str, Any]:
        """The arguments of mlx-lm's `llama.ModelArgs`."""
        given = {"rope_theta": self.rope_theta or 10000.0, **_spelt(self.rope_scaling or self.rope_parameters)}
        if self.original_max_position_embeddings:
            given["original_max_position_embeddings"] = self.original_max_position_embeddings
        rope: Rope = validate(Rope, given, "rope_parameters", forbid=True)
        return {
            **self._shared(),
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.max_position_embeddings,
            "attention_bias": self.attention_bias,
            "mlp_bias": self.mlp_bias,
            "rope_theta": rope.rope_theta,
            "rope_scaling": rope.to_mlx(self.max_position_embeddings or 2048),
            "tie_word_embeddings": self.tie_word_embeddings is not False,
        }


@dataclass(frozen=True, kw_only=True)
class Gemma3(TextConfig):
    """Gemma 3, text only. Which layers attend to a window must follow a period, as mlx-lm has it."""

    hidden_activation: Literal["gelu_pytorch_tanh"] = "gelu_pytorch_tanh"
    hidden_act: Literal["gelu_pytorch_tanh"] = "gelu_pytorch_tanh"
    attention_bias: Literal[False] = False
    query_pre_attn_scalar: Positive = 256
    final_logit_softcapping: Refused = None
    attn_logit_softcapping: Refused = None
    use_bidirectional_attention: Literal[False] = False
    sliding_window_pattern: Size | None = None
    rope_local_base_freq: Positive | None = None

    def mlx_args(self) -> dict[str, Any]:
        """The arguments of mlx-lm's `gemma3_text.ModelArgs`."""
        nested = self.rope_parameters or {}
        if flat := next((key for key in nested if key not in ("full_attention", "sliding_attention")), None):
            raise TSLMError(
                f"rope_parameters: {flat} stands outside of full_attention and sliding_attention, where Gemma 3 "
                "looks for it"
            )
        far = _spelt(nested.get("full_attention")) | _spelt(self.rope_scaling)
        near = _spelt(nested.get("sliding_attention"))
        far = {"rope_theta": self.rope_theta or 1_000_000.0, **far}
        near = {"rope_theta": self.rope_local_base_freq or 10_000.0, **near}
        if near.get("rope_type", "default") != "default":
            raise TSLMError("rope_parameters: scaling of sliding_attention is not supported")
        full: Rope = validate(Rope, far, "rope_parameters: full_attention", forbid=True)
        sliding: Rope = validate(Rope, near, "rope_parameters: sliding_attention", forbid=True)
        positions = self.max_position_embeddings or 131072
        return {
            **self._shared(),
            "num_key_value_heads": self.num_key_value_heads or 4,
            "head_dim": self.head_dim or 256,
            "max_position_embeddings": positions,
            "query_pre_attn_scalar": self.query_pre_attn_scalar,
            "sliding_window": self.sliding_window or 4096,
            "sliding_window_pattern": self._pattern(),
            "rope_theta": full.rope_theta,
            "rope_local_base_freq": sliding.rope_theta,
            "rope_scaling": full.to_mlx(positions),
        }

    def _pattern(self) -> int:
        """Every how many layers one attends to everything."""
        if self.layer_types is None:
            return self.sliding_window_pattern or 6
        kinds = self.layer_types
        pattern = kinds.index("full_attention") + 1 if "full_attention" in kinds else len(kinds) + 1
        for index, kind in enumerate(kinds):
            if (kind == "full_attention") != ((index + 1) % pattern == 0):
                raise TSLMError(
                    f"layer_types: layer {index} breaks the period of {pattern}, which is not supported"
                )
        return pattern


_SCHEMAS: dict[str, type[Llama] | type[Gemma3]] = {"llama": Llama, "gemma3_text": Gemma3}
_HARMLESS = {
    "architectures", "attention_dropout", "auto_map", "cache_implementation", "initializer_range", "is_decoder",
    "pretraining_tp", "transformers_version", "unsloth_fixed", "unsloth_version", "use_cache",
    "_attn_implementation", "_attn_implementation_autoset", "_name_or_path", "_sliding_window_pattern",
    "add_cross_attention", "bad_words_ids", "begin_suppress_tokens", "chunk_size_feed_forward",
    "decoder_start_token_id", "finetuning_task", "id2label", "label2id", "max_length", "min_length", "num_labels",
    "output_attentions", "output_hidden_states", "problem_type", "return_dict", "task_specific_params",
    "tokenizer_class", "torchscript", "model_file", "is_encoder_decoder", "tf_legacy_loss", "use_bfloat16",
    "mlp_dropout", "_commit_hash", "name_or_path", "prefix", "custom_generate",
}  # fmt: skip


def read(config: dict[str, Any]) -> Llama | Gemma3:
    """Check a `config.json` of a base LLM.

    Raises:
        TSLMError: a key is missing, of a wrong type, out of range, or says something that is not computed here
            (named); or the model is neither a Llama nor a Gemma 3 text model.
    """
    kind = config.get("model_type")
    if kind not in KINDS:
        raise TSLMError(
            f"base LLM of type {str(kind)[:40]!r} is not supported (model_type); use a Llama or a Gemma 3 text one"
        )
    given = {key: value for key, value in config.items() if value is not None}  # null says nothing
    text: Llama | Gemma3 = validate(_SCHEMAS[kind], given)
    text.mlx_args()
    return text


def unknown(config: dict[str, Any]) -> list[str]:
    """Keys that are in no list here, so that nobody knows whether they have a say."""
    known = {one.name for one in fields(_SCHEMAS[config["model_type"]])} | _HARMLESS
    return sorted(key for key, value in config.items() if key not in known and value is not None)


def _spelt(rope: Any) -> dict[str, Any]:
    """A set of rope parameters in today's spelling; `rope_type` wins over the older `type`."""
    if rope is None:
        return {}
    if not isinstance(rope, dict):
        raise TSLMError(f"rope_parameters: {str(rope)[:40]!r} is no table")
    rope = {key: value for key, value in rope.items() if value is not None}
    kind = rope.pop("type", "default")
    return {"rope_type": kind} | rope
