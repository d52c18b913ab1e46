"""LoftQ: quantize the matrices, and start LoRA from what the rounding lost.

`Q_t = q(W - s B_{t-1} A_{t-1})` and `s B_t A_t = SVD_r(W - Q_t)`, in turn for `iters` rounds from zero
factors: the quantized matrix and the low-rank pair are fitted to W together, where QLoRA starts from `q(W)`
and zero. Then Q is frozen, packed in memory, and A and B learn. The rounds share the singular values evenly.

Paper: Li et al., ICLR 2024, arXiv:2310.08659 (algorithm 1).
Differs: the grids are MLX's, affine or of a floating-point mode, in place of NF4; the pair is divided by
the scale s = alpha/r, so that the start is the fitted one whatever alpha is. The file holds the pair that the
last Q was made from, so Q is made again from the base, bit for bit and without an SVD. peft starts LoftQ on
CUDA alone and keeps no quantized matrix, so it has no such adapter; `bake-lora` makes a dense model of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import CheckpointError, ConfigError, UnsupportedError
from tinygpt.peft import _layers, _low_rank

ON = (_layers.LINEAR,)
GROUPS = {"affine": (64, 128, 32), "mxfp4": (32,), "mxfp8": (32,), "nvfp4": (16,)}
BITS = {"affine": (2, 3, 4, 5, 6, 8), "mxfp4": (4,), "mxfp8": (8,), "nvfp4": (4,)}


@dataclass(frozen=True, kw_only=True)
class Config(_low_rank.Knobs):
    """Knobs of LoftQ."""

    bits: Annotated[int, "Bits of the quantized matrices."] = 4
    mode: Annotated[Literal["affine", "mxfp4", "mxfp8", "nvfp4"], "Grid that MLX rounds to."] = "affine"
    group_size: Annotated[int, "Values that share a scale; 0: the mode's usual one that fits."] = 0
    iters: Annotated[int, "Rounds of quantizing and decomposing."] = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bits not in BITS[self.mode]:
            listed = ", ".join(map(str, BITS[self.mode]))
            raise ConfigError(f"adapter.bits in mode {self.mode} must be one of {listed}, got {self.bits}")
        if self.group_size and self.group_size not in GROUPS[self.mode]:
            listed = ", ".join(map(str, GROUPS[self.mode]))
            raise ConfigError(
                f"adapter.group_size in mode {self.mode} must be one of {listed}, got {self.group_size}"
            )
        if not 1 <= self.iters <= 100:
            raise ConfigError(f"adapter.iters must be from 1 to 100, got {self.iters}")


class LoftQ(_low_rank.LowRank):
    """A LowRank over a quantized matrix of its own making. start: the pair that the matrix was made from."""

    own_matrix = True

    def __init__(self, layer: nn.Module, config: Config, pair: _low_rank.Pair, start: _low_rank.Pair) -> None:
        scale = config.alpha / config.rank
        super().__init__(_packed(layer, config, scale, start), pair, scale)
        self._from = list(start)
        # Until the first pass the layer itself is at hand, so that another start can be filled in.
        self.again = lambda start: _packed(layer, config, scale, start)

    def __call__(self, x: mx.array) -> mx.array:
        self.again = None
        return super().__call__(x)

    def stored(self) -> dict[str, mx.array]:
        """A, B, and the pair that the quantized matrix was made from."""
        return {**super().stored(), "start_A": self._from[0], "start_B": self._from[1]}

    def restore(self, found: Mapping[str, mx.array]) -> None:
        """Take what was stored; the quantized matrix is made again where it was made from another pair."""
        start = [found["start_A"], found["start_B"]]
        if not all(mx.array_equal(a, b) for a, b in zip(start, self._from)):
            if self.again is None:
                raise CheckpointError(
                    "the adapter's quantized matrices are others, and the base's own are no longer at hand",
                    hint="open the adapter on its base anew",
                )
            self._from, self.base_layer = start, self.again(start)
        super().restore(found)


def _group(config: Config, width: int) -> int:
    fits = [n for n in ((config.group_size,) if config.group_size else GROUPS[config.mode]) if width % n == 0]
    if not fits:
        raise UnsupportedError(
            f"a row of {width} values cannot be split into groups of "
            f"{config.group_size or GROUPS[config.mode][-1]}",
            hint="choose another --set adapter.group_size, or leave the matrix out: --set adapter.exclude",
        )
    return fits[0]


def _packed(layer: nn.Module, config: Config, scale: float, start: Any) -> nn.QuantizedLinear:
    """The layer with q(W - s B A) as its matrix."""
    a, b = start
    weight = _layers.dense(layer) - scale * (b @ a)
    group = _group(config, weight.shape[1])
    packed = nn.QuantizedLinear(
        weight.shape[1], weight.shape[0], False, group_size=group, bits=config.bits, mode=config.mode
    )
    packed.weight, packed.scales, *biases = mx.quantize(weight, group, config.bits, mode=config.mode)
    packed.biases = biases[0] if biases else None
    if (added := _layers.bias(layer)) is not None:
        packed.bias = added
    packed.freeze()
    mx.eval(packed.parameters())
    return packed


def check(config: Config, layers: Mapping[str, nn.Module]) -> None:
    """Refuse what LoftQ has nothing to do on: matrices that are as small already, or carry an adapter."""
    _low_rank.check(config, layers)
    for name, layer in layers.items():
        _refuse(layer, config, name)


def _refuse(layer: Any, config: Config, name: str = "a layer") -> None:
    if "base_layer" in layer:
        raise UnsupportedError(
            f"{name} carries an adapter, and LoftQ would quantize the matrix beneath it",
            hint="open the LoftQ adapter first",
        )
    if _layers.quantized(layer) and layer.bits <= config.bits:
        raise UnsupportedError(
            f"{name} has {layer.bits} bits already: rounding it to {config.bits} loses nothing to start from",
            hint="give a base that is not quantized, or fewer --set adapter.bits",
        )


def wrap(layer: nn.Module, config: Config, key: mx.array) -> LoftQ:
    """A layer quantized, with a LoRA of what that lost; nothing is drawn."""
    import numpy as np

    _refuse(layer, config)
    scale = config.alpha / config.rank
    w = _low_rank.matrices(layer)
    pair = start = _low_rank.zeros(layer, config.rank)
    for _ in range(config.iters):
        start, packed = pair, _packed(layer, config, scale, pair)
        lost = w - np.array(_layers.dense(packed))
        pair = _low_rank.root_pair(*np.linalg.svd(lost, full_matrices=False), config.rank, scale)
    return LoftQ(layer, config, pair, start)


def empty(layer: nn.Module, config: Config) -> LoftQ:
    """The same, to be filled from a file."""
    _refuse(layer, config)
    pair = _low_rank.zeros(layer, config.rank)
    return LoftQ(layer, config, pair, pair)


def to_peft(config: Config, wrappers: Mapping[str, nn.Module]) -> dict[str, Any]:
    """What adapter_config.json says: a type that peft does not know, since its LoRA would be put on the full
    matrices."""
    return _low_rank.to_peft(config, wrappers, peft_type="LOFTQ")


def from_peft(data: Mapping[str, Any], targets: tuple[str, ...]) -> None:
    """Never: peft has no such adapter."""
