"""Quantization-aware training: forward passes read the weights that quantization will leave of them.

Matrices of attention and MLP, experts too, are rounded to MLX's affine grid, in groups of G along their rows:
`q = clip(round((w - b) / s), 0, 2^bits - 1)` and the forward pass reads `s q + b`, where s and b put the
group's entry of largest size and its other end on the grid. Rounding has no useful gradient, so the backward
pass goes straight through it: the gradient of `s q + b` is taken for that of w. The weights that learn, and
that are saved, stay whole; `mx.quantize` with the bits and group size that config.json names finds the codes
that training saw. Blocks of heads that look ahead are rounded as those of the stack; embeddings, norms,
biases, routers and what else a head has stay whole.

Paper: Jacob et al., CVPR 2018, arXiv:1712.05877 (section 3); the straight-through gradient: Bengio et al.
2013, arXiv:1308.3432.
Differs: weights alone, in groups, on the grid of MLX; activations are not rounded.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

from mlx.utils import tree_flatten

from tinygpt.core.backend import compile, mx, nn, on_cpu
from tinygpt.core.errors import ConfigError

BITS = {"int4": 4, "int8": 8}
GROUPS = (64, 32)  # of those that MLX knows, the first that divides every row is taken
MATRIX = re.compile(r"(?:^|\.)(?:self_attn|mlp)\.(?:.*\.)?\w+_proj(?:\.weight)?$")


def rounds(name: str, weight: mx.array) -> bool:
    """Whether a tensor is a matrix of attention or MLP, by its name."""
    return weight.ndim >= 2 and MATRIX.search(name) is not None


def group_size(module: nn.Module) -> int:
    """The largest group that divides the rows of every matrix that is to be rounded."""
    learned: dict[str, mx.array] = dict(tree_flatten(module.trainable_parameters()))
    widths = {name: w.shape[-1] for name, w in learned.items() if rounds(name, w)}
    if not widths:
        raise ConfigError(
            "--qat rounds matrices of attention and MLP, and this model learns none", hint="leave it out"
        )
    for size in GROUPS:
        if not any(width % size for width in widths.values()):
            return size
    name, width = next((n, w) for n, w in widths.items() if w % GROUPS[-1])
    raise ConfigError(
        f"--qat rounds groups of {GROUPS[-1]} weights, and rows of {name} have {width}",
        hint="choose sizes that are multiples of it",
    )


def transform(bits: int, size: int) -> Callable[[str, mx.array], mx.array]:
    """What an updater's forward pass reads instead of a weight: itself, or the nearest on the grid."""
    return lambda name, weight: rounded(bits, size)(weight) if rounds(name, weight) else weight


@functools.cache
def rounded(bits: int, size: int) -> Any:
    """weight (..., N) -> the same on the grid of `bits` and groups of `size`, with the gradient straight
    through."""

    @mx.custom_function
    def straight(weight: mx.array) -> mx.array:
        if on_cpu():
            return _on_cpu(weight, bits, size)
        return mx.dequantize(
            *mx.quantize(weight, group_size=size, bits=bits), group_size=size, bits=bits, dtype=weight.dtype
        )

    @straight.vjp
    def _(_weight: mx.array, d: mx.array, _out: mx.array) -> mx.array:
        return d

    return straight


def _on_cpu(weight: mx.array, bits: int, size: int) -> mx.array:
    """MLX's grid without its packing, which costs 160 ns a weight on a CPU; this 2."""
    groups = weight.reshape(*weight.shape[:-1], -1, size)
    scale, bias = _grid(groups.min(axis=-1), groups.max(axis=-1), mx.array(2.0**bits - 1))
    return _nearest(groups, scale[..., None], bias[..., None], mx.array(2.0**bits - 1)).reshape(weight.shape)


@compile
def _grid(low: mx.array, high: mx.array, n: mx.array) -> tuple[mx.array, mx.array]:
    """Scale and bias of groups: the end of larger size is `bias`, and 0 is on the grid."""
    scale = mx.maximum((high - low) / n, 1e-7)
    from_low = mx.abs(low) > mx.abs(high)
    edge, scale = mx.where(from_low, low, high), mx.where(from_low, scale, -scale)
    steps = mx.round(edge / scale)
    some = steps != 0
    return mx.where(some, edge / mx.where(some, steps, 1.0), scale), mx.where(some, edge, 0.0)


@compile
def _nearest(weight: mx.array, scale: mx.array, bias: mx.array, n: mx.array) -> mx.array:
    return mx.minimum(mx.maximum(mx.round((weight - bias) / scale), 0.0), n) * scale + bias
