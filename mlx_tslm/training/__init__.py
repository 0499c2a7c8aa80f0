"""Training of soft-prompt models in MLX."""
