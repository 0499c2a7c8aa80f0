"""From a published PyTorch checkpoint to an MLX model: `convert`, and where converted models are kept."""

from mlx_tslm.conversion.converter import (
    AlreadyConverted,
    ConversionSummary,
    check_source,
    convert,
    ensure_converted,
)

__all__ = ["AlreadyConverted", "ConversionSummary", "check_source", "convert", "ensure_converted"]
