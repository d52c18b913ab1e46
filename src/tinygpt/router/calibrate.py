"""How readers of a request are joined, and made as often right as they say, on requests kept back for it.

    p = softmax(sum_m a_m z_m - a_0 log w)

z_m are what the readers say of each class and a_m >= 0 how much each is believed: for one reader that is
temperature scaling. w are the classes' weights in the loss: where an example of class c counts w_c, the
loss's minimum has probabilities proportional to w_c p_c, and a_0 = 1 takes that back. All a have the least
negative log-likelihood on the requests kept back, a convex problem. Their classes count 1 - 1 / (n + 2), the
others share the rest: n requests that are all right do not say that the next one will be.

Paper: Guo et al., ICML 2017, arXiv:1706.04599, section 4.2 (temperature); Hinton 2002, Neural Computation
14:1771 (products of experts); Saerens et al. 2002, Neural Computation 14:21 (other shares of the classes);
Platt 1999, Probabilistic Outputs for Support Vector Machines, section 2.2 (targets not quite 0 and 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from tinygpt.core.errors import ConfigError, DependencyError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MOST = 20.0  # that a reader is believed


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How what readers say becomes probabilities."""

    trust: Annotated[tuple[float, ...], "How much each reader is believed; none: all alike."] = ()
    prior: Annotated[tuple[float, ...], "What is added to the sum, by class; none: nothing."] = ()
    requests: Annotated[int, "How many requests it was found on; 0: it was not."] = 0

    def __post_init__(self) -> None:
        if any(a < 0 or not math.isfinite(a) for a in self.trust):
            raise ConfigError(f"no reader can be believed {min(self.trust)} times")

    def check(self, readers: int, classes: int) -> None:
        """ConfigError where it is of another number of readers or classes."""
        if len(self.trust) not in (0, readers) or len(self.prior) not in (0, classes):
            raise ConfigError("the calibration is of another number of readers or classes")

    def probabilities(self, said: Sequence[Floats]) -> Floats:
        """(N, C) of what each reader says (N, C)."""
        import numpy as np

        z_NC = np.tensordot(self.trust or [1.0] * len(said), np.stack(said), 1)
        return np.exp(log_softmax(z_NC + (np.asarray(self.prior) if self.prior else 0.0)))


def log_softmax(z_NC: Floats) -> Floats:
    """log softmax over the last axis."""
    import numpy as np

    z_NC = z_NC - z_NC.max(axis=-1, keepdims=True)
    return z_NC - np.log(np.exp(z_NC).sum(axis=-1, keepdims=True))


def fitted(said: Sequence[Floats], classes: Sequence[int], weights_C: Sequence[float]) -> Calibration:
    """The calibration of least negative log-likelihood on requests of which the readers say this, and whose
    classes are these. DependencyError without scipy."""
    import numpy as np

    if not len(classes):
        return Calibration()
    try:
        from scipy.optimize import minimize
    except ImportError as error:
        raise DependencyError("scikit-learn", "classify", "training a router") from error
    log_w = np.log(np.asarray(weights_C, float))
    z_MNC = np.stack([*said, np.broadcast_to(-log_w, said[0].shape)])
    n, n_classes = said[0].shape
    doubt = 1 / (n + 2)
    goal_NC = np.full((n, n_classes), doubt / max(1, n_classes - 1))
    goal_NC[np.arange(n), np.asarray(classes)] = 1 - doubt

    def loss(a_M: Floats) -> tuple[float, Floats]:
        log_p = log_softmax(np.tensordot(a_M, z_MNC, 1))
        slope_M = ((np.exp(log_p) - goal_NC) * z_MNC).sum(axis=(1, 2)) / n
        return -float((goal_NC * log_p).sum() / n), slope_M

    bounds = [(0.0, MOST)] * len(said) + [(0.0, 1.0 if log_w.any() else 0.0)]
    start = np.array([1.0] * len(said) + [0.0])
    *trust, amount = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    prior = tuple(float(x) for x in -amount * log_w) if amount else ()
    return Calibration(trust=tuple(map(float, trust)), prior=prior, requests=n)
