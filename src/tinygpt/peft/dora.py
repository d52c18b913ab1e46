"""DoRA: learn the length of each row of a matrix on its own, and the direction by a low-rank change.

`W' = m (W + s B A) / ||W + s B A||`, with the norm of each output row, `s = alpha/r`, and m (out,) starting
as the rows' norms of W, so that the model starts as the base does. Full fine-tuning changes lengths and
directions in ways of their own; LoRA ties them together, DoRA does not, at one value more for each output.

Paper: Liu et al., ICML 2024, arXiv:2402.09353 (eq. 5; section 4.3: the norm is a constant in the backward
pass).
Differs: the norm is computed without the dense sum, `||W + s B A||^2 = ||W||^2 + 2 s <W A^T, B> +
s^2 <B A A^T, B>` row by row, so a quantized matrix is never unpacked. As in peft, the norm on an embedding is
that of each of the D outputs, and only the input table is adapted where it is the output matrix too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Annotated, Any

from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import ConfigError
from tinygpt.peft import _layers, _low_rank

ON, check = (_layers.LINEAR, _layers.EMBEDDING), _low_rank.check
LEAST = 1e-30  # of a squared norm: a row of zeros has no direction


@dataclass(frozen=True, kw_only=True)
class Config(_low_rank.Knobs):
    """Knobs of DoRA."""

    tied: Annotated[bool, "DoRA adapts an embedding as the input table only."] = False
    rslora: Annotated[bool, "Scale by alpha / sqrt(rank), as rsLoRA does."] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tied:
            raise ConfigError(
                "DoRA adapts an embedding as the input table only, so adapter.tied must be false",
                hint="leave it out, or use LoRA, which adapts both uses of a tied table",
            )


class DoRA(_low_rank.LowRank):
    """A LowRank with `lora_magnitude_vector` (out,), the length of each output row."""

    def __init__(self, base: nn.Module, pair: _low_rank.Pair, scale: float) -> None:
        super().__init__(base, pair, scale, tied=False)
        self._squares = _layers.dense(base).square().sum(axis=self._inner)
        mx.eval(self._squares)  # or every unpacked matrix would wait for it at once
        self.lora_magnitude_vector = mx.sqrt(self._squares)

    @property
    def _inner(self) -> int:
        """The axis of the base's weight that is not the outputs'."""
        return 0 if self.kind == _layers.EMBEDDING else 1

    def ratio(self) -> mx.array:
        """(out,) m / ||W + s B A||, the norm a constant in the backward pass."""
        a, b = (mx.stop_gradient(w.astype(mx.float32)) for w in self.pair)
        if self.kind == _layers.EMBEDDING:
            read = (a @ _layers.dense(self.base_layer)).T
        else:
            read = self._linear(a).T.astype(mx.float32)  # W A^T (out, r)
        cross = (read * b).sum(axis=-1)
        own = ((b @ (a @ a.T)) * b).sum(axis=-1)
        squares = self._squares + 2 * self.scale * cross + self.scale**2 * own
        norm = mx.stop_gradient(mx.sqrt(mx.maximum(squares, LEAST)))
        return self.lora_magnitude_vector.astype(mx.float32) / norm

    def _linear(self, x: mx.array) -> mx.array:
        """The base layer's answer without its bias."""
        y, added = self.base_layer(x), _layers.bias(self.base_layer)
        return y if added is None else y - added

    def __call__(self, x: mx.array) -> mx.array:
        ratio, y = self.ratio(), self.base_layer(x)
        added = _layers.bias(self.base_layer)
        linear = y if added is None else y - added
        return y + ((ratio - 1) * linear + ratio * self.change(x)).astype(y.dtype)

    def as_linear(self, x: mx.array) -> mx.array:
        """The output matrix (..., D) -> (..., V); a table that is one too stays as it is there."""
        return self.base_layer.as_linear(x) if self.kind == _layers.EMBEDDING else self(x)

    def fused_weight(self) -> mx.array:
        """The whole matrix in float32."""
        whole = _layers.dense(self.base_layer) + super().delta()
        return whole * mx.expand_dims(self.ratio(), self._inner)

    def delta(self) -> mx.array:
        """The dense change of the base's weight, in float32."""
        return self.fused_weight() - _layers.dense(self.base_layer)

    def stored(self) -> dict[str, mx.array]:
        """By peft's names."""
        return {**super().stored(), "lora_magnitude_vector": self.lora_magnitude_vector}

    def restore(self, found: Mapping[str, mx.array]) -> None:
        """Take what was stored."""
        super().restore(found)
        self.lora_magnitude_vector = found["lora_magnitude_vector"]


def wrap(layer: nn.Module, config: Config, key: mx.array) -> DoRA:
    """A layer with directions and lengths of its own; `key` seeds A."""
    pair = _low_rank.drawn(layer, config.rank, key)
    return DoRA(layer, pair, config.alpha / (sqrt(config.rank) if config.rslora else config.rank))


def to_peft(config: Config, wrappers: Mapping[str, nn.Module]) -> dict[str, Any]:
    """What adapter_config.json says of this technique."""
    return _low_rank.to_peft(config, wrappers, use_dora=True, use_rslora=config.rslora)


def from_peft(data: Mapping[str, Any], targets: tuple[str, ...]) -> Config | None:
    """The config of an adapter that peft wrote, None when of another type; what we lack is refused."""
    rs, dora, _ = _low_rank.features(data)
    if data.get("peft_type") != "LORA" or not dora:
        return None
    _low_rank.refuse_start(data)
    return _low_rank.from_peft(Config, data, targets, {"use_dora", "use_rslora"}, rslora=rs)
