"""Task arithmetic: add up what each model learned, `W = W_base + scale sum w_t (W_t - W_base)`.

The difference between a fine-tuned model and its base is a task vector. Added, task vectors give a model that
can do several tasks; with a negative weight one is unlearned.

Paper: Ilharco et al., ICLR 2023, arXiv:2212.04089 (section 2).
Differs: a weight for each model beside the one scale.
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
    """Knobs of task arithmetic."""

    scale: Annotated[float, "Factor on the sum of changes; the paper finds 0.3 to 0.5 good for many."] = 1.0
    normalize: Annotated[bool, "Divide the weights by their sum."] = False


def check(config: Config, weights: Sequence[float], based: bool) -> None:
    """Refuse to work without a base, and weights without a sum."""
    _change.check_base("task_arithmetic", based)
    if config.normalize:
        _change.check_weights("task_arithmetic", weights)


def combine(config: Config, parts: Parts) -> mx.array:
    """One tensor of the merged model, in float32."""
    assert parts.base is not None
    total = _change.added(parts.changes(), parts.weights, normalize=config.normalize)
    return parts.base + config.scale * total
