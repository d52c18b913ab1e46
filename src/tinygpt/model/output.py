"""The output matrix and the losses of its logits, which need not all exist at once.

A vocabulary of 150,000 makes the logits the largest arrays of a step: 2,048 tokens are 1.2 GB of them, and
their gradient is as large. Where they are many they are made for some tokens at a time and thrown away; the
backward pass makes each chunk again, `dz = p (d_loss + d_log_z) - onehot(target) d_loss`, and adds up what
they send to the hidden states and to the matrix. That costs one more product with the output matrix.

Source: Chen et al. 2016, arXiv:1604.06174 (recompute instead of keep); Wijmans et al. 2024, arXiv:2411.09009
(cut cross-entropy) for what it is worth in language models.
"""

from __future__ import annotations

from typing import Any

from mlx.utils import tree_flatten, tree_unflatten

from tinygpt.core.backend import mx, nn
from tinygpt.model import ops


class Output:
    """The output matrix as a function: hidden states (..., D) -> logits (..., V).

    module: the embedding (`as_linear`) or a linear layer; quantized and adapted ones work as well. Logits are
    divided by `divisor` and then, where there is a `cap`, bounded: cap * tanh(logits / cap)."""

    def __init__(self, module: nn.Module, *, divisor: float = 1.0, cap: float = 0.0) -> None:
        self.module = module
        self.divisor, self.cap = divisor, cap
        self._call: Any = getattr(module, "as_linear", module)

    def __call__(self, x: mx.array) -> mx.array:
        logits = self._call(x)
        logits = logits if self.divisor == 1.0 else logits / self.divisor
        return ops.soft_cap(logits, self.cap) if self.cap else logits

    def learned(self) -> list[tuple[str, mx.array]]:
        """Name and value of what learns in the matrix; none where it is frozen."""
        return tree_flatten(self.module.trainable_parameters())

    def at(self, learned: list[tuple[str, mx.array]], x: mx.array) -> mx.array:
        """The logits that other values of what learns would give."""
        kept = self.module.trainable_parameters()
        self.module.update(tree_unflatten(learned))
        logits = self(x)
        self.module.update(kept)
        return logits


def token_losses(
    output: Output, x_BLD: mx.array, targets_BL: mx.array, n_vocab: int
) -> tuple[mx.array, mx.array]:
    """-log p(target) and log Z = logsumexp(logits) of every token, each (B, L) in float32.

    The rule: up to `ops.LOGITS` logits (B x L x V; 128 MB of float32) are made and kept at once, more go in
    chunks of as many tokens as fit into that and are recomputed in the backward pass."""
    if targets_BL.size * n_vocab <= ops.LOGITS:
        return ops.cross_entropy_and_log_z(output(x_BLD), targets_BL)
    size = max(1, ops.LOGITS // n_vocab)
    names = [name for name, _ in output.learned()]
    given = [value for _, value in output.learned()]

    def logits(x_ND: mx.array, *values: mx.array) -> mx.array:
        return output.at(list(zip(names, values)), x_ND)

    found: Any = _chunked(logits, size)(x_BLD.reshape(-1, x_BLD.shape[-1]), targets_BL.flatten(), *given)
    loss_N, log_z_N = found[:2]
    return loss_N.reshape(targets_BL.shape), log_z_N.reshape(targets_BL.shape)


def _chunked(logits: Any, size: int) -> Any:
    """A function of (x_ND, targets_N, *what the logits learn) that holds the logits of `size` tokens."""

    @mx.custom_function
    def losses(x_ND: mx.array, targets_N: mx.array, *values: mx.array) -> Any:
        parts: list[Any] = []
        for i in range(0, x_ND.shape[0], size):
            part_ND = x_ND[i : i + size]
            if parts:  # one chunk after the other: without an order all might lie in memory together
                part_ND = mx.depends(part_ND, list(parts[-1]))
            z_NV = logits(part_ND, *values).astype(mx.float32)
            parts.append(ops.cross_entropy_parts(z_NV, targets_N[i : i + size]))
        return tuple(mx.concatenate(list(column)) for column in zip(*parts))

    @losses.vjp
    def _(primals: Any, d: Any, out: Any) -> Any:
        (x_ND, targets_N, *values), (_, _, m_N1, total_N) = primals, out
        d_x: list[mx.array] = []
        d_values: list[mx.array] = []
        for i in range(0, x_ND.shape[0], size):
            at = slice(i, i + size)
            part_ND = mx.depends(x_ND[at], [d_x[-1], *d_values]) if d_x else x_ND[at]
            z_NV = logits(part_ND, *values)
            d_z_NV = ops.cross_entropy_grad(
                z_NV.astype(mx.float32), targets_N[at], m_N1[at], total_N[at], d[0][at], d[1][at]
            )
            _, (d_part_ND, *more) = mx.vjp(logits, [part_ND, *values], [d_z_NV.astype(z_NV.dtype)])
            d_x.append(d_part_ND)
            d_values = [a + b for a, b in zip(d_values, more)] if d_values else more
        return mx.concatenate(d_x), mx.zeros_like(targets_N), *d_values

    return losses
