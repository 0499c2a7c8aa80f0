"""What an OpenTSLM soft-prompt checkpoint says: encoder, projector, adapters."""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlx_tslm.conversion import flamingo, keymap
from mlx_tslm.conversion.flamingo import FlamingoCheckpoint
from mlx_tslm.conversion.pt import reader
from mlx_tslm.conversion.pt.tensors import Record, Tensor
from mlx_tslm.errors import TSLMError
from mlx_tslm.models.config import EncoderConfig

# Options of PEFT's LoraConfig that change the arithmetic of a forward pass in ways not implemented here.
_UNSUPPORTED = (
    "use_dora", "lora_bias", "fan_in_fan_out", "modules_to_save", "target_parameters", "layer_replication",
    "use_qalora", "alora_invocation_tokens", "trainable_token_indices", "use_bdlora", "arrow_config",
    "kasa_config", "monteclora_config",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Adapter:
    """A low-rank update of a linear layer: `scale * b @ a`, with a `[r, in]` and b `[out, r]`."""

    a: Tensor
    b: Tensor
    scale: float

    @property
    def rank(self) -> int:
        """The inner size of the product."""
        return self.a.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """`[out, in]`, the shape of the weight it updates."""
        return self.b.shape[0], self.a.shape[1]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A soft-prompt checkpoint, checked. Tensors have torch's names; `adapters` the base's module names."""

    encoder: dict[str, Tensor]
    projector: dict[str, Tensor]
    encoder_config: EncoderConfig
    adapters: dict[str, Adapter] = field(default_factory=dict)
    target_modules: list[str] = field(default_factory=list)
    adapts_all_layers: bool = False

    variant = "sp"

    @property
    def output_size(self) -> int:
        """The width the projector maps to: the base LLM's hidden size."""
        return self.projector["projector.1.weight"].shape[0]


def open_checkpoint(path: str | Path, variant: str | None = None) -> Checkpoint | FlamingoCheckpoint:
    """Read a checkpoint, see of which variant it is, and check that it is whole.

    Args:
        path: the `.pt` file.
        variant: the one it is supposed to be of, "sp" or "flamingo"; None for either.

    Raises:
        TSLMError: as `reader.read`; or it is of the other variant; or a tensor is missing, unexpected or of the
            wrong shape (named); or its adapters are of a kind that is not supported.
    """
    name = Path(path).name
    content = reader.read(path)
    try:
        return _interpret(content, variant)
    except TSLMError as error:
        raise TSLMError(f"{name}: {error}") from None


def _interpret(content: dict[str, Any], variant: str | None) -> Checkpoint | FlamingoCheckpoint:
    whole = next((key for key in ("llm", "model_state") if key in content), None)
    found = "flamingo" if whole else "sp" if "encoder_state" in content else variant
    if variant is not None and variant != found:
        names = {"sp": "a soft-prompt", "flamingo": "a Flamingo"}
        raise TSLMError(
            f"this is {names[str(found)]} checkpoint, not {names[variant]} one; give --variant {found}, or none"
        )
    if whole is not None:
        return flamingo.interpret(_state(content, whole))
    encoder, projector = _state(content, "encoder_state"), _state(content, "projector_state")
    config = keymap.infer_encoder(encoder)
    keymap.check("encoder_state", encoder, keymap.encoder_shapes(config))
    output = projector["projector.1.weight"].shape[:1] if "projector.1.weight" in projector else ()
    shapes = keymap.projector_shapes(config.hidden_size, *(output or (0,)))
    keymap.check("projector_state", projector, shapes)
    if not (content.get("lora_enabled") or content.get("lora_state")):
        return Checkpoint(encoder, projector, config)
    lora = _lora_config(content.get("lora_config"))
    adapters = _adapters(_state(content, "lora_state"), lora)
    stated = lora.get("target_modules")
    listed = isinstance(stated, set | list | tuple)  # PEFT also takes a regular expression
    targets = stated if listed else {module.rpartition(".")[2] for module in adapters}
    everywhere = listed and not (lora.get("layers_to_transform") or lora.get("exclude_modules"))
    return Checkpoint(encoder, projector, config, adapters, sorted(targets), everywhere)


def _state(content: dict[str, Any], key: str) -> dict[str, Tensor]:
    state = content.get(key)
    if not isinstance(state, dict):
        has = ", ".join(str(name) for name in list(content)[:6])
        raise TSLMError(f"this is no OpenTSLM checkpoint: {key} is missing; it has {has or 'nothing'}")
    for name, tensor in state.items():
        if not isinstance(name, str) or not name.isprintable():
            raise TSLMError(f"{key}: {name!r} is no name of a tensor")
        if not isinstance(tensor, Tensor):
            raise TSLMError(f"{key}: {name} is a {type(tensor).__name__}, not a tensor")
        if tensor.size * tensor.itemsize > len(tensor.storage.buffer):
            raise TSLMError(f"{key}: {name} claims more elements than the file holds")
    return state


def _lora_config(value: Any) -> Record:
    if isinstance(value, dict):
        if len(value) != 1:
            raise TSLMError(f"lora_config has {len(value)} adapters; one is supported")
        value = next(iter(value.values()))
    if not isinstance(value, Record):
        raise TSLMError("lora_config is missing: without it the adapters' scale is unknown")
    if option := next((option for option in _UNSUPPORTED if value.get(option)), None):
        raise TSLMError(f"lora_config: {option} is set, which is not supported; merge the adapters with PEFT first")
    if value.get("bias", "none") != "none":
        raise TSLMError("lora_config: trained biases are not supported; merge the adapters with PEFT first")
    return value


def _adapters(state: dict[str, Tensor], config: Record) -> dict[str, Adapter]:
    sides: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        module, side = keymap.lora_name(name)
        if len(tensor.shape) != 2 or "float" not in tensor.dtype:
            raise TSLMError(
                f"lora_state: {name} is {tensor.dtype} {list(tensor.shape)}, not a floating-point matrix"
            )
        sides.setdefault(module, {})[side] = tensor
    adapters = {}
    ranks = {config.get("r"), *(config.get("rank_pattern") or {}).values()}
    for module, pair in sides.items():
        for side in "AB":
            if side not in pair:
                raise TSLMError(f"lora_state: the tensor {keymap.LORA_PREFIX}{module}.lora_{side} is missing")
        a, b = pair["A"], pair["B"]
        if a.shape[0] != b.shape[1] or a.shape[0] not in ranks:
            raise TSLMError(
                f"lora_state: {module} has A {list(a.shape)} and B {list(b.shape)}, "
                f"but rank {config.get('r')} is stated"
            )
        alpha = _alpha(config, module)
        adapters[module] = Adapter(
            a, b, alpha / (math.sqrt(a.shape[0]) if config.get("use_rslora") else a.shape[0])
        )
    if not adapters:
        raise TSLMError("lora_state is empty, although the checkpoint says that LoRA was enabled")
    return adapters


def _alpha(config: Record, module: str) -> float:
    patterns = config.get("alpha_pattern") or {}
    for pattern, alpha in patterns.items():
        if not re.fullmatch(r"[\w.]+", pattern):  # PEFT takes regular expressions; a file's should not be run
            raise TSLMError(
                f"lora_config: alpha_pattern {pattern!r} is a regular expression, which is not supported"
            )
        if f".{module}".endswith(f".{pattern}"):
            return float(alpha)
    alpha = config.get("lora_alpha")
    if not isinstance(alpha, int | float):
        raise TSLMError("lora_config: lora_alpha is missing")
    return float(alpha)
