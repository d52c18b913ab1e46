"""Linear: the weighted mean of the models' weights, `sum w_t W_t / sum w_t`.

Models fine-tuned from one base often lie in one basin of the loss, and the mean of their weights is then
about as good as the mean of their predictions, at the cost of one model. Weights that are not normalized are
taken as they are. A base would cancel out, so none is taken.

Paper: Wortsman et al., ICML 2022, arXiv:2203.05482 (uniform soup).
Differs: models may have unequal weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.merge import _change
from tinygpt.merge._change import Parts


@dataclass(frozen=True, kw_only=True)
class Config:
    """Knobs of the weighted mean."""

    normalize: Annotated[bool, "Divide the weights by their sum."] = True


def check(config: Config, weights: Sequence[float], based: bool) -> None:
    """Refuse a base, and weights without a sum."""
    if based:
        raise ConfigError(
            "the merge method 'linear' is a mean of weights, in which a base plays no part",
            hint="leave --base out, or add up changes from it with --method task_arithmetic",
        )
    if config.normalize:
        _change.check_weights("linear", weights)


def combine(config: Config, parts: Parts) -> mx.array:
    """One tensor of the merged model, in float32."""
    return _change.added(parts.tensors, parts.weights, normalize=config.normalize)
