"""What a converted folder's `config.json` says, as dataclasses."""

from __future__ import annotations

import inspect
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from mlx_tslm.errors import TSLMError

MODEL_TYPE = "opentslm_sp"
DTYPES = ("float32", "float16", "bfloat16")
"""What an LLM's weights may be stored in, as MLX and PyTorch both name them."""


class _FromDict:
    @classmethod
    def from_dict(cls, params: dict[str, Any]) -> Self:
        """Build from a dictionary; unknown keys are ignored, as in mlx-lm."""
        return cls(**{key: value for key, value in params.items() if key in inspect.signature(cls).parameters})


@dataclass
class EncoderConfig(_FromDict):
    """Sizes of the time-series encoder; the defaults are those of the published checkpoints.

    `max_patches` is the length of the positional table: the longest series is `max_patches * patch_size` samples.
    """

    patch_size: int = 4
    hidden_size: int = 128
    num_hidden_layers: int = 6
    num_attention_heads: int = 8
    intermediate_size: int = 1024
    max_patches: int = 1024
    layer_norm_eps: float = 1e-5

    @property
    def max_samples(self) -> int:
        """The longest series, in samples."""
        return self.max_patches * self.patch_size


@dataclass
class LoraConfig(_FromDict):
    """The adapters a checkpoint came with: `fused` into the base weights, or kept beside them."""

    rank: int
    alpha: float
    target_modules: list[str]
    fused: bool = True

    @property
    def scale(self) -> float:
        """What the low-rank product is multiplied by."""
        return self.alpha / self.rank


@dataclass
class ModelConfig(_FromDict):
    """A converted soft-prompt model.

    Args:
        text_config: the base LLM's own `config.json`.
        encoder_config: sizes of the encoder.
        stage: the curriculum stage it was trained for ("stage1" … "stage5"), or None.
        lora: the adapters, or None.
        quantization: mlx-lm's `{"group_size", "bits", "mode"}` for the LLM's linear layers, or None.
        pad_text_left: repeat the original's treatment of tokenizers that pad on the left (Gemma): the pieces of
            a prompt are padded to the longest and cut from the left, so short ones lose their ends to padding.
            Off by default; see the README.
        leads: of an ECG, the leads it was trained to read, or None for all twelve.
        trained_on: for each stage that it was trained on, what its recordings spanned; see `depth.TrainedOn`.
    """

    text_config: dict[str, Any]
    encoder_config: EncoderConfig = field(default_factory=EncoderConfig)
    stage: str | None = None
    lora: LoraConfig | None = None
    quantization: dict[str, Any] | None = None
    pad_text_left: bool = False
    leads: list[str] | None = None
    trained_on: dict[str, dict[str, Any]] | None = None
    model_type: str = MODEL_TYPE

    def __post_init__(self) -> None:
        if isinstance(self.encoder_config, dict):
            self.encoder_config = EncoderConfig.from_dict(self.encoder_config)
        if isinstance(self.lora, dict):
            self.lora = LoraConfig.from_dict(self.lora)
        if self.model_type != MODEL_TYPE:
            raise TSLMError(
                f"config.json: model_type {self.model_type!r} is not {MODEL_TYPE!r}; convert the checkpoint again"
            )

    def to_dict(self) -> dict[str, Any]:
        """The inverse of `from_dict`, ready for JSON."""
        return asdict(self)
