"""AdaLoRA: a change of low rank as P diag(lambda) Q, whose rank goes during training to where it matters.

`y = W x + (alpha / r0) P diag(lambda) Q x`, with P (out, r0) and Q (r0, in) drawn small and lambda zero. A
penalty `gamma (|P^T P - I|_F^2 + |Q Q^T - I|_F^2)` on each matrix keeps the directions apart, so that a value
in lambda can go without the others being about it. A triplet (column of P, value, row of Q) matters as much
as `S_i = s(lambda_i) + mean_j s(P_ji) + mean_j s(Q_ij)`, where for each number w

    I = |w dL/dw|,  Ibar = b1 Ibar + (1 - b1) I,  U = b2 U + (1 - b2) |I - Ibar|,  s = Ibar U

Of all n matrices together the `b(t)` best triplets keep their values, the others' become zero:
`b(t) = n r + n (r0 - r) (1 - (t - t_i) / (T - t_f - t_i))^3` at every ΔT-th step from t_i to T - t_f, all of
them before, `n r` afterwards. Until then a value may come back; after that those that are zero stay so.

Paper: Zhang et al., ICLR 2023, arXiv:2303.10512 (section 3, algorithm 1).
Differs: the penalty's gradient is added in the optimizer, after clipping, and is no part of the loss that is
told; gradients enter I as they were clipped. The cubic falls from t_i on, as in the authors' code (as printed
it would not end at the target). A final choice is always made at T - t_f, so the target is met whatever ΔT
is, with exactly n r values: peft leaves fewer where scores are equal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import CheckpointError, ConfigError
from tinygpt.peft import _format, _layers, _rank_pattern
from tinygpt.peft._rank_pattern import PARTS, Tensors
from tinygpt.peft._rank_pattern import part as _part

MOST = 1 << 16  # no matrix has a rank beyond it
compact, expand = _rank_pattern.compact, _rank_pattern.expand


@dataclass(frozen=True, kw_only=True)
class Config:
    """Knobs of AdaLoRA."""

    rank: Annotated[int, "Rank r that the matrices have on average in the end."] = 8
    init_rank: Annotated[int, "Rank r0 that each starts with; 0: one and a half times the target."] = 0
    alpha: Annotated[float, "Scale: the change is multiplied by alpha / r0."] = 16.0
    targets: Annotated[
        tuple[str, ...],
        "Layers to adapt: endings of names, regular expressions over whole names, all-linear (all in the "
        "blocks), auto (queries and values).",
    ] = ("auto",)
    exclude: Annotated[tuple[str, ...], "Layers that the targets name and that stay as they are."] = ()
    warmup: Annotated[float, "Part of the steps before any value is dropped, t_i / T."] = 0.1
    settled: Annotated[float, "Part of the steps at the end whose choice is fixed, t_f / T."] = 0.3
    every: Annotated[int, "Steps between two choices."] = 10
    beta1: Annotated[float, "How much of the smoothed sensitivity stays at each step."] = 0.85
    beta2: Annotated[float, "How much of the smoothed uncertainty stays at each step."] = 0.85
    orthogonal: Annotated[float, "Weight gamma of the penalty that keeps directions apart."] = 0.1

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= MOST:
            raise ConfigError(f"the adapter's rank must be from 1 to {MOST}, got {self.rank}")
        if self.init_rank and not self.rank <= self.init_rank <= MOST:
            raise ConfigError(
                f"the adapter's init_rank {self.init_rank} is below its rank {self.rank}",
                hint="AdaLoRA starts with more than it keeps; 0 takes half as much again",
            )
        if not self.targets:
            raise ConfigError(
                "an adapter without targets learns nothing", hint="for example --targets q_proj,v_proj"
            )
        for name in ("beta1", "beta2"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"adapter.{name} must be between 0 and 1, got {getattr(self, name)}")
        if not (self.warmup >= 0 and self.settled >= 0 and self.warmup + self.settled < 1):
            raise ConfigError(
                f"adapter.warmup {self.warmup} and adapter.settled {self.settled} leave no time to choose",
                hint="they are parts of the steps, and sum to less than 1",
            )
        if self.every < 1 or not self.orthogonal >= 0:
            raise ConfigError("adapter.every is at least 1, adapter.orthogonal not negative")

    @property
    def start_rank(self) -> int:
        """r0."""
        return self.init_rank or math.ceil(1.5 * self.rank)


class AdaLoRA(nn.Module):
    """x (..., in) -> (..., out). Tensors as in peft: lora_A (r0, in) is Q, lora_B (out, r0) is P, and lora_E
    (r0, 1) holds lambda."""

    def __init__(self, base: nn.Module, config: Config, key: mx.array) -> None:
        super().__init__()
        self.base_layer = base
        n_out, n_in = _layers.shape(base)
        one, two = mx.random.split(key)
        r = config.start_rank
        self.lora_A = 0.02 * mx.random.normal((r, n_in), key=one)
        self.lora_B = 0.02 * mx.random.normal((n_out, r), key=two)
        self.lora_E = mx.zeros((r, 1))
        self.scale = config.alpha / r

    def __call__(self, x: mx.array) -> mx.array:
        y = self.base_layer(x)
        low = (x @ self.lora_A.T) * self.lora_E.squeeze(-1)
        return y + (self.scale * (low @ self.lora_B.T)).astype(y.dtype)

    def parts(self) -> list[tuple[float, mx.array, mx.array]]:
        """[(alpha / r0, diag(lambda) Q, P)]: a plain LoRA of the same change."""
        return [(self.scale, self.lora_E * self.lora_A, self.lora_B)]

    def delta(self) -> mx.array:
        """The dense change of the base matrix (out, in), in float32."""
        scale, a, b = self.parts()[0]
        return scale * (b.astype(mx.float32) @ a.astype(mx.float32))


def wrap(linear: nn.Module, config: Config, key: mx.array) -> AdaLoRA:
    """A Linear with its triplets beside it; `key` seeds P and Q."""
    return AdaLoRA(linear, config, key)


class Budget:
    """An optimizer around another: it adds the penalty's gradient, follows how much each number matters, and
    after the steps at which a choice is due (`settle`) sets the least important values to zero.

    `steps` is T, counted from step `before`. State beside the other's: `ibar.<name>`, `u.<name>` of every
    tensor of a triplet, and `kept.<name>` (r0, 1) of lambda: 0 for a value that stays zero from now on."""

    def __init__(self, inner: Any, config: Config, steps: int, before: int = 0) -> None:
        self.inner, self.config, self.before = inner, config, before
        self.first, self.last = round(config.warmup * steps), steps - round(config.settled * steps)

    def init(self, weights: Mapping[str, mx.array]) -> Tensors:
        own = [n for n in weights if _part(n)]
        state = {f"{which}.{n}": mx.zeros(weights[n].shape) for n in own for which in ("ibar", "u")}
        state |= {f"kept.{n}": mx.ones(weights[n].shape) for n in own if _part(n) == "lora_E"}
        return self.inner.init(weights) | state

    def due(self, step: int) -> bool:
        """As the optimizer inside."""
        return hasattr(self.inner, "due") and self.inner.due(step)

    def refresh(self, state: Tensors, seen: Any) -> Tensors:
        """As the optimizer inside."""
        return self.inner.refresh(state, seen)

    def apply(
        self, weights: Tensors, gradients: Tensors, state: Tensors, lr: mx.array, step: mx.array
    ) -> tuple[Tensors, Tensors]:
        """One step of the optimizer inside; values that were given up stay zero."""
        whole = {n: g + self._penalty(n, weights[n]) for n, g in gradients.items() if n in weights}
        new, moved = self.inner.apply(weights, {**gradients, **whole}, state, lr, step)
        b1, b2 = self.config.beta1, self.config.beta2
        for name, w in weights.items():
            if not (part := _part(name)):
                continue
            sensitivity = mx.abs(w * whole[name])
            moved[f"ibar.{name}"] = ibar = b1 * state[f"ibar.{name}"] + (1 - b1) * sensitivity
            moved[f"u.{name}"] = b2 * state[f"u.{name}"] + (1 - b2) * mx.abs(sensitivity - ibar)
            if part == "lora_E":
                kept = moved[f"kept.{name}"] = state[f"kept.{name}"]
                new[name] = new[name] * kept
        return new, moved

    def _penalty(self, name: str, w: mx.array) -> mx.array | float:
        """Gradient of gamma |P^T P - I|^2 or gamma |Q Q^T - I|^2."""
        part = _part(name)
        if part == "lora_A":
            return 4 * self.config.orthogonal * (w @ w.T - mx.eye(w.shape[0])) @ w
        if part == "lora_B":
            return 4 * self.config.orthogonal * w @ (w.T @ w - mx.eye(w.shape[1]))
        return 0.0

    def settles(self, step: int) -> bool:
        """Whether a choice is made after this step."""
        t = step - self.before
        return t == self.last or (self.first < t < self.last and t % self.config.every == 0)

    def budget(self, step: int, n: int) -> int:
        """b(t): how many values n matrices may keep."""
        t, r, r0 = step - self.before, self.config.rank, self.config.start_rank
        if t <= self.first:
            return n * r0
        if t >= self.last:
            return n * r
        rest = 1 - (t - self.first) / (self.last - self.first)
        return int(n * r + n * (r0 - r) * rest**3)

    def settle(self, weights: Tensors, state: Tensors, step: int) -> tuple[Tensors, Tensors]:
        """The weights with all but the b(t) most important values at zero; at T - t_f for good."""
        values = [n for n in weights if _part(n) == "lora_E"]
        scores = [importance(state, n) for n in values]
        order = mx.argsort(-mx.concatenate(scores))[: self.budget(step, len(values))]
        keeps = mx.zeros(sum(s.size for s in scores)).at[order].add(1.0)
        new, at = dict(weights), 0
        for name in values:
            keep, at = keeps[at : at + weights[name].size].reshape(-1, 1), at + weights[name].size
            new[name] = weights[name] * keep
            if step - self.before == self.last:
                state = {**state, f"kept.{name}": keep}
        return new, state


def importance(state: Mapping[str, mx.array], name: str) -> mx.array:
    """S (r0,) of the triplets whose lambda is called `name`."""
    stem = name.removesuffix("lora_E")
    q, p, value = (state[f"ibar.{stem}{part}"] * state[f"u.{stem}{part}"] for part in PARTS)
    return value.squeeze(-1) + p.mean(axis=0) + q.mean(axis=1)


def optimizer(inner: Any, config: Config, *, steps: int, before: int = 0) -> Budget:
    """The optimizer of a run with this adapter, around the one that was chosen."""
    return Budget(inner, config, steps, before)


def check(config: Config, matrices: Mapping[str, nn.Module]) -> None:
    """Refuse to train without a scale, or with more directions than a matrix has: they cannot be kept
    apart."""
    if config.alpha <= 0:
        raise ConfigError(
            f"the adapter's alpha must be positive, got {config.alpha:g}", hint="it scales what is learned"
        )
    for name, linear in matrices.items():
        n_out, n_in = _layers.shape(linear)
        if config.start_rank > min(n_out, n_in):
            raise ConfigError(
                f"the adapter's rank {config.start_rank} is larger than the matrix {name}: {n_out} x {n_in}",
                hint="lower --set adapter.rank or adapter.init_rank, or give other targets",
            )


def to_peft(config: Config, wrappers: Mapping[str, nn.Module]) -> dict[str, Any]:
    """What adapter_config.json says of this technique. peft wants the schedule's numbers; all it needs of
    them to open an adapter is init_r and alpha."""
    return {
        "peft_type": "ADALORA", "target_r": config.rank, "init_r": config.start_rank,
        "lora_alpha": int(config.alpha) if config.alpha == int(config.alpha) else config.alpha,
        "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": False, "tinit": 0, "tfinal": 0,
        "deltaT": config.every, "beta1": config.beta1, "beta2": config.beta2,
        "orth_reg_weight": config.orthogonal, "total_step": 1, "rank_pattern": None,
    }  # fmt: skip


def from_peft(data: Mapping[str, Any], targets: tuple[str, ...]) -> Config | None:
    """The config of an adapter that peft wrote, None when of another type; what we lack is refused."""
    if data.get("peft_type") != "ADALORA":
        return None
    schedule = {"tinit", "tfinal", "deltaT", "total_step", "beta1", "beta2", "orth_reg_weight"}
    own = {
        "exclude_modules",
        "r",
        "target_r",
        "init_r",
        "lora_alpha",
        "lora_dropout",
        "init_lora_weights",
        "rank_pattern",
    }
    _format.refuse_features(data, own | schedule)
    if (drawn := data.get("init_lora_weights", True)) not in (True, False, None):
        raise CheckpointError(f"init_lora_weights = {drawn!r} is not supported", hint=_format.KNOWN)
    rank, start, alpha = data.get("target_r", 8), data.get("init_r", 12), data.get("lora_alpha", 8)
    for key, value, kinds in (
        ("target_r", rank, int), ("init_r", start, int), ("lora_alpha", alpha, int | float),
    ):  # fmt: skip
        if isinstance(value, bool) or not isinstance(value, kinds) or not abs(value) < 1e9:
            raise CheckpointError(f"{key} cannot be {value!r}", hint=_format.KNOWN)
    exclude = _format.names_in(data, "exclude_modules")
    return Config(
        rank=min(rank, start), init_rank=start, alpha=float(alpha), targets=targets, exclude=exclude
    )
