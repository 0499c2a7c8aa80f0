"""What an OpenTSLM soft-prompt checkpoint says: encoder, projector, adapters."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_tslm.conversion import keymap
from mlx_tslm.conversion.layout import find_parts
from mlx_tslm.conversion.lora import Adapter, Lora, read_lora
from mlx_tslm.conversion.pt import reader
from mlx_tslm.conversion.pt.tensors import Record, Tensor
from mlx_tslm.errors import TSLMError
from mlx_tslm.models.config import EncoderConfig


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint, checked. Tensors are under torch's names, `lora`'s adapters under the base's module names."""

    encoder: dict[str, Tensor]
    projector: dict[str, Tensor]
    encoder_config: EncoderConfig
    lora: Lora | None = None

    @property
    def adapters(self) -> dict[str, Adapter]:
        """LoRA's updates, by the module they are for."""
        return self.lora.adapters if self.lora else {}

    @property
    def output_size(self) -> int:
        """The width the projector maps to: the base LLM's hidden size."""
        return self.projector["projector.1.weight"].shape[0]


def open_checkpoint(
    path: str | Path, encoder_heads: int | None = None, lora_alpha: float | None = None
) -> Checkpoint:
    """Read a soft-prompt checkpoint and check that it is whole.

    Args:
        path: the `.pt` file.
        encoder_heads: of the encoder's attention, which no file states; 8 where nobody says.
        lora_alpha: LoRA's alpha, where the file does not state it.

    Raises:
        TSLMError: as `reader.read`; or a tensor is missing, unexpected or of the wrong shape (named); or its
            adapters are of a kind that is not supported.
    """
    name = Path(path).name
    content = reader.read(path)
    try:
        return _interpret(content, encoder_heads or keymap.ENCODER_HEADS, lora_alpha)
    except TSLMError as error:
        raise TSLMError(f"{name}: {error}") from None


def _interpret(content: dict[str, Any], heads: int, lora_alpha: float | None) -> Checkpoint:
    if _is_flamingo(content.get("model_state")):
        raise TSLMError(
            "this is a Flamingo checkpoint (or another whole model), which is not supported yet; "
            "take the soft-prompt one, whose name ends in -sp"
        )
    content = find_parts(content)
    encoder, projector = _state(content, "encoder_state"), _state(content, "projector_state")
    config = keymap.infer_encoder(encoder, heads)
    keymap.check("encoder_state", encoder, keymap.encoder_shapes(config))
    output = projector["projector.1.weight"].shape[:1] if "projector.1.weight" in projector else ()
    shapes = keymap.projector_shapes(config.hidden_size, *(output or (0,)))
    keymap.check("projector_state", projector, shapes)
    if not (content.get("lora_enabled") or content.get("lora_state")):
        return Checkpoint(encoder, projector, config)
    lora = read_lora(_state(content, "lora_state"), content.get("lora_config"), lora_alpha)
    return Checkpoint(encoder, projector, config, lora)


def _is_flamingo(state: Any) -> bool:
    """Whether a `model_state` is Flamingo's: its encoder is called `vision_encoder`."""
    return isinstance(state, dict) and not any(
        name == "encoder_state" or ("encoder.patch_embed" in name and "vision_encoder" not in name)
        for name in map(str, state)
    )


def _state(content: dict[str, Any], key: str) -> dict[str, Tensor]:
    state = content.get(key)
    if not isinstance(state, dict):
        has = ", ".join(str(name)[:40] for name in list(content)[:6])
        raise TSLMError(f"this is no OpenTSLM checkpoint: {key} is missing; it has {has or 'nothing'}")
    tensors: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not isinstance(name, str) or not name.isprintable():
            raise TSLMError(f"{key}: {name!r:.200} is no name of a tensor")
        if isinstance(tensor, Record):
            raise TSLMError(f"{key}: {name} is a {tensor.name}, not an ordinary tensor; save it as one")
        if not isinstance(tensor, Tensor):
            raise TSLMError(f"{key}: {name} is a {type(tensor).__name__}, not a tensor")
        if tensor.size * tensor.itemsize > len(tensor.storage.buffer):
            raise TSLMError(f"{key}: {name} claims more elements than the file holds")
        if tensors.setdefault(keymap.unwrapped(name), tensor) is not tensor:
            raise TSLMError(f"{key}: there are two tensors called {keymap.unwrapped(name)}")
    return tensors
