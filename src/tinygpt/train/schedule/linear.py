"""Linear: linear warm-up, then a straight line down to a fraction of the peak.

`f(t) = t/W` for t <= W, then `1 - (1-r) (t-W)/(T-W)` with final ratio r at t = T. In the worst case no
other schedule leaves the last weights better off than a line that ends at zero.

Paper: Defazio et al. 2023, arXiv:2310.07831 (the theory); Bergsma et al., ICLR 2025, arXiv:2502.15938
(warm-up, then to zero, for language models).
Differs: ends at 1 % of the peak unless told otherwise, so that the last step still learns.
"""

from __future__ import annotations

from dataclasses import dataclass

from tinygpt.train.schedule._warmup import Falling, progress


@dataclass(frozen=True, kw_only=True)
class Config(Falling):
    """Knobs of the linear schedule."""


def at(step: int, steps: int, config: Config) -> float:
    """The factor on the peak learning rate at a step counted from 1 to `steps`."""
    rise, done = progress(step, steps, config)
    return rise * (1 - (1 - config.final) * done)
