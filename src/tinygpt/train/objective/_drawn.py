"""The loss at targets that the model draws itself, whose squared gradient tells the loss's curvature.

For targets `y ~ p(. | x)` the square of `sum_t sqrt(w_t) grad(-log p(y_t)) / sqrt(sum w)` is on average the
diagonal of the Gauss-Newton matrix of `sum_t w_t (-log p_t) / sum w`, since draws of different tokens are
independent and each gradient is zero on average. With weights of 0 and 1 the roots change nothing.

Source: Liu et al. 2023, arXiv:2305.14342, algorithm 2 (there for weights of 1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinygpt.core.backend import mx
from tinygpt.model import ops
from tinygpt.model.terms import Terms

if TYPE_CHECKING:
    from tinygpt.model.lm import LM

DRAWS = "draws"  # (B, 2) a batch's keys, one a row


def drawn_targets(model: LM, batch: dict[str, mx.array]) -> mx.array:
    """(B, L) a token for every place, drawn from what the model expects there; some rows at a time."""
    tokens, keys = batch["tokens"], batch[DRAWS]
    draw = mx.vmap(lambda key, logits_LV: mx.random.categorical(logits_LV, key=key))
    rows = max(1, ops.LOGITS // (tokens.shape[1] * model.config.vocab_size))
    found: list[mx.array] = []
    for i in range(0, tokens.shape[0], rows):
        part = slice(i, i + rows)
        logits = model(
            tokens[part], positions=batch["positions"][part], segments=batch["segments"][part],
            terms=Terms(),  # computed as the loss is: routed as in training
        )  # fmt: skip
        found.append(draw(keys[part], mx.stop_gradient(logits).astype(mx.float32)))
    return mx.stop_gradient(mx.concatenate(found).astype(mx.int32))


def drawn_loss(model: LM, batch: dict[str, mx.array], weights_BL: mx.array) -> mx.array:
    """`sum_t sqrt(w_t) (-log p(y_t)) / sum w` at drawn targets y: times sqrt(sum w), its gradient squared is
    the estimate. What layers add to the training loss is no part of it."""
    losses_BL = model.losses(
        batch["tokens"], drawn_targets(model, batch),
        positions=batch["positions"], segments=batch["segments"], terms=Terms(),
    )  # fmt: skip
    return (losses_BL * mx.sqrt(weights_BL)).sum() / mx.maximum(weights_BL.sum(), 1.0)
