"""The OpenTSLM stack in MLX: time-series encoder, projector, and an mlx-lm language model between them."""
