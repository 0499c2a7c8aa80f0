"""What an OpenTSLM checkpoint says; of a soft-prompt one: encoder, projector, adapters."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_tslm.conversion import flamingo, keymap
from mlx_tslm.conversion.flamingo import FlamingoCheckpoint
from mlx_tslm.conversion.layout import find_flamingo, find_parts
from mlx_tslm.conversion.lora import Adapter, Lora, read_lora
from mlx_tslm.conversion.pt import reader
from mlx_tslm.conversion.pt.tensors import Record, Tensor
from mlx_tslm.errors import TSLMError
from mlx_tslm.models.config import EncoderConfig


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A soft-prompt checkpoint, checked. Tensors have torch's names; `lora`'s adapters the base's module names."""

    encoder: dict[str, Tensor]
    projector: dict[str, Tensor]
    encoder_config: EncoderConfig
    lora: Lora | None = None

    @property
    def adapters(self) -> dict[str, Adapter]:
        """LoRA's updates, by the module they are for."""
        return self.lora.adapters if self.lora else {}

    variant = "sp"

    @property
    def output_size(self) -> int:
        """The width the projector maps to: the base LLM's hidden size."""
        return self.projector["projector.1.weight"].shape[0]


def open_checkpoint(
    path: str | Path,
    variant: str | None = None,
    encoder_heads: int | None = None,
    lora_alpha: float | None = None,
) -> Checkpoint | FlamingoCheckpoint:
    """Read a checkpoint, see of which variant it is, and check that it is whole.

    Args:
        path: the `.pt` file.
        variant: the one it is supposed to be of, "sp" or "flamingo"; None for either.
        encoder_heads: of the encoder's attention, which no file states; 8 where nobody says.
        lora_alpha: LoRA's alpha, where the file does not state it.

    Raises:
        TSLMError: as `reader.read`; or it is of the other variant; or a tensor is missing, unexpected or of the
            wrong shape (named); or its adapters are of a kind that is not supported.
    """
    name = Path(path).name
    content = reader.read(path)
    try:
        return _interpret(content, variant, encoder_heads or keymap.ENCODER_HEADS, lora_alpha)
    except TSLMError as error:
        raise TSLMError(f"{name}: {error}") from None


def _interpret(
    content: dict[str, Any], variant: str | None, heads: int, lora_alpha: float | None
) -> Checkpoint | FlamingoCheckpoint:
    whole = find_flamingo(content)
    parts = find_parts(content) if whole is None else {}
    found = "flamingo" if whole is not None else "sp"
    if variant not in (None, found):
        names = {"sp": "a soft-prompt", "flamingo": "a Flamingo"}
        raise TSLMError(
            f"this is {names[found]} checkpoint, not {names[str(variant)]} one; give --variant {found}, or none"
        )
    if whole is not None:
        return flamingo.interpret(_tensors("the Flamingo model", whole))
    encoder, projector = _state(parts, "encoder_state"), _state(parts, "projector_state")
    config = keymap.infer_encoder(encoder, heads)
    keymap.check("encoder_state", encoder, keymap.encoder_shapes(config))
    output = projector["projector.1.weight"].shape[:1] if "projector.1.weight" in projector else ()
    shapes = keymap.projector_shapes(config.hidden_size, *(output or (0,)))
    keymap.check("projector_state", projector, shapes)
    if not (parts.get("lora_enabled") or parts.get("lora_state")):
        return Checkpoint(encoder, projector, config)
    lora = read_lora(_state(parts, "lora_state"), parts.get("lora_config"), lora_alpha)
    return Checkpoint(encoder, projector, config, lora)


def _state(content: dict[str, Any], key: str) -> dict[str, Tensor]:
    state = content.get(key)
    if not isinstance(state, dict):
        has = ", ".join(str(name)[:40] for name in list(content)[:6])
        raise TSLMError(f"this is no OpenTSLM checkpoint: {key} is missing; it has {has or 'nothing'}")
    return _tensors(key, state)


def _tensors(key: str, state: Mapping[Any, Any]) -> dict[str, Tensor]:
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
