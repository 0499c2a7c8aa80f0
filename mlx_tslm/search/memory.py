"""Whether a search fits into memory, asked before it starts."""

from dataclasses import replace

from mlx_tslm.errors import TSLMError
from mlx_tslm.models.base import Footprint
from mlx_tslm.models.tree_decoder import SPARE, pool_capacity
from mlx_tslm.search.config import SearchConfig
from mlx_tslm.system.memory import available

_SAMPLING_COPIES = 8  # arrays of the logits' size that sampling holds at once, ordered ones included
_SCORE_COPIES = 3  # and of the size of one layer's attention scores
LABEL_ROWS = 256
"""The most nodes of one forward pass of label completion; fewer where memory is short."""


def check(model: Footprint, prompt_tokens: int, config: SearchConfig, all_at_once: bool, labels: int = 0) -> int:
    """Refuse a search that may need more memory than there is.

    Args:
        model: what its decoding takes; its weights are loaded already, and not counted.
        prompt_tokens: positions of the prompt.
        config: the budget.
        all_at_once: whether all rollouts go side by side (beam search), whatever the width.
        labels: nodes that completing the answers of one rationale adds; 0 where none are completed.

    Returns:
        The most nodes that one pass over labels may have.

    Raises:
        TSLMError: it does not fit; says what would.
    """
    free, label_rows = available(), LABEL_ROWS
    while (
        label_rows > config.width and needed(model, prompt_tokens, config, all_at_once, labels, label_rows) > free
    ):
        label_rows = max(config.width, label_rows // 2)
    need = needed(model, prompt_tokens, config, all_at_once, labels, label_rows)
    if need <= free:
        return label_rows

    def largest(name: str) -> int:
        """The largest lower value of a setting that fits, by bisection; 0 if none does."""
        low, high = 0, getattr(config, name)
        while high - low > 1:
            middle = (low + high) // 2
            smaller = replace(config, **{name: middle})
            rows = min(label_rows, smaller.width)
            fits = needed(model, prompt_tokens, smaller, all_at_once, labels, rows) <= free
            low, high = (middle, high) if fits else (low, middle)
        return low

    ways = [f"{name} {most}" for name in ("num_rollouts", "width", "max_tokens") if (most := largest(name))]
    raise TSLMError(
        f"{config.num_rollouts} rollouts of up to {config.max_tokens} tokens, {config.width} at once, after a "
        f"prompt of {prompt_tokens} need {need / 1e9:.1f} GB beside the model, and {free / 1e9:.1f} GB are free; "
        + (f"what fits: {' or '.join(ways)}" if ways else "shorten the prompt, and lower all three")
    )


def needed(
    model: Footprint,
    prompt_tokens: int,
    config: SearchConfig,
    all_at_once: bool = False,
    labels: int = 0,
    label_rows: int = 0,
) -> int:
    """Bytes that a search holds at its peak, if every answer is as long as it may be.

    The prompt's keys and values (twice while they are taken over), those of all nodes in a pool that grows, those
    of the paths under way (twice while they are gathered), attention scores of one layer, and sampling.
    """
    rows = config.num_rollouts if all_at_once else min(config.width, config.num_rollouts)
    if labels:
        rows = max(rows, min(label_rows, labels * rows))
    nodes = 1 + config.num_rollouts * (config.max_tokens + labels)
    pool = pool_capacity(nodes)
    paths = 2 * rows * (config.max_tokens + SPARE) * model.position
    scores = _SCORE_COPIES * rows * model.heads * (prompt_tokens + config.max_tokens + SPARE) * 4
    sampling = _SAMPLING_COPIES * rows * model.vocabulary * 4
    return 2 * prompt_tokens * model.position + pool * (model.position + model.state) + paths + scores + sampling
