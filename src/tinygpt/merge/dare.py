"""DARE: drop changes at random and rescale the rest, then add them up or merge them as TIES does.

Fine-tuning changes weights redundantly: with each value of W_t - W_base dropped with chance p = 1 - density
and the others divided by density, the expected change is the same, and changes of several models hardly
collide:

    d_t = m_t * (W_t - W_base) / density,   m_t ~ Bernoulli(density)
    W   = W_base + scale sum w_t d_t                   (then: linear)
    W   = W_base + scale mean of { d_t : sign elected } (then: ties)

Paper: Yu et al., ICML 2024, arXiv:2311.03099 (section 3.1); Yadav et al. 2023 for the elected signs.
Differs: nothing. What is dropped is a function of seed, tensor and model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from tinygpt.core.backend import mx
from tinygpt.merge import _change
from tinygpt.merge._change import Parts
from tinygpt.model.seeds import key_of


@dataclass(frozen=True, kw_only=True)
class Config:
    """Knobs of DARE."""

    density: Annotated[float, "Share of each change that is kept, drawn at random: 1 - p of the paper."] = 0.5
    seed: Annotated[int, "Decides which values are dropped."] = 42
    then: Annotated[Literal["linear", "ties"], "What is done with the changes: summed, or signs elected."] = (
        "linear"
    )
    scale: Annotated[float, "Factor on the merged change."] = 1.0
    normalize: Annotated[bool, "Divide by the sum of the weights."] = False

    def __post_init__(self) -> None:
        _change.check_density(self.density)


def check(config: Config, weights: Sequence[float], based: bool) -> None:
    """Refuse to work without a base, and weights without a sum."""
    _change.check_base("dare", based)
    if config.normalize:
        _change.check_weights("dare", weights)


def combine(config: Config, parts: Parts) -> mx.array:
    """One tensor of the merged model, in float32."""
    assert parts.base is not None
    kept = [
        mx.where(_drawn(config, parts.name, i, change.shape), change / config.density, 0.0)
        for i, change in enumerate(parts.changes())
    ]
    join = _change.agreed if config.then == "ties" else _change.added
    return parts.base + config.scale * join(kept, parts.weights, normalize=config.normalize)


def _drawn(config: Config, name: str, model: int, shape: tuple[int, ...]) -> mx.array:
    """Which values of a model's tensor stay."""
    key = key_of(config.seed, "dare", f"{model} {name}")
    return mx.random.bernoulli(config.density, shape, key=key)
