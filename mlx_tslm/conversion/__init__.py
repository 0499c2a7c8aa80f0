"""From a published PyTorch checkpoint to an MLX model: `convert`, and where converted models are kept."""

from mlx_tslm.conversion.converter import ConversionSummary, convert, ensure_converted

__all__ = ["ConversionSummary", "convert", "ensure_converted"]
