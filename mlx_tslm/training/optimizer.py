"""AdamW with a learning rate for each part of the model, as OpenTSLM groups them."""

import mlx.core as mx
import mlx.optimizers as optim

from mlx_tslm.models.causal import CausalModel
from mlx_tslm.models.samples import Part
from mlx_tslm.training.config import StageConfig


def optimizer_for(stage: StageConfig, steps: int, model: CausalModel) -> optim.MultiOptimizer:
    """The optimizer of a stage of so many steps; rates rise in the warm-up, then fall to 0, linearly."""
    warm_up = int(stage.warmup * steps)

    def adamw(part: Part) -> optim.AdamW:
        peak: float = getattr(stage, part.rate)

        def rate(step: mx.array) -> mx.array:
            rising = step / max(1, warm_up)
            falling = (steps - step) / max(1, steps - warm_up)
            return peak * mx.maximum(0.0, mx.where(step < warm_up, rising, falling))

        return optim.AdamW(rate, weight_decay=stage.weight_decay * part.decays, bias_correction=True)

    parts = [part for part in model.parts if getattr(stage, part.rate)]
    filters = [lambda name, _, part=part: name.startswith(part.prefix) for part in parts[:-1]]
    optimizer = optim.MultiOptimizer([adamw(part) for part in parts], filters)
    optimizer.init(model.trainable_parameters())
    return optimizer
