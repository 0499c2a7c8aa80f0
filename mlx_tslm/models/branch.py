"""Which branch of the operations in `ops` computes, decided once, before they are imported."""

import mlx.core as mx

ON_CPU: bool = mx.default_device() == mx.Device(mx.cpu)
"""Whether MLX computes on the CPU. A program that wants the other branch sets it before it imports a model."""
