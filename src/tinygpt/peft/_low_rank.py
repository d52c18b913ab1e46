"""What the techniques of LoRA's family share: a low-rank change of a layer, its knobs, its names at PEFT.

A technique of the family chooses a scale, a start, or a forward pass; the rest is here. A (r, in) and B (out,
r) change a matrix W (out, in) by `scale * B A`. Where the start is not zero, `B0 A0`, that start is taken
off again: `scale * (B A - B0 A0) = scale * [B, -B0] [A; A0]`, which is how peft turns such an adapter into a
plain one of rank 2r, and how we save it.

On an embedding W is the table turned (D, V): A holds a column a token. On a mixture's experts A is (E, r, in)
and B (E, out, r), the shapes of mlx-lm's LoRASwitchLinear.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import CheckpointError, ConfigError
from tinygpt.peft import _format, _layers

MOST = 1 << 16  # no matrix has a rank beyond it
ON = (_layers.LINEAR, _layers.EMBEDDING, _layers.EXPERTS)
Pair = tuple[mx.array, mx.array]
# The keys of adapter_config.json that the family reads; those of a technique beside them must be off.
OWN = {"r", "lora_alpha", "lora_dropout", "init_lora_weights", "exclude_modules", "ensure_weight_tying"}


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """Knobs of the whole family."""

    rank: Annotated[int, "Rank r of the change of each matrix."] = 8
    alpha: Annotated[float, "Scale: the change is multiplied by alpha / rank."] = 16.0
    targets: Annotated[
        tuple[str, ...],
        "Layers to adapt: endings of names, regular expressions over whole names, all-linear (all in the "
        "blocks), auto (queries and values).",
    ] = ("auto",)
    exclude: Annotated[tuple[str, ...], "Layers that the targets name and that stay as they are."] = ()
    tied: Annotated[bool, "Where an embedding is the output matrix too, adapt both uses."] = True

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= MOST:
            raise ConfigError(f"the adapter's rank must be from 1 to {MOST}, got {self.rank}")
        if not self.targets:
            raise ConfigError(
                "an adapter without targets learns nothing", hint="for example --targets q_proj,v_proj"
            )


AnyKnobs = TypeVar("AnyKnobs", bound=Knobs)


class LowRank(nn.Module):
    """A layer with a low-rank change beside it. Tensors as in peft: `lora_A.weight` (r, in) and
    `lora_B.weight` (out, r); on an embedding `lora_embedding_A` (r, V) and `lora_embedding_B` (D, r)."""

    def __init__(
        self, base: nn.Module, pair: Pair, scale: float, *, start: Pair | None = None, tied: bool = True
    ) -> None:
        super().__init__()
        self.base_layer: Any = base
        self.kind, self.scale, self.tied = _layers.kind(base), scale, tied
        if self.kind == _layers.EMBEDDING:
            self.lora_embedding_A, self.lora_embedding_B = pair
        else:
            self.lora_A, self.lora_B = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
            self.lora_A.weight, self.lora_B.weight = pair
        # Arrays of its own: mx.compile refuses one that is both an argument and a constant of a step.
        self._start: list[mx.array] = [w + 0 for w in start or ()]

    @property
    def pair(self) -> Pair:
        """A and B, as they learn."""
        if self.kind == _layers.EMBEDDING:
            return self.lora_embedding_A, self.lora_embedding_B
        return self.lora_A.weight, self.lora_B.weight

    def parts(self) -> list[tuple[float, mx.array, mx.array]]:
        """(factor, A, B) of each part of the change: what is learned, and the start that is taken off.

        They are multiplied one by one, so that at the start their difference is exactly zero."""
        a, b = self.pair
        learned = [(self.scale, a, b)]
        return [*learned, (-self.scale, self._start[0], self._start[1])] if self._start else learned

    def _sum(self, product: Callable[[mx.array, mx.array], mx.array]) -> mx.array:
        first, *more = (factor * product(a, b) for factor, a, b in self.parts())
        return first + more[0] if more else first

    def change(self, x: mx.array) -> mx.array:
        """What is added to the base layer's answer to x: values (..., in), tokens on an embedding."""
        if self.kind == _layers.EMBEDDING:
            return self._sum(lambda a, b: a.T[x] @ b.T)
        return self._sum(lambda a, b: (x @ a.T) @ b.T)

    def __call__(self, x: mx.array) -> mx.array:
        y = self.base_layer(x)
        return y + self.change(x).astype(y.dtype)

    def as_linear(self, x: mx.array) -> mx.array:
        """The output matrix (..., D) -> (..., V); one that is no embedding is called as it is."""
        if self.kind != _layers.EMBEDDING:
            return self(x)
        y = self.base_layer.as_linear(x)
        return y + self._sum(lambda a, b: (x @ b) @ a).astype(y.dtype) if self.tied else y

    def through(self, x: mx.array, product: Callable[[mx.array, mx.array], mx.array]) -> mx.array:
        """Rows of x, each by its own expert's matrices."""
        y = self.base_layer.through(x, product)
        change = self._sum(lambda a, b: product(product(x, a.astype(x.dtype)), b.astype(x.dtype)))
        return y + change.astype(y.dtype)

    def delta(self) -> mx.array:
        """The dense change of the base's weight, in float32."""
        change = self._sum(lambda a, b: b.astype(mx.float32) @ a.astype(mx.float32))
        return change.T if self.kind == _layers.EMBEDDING else change

    def hold(self) -> None:
        """Have A keep its values."""
        if self.kind == _layers.EMBEDDING:
            self.freeze(keys=["lora_embedding_A"], recurse=False)
        else:
            self.lora_A.freeze()

    @property
    def _names(self) -> tuple[str, str]:
        ending = "embedding_{}" if self.kind == _layers.EMBEDDING else "{}.weight"
        return f"lora_{ending.format('A')}", f"lora_{ending.format('B')}"

    def stored(self) -> dict[str, mx.array]:
        """A plain LoRA of the same change, by peft's names: with a start, [A; A0] and [B, -B0]."""
        a, b = self.pair
        if self._start:
            a0, b0 = self._start
            a, b = mx.concatenate([a, a0], axis=-2), mx.concatenate([b, -b0], axis=-1)
        return dict(zip(self._names, (a, b)))

    def restore(self, found: Mapping[str, mx.array]) -> None:
        """Take A and B, and the start where there is one, from what was stored."""
        a, b = (found[name] for name in self._names)
        if self._start:
            r = a.shape[-2] // 2
            self._start = [a[..., r:, :], -b[..., r:]]
            a, b = a[..., :r, :], b[..., :r]
        if self.kind == _layers.EMBEDDING:
            self.lora_embedding_A, self.lora_embedding_B = a, b
        else:
            self.lora_A.weight, self.lora_B.weight = a, b


def matrices(layer: nn.Module) -> Any:
    """A layer's matrix or matrices (..., out, in) in float32, for numpy."""
    import numpy as np

    weight = _layers.dense(layer)
    return np.array(weight.T if _layers.kind(layer) == _layers.EMBEDDING else weight)


def pair_of(a: Any, b: Any, rank: int) -> Pair:
    """The first `rank` rows of a and columns of b, zeros where the matrix has no more."""
    import numpy as np

    none = [(0, 0)] * (a.ndim - 2)
    short = max(0, rank - a.shape[-2])
    a, b = np.pad(a, [*none, (0, short), (0, 0)]), np.pad(b, [*none, (0, 0), (0, short)])
    return mx.array(np.ascontiguousarray(a[..., :rank, :])), mx.array(np.ascontiguousarray(b[..., :rank]))


def root_pair(u: Any, s: Any, vh: Any, rank: int, scale: float) -> Pair:
    """A and B with `scale * B A = U_r S_r V_r`, the singular values shared evenly."""
    import numpy as np

    root = np.sqrt(s / scale)
    return pair_of(root[..., None] * vh, u * root[..., None, :], rank)


def sizes(layer: nn.Module, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes of A and B for a layer."""
    n_out, n_in = _layers.shape(layer)
    found = _layers.innermost(layer)
    stack = found.weight.shape[:1] if _layers.kind(layer) == _layers.EXPERTS else ()
    return (*stack, rank, n_in), (*stack, n_out, rank)


def drawn(layer: nn.Module, rank: int, key: mx.array, init: str = "kaiming", *, zero_b: bool = False) -> Pair:
    """A random, B zero; on an embedding the other way round, as peft does, unless `zero_b`.

    `kaiming`: uniform in +-1/sqrt(in); `gaussian`: normal / r; an embedding's are normal."""
    a, b = sizes(layer, rank)
    if _layers.kind(layer) == _layers.EMBEDDING:
        if zero_b:
            return mx.random.normal(a, key=key), mx.zeros(b)
        return mx.zeros(a), mx.random.normal(b, key=key)
    if init == "gaussian":
        return mx.random.normal(a, key=key) / rank, mx.zeros(b)
    bound = 1 / math.sqrt(a[-1])
    return mx.random.uniform(-bound, bound, a, key=key), mx.zeros(b)


def zeros(layer: nn.Module, rank: int) -> Pair:
    """A and B to be filled from a file."""
    a, b = sizes(layer, rank)
    return mx.zeros(a), mx.zeros(b)


def check(config: Knobs, layers: Mapping[str, nn.Module]) -> None:
    """Refuse to train without a scale, or a rank beyond a matrix's own: the rest could express nothing more.

    One that was trained elsewhere is read all the same."""
    if config.alpha <= 0:
        raise ConfigError(
            f"the adapter's alpha must be positive, got {config.alpha:g}", hint="it scales what is learned"
        )
    for name, layer in layers.items():
        n_out, n_in = _layers.shape(layer)
        if config.rank > min(n_out, n_in):
            raise ConfigError(
                f"the adapter's rank {config.rank} is larger than the matrix {name}: {n_out} x {n_in}",
                hint=f"at most --set adapter.rank={min(n_out, n_in)}, or other targets",
            )


def to_peft(config: Knobs, wrappers: Mapping[str, nn.Module], **own: Any) -> dict[str, Any]:
    """What adapter_config.json says of a plain LoRA, with what a technique says of its own."""
    # An adapter with a start is one of rank 2r there, at the same scale.
    times = 2 if any(w.get("_start") for w in wrappers.values()) else 1
    alpha = times * config.alpha
    tied = config.tied and any(_layers.kind(w) == _layers.EMBEDDING for w in wrappers.values())
    return {
        "peft_type": "LORA", "r": times * config.rank,
        # peft writes an integer; it computes with a fraction all the same.
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": False, "use_rslora": False, "use_dora": False,
        "init_lora_weights": True, "ensure_weight_tying": tied, **own,
    }  # fmt: skip


def from_peft(
    cls: type[AnyKnobs], data: Mapping[str, Any], targets: tuple[str, ...], own: set[str], **more: Any
) -> AnyKnobs:
    """The config of an adapter of the family that peft wrote; what we lack is refused. `own`: the keys that
    the technique has read itself."""
    _format.refuse_features(data, OWN | own)
    rank, alpha = data.get("r", 8), data.get("lora_alpha", 8)
    for key, value, kinds in (("r", rank, int), ("lora_alpha", alpha, int | float)):
        if isinstance(value, bool) or not isinstance(value, kinds) or not abs(value) < 1e9:
            raise CheckpointError(f"{key} cannot be {value!r}", hint=_format.KNOWN)
    return cls(
        rank=rank, alpha=float(alpha), targets=targets, exclude=_format.names_in(data, "exclude_modules"),
        tied=data.get("ensure_weight_tying") is True, **more,
    )  # fmt: skip


def features(data: Mapping[str, Any]) -> tuple[bool, bool, Any]:
    """(rsLoRA, DoRA, start) of a file of peft's: which technique of the family it is."""
    return bool(data.get("use_rslora")), bool(data.get("use_dora")), data.get("init_lora_weights", True)


def refuse_start(data: Mapping[str, Any]) -> None:
    """Refuse a start that changed the base matrix too (corda, loftq, ...): the file does not hold that."""
    start = data.get("init_lora_weights", True)
    if start not in (True, False, None, "gaussian", "orthogonal"):
        raise CheckpointError(f"init_lora_weights = {start!r} is not supported", hint=_format.KNOWN)
