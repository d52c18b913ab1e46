"""8-bit Adam: AdamW whose two moments are kept in one byte a weight, a quarter of the memory.

A moment is cut into blocks of B values. A block keeps its largest magnitude `s` in float32, and of each
value the index of the nearest code, `q = argmin_j |Q_j - x/s|`. A step reads `Q_q s`, updates it as AdamW
does, moves the weights by the exact new moments, and rounds these again. The dynamic codes spend their
bits on seven decades below 1, finer towards 1; the first moment has signed codes, the second has twice as
many positive ones. Tensors of fewer than `minimum` values and embeddings keep float32 moments.

Paper: Dettmers et al., ICLR 2022, arXiv:2110.02861 (sections 2.1 to 2.3).
Differs: a second moment above zero is never rounded to zero, since one that is, with a first moment that
is not and a gradient of zero (an expert that no token chose), would divide by eps. Embeddings get no extra
norm (the paper's stable embedding)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from tinygpt.core.backend import mx
from tinygpt.train.optim import adamw
from tinygpt.train.optim._shared import counts
from tinygpt.train.protocols import Tensors


@dataclass(frozen=True, kw_only=True)
class Config(adamw.Config):
    """Knobs of 8-bit Adam: those of AdamW, and how the moments are kept."""

    codes: Annotated[Literal["dynamic", "linear"], "What one byte can say: which values from 0 to 1."] = (
        "dynamic"
    )
    block: Annotated[int, "Values that share a scale."] = 2048
    minimum: Annotated[int, "Tensors of fewer values than this keep float32 moments."] = 4096

    def __post_init__(self) -> None:
        super().__post_init__()
        counts(self, "block", "minimum")


def dynamic(signed: bool) -> list[float]:
    """The 256 codes in order: 0, 1, and per decade 10^-i the centres of equal parts of (0.1, 1], from 64
    (128 without a sign) at i = 0 to 1 (2) at i = 6."""
    positive = []
    for i in range(7):
        parts = (64 if signed else 128) >> i
        positive += [10.0**-i * (0.1 + 0.9 * (k + 0.5) / parts) for k in range(parts)]
    return sorted([-x for x in positive if signed] + [0.0, 1.0] + positive)


def linear(signed: bool) -> list[float]:
    """Even steps: 256 from 0 to 1, or 255 from -1 to 1, so that 0 is one of them."""
    return [(i - 127) / 127 for i in range(255)] if signed else [i / 255 for i in range(256)]


class Codes:
    """Rounding to the nearest of a sorted list of values, and back.

    A search among 255 borders costs 45 ns a value on a CPU, this 15: a float's upper 16 bits narrow it to one
    border at most, since borders lie further apart than floats that share these bits."""

    def __init__(self, values: list[float]) -> None:
        borders = [(a + b) / 2 for a, b in zip(values, values[1:])]
        self.values, self.borders = mx.array(values), mx.array([*borders, math.inf])
        upper = mx.arange(65536, dtype=mx.uint32) << 16
        lowest = mx.where(upper >> 31, upper | 0xFFFF, upper).view(mx.float32)
        self.start = mx.searchsorted(self.borders[:-1], lowest).astype(mx.uint8)
        mx.eval(self.values, self.borders, self.start)

    def nearest(self, x: mx.array) -> mx.array:
        """The index of the nearest value, as one byte."""
        start = self.start[x.view(mx.uint32) >> 16]
        return start + (x > self.borders[start]).astype(mx.uint8)


class Adam8bit:
    """Pure functions on flat dicts of tensors; the state is `m.<name>` and `v.<name>`: for a large tensor
    bytes (blocks, B), with scales `m_scale.<name>` and `v_scale.<name>` in float32 (blocks, 1), else float32
    as AdamW's."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.adamw = adamw.AdamW(config)
        table = dynamic if config.codes == "dynamic" else linear
        self.codes = {"m": Codes(table(True)), "v": Codes(table(False))}

    def is_large(self, name: str, weight: mx.array) -> bool:
        """Whether a tensor's moments are kept in 8 bits."""
        return weight.size >= self.config.minimum and "embed" not in name

    def init(self, weights: Mapping[str, mx.array]) -> Tensors:
        """Fresh moments, all zero."""
        state: Tensors = {}
        for name, w in weights.items():
            state |= self.pack("m", name, mx.zeros(w.shape)) | self.pack("v", name, mx.zeros(w.shape))
        return state

    def apply(
        self, weights: Tensors, gradients: Tensors, state: Tensors, lr: mx.array, step: mx.array
    ) -> tuple[Tensors, Tensors]:
        """One step; see AdamW.apply for the arguments."""
        new_weights, new_state, last = {}, {}, [step]
        for name, w in weights.items():
            # One tensor after the other, else the float32 moments of all of them exist at one time.
            m, v = mx.depends([state[f"m.{name}"], state[f"v.{name}"]], last)
            moments = {
                f"m.{name}": self.unpack("m", name, m, state, w),
                f"v.{name}": self.unpack("v", name, v, state, w),
            }
            moved, moments = self.adamw.apply({name: w}, gradients, moments, lr, step)
            packed = self.pack("m", name, moments[f"m.{name}"]) | self.pack("v", name, moments[f"v.{name}"])
            new_weights |= moved
            new_state |= packed
            last = [moved[name], *packed.values()]
        return new_weights, new_state

    def pack(self, kind: str, name: str, moment: mx.array) -> Tensors:
        """A moment as it is kept: a large one as bytes and scales, its last block filled up with zeros."""
        if not self.is_large(name, moment):
            return {f"{kind}.{name}": moment}
        x = mx.pad(moment.reshape(-1), (0, -moment.size % self.config.block)).reshape(-1, self.config.block)
        scale = x.abs().max(axis=1, keepdims=True)
        q = self.codes[kind].nearest(x / mx.where(scale > 0, scale, 1.0))
        if kind == "v":
            q = mx.maximum(q, (x > 0).astype(mx.uint8))
        return {f"{kind}.{name}": q, f"{kind}_scale.{name}": scale}

    def unpack(self, kind: str, name: str, kept: mx.array, state: Tensors, weight: mx.array) -> mx.array:
        """The float32 moment that is kept, in the weight's shape."""
        if not self.is_large(name, weight):
            return kept
        x = self.codes[kind].values[kept] * state[f"{kind}_scale.{name}"]
        return x.reshape(-1)[: weight.size].reshape(weight.shape)


def build(config: Config) -> Adam8bit:
    """The optimizer of a config."""
    return Adam8bit(config)
