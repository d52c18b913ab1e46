"""TIES: trim small changes, elect a sign for each weight, and average the changes that agree with it.

Of each change from the base the largest `density` by magnitude is kept; the sign of their sum is elected for
each weight; and only those changes that have this sign are averaged:

    t_i  = trim(W_i - W_base, density)
    s    = sign(sum_i t_i)
    W    = W_base + scale mean of { t_i : sign(t_i) = s }

Paper: Yadav et al., NeurIPS 2023, arXiv:2306.01708 (algorithm 1).
Differs: trimmed tensor by tensor, as peft and mergekit do, not over all weights at once; weights other than 1
count in the election and in the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.backend import mx
from tinygpt.merge import _change
from tinygpt.merge._change import Parts


@dataclass(frozen=True, kw_only=True)
class Config:
    """Knobs of TIES."""

    density: Annotated[float, "Share of each change that is kept: its largest values."] = 0.2
    scale: Annotated[float, "Factor on the merged change."] = 1.0
    normalize: Annotated[bool, "A mean by weights; off: each change times its weight, then a plain mean."] = (
        True
    )

    def __post_init__(self) -> None:
        _change.check_density(self.density)


def check(config: Config, weights: Sequence[float], based: bool) -> None:
    """Refuse to work without a base, and weights without a sum."""
    _change.check_base("ties", based)
    if config.normalize:
        _change.check_weights("ties", weights)


def combine(config: Config, parts: Parts) -> mx.array:
    """One tensor of the merged model, in float32."""
    assert parts.base is not None
    kept = [_change.trimmed(change, config.density) for change in parts.changes()]
    return parts.base + config.scale * _change.agreed(kept, parts.weights, normalize=config.normalize)
