"""PiSSA: LoRA that starts from the largest singular directions of the matrix itself.

With the singular value decomposition `W = U S V^T`, the principal part `W_pri = U_r S_r V_r^T` learns and the
residual `W_res = W - W_pri` is frozen: `y = W_res x + (alpha/r) B A x`, `B = U_r sqrt(S_r r / alpha)` and
`A = sqrt(S_r r / alpha) V_r^T`. The model starts as the base does, but the gradient meets what the matrix
does most from the first step, where LoRA starts with noise times zero. With `niter` the decomposition is a
randomised one: a random sketch of W, sharpened by that many power iterations; seconds become milliseconds.

Paper: Meng et al., NeurIPS 2024, arXiv:2404.02948 (eq. 2-4; appendix B, fast SVD); Halko et al. 2011, SIAM
Review 53 (algorithms 4.4 and 5.1).
Differs: the residual is not written over W: `W_res x = W x - (alpha/r) B0 A0 x` is computed beside it with
the frozen start A0, B0. It is the same function, exact over quantized matrices and in half precision too, and
saved with its start the adapter is a plain LoRA of rank 2r on the untouched base, for which no decomposition
needs to be repeated (peft's own niter start cannot be). The sketch has 8 columns more than the rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from tinygpt.core.backend import mx, nn
from tinygpt.core.errors import CheckpointError, ConfigError
from tinygpt.peft import _low_rank

ON, check = _low_rank.ON, _low_rank.check
EXTRA = 8  # columns of the sketch beyond the rank


@dataclass(frozen=True, kw_only=True)
class Config(_low_rank.Knobs):
    """Knobs of PiSSA."""

    niter: Annotated[int, "Power iterations of a fast randomised SVD, 4 are usual; 0: the exact one."] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.niter <= 100:
            raise ConfigError(f"adapter.niter must be from 0 to 100, got {self.niter}")


def _principal(w: Any, rank: int, niter: int, key: mx.array) -> tuple[Any, Any, Any]:
    """U, S, V^T of w (..., out, in), at least `rank` of each; randomised with power iterations."""
    import numpy as np

    if not niter:
        return np.linalg.svd(w, full_matrices=False)
    width = min(rank + EXTRA, *w.shape[-2:])
    sketch = np.array(mx.random.normal((*w.shape[:-2], w.shape[-1], width), key=key))
    q = np.linalg.qr(w @ sketch)[0]
    for _ in range(niter):
        back = np.linalg.qr(w.swapaxes(-1, -2) @ q)[0]
        q = np.linalg.qr(w @ back)[0]
    u, s, vh = np.linalg.svd(q.swapaxes(-1, -2) @ w, full_matrices=False)
    return q @ u, s, vh


def wrap(layer: nn.Module, config: Config, key: mx.array) -> _low_rank.LowRank:
    """A layer whose principal part learns; `key` seeds the sketch of a randomised SVD."""
    scale = config.alpha / config.rank
    u, s, vh = _principal(_low_rank.matrices(layer), config.rank, config.niter, key)
    pair = _low_rank.root_pair(u, s, vh, config.rank, scale)
    return _low_rank.LowRank(layer, pair, scale, start=pair, tied=config.tied)


def empty(layer: nn.Module, config: Config) -> _low_rank.LowRank:
    """The same, to be filled from a file."""
    pair = _low_rank.zeros(layer, config.rank)
    return _low_rank.LowRank(layer, pair, config.alpha / config.rank, start=pair, tied=config.tied)


def to_peft(config: Config, wrappers: Mapping[str, nn.Module]) -> dict[str, Any]:
    """What adapter_config.json says of this technique: a plain LoRA, its start taken off."""
    return _low_rank.to_peft(config, wrappers)


def from_peft(data: Mapping[str, Any], targets: tuple[str, ...]) -> Config | None:
    """The config of an adapter that peft started with PiSSA and saved unconverted, whose start is made again
    from the base; None when of another type."""
    rs, dora, start = _low_rank.features(data)
    if data.get("peft_type") != "LORA" or rs or dora or not str(start).startswith("pissa"):
        return None
    if start != "pissa":
        raise CheckpointError(
            f"init_lora_weights = {start!r} started from a random sketch that the file does not hold",
            hint="save it in peft with path_initial_model_for_weight_conversion",
        )
    return _low_rank.from_peft(Config, data, targets, set())
