"""SLERP: walk along the arc from one model to another, so that lengths are kept on the way.

With the angle a between two tensors, taken as vectors, and t from 0 to 1:

    W(t) = sin((1 - t) a) / sin(a) W_0  +  sin(t a) / sin(a) W_1

A mean of two vectors that point apart is shorter than both; a point on the arc is not. t is the second
model's share of the weights: `--weights 0.7,0.3` is t = 0.3. With a base the changes from it are walked.

Paper: Shoemake, SIGGRAPH 1985, "Animating rotation with quaternion curves" (section 3.3).
Differs: tensors are not made of unit length: the angle is theirs, the lengths are mixed. Where they point the
same or opposite ways there is no arc, and the straight line is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tinygpt.core.backend import mx
from tinygpt.core.errors import ConfigError
from tinygpt.merge import _change
from tinygpt.merge._change import Parts

FLAT = 1e-4  # sine below which the arc is a line


@dataclass(frozen=True, kw_only=True)
class Config:
    """SLERP has no knobs beside the weights."""


def check(config: Config, weights: Sequence[float], based: bool) -> None:
    """Refuse more or fewer than two models."""
    if len(weights) != 2:
        raise ConfigError(
            f"the merge method 'slerp' walks between two models, {len(weights)} were given",
            hint="give two, or take --method linear",
        )
    _change.check_weights("slerp", weights)


def combine(config: Config, parts: Parts) -> mx.array:
    """One tensor of the merged model, in float32."""
    a, b = parts.tensors if parts.base is None else parts.changes()
    t = parts.weights[1] / sum(parts.weights)
    lengths = mx.linalg.norm(a.reshape(-1)) * mx.linalg.norm(b.reshape(-1))
    cosine = mx.clip((a * b).sum() / mx.where(lengths > 0, lengths, 1.0), -1.0, 1.0)
    angle = mx.arccos(cosine)
    sine = mx.sin(angle)
    flat = (sine < FLAT) | (lengths == 0)
    safe = mx.where(flat, 1.0, sine)
    first = mx.where(flat, 1 - t, mx.sin((1 - t) * angle) / safe)
    second = mx.where(flat, t, mx.sin(t * angle) / safe)
    merged = first * a + second * b
    return merged if parts.base is None else parts.base + merged
