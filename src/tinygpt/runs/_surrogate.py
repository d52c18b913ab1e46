"""A Gaussian process over mixtures: guesses the score of one that was not tried, and how sure that guess is.

A mixture is a point r of the simplex, (K,) shares that sum to 1. With `k(r, r') = s^2 exp(-|sqrt(r) -
sqrt(r')|^2 / 2 l^2)` (the Hellinger distance, the simplex's own), scores y at mixtures R and noise n^2, the
guess at r is `k(r, R) (K + n^2)^-1 y` with the variance `s^2 - k(r, R) (K + n^2)^-1 k(R, r)`; length, scale
and noise are those that make y likeliest. The next mixture to try is the one with the largest expected
improvement over the best one so far, `E max(0, f(r) - best) = d (z Phi(z) + phi(z))`, z = (mean - best) / d.

Paper: Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, eqs. 2.23-2.24 and 2.30; Jones et
al. 1998, J. Global Optimization 13 (expected improvement). Small proxies for mixtures: Liu et al. 2024
(RegMix), arXiv:2407.01492, whose surrogate is a regression.
Differs: length and noise come from a small grid.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LENGTHS = (0.2, 0.3, 0.45, 0.7, 1.0, 1.5)  # the largest distance is sqrt(2)
NOISES = (1e-4, 1e-3, 1e-2, 0.1)  # variances, as shares of s^2


class Surrogate:
    """The process, given mixtures (n, K) and their scores (n,)."""

    def __init__(self, mixtures: Floats, scores: Floats) -> None:
        import numpy as np

        self.mixtures, self.scores = mixtures, scores
        self.mean = float(scores.mean())
        centered = scores - self.mean
        fits = [self._fit(centered, length, noise) for length in LENGTHS for noise in NOISES]
        self.likelihood, self.length, self.noise, self.scale = max(fits)
        covariance = kernel(mixtures, mixtures, self.length) + self.noise * np.eye(len(scores))
        self._inverse = np.linalg.inv(covariance)
        self._weights = self._inverse @ centered

    def _fit(self, centered: Floats, length: float, noise: float) -> tuple[float, float, float, float]:
        """(log likelihood, length, noise, scale): the best scale for the others has a closed form."""
        import numpy as np

        n = len(centered)
        covariance = kernel(self.mixtures, self.mixtures, length) + noise * np.eye(n)
        scale = max(float(centered @ np.linalg.solve(covariance, centered)) / n, 1e-18)
        return -0.5 * (n * math.log(scale) + float(np.linalg.slogdet(covariance)[1])), length, noise, scale

    def predict(self, mixtures: Floats) -> tuple[Floats, Floats]:
        """(m,) means and standard deviations of the scores of mixtures (m, K), noise not counted."""
        import numpy as np

        near = kernel(mixtures, self.mixtures, self.length)
        variance = 1 - np.einsum("ij,jk,ik->i", near, self._inverse, near)
        return self.mean + near @ self._weights, np.sqrt(self.scale * np.maximum(variance, 0))

    def propose(self, candidates: Floats) -> tuple[int, float, float]:
        """The candidate to try next: its index, its predicted score, its expected improvement."""
        means, deviations = self.predict(candidates)
        best = float(self.scores.max())
        gains = [expected_improvement(m, d, best) for m, d in zip(means.tolist(), deviations.tolist())]
        i = max(range(len(gains)), key=lambda i: (gains[i], float(means[i])))
        return i, float(means[i]), gains[i]


def kernel(a: Floats, b: Floats, length: float) -> Floats:
    """(n, m) covariances of mixtures (n, K) and (m, K), for s = 1."""
    import numpy as np

    apart = np.sqrt(a)[:, None] - np.sqrt(b)[None]
    return np.exp(-(apart**2).sum(axis=-1) / (2 * length**2))


def expected_improvement(mean: float, deviation: float, best: float) -> float:
    """The mean of what a normal guess exceeds `best` by."""
    if deviation < 1e-12:
        return max(0.0, mean - best)
    z = (mean - best) / deviation
    phi = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return max(0.0, deviation * (z * (1 + math.erf(z / math.sqrt(2))) / 2 + phi))


def drawn(n: int, sources: int, *key: int) -> Floats:
    """(n, sources) mixtures drawn evenly from the simplex (Dirichlet, all parameters 1)."""
    import numpy as np

    return np.random.default_rng(np.random.SeedSequence(key)).dirichlet(np.ones(sources), n)


def tidy(mixture: Floats) -> tuple[float, ...]:
    """A mixture in whole thousandths, which sum to 1: what is reported is what is trained on."""
    import numpy as np

    whole = np.floor(mixture * 1000)
    order = np.argsort(whole - mixture * 1000, kind="stable")  # what lost most gets the rest
    whole[order[: round(1000 - whole.sum())]] += 1
    return tuple(float(w) / 1000 for w in whole)
