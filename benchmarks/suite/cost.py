"""The model of cost: bytes and floating-point operations of a decode step, and the least time they take.

A step reads every weight once whatever the number of rows, the prompt's keys and values once, and each row's own
suffix. Each part takes as long as its bytes or its operations do, whichever is longer.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.suite.shapes import Shape


@dataclass(frozen=True)
class Limits:
    """What a machine can do.

    Attributes:
        bandwidth: bytes a second from memory.
        flops: operations a second in matrix products, by the number of rows of the left matrix.
    """

    bandwidth: float
    flops: Mapping[int, float]

    def flops_at(self, rows: float) -> float:
        """Operations a second at that many rows, between the known numbers on a logarithmic scale."""
        known = sorted(self.flops)
        return float(np.interp(np.log(rows), np.log(known), [self.flops[one] for one in known]))


@dataclass(frozen=True)
class Part:
    """Bytes read and operations done by one part of a step, in products of `rows` rows each."""

    nbytes: float
    flops: float
    rows: float

    def seconds(self, limits: Limits) -> float:
        """The least time it takes."""
        return max(self.nbytes / limits.bandwidth, self.flops / limits.flops_at(self.rows))


@dataclass(frozen=True)
class Precision:
    """Bytes of a weight, scales included, and of a number in keys and values."""

    name: str
    weight: float
    kv: float


FLOAT32 = Precision("float32", 4, 4)
BFLOAT16 = Precision("bf16", 2, 2)
FOUR_BIT = Precision("4-bit", 4.5 / 8, 2)
"""Groups of 64 weights share a scale and a bias of 16 bits each: 4 + 32 / 64 bits a weight."""


def precision(shape: Shape) -> Precision:
    """That of a shape's weights."""
    return BFLOAT16 if shape.dtype == "bfloat16" else FLOAT32


def decode_step(shape: Shape, precision: Precision, prompt: int, rows: int, depth: float) -> dict[str, Part]:
    """A step of `rows` rows, each with `depth` tokens of its own after a prompt of `prompt` positions.

    Returns:
        The parts: "linears", "head", "prefix", "suffix". With an (in, out) map of P weights they are
        P · bytes and 2 · rows · P operations; with keys and values of n positions, 2 · layers · heads_kv · D · n
        numbers and 4 · rows · layers · heads · D · n operations.
    """
    attention = 4 * rows * shape.layers * shape.heads * shape.head_dim
    kv, group = shape.kv_per_position * precision.kv, shape.heads / shape.kv_heads
    return {
        "linears": Part(shape.layer_parameters * precision.weight, 2 * rows * shape.layer_parameters, rows),
        "head": Part(shape.head_parameters * precision.weight, 2 * rows * shape.head_parameters, rows),
        "prefix": Part(prompt * kv, attention * prompt, rows * group),
        "suffix": Part(rows * depth * kv, attention * depth, group),
    }


def step_seconds(parts: dict[str, Part], limits: Limits) -> float:
    """The least time of a step."""
    return sum(part.seconds(limits) for part in parts.values())


def prefill_flops(shape: Shape, prompt: int) -> float:
    """Operations to read a prompt: every weight of the layers for each position, and causal attention."""
    attention = 2 * shape.layers * shape.heads * shape.head_dim * prompt * prompt
    return 2 * prompt * shape.layer_parameters + attention


def resident_bytes(shape: Shape, precision: Precision, prompt: int, nodes: int) -> float:
    """Memory of the weights, the prompt and a tree of that many nodes."""
    return shape.parameters * precision.weight + (prompt + nodes) * shape.kv_per_position * precision.kv


@dataclass(frozen=True)
class Mac:
    """A machine that was not measured: its published memory bandwidth, and its GPU's arithmetic."""

    name: str
    limits: Limits


MACS = (
    Mac("M1 Pro (200 GB/s, 5.2 TFLOP/s)", Limits(200e9, {1: 5.2e12})),
    Mac("M3 Max (400 GB/s, 14.2 TFLOP/s)", Limits(400e9, {1: 14.2e12})),
)
"""Apple's figures for bandwidth and for the M1 Pro's GPU; the M3 Max's: 40 cores × 128 lanes × 2 × 1.38 GHz."""
