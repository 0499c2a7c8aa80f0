"""The operations that CPUs and GPUs go about in different ways. The way is chosen once, when this is imported.

Both ways mean the same: a GPU's are MLX's own operations, so that a CPU can run them too, and the tests do.
A query that sees no key gets finite numbers, of which nobody may make use: some of MLX's kernels give it 0, others
the mean of all values, and so do ours.
"""

from mlx_tslm.models.branch import ON_CPU

if ON_CPU:
    from mlx_tslm.models.cpu.ops import (
        PREFILL_STEP,
        causal_attention,
        compiled,
        exponentials,
        gelu,
        grouped_attention,
        mlp,
        shared_prefix_attention,
    )
else:
    from mlx_tslm.models.gpu import (
        PREFILL_STEP,
        causal_attention,
        compiled,
        exponentials,
        gelu,
        grouped_attention,
        mlp,
        shared_prefix_attention,
    )

__all__ = [
    "PREFILL_STEP",
    "causal_attention",
    "compiled",
    "exponentials",
    "gelu",
    "grouped_attention",
    "mlp",
    "shared_prefix_attention",
]
