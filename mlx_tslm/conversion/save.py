"""A model as a checkpoint of OpenTSLM, whichever variant it is of."""

from collections.abc import Mapping
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_tslm.conversion import flamingo
from mlx_tslm.conversion.pt import writer
from mlx_tslm.models.config import FlamingoConfig, ModelConfig


def save_checkpoint(
    path: Path, config: ModelConfig, weights: Mapping[str, mx.array], base: str | None, **facts: float
) -> None:
    """Write a `.pt` that the original loads.

    Args:
        path: the file.
        config: of the model.
        weights: all of its parameters. A soft-prompt file leaves the LLM out, and names its `base` instead.
        base: the LLM's name, or None where nobody else has it.
        facts: more entries: `val_loss`, `epoch`.

    Raises:
        TSLMError: a weight has no place in such a file.
    """
    if isinstance(config, FlamingoConfig):
        whole = {name: np.asarray(array.astype(mx.float32)) for name, array in weights.items()}
        writer.write(path, {"model_state": flamingo.to_torch(whole), **facts})
        return
    llm = {name for name in weights if name.startswith("language_model.") and ".lora_" not in name}
    lora = config.lora
    writer.save_opentslm(
        path,
        {name: np.array(array) for name, array in weights.items() if name not in llm},
        alpha=lora.alpha if lora else None,
        target_modules=lora.target_modules if lora else (),
        base=base,
        **facts,
    )
