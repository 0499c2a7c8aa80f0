"""What a converted folder's `config.json` says, as dataclasses."""

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Self

from pydantic import Field

from mlx_tslm.errors import TSLMError
from mlx_tslm.schema import Finite, validate

MODEL_TYPE = "opentslm_sp"
FLAMINGO_TYPE = "opentslm_flamingo"
MODEL_TYPES = (MODEL_TYPE, FLAMINGO_TYPE)
VARIANTS = ("sp", "flamingo")
"""OpenTSLM's names for the two kinds of model, soft prompt first."""
DTYPES = ("float32", "float16", "bfloat16")
"""What an LLM's weights may be stored in, as MLX and PyTorch both name them."""


Count = Annotated[int, Field(ge=1, le=1 << 20)]


def has_dtype_of_llm(name: str) -> bool:
    """Whether a parameter is stored as the LLM is; series encoders and adapters are float32 always."""
    return name.startswith(("language_model.", "gated_blocks.")) and not name.endswith((".lora_a", ".lora_b"))


@dataclass
class EncoderConfig:
    """Sizes of the time-series encoder; the defaults are those of the published checkpoints.

    `max_patches` is the length of the positional table: the longest series is `max_patches * patch_size` samples.
    """

    patch_size: Count = 4
    hidden_size: Count = 128
    num_hidden_layers: Annotated[int, Field(ge=0, le=1024)] = 6
    num_attention_heads: Count = 8
    intermediate_size: Count = 1024
    max_patches: Count = 1024
    layer_norm_eps: Annotated[float, Field(gt=0, lt=1)] = 1e-5

    def __post_init__(self) -> None:
        if self.num_hidden_layers and self.hidden_size % self.num_attention_heads:
            raise TSLMError(
                f"an encoder of width {self.hidden_size} does not divide into {self.num_attention_heads} heads"
            )

    @property
    def max_samples(self) -> int:
        """The longest series, in samples."""
        return self.max_patches * self.patch_size


@dataclass
class LoraConfig:
    """The adapters a checkpoint came with: `fused` into the base weights, or kept beside them."""

    rank: Count
    alpha: Finite
    target_modules: list[str]
    fused: bool = True

    @property
    def scale(self) -> float:
        """What the low-rank product is multiplied by."""
        return self.alpha / self.rank


@dataclass
class ModelConfig:
    """A converted model, of the soft-prompt variant where no subclass says otherwise.

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
        source: what it was made from and how, by which the cache tells models apart, or None.
        trained_on: for each stage that it was trained on, what its recordings spanned; see `depth.TrainedOn`.
    """

    text_config: dict[str, Any]
    encoder_config: EncoderConfig = field(default_factory=EncoderConfig)
    stage: str | None = None
    lora: LoraConfig | None = None
    quantization: dict[str, Any] | None = None
    pad_text_left: bool = False
    leads: list[str] | None = None
    source: dict[str, str | float | bool | list[str] | None] | None = None
    trained_on: dict[str, dict[str, Any]] | None = None
    model_type: str = MODEL_TYPE

    def __post_init__(self) -> None:
        if self.model_type != type(self).model_type:
            raise TSLMError(
                f"model_type {self.model_type!r} is not {' or '.join(MODEL_TYPES)}; convert the checkpoint again"
            )
        if self.quantization is not None:
            bits, group = self.quantization.get("bits"), self.quantization.get("group_size")
            if bits not in (2, 3, 4, 5, 6, 8) or group not in (32, 64, 128):
                raise TSLMError("quantization: bits or group_size is missing, or none that MLX has")

    @classmethod
    def from_dict(cls, params: Any) -> Self:
        """Build from what `config.json` holds; unknown keys are ignored, as in mlx-lm.

        Raises:
            TSLMError: a key is missing, of a wrong type or out of range (named).
        """
        config: Self = validate(cls, params)
        return config

    @staticmethod
    def read(params: Any) -> "ModelConfig":
        """`from_dict` of the class that `model_type` names."""
        kind = params.get("model_type") if isinstance(params, dict) else None
        return (FlamingoConfig if kind == FLAMINGO_TYPE else ModelConfig).from_dict(params)

    def to_dict(self) -> dict[str, Any]:
        """The inverse of `from_dict`, ready for JSON."""
        return asdict(self)


@dataclass
class CrossConfig:
    """Sizes of a Flamingo model's perceiver and gated blocks; the defaults are those of the published checkpoints.

    Args:
        num_latents: that all series together become.
        perceiver_layers: of the resampler, `perceiver_intermediate_size` wide inside.
        num_attention_heads: of perceiver and gated blocks, `head_size` wide.
        intermediate_size: of the gated blocks' feed-forward; four times the LLM's width where None.
    """

    num_latents: Count = 64
    perceiver_layers: Annotated[int, Field(ge=1, le=1024)] = 6
    perceiver_intermediate_size: Count = 512
    num_attention_heads: Count = 8
    head_size: Count = 64
    intermediate_size: Count | None = None


@dataclass
class FlamingoConfig(ModelConfig):
    """A converted model of the Flamingo variant.

    Args:
        cross_config: sizes of perceiver and gated blocks.
    """

    encoder_config: EncoderConfig = field(default_factory=lambda: EncoderConfig(num_hidden_layers=0))
    cross_config: CrossConfig = field(default_factory=CrossConfig)
    model_type: str = FLAMINGO_TYPE
