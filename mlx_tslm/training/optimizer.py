"""AdamW with a learning rate for each part of the model, as OpenTSLM groups them."""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

from mlx_tslm.training.config import StageConfig


def optimizer_for(stage: StageConfig, steps: int, model: nn.Module) -> optim.MultiOptimizer:
    """The optimizer of a stage of so many steps; rates rise in the warm-up, then fall to 0, linearly."""
    warm_up = int(stage.warmup * steps)

    def adamw(peak: float) -> optim.AdamW:
        def rate(step: mx.array) -> mx.array:
            rising = step / max(1, warm_up)
            falling = (steps - step) / max(1, steps - warm_up)
            return peak * mx.maximum(0.0, mx.where(step < warm_up, rising, falling))

        return optim.AdamW(rate, weight_decay=stage.weight_decay, bias_correction=True)

    parts = {
        "encoder.": stage.lr_encoder,
        "projector.": stage.lr_projector,
        "language_model.": stage.lr_llm if stage.trains_language_model else stage.lr_lora,
    }
    filters = [lambda name, _, part=part: name.startswith(part) for part in list(parts)[:-1]]
    optimizer = optim.MultiOptimizer([adamw(peak) for peak in parts.values()], filters)
    optimizer.init(model.trainable_parameters())
    return optimizer
