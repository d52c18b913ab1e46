"""Sophia, light: its curvature is read off the squares of the gradients that are there anyway.

As `sophia`, with `h^ = B g^2` at the true targets (the empirical Fisher matrix's diagonal) in place of drawn
ones. It costs no second pass, but is no estimate of the curvature where the model is wrong: a gradient that
is large because the model errs counts as steepness.

Paper: Liu et al., ICLR 2024, arXiv:2305.14342 (algorithm 3; its ablations have this estimator as E-F, and
find drawn targets better).
Differs: as `sophia`."""

from __future__ import annotations

from dataclasses import dataclass

from tinygpt.train.optim import sophia
from tinygpt.train.protocols import Seen, Tensors


@dataclass(frozen=True, kw_only=True)
class Config(sophia.Config):
    """Knobs of Sophia's light form: those of Sophia."""


class SophiaLight(sophia.Sophia):
    """See Sophia."""

    def gradients(self, seen: Seen) -> Tensors:
        """Those of the step itself, before clipping."""
        return seen.gradients


def build(config: Config) -> SophiaLight:
    """The optimizer of a config."""
    return SophiaLight(config)
