"""The same models in PyTorch, on transformers' Llama and Gemma 3: for comparison. Nothing else imports torch.

Rollouts are decoded one at a time, as research code on PyTorch does it: each answer with a KV cache of its own, or
with none, the whole prompt again for every token. Draws, search and rewards are those of the MLX path; only logits
come from here, so the same seeds and budgets give the same answers, up to rounding.
"""

from mlx_tslm.errors import TSLMError

try:
    import torch  # noqa: F401
    import transformers  # noqa: F401
except ImportError as error:
    raise TSLMError(
        f'the PyTorch backend needs {error.name}, which is not installed: pip install "mlx-tslm[torch]"'
    ) from None

from mlx_tslm.models.config import FlamingoConfig, ModelConfig
from mlx_tslm.torch_backend.flamingo import TorchFlamingo
from mlx_tslm.torch_backend.model import TorchModel, read_weights


def model_class(config: ModelConfig) -> type[TorchModel]:
    """The class of the model that a config describes."""
    return TorchFlamingo if isinstance(config, FlamingoConfig) else TorchModel


__all__ = ["TorchFlamingo", "TorchModel", "model_class", "read_weights"]
