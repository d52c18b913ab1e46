"""VeRA: all layers share one random pair of matrices that is never learned; each learns two short vectors.

`y = W x + b * (B (d * (A x)))`, with d (r) and b (out) learned, * by element. A (r, in) and B (out, r) are
drawn once from the seed, as large as the largest layer wants them, and cut for smaller ones; they stay as
they are. b starts at zero, so the adapted model starts as the base model, and d at a small constant. That is
r + out numbers a matrix, whatever its input, so r may be large: fused it is `W + diag(b) B diag(d) A`.

Paper: Kopiczko et al., ICLR 2024, arXiv:2310.11454 (equation 2, section 3.3).
Differs: nothing. A and B are in the file (peft's `save_projection`), so that it does not hang on one
program's random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import CheckpointError, ConfigError
from tinygpt.model.seeds import key_of
from tinygpt.peft import _format, _layers

MOST = 1 << 16
A, B = "base_model.vera_A", "base_model.vera_B"  # as peft calls them


@dataclass(frozen=True, kw_only=True)
class Config:
    """Knobs of VeRA."""

    rank: Annotated[int, "Rank r of the shared pair; the vectors are cheap, so it may be large."] = 256
    targets: Annotated[
        tuple[str, ...],
        "Layers to adapt: endings of names, regular expressions over whole names, all-linear (all in the "
        "blocks), auto (queries and values).",
    ] = ("auto",)
    exclude: Annotated[tuple[str, ...], "Layers that the targets name and that stay as they are."] = ()
    d_initial: Annotated[float, "What every value of d starts as."] = 0.1

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= MOST:
            raise ConfigError(f"the adapter's rank must be from 1 to {MOST}, got {self.rank}")
        if not self.targets:
            raise ConfigError(
                "an adapter without targets learns nothing", hint="for example --targets q_proj,v_proj"
            )


class VeRA(nn.Module):
    """x (..., in) -> (..., out). Tensors as in peft: vera_lambda_d (r) and vera_lambda_b (out) learn;
    `shared` holds A (r, most in) and B (most out, r)."""

    def __init__(self, base: nn.Module, config: Config, shared: dict[str, mx.array]) -> None:
        super().__init__()
        self.base_layer = base
        self._pair, self._shape = shared, _layers.shape(base)
        self.vera_lambda_d = mx.full((config.rank,), config.d_initial)
        self.vera_lambda_b = mx.zeros((self._shape[0],))

    def pair(self) -> tuple[mx.array, mx.array]:
        """A (r, in) and B (out, r), cut to this layer."""
        n_out, n_in = self._shape
        return self._pair[A][:, :n_in], self._pair[B][:n_out]

    def __call__(self, x: mx.array) -> mx.array:
        y = self.base_layer(x)
        a, b = (w.astype(self.vera_lambda_d.dtype) for w in self.pair())
        change = self.vera_lambda_b * ((self.vera_lambda_d * (x @ a.T)) @ b.T)
        return y + change.astype(y.dtype)

    def parts(self) -> list[tuple[float, mx.array, mx.array]]:
        """[(1, diag(d) A, diag(b) B)]: a plain LoRA of the same change."""
        a, b = self.pair()
        return [(1.0, self.vera_lambda_d[:, None] * a, self.vera_lambda_b[:, None] * b)]

    def delta(self) -> mx.array:
        """The dense change of the base matrix (out, in), in float32."""
        _, a, b = self.parts()[0]
        return b.astype(mx.float32) @ a.astype(mx.float32)

    def weigh(self, weight: float) -> None:
        """Let the change count this much."""
        self.vera_lambda_b = weight * self.vera_lambda_b


def shared(config: Config, layers: Mapping[str, nn.Module], seed: int) -> dict[str, mx.array]:
    """A and B, uniform in +-sqrt(6 / fan in) (Kaiming, section 3.3), as large as any of the layers needs."""
    shapes = [_layers.shape(layer) for layer in layers.values()]
    n_out, n_in = max(out for out, _ in shapes), max(inner for _, inner in shapes)
    found: dict[str, mx.array] = {}
    for name, size in ((A, (config.rank, n_in)), (B, (n_out, config.rank))):
        bound = math.sqrt(6 / size[1])
        found[name] = mx.random.uniform(-bound, bound, size, key=key_of(seed, "peft", name))
    mx.eval(found)  # a compiled step takes arrays in, not what is still to be drawn
    return found


def wrap(layer: nn.Module, config: Config, key: mx.array, shared: dict[str, mx.array]) -> VeRA:
    """A layer with its two vectors beside it; nothing but the pair is drawn."""
    return VeRA(layer, config, shared)


def to_peft(config: Config, wrappers: Mapping[str, nn.Module]) -> dict[str, Any]:
    """What adapter_config.json says of this technique."""
    return {
        "peft_type": "VERA", "r": config.rank, "projection_prng_key": 0, "save_projection": True,
        "vera_dropout": 0.0, "d_initial": config.d_initial, "bias": "none", "fan_in_fan_out": False,
        "init_weights": True,
    }  # fmt: skip


def from_peft(data: Mapping[str, Any], targets: tuple[str, ...]) -> Config | None:
    """The config of an adapter that peft wrote, None when of another type; what we lack is refused."""
    if data.get("peft_type") != "VERA":
        return None
    own = {
        "exclude_modules",
        "r",
        "projection_prng_key",
        "save_projection",
        "vera_dropout",
        "d_initial",
        "init_weights",
    }
    _format.refuse_features(data, own)
    if data.get("save_projection", True) is not True:
        raise CheckpointError(
            "save_projection is off: the shared pair is not in the file, and only torch can draw it again",
            hint="save it once more from peft with save_projection=True",
        )
    rank, start = data.get("r", 256), data.get("d_initial", 0.1)
    for key, value, kinds in (("r", rank, int), ("d_initial", start, int | float)):
        if isinstance(value, bool) or not isinstance(value, kinds) or not abs(value) < 1e9:
            raise CheckpointError(f"{key} cannot be {value!r}", hint=_format.KNOWN)
    exclude = _format.names_in(data, "exclude_modules")
    return Config(rank=rank, d_initial=float(start), targets=targets, exclude=exclude)
