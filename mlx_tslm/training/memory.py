"""Whether a batch fits into memory, asked before it is tried."""

from mlx_tslm.errors import TSLMError
from mlx_tslm.models.causal import CausalModel
from mlx_tslm.models.samples import Batch
from mlx_tslm.system.memory import available
from mlx_tslm.training.config import StageConfig


def needed(model: CausalModel, batch: Batch, checkpoint: bool) -> int:
    """Bytes that a training step holds beside the model and the optimizer, estimated.

    Of each layer the gradient needs what went into its products, and the attention's weights; with checkpointing
    its input alone, and the rest of one layer at a time, its gradients included. Logits count five times: with
    their softmax and gradient. Against measurements, see `benchmarks/training.py`.
    """
    args = model.language_model.args
    rows, length = batch.tokens.shape
    heads = model.language_model.layers[0].self_attn.n_heads

    def stack(layers: int, positions: int, width: int, inner: int, scores: int) -> int:
        layer = positions * (12 * width + 5 * inner) + 4 * scores
        return layers * positions * width + 4 * layer if checkpoint else layers * layer

    count = sum(stack(*one) for one in model.stacks(batch))
    count += stack(
        len(model.language_model.layers),
        rows * length,
        args.hidden_size,
        args.intermediate_size,
        rows * heads * length**2,
    )
    return 4 * (count + 5 * batch.targets.size * args.vocab_size)


def check(model: CausalModel, batch: Batch, stage: StageConfig) -> None:
    """Refuse a batch that may need more memory than there is.

    Raises:
        TSLMError: it does not fit; says what to change.
    """
    free, need = available(), needed(model, batch, stage.gradient_checkpointing)
    if need > free:
        rows, length = batch.tokens.shape
        way = (
            "lower batch_size"
            if stage.gradient_checkpointing
            else "lower batch_size, or set gradient_checkpointing"
        )
        raise TSLMError(
            f"{stage.name}: a batch of {rows} samples of {length} positions needs about {need / 1e9:.1f} GB beside "
            f"the model, and {free / 1e9:.1f} GB are free: {way}"
        )
