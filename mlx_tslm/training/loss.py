"""The loss of a batch: cross-entropy of the answers' tokens, each from what stands before it.

Source: OpenTSLM's `compute_loss`. For a batch of one they are equal; a batch of several is there padded between the
prompt and the answer, here on the right, so that a sample's loss does not depend on its batch mates.
"""

import mlx.core as mx
import mlx.nn as nn

from mlx_tslm.models import language_model as lm
from mlx_tslm.models.attention import project
from mlx_tslm.models.causal import CausalModel
from mlx_tslm.models.cpu.elementwise import differentiable
from mlx_tslm.models.ops import causal_attention
from mlx_tslm.models.samples import Batch


def answer_logits(model: CausalModel, batch: Batch, checkpoint: bool = False) -> mx.array:
    """Logits of each answer token from what stands before it: float32 `[B, A, V]`.

    Args:
        checkpoint: keep only each layer's input for the gradient, and compute the layer again there.
    """
    language_model = model.language_model
    with differentiable():
        h, before = model.feed_batch(batch, checkpoint)
        h = lm.forward(language_model, h, _causal(language_model), checkpoint, before)
        h = mx.take_along_axis(h, batch.answer_index[..., None], axis=1)
        return lm.logits(language_model, h)


def token_losses(model: CausalModel, batch: Batch, checkpoint: bool = False) -> mx.array:
    """Cross-entropy of each answer token, 0 at padding: float32 `[B, A]`."""
    logits = answer_logits(model, batch, checkpoint)
    return nn.losses.cross_entropy(logits, batch.targets) * batch.weights


def _causal(model: nn.Module) -> lm.Attend:
    """Causal attention of several rows from their first position on, within each layer's window."""
    spans = lm.windows(model)

    def attend(index: int, attention: nn.Module, x: mx.array) -> mx.array:
        queries, keys, values = project(attention, x, 0)
        return attention.o_proj(causal_attention(queries, keys, values, attention.scale, spans[index]))

    return attend
