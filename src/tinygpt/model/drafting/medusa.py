"""Medusa's heads: one small residual layer for each token after the next, on the features of the last one.

`f_k = f + U_k SiLU(W_k f)`, `p(t_(i+1+k)) = out(f_k)` for head k = 1, 2, ... at place i, where the model
itself gives t_(i+1). U starts at 0, so a head starts as the model's own guess of the next token.

Paper: Cai et al., ICML 2024, arXiv:2401.10774, section 2.1.1.
Differs: all heads share the model's own final norm and output matrix, which stay frozen (in the paper each
has a matrix of its own); U makes up for that, and --hidden-dim sets the width between.
"""

from __future__ import annotations

from tinygpt.core.backend import mx, nn
from tinygpt.model.drafting.heads import Facts
from tinygpt.model.noise import Noise


class Medusa(nn.Module):
    """K heads. B rows, L places, D width of features, H width inside."""

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self._facts = facts
        self.noise: Noise = Noise()
        self.into = [nn.Linear(facts.width, facts.hidden, bias=False) for _ in range(facts.horizons)]
        self.out = [nn.Linear(facts.hidden, facts.width, bias=False) for _ in range(facts.horizons)]

    @property
    def facts(self) -> Facts:
        """What the heads are."""
        return self._facts

    @property
    def config(self) -> Facts:
        """The same, where training asks a module for it."""
        return self._facts

    def __call__(self, features_BLD: mx.array) -> list[mx.array]:
        """The features (B, L, D) that each head makes: of what comes 2, 3, .. places after this one."""
        scale = self._facts.feature_scale
        x_BLD = features_BLD / scale
        return [(x_BLD + out(nn.silu(into(x_BLD)))) * scale for into, out in zip(self.into, self.out)]
