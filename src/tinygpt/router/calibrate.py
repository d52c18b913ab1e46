"""Temperature: probabilities that are as often right as they say, found on requests kept back for it.

    p = softmax(z / T - a log w)

w are the classes' weights in the loss: where an example of class c counts w_c, the loss's minimum has
probabilities proportional to w_c p_c, and a = 1 takes that back. T and a (0, 1/2 or 1) are those of the least
negative log-likelihood of the requests kept back. Their classes count 1 - 1 / (n + 2), the others share the
rest: n requests that are all right do not say that the next one will be.

Paper: Guo et al., ICML 2017, arXiv:1706.04599, section 4.2 (temperature); Saerens et al. 2002, Neural
Computation 14:21 (probabilities under other shares of the classes); Platt 1999, Probabilistic Outputs for
Support Vector Machines, section 2.2 (targets that are not quite 0 and 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from tinygpt.core.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEAST, MOST = 0.05, 20.0  # temperatures that are looked at
ROUNDS = 40  # of the search: the temperature is exact to 1e-7
GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How logits become probabilities."""

    temperature: Annotated[float, "What logits are divided by."] = 1.0
    prior: Annotated[tuple[float, ...], "What is added to the divided logits, by class; none: nothing."] = ()
    requests: Annotated[int, "How many requests it was found on; 0: it was not."] = 0

    def __post_init__(self) -> None:
        if not self.temperature > 0 or not math.isfinite(self.temperature):
            raise ConfigError(f"a temperature must be positive, got {self.temperature}")

    def probabilities(self, z_NC: Floats) -> Floats:
        """(N, C) of logits (N, C)."""
        import numpy as np

        return np.exp(log_softmax(z_NC / self.temperature + (np.asarray(self.prior) if self.prior else 0.0)))


def log_softmax(z_NC: Floats) -> Floats:
    """log softmax over the last axis."""
    import numpy as np

    z_NC = z_NC - z_NC.max(axis=-1, keepdims=True)
    return z_NC - np.log(np.exp(z_NC).sum(axis=-1, keepdims=True))


def fitted(z_NC: Floats, classes: Sequence[int], weights_C: Sequence[float]) -> Calibration:
    """The calibration of least negative log-likelihood on requests with these logits and classes."""
    import numpy as np

    if not len(classes):
        return Calibration()
    y_N, log_w = np.asarray(classes), np.log(np.asarray(weights_C, float))
    doubt = 1 / (len(y_N) + 2)
    amounts = (0.0, 0.5, 1.0) if log_w.any() else (0.0,)
    best = (math.inf, 1.0, 0.0)
    for a in amounts:

        def loss(log_t: float, a: float = a) -> float:
            log_p = log_softmax(z_NC / math.exp(log_t) - a * log_w)
            right_N = log_p[np.arange(len(y_N)), y_N]
            others_N = (log_p.sum(axis=1) - right_N) / max(1, log_p.shape[1] - 1)
            return -float(((1 - doubt) * right_N + doubt * others_N).mean())

        log_t = _least(loss, math.log(LEAST), math.log(MOST))
        best = min(best, (loss(log_t), math.exp(log_t), a))
    _, temperature, a = best
    prior = tuple(float(x) for x in -a * log_w) if a else ()
    return Calibration(temperature=temperature, prior=prior, requests=len(y_N))


def _least(f: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one valley is least: golden-section search."""
    a, b = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    fa, fb = f(a), f(b)
    for _ in range(ROUNDS):
        if fa <= fb:
            high, b, fb = b, a, fa
            a = high - GOLDEN * (high - low)
            fa = f(a)
        else:
            low, a, fa = a, b, fb
            b = low + GOLDEN * (high - low)
            fb = f(b)
    return (low + high) / 2
